# SPDX-License-Identifier: Apache-2.0
"""A run as trackers take it: every number of its log with step and time of day; which runs are left out of an export; what
the commands say where the tracker's package is missing."""
import contextlib
import io
import os
import shutil
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess.errors import RunError  # noqa: E402
from dekoder_postprocess.runs import mlflow_export, wandb_export  # noqa: E402
from dekoder_postprocess.runs.collect import collect  # noqa: E402
from dekoder_postprocess.runs.tracked_run import Refused, differing_settings, exact_text, export_runs  # noqa: E402
from many_runs import (BEGIN_SECONDS, BEGINS, NAMES, expected_metrics, expected_time, learning_rate, replace_in,  # noqa: E402
                       write_many)
from synthetic_run import write_run  # noqa: E402

README = Path(__file__).resolve().parents[1] / "README.md"


class Folder(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)

    def tracked(self, *paths):
        """[TrackedRun] of the paths, and what was said."""
        with mock.patch("sys.stderr", io.StringIO()) as said:
            found = []
            export_runs("dekoder-x", collect(list(paths)), found.append)
            return found, said.getvalue()

    def only(self, path):
        (tracked,), said = self.tracked(path)
        self.assertEqual(said, "")
        return tracked


def by_metric(rows):
    metrics = {}
    for step, _, values in rows:
        for metric, value in values.items():
            metrics.setdefault(metric, []).append((step, value))
    return metrics


class Rows(Folder):
    def test_every_number_of_the_log(self):
        for run in write_many(self.folder, 2):
            self.assertEqual(by_metric(self.only(run.path).rows), expected_metrics(run.path))

    def test_times(self):
        """Of each start by its own beginning, of an evaluation by its step."""
        run = write_many(self.folder, 1)[0]
        rows = self.only(run.path).rows
        self.assertEqual([step for step, _, _ in rows], list(range(41)))
        for step, seconds, _ in rows:
            self.assertAlmostEqual(seconds, expected_time(step), places=5)
        self.assertEqual(rows[0][1], BEGIN_SECONDS[0])

    def test_times_of_steps_that_were_computed_again(self):
        """The third start went on before the second one, so that nothing of that is left."""
        run = write_many(self.folder, 1)[0]
        with (run.path / "restarts.jsonl").open("a") as starts:
            starts.write('{"event": "begin", "time": "2026-11-25T00:00:00Z", "step": 10}\n')
        rows = self.only(run.path).rows
        later = 1795564800.0  # 2026-11-25
        for step, seconds, _ in rows:
            self.assertAlmostEqual(seconds, expected_time(step) if step <= 10 else
                                   later + sum(0.045 + 1e-5 * s for s in range(11, step + 1)), places=5)

    def test_times_without_phases_and_starts(self):
        """128 tokens per step at 5000 + step tokens/s; the last row at the log's last change."""
        run = write_run(self.folder / "run", attention=False)
        os.utime(run.path / "metrics.jsonl", (1_700_000_000.0, 1_700_000_000.0))
        rows = self.only(run.path).rows
        self.assertAlmostEqual(rows[-1][1], 1_700_000_000.0, places=3)
        for (_, before, _), (step, seconds, _) in zip(rows, rows[1:]):
            self.assertAlmostEqual(seconds - before, 128 / (5000 + step), places=5)

    def test_a_start_without_a_time(self):
        run = write_many(self.folder, 1)[0]
        replace_in(run.path / "restarts.jsonl", BEGINS[1], "yesterday")
        with self.assertRaisesRegex(RunError, "none of 1 runs"), contextlib.redirect_stderr(io.StringIO()) as said:
            export_runs("dekoder-x", collect([run.path]), lambda tracked: None)
        self.assertRegex(said.getvalue(), "^dekoder-x: .*restarts.jsonl.*'?yesterday'?.*; left out\n$")

    def test_other_validation_tokens(self):
        """Losses on them have names of their own, and a best of their own."""
        run = write_run(self.folder / "run", attention=False, other_tokens_from=20)
        metrics = by_metric(self.only(run.path).rows)
        losses = [(row["step"], row["validation_loss"]) for row in run.evaluations]  # falling
        for group, part in (("validation_on_c312fa7ac312", losses[:2]), ("validation", losses[2:])):
            self.assertEqual(metrics[f"{group}/loss"], part)
            self.assertEqual(metrics[f"{group}/best_loss"], part)

    def test_not_a_number(self):
        run = write_run(self.folder / "run", attention=False)
        with (run.path / "metrics.jsonl").open("a") as log:
            log.write('{"step":41,"loss":null,"learning_rate":0.5,"gradient_norm":null,"tokens":5248,"tokens_per_second":1}\n'
                      '{"step":41,"validation_loss":null,"bits_per_byte":null,"tokens":65536}\n')
        self.assertEqual(self.only(run.path).rows[-1][2], {"training/learning_rate": 0.5, "training/tokens_per_second": 1.0})


