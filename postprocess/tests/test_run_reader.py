# SPDX-License-Identifier: Apache-2.0
"""A run directory reads back as it was written, whole, half written and while it trains; what is none is refused."""
import json
import math
import os
import random
import re
import shutil
import sys
import tempfile
import unittest
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess import run_reader  # noqa: E402
from dekoder_postprocess.run_reader import RunError, read_run  # noqa: E402
from synthetic_run import phase_seconds, write_run  # noqa: E402


class RunReader(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name) / "run-a"
        self.written = write_run(self.folder)
        self.metrics = self.folder / "metrics.jsonl"

    def refused(self, *words):
        with self.assertRaises(RunError) as caught:
            read_run(self.folder)
        message = str(caught.exception)
        self.assertNotIn("\n", message)
        for word in words:
            self.assertIn(word, message)

    def test_reads_back(self):
        run = read_run(self.folder)
        self.assertEqual((run.name, run.last_step), ("run-a", 40))
        self.assertEqual(run.status, {"state": "finished", "step": 40, "steps": 40, "message": ""})
        self.assertEqual(run.config["model"]["positions"], "learned")
        self.assertEqual(run.config["model"]["norm_epsilon"], 1e-05)
        self.assertEqual(run.config["training"]["learning_rate"], 0.002)
        self.assertEqual(run.config["attention"]["texts"], list(self.written.texts.values()))
        for column in ("step", "loss", "learning_rate", "gradient_norm", "tokens", "tokens_per_second"):
            self.assertEqual(run.steps[column].tolist(), [row[column] for row in self.written.steps], column)
        self.assertEqual(run.evaluations["step"].tolist(), [0, 10, 20, 30, 40])
        self.assertEqual(run.evaluations["bits_per_byte"].tolist(),
                         [row["bits_per_byte"] for row in self.written.evaluations])
        self.assertEqual(run.validation_hash, "c312fa7a" * 8)
        self.assertEqual(run.restarts, [20])
        self.assertEqual(run.samples, self.written.samples)
        self.assertEqual(run.attention.probe().steps, [0, 20, 40])

    def test_line_being_written_is_left_out(self):
        whole = self.metrics.read_bytes()
        rows = len(read_run(self.folder).steps["step"])
        for more in (b'{"step":41,"loss":2.5', b'{"step":41,"loss":2.5,"tokens":1}', b"{"):
            self.metrics.write_bytes(whole + more)
            self.assertEqual(len(read_run(self.folder).steps["step"]), rows)
        self.metrics.write_bytes(whole + b'{"step":41,"loss":2.5}\n')
        self.assertEqual(read_run(self.folder).steps["loss"][-1], 2.5)

    def test_run_that_has_just_begun(self):
        self.metrics.write_bytes(b"")
        shutil.rmtree(self.folder / "attention")
        for name in ("status", "samples.jsonl"):
            (self.folder / name).unlink()
        run = read_run(self.folder)
        self.assertEqual((run.last_step, len(run.evaluations["step"]), run.samples), (None, 0, []))
        self.assertIsNone(run.status)
        self.assertIsNone(run.attention)

    def test_null_is_nan(self):
        self.metrics.write_text('{"step":1,"loss":null,"learning_rate":0.1,"gradient_norm":null,"tokens":8,'
                                '"tokens_per_second":9.5}\n')
        steps = read_run(self.folder).steps
        self.assertTrue(math.isnan(steps["loss"][0]) and math.isnan(steps["gradient_norm"][0]))
        self.assertEqual((steps["learning_rate"][0], steps["tokens"][0]), (0.1, 8))

    def test_kinds_of_rows_of_later_versions_are_left_out(self):
        with self.metrics.open("a") as file:
            file.write('{"step":40,"temperature":55.5}\n')
        self.assertEqual(read_run(self.folder).last_step, 40)

    def test_damaged_metrics(self):
        lines = self.metrics.read_text().splitlines(keepends=True)
        for bad in ('{"step":3,"loss"\n', "\0\0\0\0\n", "[1]\n", '{"loss":1}\n', '{"step":"a"}\n',
                    '{"step":3,"loss":"x"}\n',
                    '{"step":3,"loss":1,"tokens":NaN}\n', '{"step":3,"loss":1,"tokens":1.5e300}\n',
                    '{"step":3,"loss":1,"tokens":-1}\n', '{"step":3,"loss":true}\n', '{"step":null,"loss":1}\n',
                    '{"step":3,"loss":' + 400 * "9" + "}\n", '{"step":3,"loss":' + 5000 * "9" + "}\n",
                    '{"step":99999999999999999999999,"loss":1}\n', '{"step":true,"loss":1}\n',
                    '{"step":3,"a":' + 100000 * "[" + "}\n", '{"step":3,"validation_loss":1,"validation_hash":[1]}\n'):
            self.metrics.write_text("".join(lines[:5]) + bad + "".join(lines[5:]))
            self.refused("metrics.jsonl:6:", "expected", "restore")

    def test_metrics_of_two_runs(self):
        with self.metrics.open("a") as file:
            file.write('{"step":7,"loss":2.5}\n')
        self.refused("metrics.jsonl:", "step 7 after step 40", "another run")

    def test_foreign_metrics(self):
        self.metrics.write_text('{"step":1,"accuracy":0.5}\n')
        self.refused("metrics.jsonl: no row", "expected")

    def test_foreign_folders(self):
        self.metrics.unlink()
        self.refused("has no metrics.jsonl", "expected the folder of a run")
        with self.assertRaisesRegex(RunError, "nowhere: no such folder"):
            read_run(self.folder / "nowhere")
        with self.assertRaisesRegex(RunError, "status: is a file"):
            read_run(self.folder / "status")

    def test_foreign_config(self):
        for text, words in (("a: [1\n", "is no YAML"), ("- 1\n", "no section model"),
                            ("a: 2020-13-45\n", "is no YAML: month must be in 1..12"), ("a: \ufffe\n", "is no YAML"),
                            ("a: " + 100000 * "[" + "\n", "is no YAML"), ("a: &b [*b]\n", "is no YAML: an alias"),
                            ("a: &b 1\nmodel: {c: *b}\ntraining: {}\n", "is no YAML: an alias"),
                            ("model: 3\n", "no section model"),
                            ("model: {}\n", "no section training")):
            (self.folder / "config.yaml").write_text(text)
            self.refused("config.yaml", words, "expected")

    def test_libyaml_reads_what_pyyaml_does(self):
        """Configurations as dekoder writes them go through libyaml, faster; what is edited so that it might crash does not."""
        text = (self.folder / "config.yaml").read_text(encoding="utf-8").replace("[\"It is a truth,\\nit is $5.\", ", "[\"so: it's #1\", ")
        flat = 0
        for seed in range(400):
            draw, changed = random.Random(seed), list(text)
            for _ in range(draw.choice((0, 1, 2))):
                changed[draw.randrange(len(changed))] = draw.choice("a0159.:-+eE[]{},\"'#&*!|>%@` \n\t\\~?\u00e9\x85\u2028\ufeff")
            changed = "".join(changed)
            if run_reader._FLAT.fullmatch(changed):
                flat += 1
                self.assertEqual(*(self.loaded(changed, loader) for loader in (run_reader._FastLoader, run_reader._ConfigLoader)))
        self.assertGreater(flat, 100)
        for nested in ("a: " + "[" * 9 + "\n", "- - -\n", "? ? ?\n", "a:\n  b:\n    c:\n", "a: {b: 1}\n", "a: *b\n"):
            self.assertIsNone(run_reader._FLAT.fullmatch(nested))

    def loaded(self, text, loader):
        try:
            return repr(yaml.load(text, Loader=loader))
        except (yaml.YAMLError, ValueError):
            return "refused"

    def test_foreign_status(self):
        for text in ("", "state: dancing\nstep: 1\nsteps: 2\n", "state: finished\nstep: one\nsteps: 2\n"):
            (self.folder / "status").write_text(text)
            self.refused("status: is not the status of a run", "delete it")
        message = "loss is NaN: see step 3"
        (self.folder / "status").write_text(f"state: failed\nstep: 1\nsteps: 2\nmessage: {message}\n")
        self.assertEqual(read_run(self.folder).status["message"], message)

    def test_last_step_of_steps_and_evaluations(self):
        self.metrics.write_text('{"step":0,"validation_loss":5.5,"bits_per_byte":8,"tokens":64}\n')
        self.assertEqual(read_run(self.folder).last_step, 0)

    def test_samples_of_older_runs(self):
        (self.folder / "samples.jsonl").unlink()
        samples = self.folder / "samples.txt"
        samples.write_bytes(b"=== step 5\na\xc3\n\n=== step 6\nnot a head:\n=== step 7\n\n\n=== step 8\n\n\n")
        self.assertEqual(read_run(self.folder).samples,
                         [(5, "a\ufffd"), (6, "not a head:\n=== step 7\n"), (8, "")])
        samples.write_text("something else\n")
        self.refused("samples.txt:1:", "expected '=== step N'")

    def test_samples(self):
        """A text that looks like a mark between samples makes no further ones; a line being written is left out."""
        samples = self.folder / "samples.jsonl"
        texts = ["a\n\n=== step 7\nb\n\n", "", "\u2028\x00\ud800"]
        rows = [{"step": 5 * i, "prompt": "a", "text": text} for i, text in enumerate(texts)]
        samples.write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"step":99,"te')
        self.assertEqual(read_run(self.folder).samples, [(5 * i, text) for i, text in enumerate(texts)])
        (self.folder / "samples.txt").write_text("=== step 3\nolder\n\n")  # of the run before it went on
        self.assertEqual(read_run(self.folder).samples[0], (3, "older"))
        for line in ('{"step":1}', '{"step":1,"text":5}', '{"text":"a"}', '{"step":"1","text":"a"}', "=== step 5",
                     '{"step":1,"text":"a","prompt":[]}'):
            samples.write_text(line + "\n")
            self.refused("samples.jsonl:1: not a row", "expected")

    def test_line_ends_of_windows(self):
        (self.folder / "samples.txt").write_text("=== step 3\nolder\ntext\n\n=== step 4\n\n\n")
        whole = read_run(self.folder)
        for name in ("config.yaml", "metrics.jsonl", "samples.jsonl", "samples.txt", "status"):
            path = self.folder / name
            path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
        run = read_run(self.folder)
        for columns in ("steps", "evaluations"):
            for column, values in getattr(whole, columns).items():
                self.assertEqual(getattr(run, columns)[column].tolist(), values.tolist(), column)
        for part in ("config", "samples", "status", "restarts", "validation_hashes", "last_step"):
            self.assertEqual(getattr(run, part), getattr(whole, part), part)

    def test_restarts_and_what_they_changed(self):
        changes = {20: {"training.steps": ["30", "40"], "data.tokens": ["a.h5", "b.h5"]}}
        write_run(self.folder, restarts=(10, 20), changes=changes)
        run = read_run(self.folder)
        self.assertEqual((run.restarts, run.changes), ([10, 20], [{}, changes[20]]))
        for changed in ("[]", '{"a":1}', '{"a":["1"]}', '{"a":["1",2]}'):
            self.metrics.write_text('{"step":1,"resumed":true,"changed":' + changed + "}\n")
            self.refused("metrics.jsonl:1:", "changed")

    def test_seconds_by_phase(self):
        self.assertEqual(read_run(self.folder).seconds, [{}] * 40)
        write_run(self.folder, phases=True)
        self.assertEqual(read_run(self.folder).seconds, [phase_seconds(step) for step in range(1, 41)])
        for seconds in ("3", "[1]", '{"forward":"1"}', '{"forward":true}'):
            self.metrics.write_text('{"step":1,"loss":1,"seconds":' + seconds + "}\n")
            self.refused("metrics.jsonl:1:", "seconds")

    def test_best_evaluation_is_that_of_the_newest_validation_tokens(self):
        rows = [(0, 5.0, "a"), (10, 1.0, "a"), (20, 3.0, "b"), (30, None, "b"), (40, 4.0, "b")]
        self.metrics.write_text("".join(json.dumps({"step": step, "validation_loss": loss, "bits_per_byte": loss, "tokens": 9,
                                                    "validation_hash": of}) + "\n" for step, loss, of in rows))
        run = read_run(self.folder)
        self.assertEqual((run.validation_segments(), run.validation_hash, run.best_evaluation()), ([(0, 2), (2, 5)], "b", 2))
        self.metrics.write_text(json.dumps({"step": 0, "validation_loss": None}) + "\n")
        run = read_run(self.folder)
        self.assertEqual((run.validation_segments(), run.best_evaluation()), ([(0, 1)], None))
        self.metrics.write_text("")
        self.assertEqual((read_run(self.folder).validation_segments(), read_run(self.folder).best_evaluation()), ([], None))

    def test_what_is_no_file(self):
        """Nobody waits for a pipe; a folder is no file."""
        for name in ("config.yaml", "metrics.jsonl", "samples.jsonl", "samples.txt", "status", "attention.h5"):
            path = self.folder / name
            kept = path.read_bytes() if path.exists() else None
            path.unlink(missing_ok=True)
            os.mkfifo(path)
            self.refused(f"{name}: is a folder, a device or a pipe; expected a file")
            path.unlink()
            path.mkdir()
            self.refused(f"{name}: is a folder, a device or a pipe; expected a file")
            path.rmdir()
            if kept is not None:
                path.write_bytes(kept)
        read_run(self.folder)

    @unittest.skipIf(os.geteuid() == 0, "root reads everything")
    def test_no_permission(self):
        self.metrics.chmod(0)
        self.refused("metrics.jsonl: cannot be read: Permission denied")

    def test_rows_are_what_the_log_writes(self):
        """The synthetic log has the same keys, in the same order, as src/io/run/metrics_log.cpp prints."""
        source = (Path(__file__).resolve().parents[2] / "src/io/run/metrics_log.cpp").read_text()
        source = re.sub(r'"\n\s*"', "", source)
        for row in (self.written.steps[0], self.written.evaluations[0]):
            printed = ",".join(f'\\"{key}\\":' + ("{}" if isinstance(value, (int, float)) else '\\"{}\\"')
                               for key, value in row.items())
            self.assertIn(printed, source)


if __name__ == "__main__":
    unittest.main()
