# SPDX-License-Identifier: Apache-2.0
"""What dekoder-runs reads: which folders are runs, their numbers and states, and of a log as little as tells them."""
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess.errors import RunError  # noqa: E402
from dekoder_postprocess.log_reader import MetricsReader  # noqa: E402
from dekoder_postprocess.run_reader import read_run  # noqa: E402
from dekoder_postprocess.runs import log_excerpt  # noqa: E402
from dekoder_postprocess.runs.collect import collect  # noqa: E402
from dekoder_postprocess.runs.log_excerpt import LogExcerpt, read_excerpt  # noqa: E402
from runs_scratch import Scratch, here, write_starts  # noqa: E402
from synthetic_run import write_run  # noqa: E402

BIN = Path(__file__).resolve().parents[1] / "bin"
NOBODY = 54321  # a user that no list of users has


class Found(Scratch):
    def test_at_and_below(self):
        for name in ("a", "sweeps/one/trial-2", "sweeps/one/trial-10", "b c", "Größe\u2014\u4e2d", "attention/run", "a/inner", "x=y'$z"):
            self.run_in(name)
        for name in ("a/previous-1", "a/checkpoints/x", "a/attention/x", "a/black_box/x", ".hidden/x"):
            self.run_in(name)
        (self.folder / "no run").mkdir()
        (self.folder / "no run/config.yaml").write_text("model: {}\n")
        (self.folder / "no run/checkpoints").mkdir()
        self.assertEqual(self.names(), ["Größe\u2014\u4e2d", "a", "a/inner", "attention/run", "b c", "sweeps/one/trial-2",
                                        "sweeps/one/trial-10", "x=y'$z"])
        self.assertEqual(self.names(self.folder / "sweeps"), ["trial-2", "trial-10"])
        self.assertEqual(self.names(self.folder / "sweeps/one/trial-2"), ["trial-2"])
        self.assertEqual(self.names(self.folder / "a/previous-1"), ["previous-1"], "who names it wants it")
        self.assertEqual(self.names(self.folder / "b c", self.folder / "sweeps"),
                         ["b c", "sweeps/one/trial-2", "sweeps/one/trial-10"])

    def test_a_run_is_one_row(self):
        """However it is reached; by its own name rather than a link's, where it has one."""
        run = self.run_in("z/run").path
        (self.folder / "another").symlink_to(run)
        (self.folder / "z/up").symlink_to(self.folder)
        (self.folder / "z/itself").symlink_to("itself")
        (self.folder / "z/nowhere").symlink_to("nothing")
        self.assertEqual(self.names(), ["run"])
        self.assertEqual([of.path for of in collect([self.folder])], [run])
        self.assertEqual(self.names(run, self.folder, run, self.folder / "another"), ["run"])
        elsewhere = tempfile.TemporaryDirectory()
        self.addCleanup(elsewhere.cleanup)
        write_run(Path(elsewhere.name) / "far", attention=False)
        (self.folder / "linked").symlink_to(elsewhere.name)
        self.assertEqual(self.names(), ["linked/far", "z/run"])

    def test_refused(self):
        (self.folder / "file").write_text("")
        (self.folder / "empty").mkdir()
        (self.folder / "sweep").mkdir()
        (self.folder / "sweep/sweep.yaml").write_text("")
        self.assertEqual(self.names(self.run_in("run").path, self.folder / "empty"), ["run"])
        for name, words in (("nowhere", "nowhere: no such folder; expected the folder of a run"), ("file", "file: is no folder"),
                            ("empty", "empty: no run directory there or below"),
                            ("sweep", "sweep: a sweep of which no trial has begun yet; dekoder-sweep work ")):
            with self.assertRaises(RunError) as caught:
                collect([self.folder / name])
            self.assertIn(words, str(caught.exception))

    def test_what_may_not_be_listed_is_a_row(self):
        if os.geteuid() == 0 and subprocess.run([sys.executable, "-c", f"open({str(BIN / 'dekoder-runs')!r})"], user=NOBODY,
                                                capture_output=True).returncode:
            self.skipTest("a user without rights cannot read this checkout")
        self.folder.chmod(0o755)
        self.run_in("a")
        self.run_in("locked").path.chmod(0)
        self.addCleanup((self.folder / "locked").chmod, 0o755)
        self.run_in("sealed")
        (self.folder / "sealed/metrics.jsonl").chmod(0)
        other = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        done = subprocess.run([sys.executable, "-B", BIN / "dekoder-runs", self.folder, "--json"], capture_output=True, text=True, **other)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        rows = {row["run"]: row for row in json.loads(done.stdout)["runs"]}
        self.assertEqual({name: row["state"] for name, row in rows.items()}, {"a": "finished", "locked": "damaged", "sealed": "damaged"})
        self.assertIn("locked: cannot be listed: Permission denied", rows["locked"]["problem"])
        self.assertIn("metrics.jsonl: cannot be read: Permission denied", rows["sealed"]["problem"])
        done = subprocess.run([sys.executable, "-B", BIN / "dekoder-runs", self.folder / "locked"], capture_output=True, text=True, **other)
        self.assertEqual(done.returncode, 3)
        self.assertIn("Permission denied", done.stderr)