class Facts(Folder):
    def test_of_both_starts(self):
        facts = self.only(write_many(self.folder, 3)[2].path).facts
        expected = {"state": "resumable", "path": str((self.folder / NAMES[2]).resolve()), "host": "n0, n1", "job": "4711, 4712",
                    "created": "2026-11-24T21:40:03.250000+00:00", "best_step": 30}
        self.assertEqual({key: facts[key] for key in expected}, expected)

    def test_identity(self):
        """The same while the run grows; another for a copy, and for a run that began anew in the folder."""
        run = write_many(self.folder, 1)[0].path
        before = self.only(run)
        with (run / "metrics.jsonl").open("a") as log:
            log.write('{"step":41,"loss":2.0,"learning_rate":0.5,"gradient_norm":1,"tokens":5248,"tokens_per_second":1}\n')
        after = self.only(run)
        self.assertEqual((after.id, after.digest(41)), (before.id, before.digest()))
        self.assertNotEqual(after.digest(), before.digest())
        shutil.copytree(run, self.folder / "copy")
        self.assertNotEqual(self.only(self.folder / "copy").id, before.id)
        replace_in(run / "restarts.jsonl", BEGINS[0], "2026-11-25T00:00:00.000Z")
        self.assertNotEqual(self.only(run).id, before.id)

    def test_digest_sees_settings_and_rows(self):
        run = write_many(self.folder, 1)[0].path
        before = self.only(run).digest()
        replace_in(run / "metrics.jsonl", '"learning_rate": 0.0002,', '"learning_rate": 0.0003,')
        changed = self.only(run).digest()
        replace_in(run / "config.yaml", "batch: 4", "batch: 8")
        self.assertEqual(len({before, changed, self.only(run).digest()}), 3)

    def test_differing_settings(self):
        paths = [run.path for run in write_many(self.folder, 4)]
        self.assertEqual(differing_settings(collect([self.folder])), {
            "training.seed": dict(zip(paths, range(4))), "model.norm": dict(zip(paths, ("pre", "post") * 2)),
            "training.learning_rate": dict(zip(paths, map(learning_rate, range(4)))),
            "training.schedule": {paths[0]: "wsd", paths[3]: "wsd"}})

    def test_exact_text(self):
        for value, text in ((True, "true"), (1e-05, "1e-05"), (3, "3"), ("pre", "pre"), ([1, 2], "[1, 2]"), (None, "null"),
                            (["\u03b7"], '["\u03b7"]')):
            self.assertEqual(exact_text(value), text)


