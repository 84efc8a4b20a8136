# SPDX-License-Identifier: Apache-2.0
"""Event files read back with TensorBoard's own reader hold the numbers, texts and pictures of the run."""
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.request
from pathlib import Path
from unittest import mock

import h5py
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess import tensorboard_export  # noqa: E402
from dekoder_postprocess.figure_style import COLOURS, NORM  # noqa: E402
from dekoder_postprocess.runs import tracked_run  # noqa: E402
from many_runs import BEGIN_SECONDS, NAMES, NORMS, expected_metrics, expected_time, learning_rate, write_many  # noqa: E402
from synthetic_run import STATISTICS, step_file, write_run  # noqa: E402

# The toolbox has the package: there it is missed, elsewhere these tests are left out by name.
HAVE = importlib.util.find_spec("tensorboard") is not None or bool(os.environ.get("DEKODER_TOOLBOX"))


def quiet(*arguments):
    """The command in this process: its exit code and what it printed."""
    with mock.patch("sys.stdout", io.StringIO()) as out, mock.patch("sys.stderr", io.StringIO()) as err:
        code = tensorboard_export.main([str(a) for a in arguments])
    return code, out.getvalue() + err.getvalue()


@unittest.skipUnless(HAVE, "the Python package tensorboard is not installed")
class EventFiles(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)
        self.written = write_run(self.folder / "run", layers=4, heads=3, chosen_layers=[1, 3], chosen_heads=[0, 2])

    def events(self, folder):
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0})
        events.Reload()
        return events

    def exported(self):
        code, said = quiet(self.folder / "run", "-o", self.folder / "log")
        self.assertEqual(code, 0, said)
        return self.events(self.folder / "log")

    def test_curves(self):
        events = self.exported()
        for rows, columns in ((self.written.steps, tracked_run.STEP_METRICS), (self.written.evaluations, {
                "validation_loss": "validation/loss", "bits_per_byte": "validation/bits_per_byte"})):
            for column, tag in columns.items():
                read = events.Scalars(tag)
                self.assertEqual([event.step for event in read], [row["step"] for row in rows], tag)
                np.testing.assert_array_equal(np.float32([event.value for event in read]),
                                              np.float32([row[column] for row in rows]), tag)

    def test_times(self):
        """128 tokens per step at 5000 + step tokens/s; the last row at the log's last change."""
        changed = 1_700_000_000.0
        os.utime(self.folder / "run/metrics.jsonl", (changed, changed))
        times = [event.wall_time for event in self.exported().Scalars("training/loss")]
        self.assertAlmostEqual(times[-1], changed, places=3)
        np.testing.assert_allclose(np.diff(times), [128 / (5000 + step) for step in range(2, 41)], atol=1e-5)

    def test_head_statistics(self):
        """They are the attention file's, whatever the log's rows say."""
        log = self.folder / "run/metrics.jsonl"
        lines = log.read_text().splitlines(True)
        log.write_text("".join('{"step":%d,"attention":0}\n' % json.loads(line)["step"] if '"attention"' in line
                               else line for line in lines))
        events = self.exported()
        for i, name in enumerate(STATISTICS):
            for l, layer in enumerate((1, 3)):
                for h, head in enumerate((0, 2)):
                    read = events.Scalars(f"heads_{name}/text_1/layer_{layer}_head_{head}")
                    self.assertEqual([event.step for event in read], [0, 20, 40])
                    expected = [self.written.statistics["text_1"][step][l, h, i] for step in (0, 20, 40)]
                    np.testing.assert_array_equal(np.float32([event.value for event in read]), expected)

    def test_texts(self):
        events = self.exported()
        read = events.Tensors("sample")
        self.assertEqual([event.step for event in read], [step for step, _ in self.written.samples])
        for event, (_, text) in zip(read, self.written.samples):
            block = event.tensor_proto.string_val[0].decode()
            self.assertEqual("\n".join(line[4:] for line in block.split("\n")[:-1]), text)
        self.assertEqual(events.SummaryMetadata("sample").plugin_data.plugin_name, "text")
        self.assertIn(b"positions: learned", events.Tensors("configuration")[0].tensor_proto.string_val[0])
        self.assertEqual([event.step for event in events.Tensors("restart")], [20])

    def test_pictures(self):
        events = self.exported()
        self.assertEqual(sorted(events.Tags()["images"]), [f"attention/{probe}/layer_{layer}" for probe in
                                                           ("text_0", "text_1") for layer in (1, 3)])
        read = events.Images("attention/text_0/layer_3")
        self.assertEqual([event.step for event in read], [0, 40])
        picture = np.asarray(Image.open(io.BytesIO(read[1].encoded_image_string)))
        scale = 7  # 24 tokens on at least 160 pixels
        self.assertEqual(picture.shape, (24 * scale, 2 * 24 * scale + tensorboard_export.GAP, 3))
        maps = self.written.maps["text_0"][40][1]
        for head, left in ((0, 0), (1, 24 * scale + tensorboard_export.GAP)):
            for query, key in ((0, 0), (5, 3), (23, 22)):
                expected = COLOURS(float(NORM(maps[head, query, key])), bytes=True)[:3]
                self.assertEqual(tuple(picture[query * scale + 3, left + key * scale + 3]), tuple(expected))
            self.assertEqual(tuple(picture[3, left + 5 * scale]), (255, 255, 255))

    def test_restarts_and_other_validation_tokens(self):
        """Losses on other tokens than the newest have a curve of their own; a restart says what it changed."""
        self.written = write_run(self.folder / "run", other_tokens_from=20, phases=True,
                                 changes={20: {"training.steps": ["30", "40"]}})
        events = self.exported()
        rows = self.written.evaluations
        for tag, expected in (("validation/loss", rows[2:]), ("validation_on_c312fa7ac312/loss", rows[:2])):
            self.assertEqual([(event.step, np.float32(event.value)) for event in events.Scalars(tag)],
                             [(row["step"], np.float32(row["validation_loss"])) for row in expected], tag)
        self.assertEqual(events.Tensors("restart")[0].tensor_proto.string_val[0].decode().strip(),
                         "resumed from the checkpoint of step 20; changed training.steps: 30 -> 40")
        self.assertEqual([np.float32(event.value) for event in events.Scalars("seconds/head and loss")],
                         [np.float32(row["seconds"]["head and loss"]) for row in self.written.steps])

    def test_again_replaces_its_own_files_alone(self):
        self.exported()
        other = self.folder / "log/events.out.tfevents.1.elsewhere"
        other.write_bytes(b"")
        first = set((self.folder / "log").iterdir())
        events = self.exported()
        second = set((self.folder / "log").iterdir())
        self.assertEqual((len(second), second & first), (2, {other}))
        self.assertEqual(len(events.Scalars("training/loss")), 40)

    def test_default_folder_and_a_run_in_progress(self):
        with (self.folder / "run/metrics.jsonl").open("a") as log:
            log.write('{"step":41,"loss":2.')
        shutil.rmtree(self.folder / "run/attention")
        code, said = quiet(self.folder / "run")
        self.assertEqual(code, 0, said)
        events = self.events(self.folder / "run/tensorboard")
        self.assertEqual(len(events.Scalars("training/loss")), 40)
        self.assertIn("0 images", said)

    def test_maps_of_another_run_are_named(self):
        with h5py.File(step_file(self.folder / "run", 0), "r+") as file:
            file.attrs["run_id"] = "another"
        code, said = quiet(self.folder / "run", "-o", self.folder / "log")
        self.assertEqual(code, 0, said)
        self.assertRegex(said, "dekoder-tensorboard: .*step-00000000.h5: of another run, .*; left out\n")

    def test_not_a_number_is_left_out(self):
        with (self.folder / "run/metrics.jsonl").open("a") as log:
            log.write('{"step":41,"loss":null,"learning_rate":0.5,"gradient_norm":null,"tokens":5248,'
                      '"tokens_per_second":1}\n')
        events = self.exported()
        self.assertEqual(len(events.Scalars("training/loss")), 40)
        self.assertEqual(len(events.Scalars("training/learning_rate")), 41)

    def test_events_that_cannot_be_written(self):
        """One line, and no part of a file."""
        command = Path(__file__).resolve().parents[1] / "bin/dekoder-tensorboard"
        words = [sys.executable, "-B", command, self.folder / "run", "-o", self.folder / "log"]
        done = subprocess.run(["bash", "-c", 'ulimit -f 16; exec "$@"', "-", *words], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (3, "", 1), done.stderr)
        self.assertRegex(done.stderr, "^dekoder-tensorboard: .*/log: event files cannot be written: File too large; free some space")
        self.assertEqual(list((self.folder / "log").iterdir()), [])
        with mock.patch.object(tensorboard_export.Export, "_text", lambda *_: shutil.rmtree(self.folder / "log", ignore_errors=True)):
            code, said = quiet(self.folder / "run", "-o", self.folder / "log")
        self.assertEqual((code, said.count("\n")), (3, 1), said)
        self.assertIn("event files cannot be written: No such file", said)

    def test_refused(self):
        (self.folder / "file").write_text("")
        for output in ("file", "file/log", "n" * 300):
            code, said = quiet(self.folder / "run", "-o", self.folder / output)
            self.assertEqual((code, "choose another -o" in said), (3, True), said)
        with self.assertRaises(SystemExit), mock.patch("sys.stderr", io.StringIO()) as said:
            tensorboard_export.main(["run", "-o", ""])
        self.assertIn("an empty name", said.getvalue())
        (self.folder / "run/metrics.jsonl").write_text("")
        code, said = quiet(self.folder / "run")
        self.assertEqual((code, "metrics.jsonl: ends at step 0, but" in said), (3, True), said)
        (self.folder / "run/status").unlink()
        code, said = quiet(self.folder / "run")
        self.assertEqual((code, "has no row yet" in said), (3, True), said)

    def test_command(self):
        command = Path(__file__).resolve().parents[1] / "bin/dekoder-tensorboard"
        done = subprocess.run([sys.executable, command, self.folder / "run"], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertRegex(done.stdout, r"run/tensorboard: \d+ scalars, 4 texts, 8 images\n")


class Server:
    """A real TensorBoard on a folder of logs; the answers of its API."""

    def __init__(self, folder):
        self.process = subprocess.Popen([sys.executable, "-m", "tensorboard.main", "--logdir", str(folder), "--host", "127.0.0.1",
                                         "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.address = None
        for line in self.process.stdout:
            found = re.search(r"at (http://127\.0\.0\.1:\d+)/", line)
            if found:
                self.address = found.group(1)
                break

    def ask(self, what, **request):
        request = urllib.request.Request(f"{self.address}/data/plugin/hparams/{what}", json.dumps(request).encode(),
                                         {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def groups(self, count):
        """name -> row of the table, when all `count` of them have been read with their metrics."""
        states = [f"STATUS_{state}" for state in ("UNKNOWN", "SUCCESS", "FAILURE", "RUNNING")]
        for _ in range(300):
            found = self.ask("session_groups", experimentName="", allowedStatuses=states, colParams=[], startIndex=0,
                             sliceSize=1000)["sessionGroups"]
            if len(found) >= count and all(len(group["metricValues"]) == 2 for group in found):
                return {group["name"]: group for group in found}
            time.sleep(0.1)
        raise AssertionError(f"TensorBoard shows {len(found)} of {count} runs")

    def close(self):
        self.process.terminate()
        self.process.communicate()


@unittest.skipUnless(HAVE, "the Python package tensorboard is not installed")
class ManyRuns(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)

    def test_what_the_server_shows(self):
        """Table and parallel coordinates come from these two answers."""
        count = 7
        runs = write_many(self.folder / "runs", count)
        code, said = quiet(self.folder / "runs", "-o", self.folder / "log")
        self.assertEqual((code, said[:said.index(",")]), (0, f"{self.folder / 'log'}: {count} runs"))
        server = Server(self.folder / "log")
        self.addCleanup(server.close)
        groups = server.groups(count)
        experiment = server.ask("experiment", experimentName="")
        columns = {column["name"]: column for column in experiment["hparamInfos"]}
        self.assertEqual(set(columns), {"training.seed", "training.learning_rate", "model.norm", "training.schedule"})
        self.assertEqual(columns["training.learning_rate"]["domainInterval"], {"minValue": 0.001, "maxValue": 0.007})
        self.assertEqual(columns["model.norm"]["domainDiscrete"], ["post", "pre"])
        self.assertEqual({metric["name"]["tag"]: metric["displayName"] for metric in experiment["metricInfos"]},
                         {"validation/best_loss": "best validation loss", "validation/loss": "last validation loss"})
        self.assertEqual(set(groups), {run.path.name for run in runs})
        for i, run in enumerate(runs):
            group = groups[run.path.name]
            settings = {"training.seed": i, "training.learning_rate": learning_rate(i), "model.norm": NORMS[i % 2],
                        **({"training.schedule": "wsd"} if i % 3 == 0 else {})}
            self.assertEqual(group["hparams"], settings)
            losses = [row["validation_loss"] for row in run.evaluations]
            values = {metric["name"]["tag"]: metric["value"] for metric in group["metricValues"]}
            self.assertEqual(values, {"validation/best_loss": float(np.float32(min(losses))),
                                      "validation/loss": float(np.float32(losses[-1]))})
            session = group["sessions"][0]
            self.assertEqual(session["status"], ("STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_UNKNOWN")[i % 3])
            self.assertEqual(session["startTimeSecs"], BEGIN_SECONDS[0])
            self.assertAlmostEqual(session["endTimeSecs"], expected_time(40), places=3)

    def test_event_files(self):
        """All numbers of each run; a second export replaces what the first one wrote."""
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        runs = write_many(self.folder / "runs", 3)
        for _ in range(2):
            code, said = quiet(*(run.path for run in runs), "-o", self.folder / "log")
            self.assertEqual(code, 0, said)
        self.assertEqual(len(list((self.folder / "log").rglob("events*"))), 4)
        for run in runs:
            events = EventAccumulator(str(self.folder / "log" / run.path.name), size_guidance={"scalars": 0})
            events.Reload()
            self.assertEqual({tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in
                              events.Tags()["scalars"]},
                             {tag: [(step, float(np.float32(value))) for step, value in values]
                              for tag, values in expected_metrics(run.path).items()})
            for event in events.Scalars("training/loss"):
                self.assertAlmostEqual(event.wall_time, expected_time(event.step), places=5)

    def test_attention_on_demand(self):
        write_many(self.folder / "runs", 2, attention=True, captured=(40,), texts=("ab",))
        for words, images in (((), 0), (("--attention",), 2)):
            code, said = quiet(self.folder / "runs", "-o", self.folder / "log", *words)
            self.assertEqual(code, 0)
            self.assertIn(f"{images} images", said)

    def test_what_one_run_has_does_not_end_the_others(self):
        """Maps that turn out to be damaged while they are written, and a name that no folder can have."""
        runs = write_many(self.folder / "runs", 3, attention=True, captured=(40,), texts=("ab",))
        with h5py.File(step_file(runs[0].path, 40), "r+") as file:
            file["attention/text_0/weights"][...] = np.nan
            del file["attention/text_0/statistics"]
            file["attention/text_0/statistics"] = np.zeros(1)
        runs[1].path.rename(self.folder / "runs" / ("\x01" * 80))
        code, said = quiet(self.folder / "runs", "-o", self.folder / "log", "--attention")
        self.assertEqual((code, said.count("; left out\n"), said.count("\n")), (0, 2, 3), said)
        self.assertIn("is too long for a folder; rename it; left out\n", said)
        self.assertIn(str(runs[0].path), said)
        self.assertEqual(len(list((self.folder / "log").rglob("events*"))), 2)

    def test_runs_that_are_left_out(self):
        runs = write_many(self.folder / "runs", 3)
        (runs[1].path / "metrics.jsonl").write_text("no row\n")
        code, said = quiet(self.folder / "runs", "-o", self.folder / "log")
        self.assertEqual((code, said.count("\n")), (0, 2), said)
        self.assertRegex(said, r"dekoder-tensorboard: .*two words.*; left out\n")
        self.assertEqual(sorted(path.name for path in (self.folder / "log").iterdir() if path.is_dir()),
                         sorted([NAMES[0], NAMES[2]]))
        for run in runs:
            (run.path / "metrics.jsonl").write_text("")
        code, said = quiet(self.folder / "runs", "-o", self.folder / "none")
        self.assertEqual((code, "none of 3 runs can be exported" in said), (3, True), said)

    def test_settings_of_several_kinds(self):
        """The HParams tab takes one kind in a column."""
        for values, expected in (({1: True, 2: False}, {1: True, 2: False}), ({1: 1, 2: 1.5}, {1: 1, 2: 1.5}),
                                 ({1: True, 2: 1}, {1: "true", 2: "1"}), ({1: [1], 2: "a", 3: None}, {1: "[1]", 2: "a"}), ({1: None}, {})):
            self.assertEqual(tensorboard_export.of_one_kind(values), expected)


class WithoutThePackage(unittest.TestCase):
    def test_message(self):
        missing = dict.fromkeys([name for name in sys.modules if name.split(".")[0] == "tensorboard"] + ["tensorboard"])
        with tempfile.TemporaryDirectory() as folder, mock.patch.dict(sys.modules, missing):
            write_run(folder)
            code, said = quiet(folder)
            self.assertEqual(code, 2)
            self.assertRegex(said, r"^dekoder-tensorboard: the Python package .*pip install tensorboard\n$")
            self.assertFalse((Path(folder) / "tensorboard").exists())


if __name__ == "__main__":
    unittest.main()
