# SPDX-License-Identifier: Apache-2.0
"""What dekoder-compare finds in hand-made attention maps and logs, and what it refuses. Trained runs are compared in
tests/regression/test_compare.py."""
import io
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess import compare  # noqa: E402
from dekoder_postprocess.attention_comparison import compare_attention, total_variation  # noqa: E402
from dekoder_postprocess.attention_reader import read_attention  # noqa: E402
from dekoder_postprocess.checkpoint_reader import newest_checkpoint  # noqa: E402
from dekoder_postprocess.errors import RunError  # noqa: E402
from dekoder_postprocess.run_comparison import (  # noqa: E402
    InitialValues, compare_losses, config_differences, pair_initial_values)
from dekoder_postprocess.run_reader import read_run  # noqa: E402
from dekoder_postprocess.text_table import text_table  # noqa: E402
from synthetic_run import STATISTICS, SyntheticRun, write_checkpoint, write_run, write_single_file  # noqa: E402

X, Y = ("ab", (97, 98)), ("c", (99,))


def weight(run, step, layer, head):
    """Of the second query on the first key of X; exact in half precision."""
    return run * 0.5 + step / 256 + layer / 64 + head / 512


def statistic(run, step, layer, head, probe, s):
    return 1000 * run + step + 100 * layer + 10 * head + probe * 0.5 + s * 0.125


class Scratch(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)

    def attention(self, name, number, layers, heads, probes, steps):
        """An attention file of run `number`; probes: name -> (text, tokens)."""
        maps = {probe: {} for probe in probes}
        statistics = {probe: {} for probe in probes}
        for probe, (_, tokens) in probes.items():
            for step in steps:
                of = [[weight(number, step, layer, head) for head in heads] for layer in layers]
                maps[probe][step] = np.array([[[[1.0]] if len(tokens) == 1 else [[1, 0], [w, 1 - w]] for w in row]
                                              for row in of], np.float16)
                statistics[probe][step] = np.array(
                    [[[statistic(number, step, layer, head, len(tokens), s) for s in range(len(STATISTICS))]
                      for head in heads] for layer in layers], np.float32)
        run = SyntheticRun(path=self.folder, steps=[], evaluations=[], restarts=[], samples=[], captured=sorted(steps),
                           texts={probe: text for probe, (text, _) in probes.items()},
                           tokens={probe: np.array(tokens, np.int32) for probe, (_, tokens) in probes.items()},
                           maps=maps, statistics=statistics)
        write_single_file(self.folder / name, run, "model: {}\ntraining: {}\n", layers, heads)
        return read_attention(self.folder / name)