class Summaries(Scratch):
    def test_numbers_are_those_of_the_files(self):
        written = self.run_in("run", steps=250, restarts=(20, 100), phases=True, other_tokens_from=120)
        write_starts(written.path, ("2026-11-28T07:16:28.328Z", 0, (60.5, 0.9)), ("2026-11-28T08:00:00.000Z", 20, (30.25, 0.85)),
                     ("2026-11-28T09:00:00.000Z", 100, (9.25, 0.8)))
        of, run = self.only(), read_run(written.path)
        best = run.best_evaluation()
        self.assertEqual((of.state, of.problem, of.message, of.step, of.planned_steps), ("finished", None, None, 250, 250))
        self.assertEqual(of.best_loss, run.evaluations["validation_loss"][best])
        self.assertEqual((of.best_step, of.bits_per_byte), (250, run.evaluations["bits_per_byte"][best]))
        self.assertLess(of.best_loss, min(row["validation_loss"] for row in written.evaluations if row["step"] < 250))
        self.assertEqual((of.last_loss, of.validation_hash), (written.evaluations[-1]["validation_loss"], "0123abcd" * 8))
        self.assertAlmostEqual(of.training_loss, statistics.fmean(row["loss"] for row in written.steps[-100:]), places=14)
        self.assertEqual(of.tokens_per_second, statistics.median(row["tokens_per_second"] for row in written.steps[-100:]))
        self.assertEqual((of.tokens, of.seconds, of.effective_time, of.restarts), (128 * 250, 100.0, 0.8, 2))
        self.assertEqual(of.created, datetime.fromisoformat("2026-11-28T07:16:28.328+00:00").timestamp())
        self.assertEqual(of.settings, {f"{section}.{key}": value for section, keys in run.config.items() for key, value in keys.items()})
        self.assertEqual((of.settings["model.norm_epsilon"], of.settings["attention.heads"]), (1e-5, []))

    def test_the_best_not_the_last(self):
        run = self.run_in("run", steps=30).path
        rows = [{"step": step, "validation_loss": loss, "bits_per_byte": loss, "tokens": 64, "validation_hash": of * 8}
                for step, loss, of in ((0, 1.0, "c312fa7a"), (10, 3.0, "0123abcd"), (20, 2.5, "0123abcd"), (30, 2.5, "0123abcd"),
                                       (40, 2.75, "0123abcd"), (50, None, "0123abcd"))]
        (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        of = self.only()
        self.assertEqual((of.best_loss, of.best_step, of.last_loss, of.step, of.training_loss, of.tokens),
                         (2.5, 20, None, 50, None, None))

    def test_of_older_programs_and_losses_that_are_none(self):
        """No restarts.jsonl: the restarts are those of the log."""
        run = self.run_in("run", restarts=(10, 20)).path
        log = (run / "metrics.jsonl").read_text().replace('"loss":', '"loss":null,"was":').replace('second":', 'second":null,"was":')
        (run / "metrics.jsonl").write_text(log)
        of = self.only()
        self.assertEqual((of.restarts, of.created, of.seconds, of.effective_time), (2, None, None, None))
        self.assertEqual((of.training_loss, of.tokens_per_second, of.step), (None, None, 40))
        write_starts(run, ("2026-11-28T07:16:28.328Z", 20, (1.0, 0.5)))  # by a program of today, later
        self.assertEqual(self.only().restarts, 2)

    def test_a_start_without_an_end_lasts_until_its_log_was_changed(self):
        run = self.run_in("run").path
        write_starts(run, ("2026-11-28T07:00:00.000Z", 0, (60.5, 0.9)), ("2026-11-28T08:00:00.000Z", 20, None))
        changed = datetime.fromisoformat("2026-11-28T08:01:40+00:00").timestamp()
        os.utime(run / "metrics.jsonl", (changed, changed))
        of = self.only()
        self.assertEqual((of.seconds, of.effective_time, of.restarts), (160.5, None, 1))

    def test_damaged_runs_are_rows(self):
        def damage(name, file, content):
            path = self.run_in(name).path / file
            path.unlink() if content is None else path.write_bytes(content)

        whole = self.run_in("whole").path
        log = (whole / "metrics.jsonl").read_bytes()
        damage("config", "config.yaml", b"model: [\n")
        damage("sections", "config.yaml", b"model: {}\n")
        damage("bytes", "config.yaml", b"model: \xff\n")
        damage("no config", "config.yaml", None)
        damage("no log", "metrics.jsonl", None)
        damage("log", "metrics.jsonl", log.replace(b'{"step":7,"loss":', b'{"step":7,"loss":x', 1))
        damage("zeros", "metrics.jsonl", log[:1000] + b"\0" * 512 + log[1512:])
        damage("two logs", "metrics.jsonl", log + log)
        damage("empty log", "metrics.jsonl", b"")
        damage("all zeros", "metrics.jsonl", b"\0" * 5000)
        damage("no end", "metrics.jsonl", log[:-1].split(b"\n")[0])
        damage("lost end", "metrics.jsonl", b"".join(log.splitlines(True)[:20]))
        damage("status", "status", b"hello\n")
        (self.run_in("starts").path / "restarts.jsonl").write_text("[]\n")
        path = self.run_in("pipe").path / "status"
        path.unlink()
        os.mkfifo(path)
        rows = {of.name: of for of in collect([self.folder])}
        self.assertEqual(rows.pop("whole").state, "finished")
        for name, words in (("config", "config.yaml: is no YAML"), ("sections", "has no section training"), ("bytes", "is no YAML"),
                            ("no config", "config.yaml: cannot be read: No such file"), ("no log", "has no metrics.jsonl"),
                            ("log", "metrics.jsonl:8: not a row of a log"), ("zeros", "not a row of a log"),
                            ("empty log", "metrics.jsonl: ends at step 0, but"), ("all zeros", "tells of a checkpoint of step 40"),
                            ("no end", "restore it from a copy"), ("lost end", "metrics.jsonl: ends at step 18, but"),
                            ("two logs", "metrics.jsonl:46: step 0 after step 40"), ("status", "is not the status of a run"),
                            ("starts", "restarts.jsonl:1: not a row of a log"), ("pipe", "is a folder, a device or a pipe")):
            of = rows.pop(name)
            self.assertEqual(of, replace(of, state="damaged", best_loss=None, step=None, settings={}), name)
            self.assertIn(words, of.problem, name)
        self.assertEqual(rows, {})

    def test_values_that_no_configuration_has(self):
        run = self.run_in("run").path
        text = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(text + "odd:\n  date: 2020-01-01\n  nan: .nan\n  map: {a: 1}\n  7: [.inf, x]\n")
        settings = self.only().settings
        self.assertEqual([settings[f"odd.{key}"] for key in ("date", "nan", "map", "7")], ["2020-01-01", "nan", "{'a': 1}", ["inf", "x"]])
        (run / "config.yaml").write_text(text + "odd: &a [*a]\n")
        self.assertIn("an alias", self.only().problem)


class States(Scratch):
    def lock(self, text, age=0.0):
        path = self.run / "lock"
        path.write_text(text)
        os.utime(path, (time.time() - age,) * 2)
        return self.only().state

    def setUp(self):
        super().setUp()
        self.run = self.run_in("run").path
        (self.run / "status").write_text("state: resumable\nstep: 20\nsteps: 40\nmessage: the file stop\n")

    def test_a_lock_counts_as_for_dekoder_status(self):
        self.assertEqual((self.only().state, self.only().message), ("resumable", "the file stop"))
        self.assertEqual(self.lock(here(), age=1000), "running", "its process lives, whatever its heartbeat")
        ended = subprocess.Popen(["true"])
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        self.assertEqual(self.lock(here(ended.pid)), "resumable", "a zombie")
        line = here(ended.pid)
        ended.wait()
        self.assertEqual(self.lock(line), "resumable", "a process that is gone")
        fields = here().split()
        self.assertEqual(self.lock(" ".join([*fields[:3], "1", *fields[4:]]) + "\n"), "resumable", "another one of its number")
        for other in (1, 7):  # another boot, another PID namespace
            elsewhere = " ".join([*fields[:other], "elsewhere", *fields[other + 1:]]) + "\n"
            self.assertEqual((self.lock(elsewhere, age=100), self.lock(elsewhere, age=130)), ("running", "resumable"))
        self.assertEqual((self.lock(""), self.lock("", age=130)), ("running", "resumable"))
        (self.run / "lock").unlink()
        (self.run / "lock").mkdir()
        self.assertEqual(self.only().state, "resumable")

    def test_before_the_first_step(self):
        for name in ("config.yaml", "metrics.jsonl", "status"):
            (self.run / name).unlink()
        (self.run / "checkpoints").mkdir()
        self.assertEqual(self.lock(here()), "running")
        (self.run / "metrics.jsonl").write_text("")
        of = self.only()
        self.assertEqual((of.state, of.step, of.restarts, of.settings), ("running", None, None, {}))
        self.assertEqual(self.lock("", age=130), "not begun")

    def test_a_log_that_a_restart_has_just_cut(self):
        """To an older checkpoint, as the newest was damaged; its status comes next."""
        log = self.run / "metrics.jsonl"
        log.write_text("".join(line for line in log.read_text().splitlines(True) if json.loads(line)["step"] <= 10))
        self.assertEqual((self.lock(here()), self.only().step), ("running", 10))
        (self.run / "lock").unlink()
        self.assertEqual(self.only().state, "damaged")

    def test_failed(self):
        (self.run / "status").write_text("state: failed\nstep: 20\nsteps: 40\nmessage: diverged: loss is NaN\n")
        self.assertEqual((self.only().state, self.only().message), ("failed", "diverged: loss is NaN"))

    def test_while_it_trains(self):
        """Rows come in pieces, the configuration is replaced, the log is cut as by a restart: each look is a whole row."""
        (self.run / "lock").write_text(here())
        log, config = self.run / "metrics.jsonl", (self.run / "config.yaml").read_text()
        kept, stop = log.stat().st_size, threading.Event()

        def train():
            step = 40
            with open(log, "ab", buffering=0) as file:
                while not stop.is_set():
                    step += 1
                    row = b'{"step":%d,"loss":2.5,"learning_rate":0.1,"gradient_norm":1,"tokens":%d,"tokens_per_second":9}\n' % (step, step)
                    file.write(row[:25])
                    file.write(row[25:])
                    if step % 50 == 0:
                        (self.run / "new").write_text(config)
                        os.replace(self.run / "new", self.run / "config.yaml")
                    if step == 400:
                        os.truncate(log, kept)
                        step = 40

        trainer = threading.Thread(target=train)
        trainer.start()
        try:
            seen = set()
            deadline = time.monotonic() + 20
            while len(seen) < 25 and time.monotonic() < deadline:
                of = self.only()
                self.assertEqual((of.state, of.problem, of.best_step), ("running", None, 40))
                self.assertTrue(40 <= of.step <= 400)
                seen.add(of.step)
        finally:
            stop.set()
            trainer.join()
        self.assertGreaterEqual(len(seen), 25)


class Excerpts(Scratch):
    def whole(self, data):
        """The excerpt by reading each row."""
        rows = {kind: [] for kind in ("steps", "evaluations", "restarts", None)}
        for kind, row in MetricsReader("log").rows(data):
            rows[kind].append(row)
        return LogExcerpt(rows["steps"][-100:], rows["evaluations"], rows["restarts"])

    def test_is_what_the_rows_say(self):
        for more in ({}, {"attention": True, "captured": (0, 20, 150)}, {"phases": True, "restarts": (20, 150)}, {"steps": 99},
                     {"steps": 0}):
            data = (self.run_in("run", **{"steps": 240, **more}).path / "metrics.jsonl").read_bytes()
            with mock.patch.object(log_excerpt, "_excerpt", wraps=log_excerpt._excerpt) as read:
                excerpt = read_excerpt("log", data)
            self.assertEqual(excerpt, self.whole(data), more)
            rows = [call.args[1].count(b"\n") for call in read.call_args_list]
            self.assertEqual(rows, [len(excerpt.steps) + len(excerpt.evaluations) + len(excerpt.restarts)], "no others are read")
            for cut in range(len(data) - 300, len(data), 13):  # its last line is being written
                self.assertEqual(read_excerpt("log", data[:cut]), self.whole(data[:cut]))
        self.assertEqual(read_excerpt("log", b""), LogExcerpt([], [], []))
        self.assertEqual(read_excerpt("log", b'{"step":1'), LogExcerpt([], [], []))

    def test_of_a_log_that_was_edited(self):
        data = (self.run_in("run", steps=240, restarts=(20,)).path / "metrics.jsonl").read_bytes()
        lines = data.splitlines(keepends=True)
        for edited in (data.replace(b":", b": "), data.replace(b"\n", b"\r\n"), data.replace(b"\n", b"\n\n"), b"   \n" + data,
                       b"".join([*lines[:5], b" " * 40 + b"\n", *lines[6:]]), data.replace(b'{"step":', b'{"a":1,"step":')):
            self.assertEqual(read_excerpt("log", edited), self.whole(edited))
        for place, wrong, words in ((7, b"\0" * 80 + b"\n", "log:8: not a row"), (100, b'{"step":1,"loss":2}\n', "log:101: step 1 after"),
                                    (50, lines[49].replace(b'"loss":', b'"loss":x'), ""),
                                    (263, b'{"step":240,"validation_loss":"x"}\n', "log:264: "),
                                    (200, b'{"step":9999999999999999999999,"loss":1}\n', "log:201: not a row")):
            edited = b"".join([*lines[:place], wrong, *lines[place:]])
            with self.subTest(place=place):
                if not words:  # a row that no table shows is not read
                    self.assertEqual(read_excerpt("log", edited), self.whole(data))
                    continue
                with self.assertRaisesRegex(RunError, words):
                    read_excerpt("log", edited)

    def test_of_changes_at_random(self):
        """Where all rows can be read, an excerpt by bytes is the same; else it may be refused, or is that of other rows."""
        data = (self.run_in("run", steps=120, restarts=(20,)).path / "metrics.jsonl").read_bytes()
        refused = 0
        for seed in range(400):
            draw, changed = random.Random(seed), bytearray(data)
            for _ in range(draw.choice((1, 1, 3))):
                changed[draw.randrange(len(changed))] = draw.choice(b'0123456789{}",:\n\r .el\0\xff')
            changed = bytes(changed)
            try:
                expected = self.whole(changed)
            except RunError:
                refused += 1
                try:
                    read_excerpt("log", changed)
                except RunError:
                    pass
                continue
            self.assertEqual(read_excerpt("log", changed), expected, seed)
        self.assertTrue(50 < refused < 350, refused)


if __name__ == "__main__":
    unittest.main()