class LeftOut(Folder):
    def test_damaged_and_empty_runs(self):
        runs = write_many(self.folder, 4)
        (runs[0].path / "metrics.jsonl").write_text("no row\n")
        (runs[1].path / "metrics.jsonl").write_text("")
        replace_in(runs[1].path / "status", "step: 40", "step: 0")
        tracked, said = self.tracked(self.folder)
        self.assertEqual({run.run.path for run in tracked}, {runs[2].path, runs[3].path})
        self.assertEqual(said.count("\n"), 2, said)
        self.assertRegex(said, r"(?m)^dekoder-x: .*plain.*; left out$")
        self.assertRegex(said, r"(?m)^dekoder-x: .*two words.*has no row yet.*; left out$")

    def test_what_a_tracker_refuses_does_not_end_the_others(self):
        """Whatever else goes wrong does."""
        runs, taken = write_many(self.folder, 4), []

        def put(tracked):
            if tracked.run.path == runs[1].path:
                raise Refused("its name")
            taken.append(tracked.run.path)

        with mock.patch("sys.stderr", io.StringIO()) as said:
            export_runs("dekoder-x", collect([self.folder]), put)
        self.assertEqual((set(taken), said.getvalue()), ({runs[i].path for i in (0, 2, 3)}, "dekoder-x: its name; left out\n"))
        with self.assertRaisesRegex(RunError, "the disk"):
            export_runs("dekoder-x", collect([self.folder]), mock.Mock(side_effect=RunError("the disk")))

    def test_files_that_cannot_be_read(self):
        tracked = self.only(write_many(self.folder, 1)[0].path)
        with mock.patch("dekoder_postprocess.runs.tracked_run.require_file", side_effect=RunError("config.yaml: cannot be read")), \
                self.assertRaisesRegex(Refused, "config.yaml: cannot be read"):
            _ = tracked.artifacts

    def test_steps_that_end_after_all_calendars(self):
        run = write_many(self.folder, 1)[0].path
        replace_in(run / "metrics.jsonl", '"forward": 0.01001', '"forward": 1e140')
        with self.assertRaisesRegex(RunError, "none of 1"), mock.patch("sys.stderr", io.StringIO()) as said:
            export_runs("dekoder-x", collect([run]), lambda tracked: None)
        self.assertRegex(said.getvalue(), "metrics.jsonl: its steps took so long .*; left out\n$")


class Commands(Folder):
    def said(self, module, *words):
        with mock.patch("sys.stdout", io.StringIO()) as out, mock.patch("sys.stderr", io.StringIO()) as err, \
                mock.patch.dict(os.environ):
            return module.main([str(word) for word in words]), out.getvalue() + err.getvalue()

    def test_without_the_package(self):
        write_many(self.folder / "runs", 1)
        for module, package in ((mlflow_export, "mlflow"), (wandb_export, "wandb")):
            missing = dict.fromkeys([name for name in sys.modules if name.split(".")[0] == package] + [package])
            with mock.patch.dict(sys.modules, missing):
                code, said = self.said(module, self.folder / "runs", "-o", self.folder / "out")
            self.assertEqual((code, said.count("\n")), (2, 1), said)
            self.assertRegex(said, f"^dekoder-{package}: the Python package {package} cannot be loaded .*elsewhere pip install {package}")
            # What the toolbox's Python allows (test_trackers_nightly.py installs so); the READMEs have the same lines.
            lines = ("python3 -m venv --system-site-packages --without-pip build/trackers", "python3 -m pip --python build/trackers/bin/python install",
                     f"build/trackers/bin/python postprocess/bin/dekoder-{package}")
            for line in lines:
                self.assertIn(line, said)
            for readme in (README, README.parents[1] / "README.md"):
                for line in lines[:2]:
                    self.assertIn(f"jobs/toolbox {line}", readme.read_text(), readme)
            self.assertEqual(os.listdir(self.folder), ["runs"])

    def test_refused(self):
        (self.folder / "file").write_text("")
        for module in (mlflow_export, wandb_export):
            for output in ("file", "file/out", "n" * 300):
                code, said = self.said(module, self.folder / "nowhere", "-o", self.folder / output)
                self.assertEqual((code, said.count("\n")), (3, 1), said)
                self.assertIn("choose another -o", said)
            with self.assertRaises(SystemExit) as ended:
                self.said(module)
            self.assertEqual(ended.exception.code, 2)
        self.assertEqual(os.listdir(self.folder), ["file"])


if __name__ == "__main__":
    unittest.main()