class AttentionComparison(Scratch):
    def test_total_variation_is_that_of_hand_made_maps(self):
        w = [[1, 0, 0], [0.5, 0.5, 0], [0.25, 0.25, 0.5]]
        v = [[1, 0, 0], [0, 1, 0], [0, 0.25, 0.75]]
        self.assertEqual(total_variation(w, w).mean(), 0)
        np.testing.assert_allclose(total_variation(w, v), [0.0, 0.5, 0.25], rtol=0, atol=1e-15)
        np.testing.assert_allclose(total_variation(v, w), [0.0, 0.5, 0.25], rtol=0, atol=1e-15)
        self.assertEqual(total_variation([[1, 0], [1, 0]], [[0, 1], [0, 1]]).mean(), 1)
        for other in (np.zeros((2, 2)), np.zeros((3, 4)), np.zeros(9)):
            with self.assertRaises(ValueError):
                total_variation(w, other)

    def test_what_files_have_in_common_is_compared(self):
        a = self.attention("a.h5", 0, [0, 2], [1, 3], {"x": X, "y": Y}, [0, 10, 20])
        other_text = ("ba", (98, 97))  # the name of a probe says nothing
        b = self.attention("b.h5", 1, [2, 0], [0, 3], {"u": Y, "v": X, "x": other_text}, [0, 20, 100])
        found = compare_attention([a, None, b])
        self.assertEqual(found.has_maps, [True, False, True])

        change = found.changes[0]
        self.assertEqual((change.first_step, change.last_step), (0, 20))
        self.assertEqual((change.layers, change.heads), ([0, 2], [1, 3]))
        np.testing.assert_allclose(change.distance, np.full((2, 2), 20 / 256 / 3), rtol=1e-14)
        self.assertIsNone(found.changes[1])
        np.testing.assert_allclose(found.changes[2].distance, np.full((2, 2), 2 * 100 / 256 / 5), rtol=1e-14)

        self.assertEqual(found.differences[:2], [None, None])
        difference = found.differences[2]
        self.assertEqual((difference.first_step, difference.last_step), (20, 20))
        self.assertEqual((difference.probes, difference.layers, difference.heads), (["x", "y"], [0, 2], [3]))
        np.testing.assert_allclose(difference.distance, np.full((2, 1), 0.5 / 3), rtol=1e-14)

        statistics = found.statistics
        self.assertEqual((statistics.step, statistics.names, statistics.values[1]), (20, list(STATISTICS), None))
        for run in (0, 1):
            expected = [(statistic(run, 20, layer, 3, 1, s) + statistic(run, 20, layer, 3, 2, s)) / 2
                        for layer in (0, 2) for s in range(len(STATISTICS))]
            self.assertEqual(statistics.values[0 if run == 0 else 2].ravel().tolist(), expected)

    def test_nothing_in_common_is_left_out(self):
        a = self.attention("a.h5", 0, [0], [0], {"x": X}, [0, 10])
        for name, layers, heads, probes, steps in (("steps", [0], [0], {"x": X}, [5, 15]),
                                                   ("layers", [1], [0], {"x": X}, [0, 10]),
                                                   ("heads", [0], [1], {"x": X}, [0, 10]),
                                                   ("probes", [0], [0], {"x": Y}, [0, 10])):
            b = self.attention(f"{name}.h5", 1, layers, heads, probes, steps)
            found = compare_attention([a, b])
            self.assertTrue(all(found.changes), name)
            self.assertEqual((found.differences[1], found.statistics), (None, None), name)
        self.assertIsNone(compare_attention([None, None]).statistics)

    def test_no_step_yet(self):
        a = self.attention("a.h5", 0, [0], [0], {"x": X}, [])
        b = self.attention("b.h5", 0, [0], [0], {"x": X}, [0])
        found = compare_attention([a, b])
        self.assertEqual((found.has_maps, found.changes[0], found.differences, found.statistics),
                         ([False, True], None, [None, None], None))


class Losses(Scratch):
    def log(self, name, rows):
        run = write_run(self.folder / name, attention=False)
        (run.path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return read_run(run.path)

    def test_common_steps_and_the_last_row_of_a_step(self):
        a = self.log("a", [{"step": step, "loss": float(step)} for step in (1, 2, 3, 3, 4, 6)])
        b = self.log("b", [{"step": step, "loss": 2.0 * step} for step in (2, 3, 3, 4, 5, 6, 7)])
        a.steps["loss"][2] = 99  # the first of two rows of a step
        losses = compare_losses([a, b])
        self.assertEqual(losses.windows, [(step, step) for step in (2, 3, 4, 6)])
        self.assertEqual(losses.training.tolist(), [[2, 3, 4, 6], [4, 6, 8, 12]])
        self.assertEqual(losses.gap_error.tolist(), [[0] * 4] * 2)

    def test_windows(self):
        rng = np.random.default_rng(3)
        tables = rng.normal(size=(2, 97))
        runs = [self.log(str(r), [{"step": i + 1, "loss": loss} for i, loss in enumerate(tables[r])]) for r in (0, 1)]
        losses = compare_losses(runs)
        self.assertEqual((len(losses.windows), losses.windows[0][0], losses.windows[-1][1]), (10, 1, 97))
        for w, (first, last) in enumerate(losses.windows):
            part = tables[:, first - 1:last]
            np.testing.assert_allclose(losses.training[:, w], part.mean(1), rtol=1e-13)
            gaps = part[1] - part[0]
            np.testing.assert_allclose(losses.gap_error[:, w], [0, gaps.std(ddof=1) / len(gaps) ** 0.5], rtol=1e-12)
        self.assertEqual(compare_losses([runs[0], self.log("none", [])]).windows, [])

    def test_losses_of_other_validation_tokens_have_no_gap(self):
        """A restart has changed the validation tokens of B: before it the losses have a gap, after it none."""
        def rows(gap, hashes):
            return [{"step": step, "validation_loss": 3.0 - step / 100 + gap, "bits_per_byte": 4.0 + gap, "tokens": 64,
                     "validation_hash": of * 8} for step, of in zip((0, 10, 20), hashes)]
        for name, gap, hashes in (("a", 0.0, ["c312fa7a"] * 3), ("b", 0.5, ["c312fa7a", "c312fa7a", "0123abcd"])):
            self.log(name, rows(gap, hashes))
        code, text, _ = run_compare(self.folder / "a", self.folder / "b")
        self.assertEqual(code, 0)
        self.assertIn("losses of B are NOT comparable: evaluated on other tokens than A at 1 of 3 common steps (hash "
                      "0123abcd0123, A's is c312fa7ac312)", text)
        self.assertIn("B  " + str(self.folder / "b"), text)
        self.assertIn("     evaluated on other validation tokens from step 20 on", text)
        table = text[text.index("  step"):].splitlines()
        self.assertEqual([line.split()[-2:] for line in table[1:4]], [["+0.5000"] * 2] * 2 + [["-", "-"]])
        self.assertNotIn("gap so far", text)
        report = json.loads(run_compare(self.folder / "a", self.folder / "b", "--json")[1])
        self.assertEqual(report["losses"]["comparable"], [True, False])
        self.assertEqual([row["gap"] for row in report["losses"]["validation"]], [[0, 0.5], [0, 0.5], [0, None]])
        self.assertEqual(report["runs"][1]["validation_sets"],
                         [{"first_step": 0, "hash": "c312fa7a" * 8}, {"first_step": 20, "hash": "0123abcd" * 8}])
        self.assertEqual(len(report["runs"][0]["validation_sets"]), 1)


def run_compare(*arguments):
    """(exit code, standard output, standard error) of the command in this process, without a program dekoder."""
    with mock.patch("sys.stdout", io.StringIO()) as out, mock.patch("sys.stderr", io.StringIO()) as err, \
            mock.patch.dict(os.environ, {"DEKODER_PROGRAM": "/nowhere/dekoder"}):
        try:
            code = compare.main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = end.code
    return code, out.getvalue(), err.getvalue()


class Pairs(Scratch):
    def test_initial_values(self):
        first = {"a": ([2], "1"), "b": ([2], "2"), "c": ([2], "3"), "d": ([1], "4")}
        other = {"e": ([1], "4"), "a": ([2], "1"), "b": ([2], "9"), "c": ([2, 1], "3")}
        self.assertEqual(pair_initial_values(first, other), InitialValues(1, ["b"], ["c"], ["d"], ["e"]))
        self.assertTrue(pair_initial_values({"a": ([2], "1"), "b": ([1], "1")}, {"a": ([2], "1")}).paired())
        self.assertFalse(pair_initial_values({"b": ([1], "1")}, {"a": ([2], "1")}).paired())

    def test_configurations_differ_in_values_not_in_their_spelling(self):
        a, b = write_run(self.folder / "a"), write_run(self.folder / "b")
        text = (b.path / "config.yaml").read_text()
        for old, new in (("1e-05", "1.0e-5"), ("dropout: 0\n", "dropout: 0.0\n"), ("learning_rate: 0.002", "learning_rate: 2e-3"),
                         ('prompt: "It is"', 'prompt: "It  is\\n"'), ("  seed: 1\n", ""), ("heads: []", "heads: [1, 2]")):
            self.assertIn(old, text)
            text = text.replace(old, new)
        self.assertEqual(config_differences((a.path / "config.yaml").read_text(), text),
                         [("training.seed", "1", "(not set)"), ("sampling.prompt", '"It is"', '"It  is\\n"'),
                          ("attention.heads", "[]", "[1, 2]")])

    def test_what_restarts_changed(self):
        a, b = write_run(self.folder / "a"), write_run(self.folder / "b", restarts=(10, 20),
                                                       changes={20: {"training.steps": ["30", "40"]}})
        code, text, _ = run_compare(a.path, b.path)
        self.assertEqual(code, 0)
        self.assertIn("restarts: 2\n     the restart from step 20 changed training.steps: 30 -> 40\n", text)
        self.assertEqual(text.count("the restart from step"), 1)
        runs = json.loads(run_compare(a.path, b.path, "--json")[1])["runs"]
        self.assertEqual([run["changes"] for run in runs],
                         [[], [{"step": 20, "changed": {"training.steps": ["30", "40"]}}]])

    def test_not_a_number_is_null(self):
        a = write_run(self.folder / "a")
        log = (a.path / "metrics.jsonl").read_text().replace('"loss":', '"loss":null,"was":')
        (a.path / "metrics.jsonl").write_text(log)
        code, text, _ = run_compare(a.path, a.path)
        self.assertEqual((code, "nan" in text), (0, True))
        self.assertEqual(json.loads(run_compare(a.path, a.path, "--json")[1])["losses"]["training"][0]["loss"], [None, None])

    def test_a_name_that_is_no_text(self):
        a = write_run(self.folder / "a")
        odd = os.fsencode(self.folder) + b"/r\xff\nn"
        os.rename(a.path, odd)
        command = [sys.executable, "-B", str(Path(__file__).resolve().parents[1] / "bin/dekoder-compare"), odd, odd]
        done = subprocess.run([*command, "--json"], capture_output=True, check=True)
        self.assertEqual(json.loads(done.stdout)["runs"][0]["name"], str(self.folder / "r\ufffd\nn"))
        done = subprocess.run(command, capture_output=True, check=True)
        self.assertIn("r\\uDCFF\u21b5n: step 40 of 40".encode(), done.stdout)


class Checkpoints(Scratch):
    def test_the_newest_that_is_whole(self):
        folder = self.folder / "checkpoints"
        folder.mkdir()
        self.assertIsNone(newest_checkpoint(folder))
        self.assertIsNone(newest_checkpoint(self.folder / "nowhere"))
        for step in (20, 40):
            write_checkpoint(folder, step, data_hash=f"text at {step}")
        (folder / ".ckpt-00000060.h5.tmp").write_bytes(b"")
        self.assertEqual((newest_checkpoint(folder).step, newest_checkpoint(folder).data_hash), (40, "text at 40"))
        newest = folder / "ckpt-00000040.h5"
        whole = newest.read_bytes()
        for content in (b"", b"hello", whole[:len(whole) // 3]):
            newest.write_bytes(content)
            with mock.patch("sys.stderr", io.StringIO()) as said:
                self.assertEqual(newest_checkpoint(folder).step, 20)
            self.assertIn("warning: checkpoint not used: " + str(newest), said.getvalue())
        newest.write_bytes((folder / "ckpt-00000020.h5").read_bytes())
        with mock.patch("sys.stderr", io.StringIO()) as said:
            self.assertEqual(newest_checkpoint(folder).step, 20)
        self.assertIn("holds step 20, not that of its name", said.getvalue())

    def test_a_flipped_bit_is_no_other_value(self):
        write_checkpoint(self.folder, 40, data_hash="0123456789abcdef" * 4)
        path = self.folder / "ckpt-00000040.h5"
        data = bytearray(path.read_bytes())
        data[data.index(b"0123456789abcdef") + 5] ^= 1
        path.write_bytes(data)
        with self.assertRaisesRegex(RunError, "none of 1 checkpoint files can be used: .*ckpt-00000040.h5: is damaged"):
            newest_checkpoint(self.folder)

    def test_newer_formats_and_what_may_not_be_read(self):
        write_checkpoint(self.folder, 40)
        path = self.folder / "ckpt-00000040.h5"
        with h5py.File(path, "r+") as file:
            file.attrs["major"] = np.int32(2)
        with self.assertRaisesRegex(RunError, "has checkpoint format 2, this program reads up to 1"):
            newest_checkpoint(self.folder)
        path.unlink()
        os.mkfifo(path)
        with self.assertRaisesRegex(RunError, "is a folder, a device or a pipe"):
            newest_checkpoint(self.folder)


class Refusals(Scratch):
    def refused(self, *words):
        code, out, err = run_compare(self.folder / "a", self.folder / "a")
        self.assertEqual((code, out, err.count("\n")), (3, "", 1), err)
        for word in words:
            self.assertIn(word, err)

    def setUp(self):
        super().setUp()
        self.run = write_run(self.folder / "a")
        self.metrics = self.run.path / "metrics.jsonl"
        (self.run.path / "checkpoints").mkdir()
        write_checkpoint(self.run.path / "checkpoints", 40, metrics_bytes=self.metrics.stat().st_size)

    def test_a_damaged_line_in_the_middle_and_its_remedy(self):
        """The advice that the message gives is one that works: the line under spaces, and the rest is compared."""
        lines = self.metrics.read_bytes().splitlines(keepends=True)
        damaged = b"\x00" * (len(lines[5]) - 1) + b"\n"
        self.metrics.write_bytes(b"".join([*lines[:5], damaged, *lines[6:]]))
        self.refused("metrics.jsonl:6:", "restore it from a copy, or overwrite the line with as many spaces")
        self.metrics.write_bytes(b"".join([*lines[:5], b" " * (len(damaged) - 1) + b"\n", *lines[6:]]))
        self.assertEqual(run_compare(self.folder / "a", self.folder / "a")[0], 0)
        self.metrics.write_bytes(b"".join([*lines[:5], *lines[6:]]))
        self.refused("metrics.jsonl: has ", "truncated")

    def test_a_torn_last_line_is_one_being_written(self):
        with self.metrics.open("ab") as log:
            log.write(b'{"step":41,"lo')
        self.assertEqual(run_compare(self.folder / "a", self.folder / "a")[0], 0)

    def test_another_run_s_checkpoint(self):
        write_checkpoint(self.run.path / "checkpoints", 40, run_id="another")
        self.refused("its attention maps are of another run (0123456789abcdef, expected another); move the file away")

    def test_usage(self):
        for runs, words in (([], "compare got 0 run directories; expected at least two"),
                            ([self.folder / "a"], "compare got 1 run directory; expected at least two")):
            code, _, err = run_compare(*runs)
            self.assertEqual((code, words in err), (2, True), err)


class Table(unittest.TestCase):
    def test_columns(self):
        self.assertEqual(text_table([["", "head 0"], ["layer 10", "1"], ["b"]]),
                         "            head 0\n  layer 10       1\n  b\n")

    def test_characters_of_other_widths(self):
        self.assertEqual(text_table([["\u4e2d\u6587", "x"], ["e\u0301", "\u4e2d"], ["abcdef", ""]]),
                         "  \u4e2d\u6587     x\n  e\u0301       \u4e2d\n  abcdef\n")


if __name__ == "__main__":
    unittest.main()
