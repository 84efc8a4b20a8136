# SPDX-License-Identifier: Apache-2.0
"""Attention files read back bit for bit, a run as a whole and each alone; what is damaged or foreign is refused."""
import contextlib
import fcntl
import io
import os
import shutil
import sys
import tempfile
import unittest
from pathlib import Path

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess import figures, report  # noqa: E402
from dekoder_postprocess.attention_reader import read_attention  # noqa: E402
from dekoder_postprocess.errors import RunError  # noqa: E402
from dekoder_postprocess.run_reader import read_run  # noqa: E402
from synthetic_run import STATISTICS, TEXTS, step_file, write_run  # noqa: E402


class Scratch(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)

    def same_as_written(self, attention, written, steps=(0, 20, 40)):
        self.assertEqual(list(attention.probes), ["text_0", "text_1"])
        for name, probe in attention.probes.items():
            self.assertEqual((probe.steps, probe.source), (list(steps), "configuration"))
            self.assertEqual(probe.text, written.texts[name])
            np.testing.assert_array_equal(probe.tokens, written.tokens[name])
            for step in probe.steps:
                weights, statistics = probe.weights(step), probe.statistics(step)
                self.assertEqual((weights.dtype, statistics.dtype), (np.float16, np.float32))
                np.testing.assert_array_equal(weights, written.maps[name][step])
                np.testing.assert_array_equal(statistics, written.statistics[name][step])


class Changing(Scratch):
    def setUp(self):
        super().setUp()
        self.written = write_run(self.folder / "run", layers=4, heads=3, chosen_layers=[1, 3], chosen_heads=[0, 2])
        self.path = step_file(self.folder / "run", 20)

    def later(self, step, **changes):
        """The file of a later step, of a start with these changes to the run."""
        settings = dict(layers=4, heads=3, chosen_layers=[1, 3], chosen_heads=[0, 2], steps=step, captured=(step,))
        later = write_run(self.folder / "later", **{**settings, **changes})
        shutil.move(step_file(later.path, step), step_file(self.folder / "run", step))
        return later


class AttentionReader(Changing):
    def refused(self, *words):
        for path in (self.path, self.folder / "run"):
            with self.assertRaises(RunError) as caught:
                read_attention(path)
            message = str(caught.exception)
            self.assertTrue(message.startswith(f"{self.path}: "), message)
            self.assertNotIn("\n", message)
            for word in words:
                self.assertIn(word, message)

    def test_reads_back(self):
        for path in ("run", "run/attention"):
            attention = read_attention(self.folder / path)
            self.assertEqual((attention.layers, attention.heads), ([1, 3], [0, 2]))
            self.assertEqual(attention.statistic_names, list(STATISTICS))
            self.assertEqual(attention.config_text, (self.folder / "run/config.yaml").read_text())
            self.assertEqual((attention.run_id, attention.left_out), ("0123456789abcdef", []))
            self.same_as_written(attention, self.written)
        self.same_as_written(read_attention(self.path), self.written, [20])

    def test_file_under_another_name(self):
        shutil.move(self.path, self.folder / "attention-text.h5")
        self.same_as_written(read_attention(self.folder / "attention-text.h5"), self.written, [20])
        self.assertEqual(read_attention(self.folder / "run").probe().steps, [0, 40])

    def test_what_is_no_step_file_is_left_alone(self):
        for name in (".step-00000060.h5.17.tmp", "step-00000020.h5.aside-1", "step-60.h5", "step-.h5", "notes.txt"):
            (self.folder / "run/attention" / name).write_text("x")
        self.same_as_written(read_attention(self.folder / "run"), self.written)

    def test_token_text(self):
        texts = read_attention(self.path).probe("text_1").token_text
        self.assertEqual(texts[:6], ["N", "a", "\\xC3", "\\xAF", "v", "e"])
        self.assertEqual(texts[6], " ")
        self.assertEqual("".join(read_attention(self.path).probe().token_text), TEXTS[0])

    def test_three_lines_of_h5py(self):
        with h5py.File(self.path) as file:
            step = file["attention/text_0/weights"]
            self.assertEqual(step.chunks, (1, 1, 24, 24))
            self.assertEqual((step.compression, step.shuffle, step.fletcher32), ("gzip", True, True))

    def test_axis_of(self):
        file = read_attention(self.path)
        self.assertEqual(file.axis_of(3, 2), (1, 1))
        with self.assertRaisesRegex(RunError, "no layer 2, head 0; it holds layers 1, 3 and heads 0, 2"):
            file.axis_of(2, 0)

    def test_unknown_probe_and_step(self):
        file = read_attention(self.path)
        with self.assertRaisesRegex(RunError, "no probe window_0; it holds text_0, text_1"):
            file.probe("window_0")
        with self.assertRaisesRegex(RunError, "no step 7 of probe text_0; captured steps: 20$"):
            file.probe().weights(7)
        with self.assertRaisesRegex(RunError, "no step 7 of probe text_0; captured steps: 0, 20, 40$"):
            read_attention(self.folder / "run").probe().weights(7)

    def test_no_probe_at_all(self):
        with h5py.File(self.path, "r+") as file:
            del file["attention/text_0"], file["attention/text_1"]
        file = read_attention(self.path)
        for name in (None, "text_0"):
            with self.assertRaisesRegex(RunError, "holds no probe; expected one at least; set attention.texts"):
                file.probe(name)

    def test_what_is_not_causal(self):
        with h5py.File(self.path, "r+") as file:
            file["attention/text_1/weights"][1, 0, 3, 4] = 0.5
        probe = read_attention(self.folder / "run").probe("text_1")
        with self.assertRaisesRegex(RunError, "00020.h5: attention/text_1/weights has weights above the diagonal.*expected"):
            probe.weights(20)
        self.assertEqual(probe.weights(40).shape, (2, 2, 16, 16))
        with h5py.File(self.path, "r+") as file:
            file["attention/text_1"].attrs["causal"] = np.uint8(0)
        self.refused("text_1: maps that are not causal")

    def test_probes_in_order_of_their_numbers(self):
        write_run(self.folder / "many", texts=[f"text {i}" for i in range(12)], captured=(0,))
        probes = read_attention(self.folder / "many").probes
        self.assertEqual(list(probes), [f"text_{i}" for i in range(12)])

    def test_a_run_goes_on_beside_its_reader(self):
        """A new file joins: what was read before stays as it is, who reads now sees it."""
        before = read_attention(self.folder / "run")
        self.later(80)
        self.assertEqual(before.probe().steps, [0, 20, 40])
        np.testing.assert_array_equal(before.probe().weights(40), self.written.maps["text_0"][40])
        self.assertEqual(read_attention(self.folder / "run").probe().steps, [0, 20, 40, 80])

    def test_a_restart_removes_files_beside_its_reader(self):
        attention = read_attention(self.folder / "run")
        step_file(self.folder / "run", 40).unlink()
        with self.assertRaisesRegex(RunError, "step-00000040.h5: no such file"):
            attention.probe().weights(40)
        link = step_file(self.folder / "run", 60)  # listed, and gone when it is opened
        link.symlink_to("gone")
        self.assertEqual(read_attention(self.folder / "run").probe().steps, [0, 20])
        link.unlink()
        write_run(self.folder / "run", texts=("another", "text"))
        with self.assertRaisesRegex(RunError, "weights is another one than a moment ago"):
            attention.probe().weights(20)

    def test_many_files_hold_none_open(self):
        write_run(self.folder / "many", steps=40, captured=range(40), texts=("ab",), layers=1, heads=1)
        before = len(os.listdir("/proc/self/fd"))
        attention = read_attention(self.folder / "many")
        maps = [attention.probe().weights(step) for step in attention.probe().steps]
        self.assertEqual((len(maps), len(os.listdir("/proc/self/fd"))), (40, before))

    def test_locks_keep_no_reader_out(self):
        """The lock of a writer elsewhere, as HDF5 sets it, and the same file open in this process with locking."""
        with self.path.open("rb") as writer:
            fcntl.flock(writer, fcntl.LOCK_EX)
            self.assertEqual(read_attention(self.path).layers, [1, 3])
        with h5py.File(self.path, "r"):
            self.assertEqual(read_attention(self.path).layers, [1, 3])

    def test_missing(self):
        self.path.unlink()
        shutil.rmtree(self.folder / "run/attention")
        for path in (self.path, self.folder / "run"):
            with self.assertRaisesRegex(RunError, f"^{path}: .*attention.texts.*dekoder attention RUN"):
                read_attention(path)

    def test_truncated(self):
        whole = self.path.read_bytes()
        for part in (0, 7, 100, len(whole) // 2, len(whole) - 1):
            self.path.write_bytes(whole[:part])
            self.refused("cannot be opened", "expected the attention file", "delete it")

    def test_damaged_map(self):
        with h5py.File(self.path) as file:
            dataset = file["attention/text_0/weights"]
            where = dataset.id.get_chunk_info(1)
        with self.path.open("r+b") as raw:
            raw.seek(where.byte_offset + where.size // 2)
            byte = raw.read(1)
            raw.seek(-1, os.SEEK_CUR)
            raw.write(bytes([byte[0] ^ 0x40]))
        probe = read_attention(self.folder / "run").probe()
        with self.assertRaisesRegex(RunError, "00020.h5: attention/text_0/weights cannot be read .*; it is damaged"):
            probe.weights(20)
        np.testing.assert_array_equal(probe.weights(40), self.written.maps["text_0"][40])

    def test_foreign(self):
        self.path.write_text("step,loss\n1,2\n" * 100)
        self.refused("cannot be opened", "of another program")
        with h5py.File(self.path, "w") as file:
            file["attention"] = [1, 2, 3]
        self.refused("attribute format is ''", "'dekoder-attention'")

    def test_later_version(self):
        with h5py.File(self.path, "r+") as file:
            file.attrs["major"] = np.int32(3)
        self.refused("version 3.0, expected 1.x or 2.x")

    def test_reasons_keep_their_quotes(self):
        with h5py.File(self.path, "r+") as file:
            file.attrs["major"] = "one"
        self.refused("is not whole (invalid literal for int() with base 10: 'one')")

    def test_parts_missing(self):
        for part in ("layers", "attention/text_0/tokens", "attention/text_1/statistics"):
            write_run(self.folder / "run")
            with h5py.File(self.path, "r+") as file:
                del file[part]
            self.refused("is not whole (Unable to ")

    def test_shapes_that_do_not_fit(self):
        with h5py.File(self.path, "r+") as file:
            del file["heads"]
            file["heads"] = np.array([0], np.int32)
        self.refused("attention/text_0/weights: shape (2, 2, 24, 24), expected (2, 1, 24, 24)")



class ChangedRun(Changing):
    """Files of one run that differ in what they hold."""

    def test_other_texts_are_other_probes(self):
        later = self.later(60, texts=("another text", TEXTS[0]))
        attention = read_attention(self.folder / "run")
        self.assertEqual({name: (probe.text, probe.steps) for name, probe in attention.probes.items()},
                         {"text_0": ("another text", [60]), "text_1": (TEXTS[0], [0, 20, 40, 60]),
                          "text_1-until-40": (TEXTS[1], [0, 20, 40])})
        self.assertEqual((attention.probe().name, attention.left_out), ("text_0", []))
        for name, of, step in (("text_0", (later, "text_0"), 60), ("text_1", (later, "text_1"), 60),
                               ("text_1", (self.written, "text_0"), 20), ("text_1-until-40", (self.written, "text_1"), 40)):
            run, written = of
            np.testing.assert_array_equal(attention.probes[name].weights(step), run.maps[written][step])
            np.testing.assert_array_equal(attention.probes[name].statistics(step), run.statistics[written][step])

    def test_the_same_text_twice_stays_two_probes(self):
        write_run(self.folder / "twins", texts=("ab", "ab"))
        attention = read_attention(self.folder / "twins")
        self.assertEqual({name: probe.steps for name, probe in attention.probes.items()},
                         {"text_0": [0, 20, 40], "text_1": [0, 20, 40]})

    def test_other_layers_or_heads_are_left_out_and_named(self):
        for changes in ({"chosen_layers": [1]}, {"chosen_heads": [0, 1]}):
            later = self.later(60, **changes)
            attention = read_attention(self.folder / "run")
            self.assertEqual(attention.probe().steps, [60])
            np.testing.assert_array_equal(attention.probe().weights(60), later.maps["text_0"][60])
            self.assertEqual(attention.left_out,
                             [f"{step_file(self.folder / 'run', step)}: of another run, other layers, heads or statistics "
                              "than step-00000060.h5; left out" for step in (0, 20, 40)])

    def test_maps_of_another_run_are_left_out(self):
        with h5py.File(self.path, "r+") as file:
            file.attrs["run_id"] = "fedcba9876543210"
        attention = read_attention(self.folder / "run")
        self.assertEqual(attention.probe().steps, [0, 40])
        self.assertEqual([line.split(": ")[0] for line in attention.left_out], [str(self.path)])
        said = f"{self.path}: of another run, other layers, heads or statistics than step-00000040.h5; left out"
        self.assertIn(f"<li>{said}.</li>", report.build_page([read_run(self.folder / "run")]))
        with contextlib.redirect_stderr(io.StringIO()) as err, contextlib.redirect_stdout(io.StringIO()):
            self.assertEqual(figures.main([str(self.folder / "run"), "--format", "png"]), 0)
        self.assertEqual(err.getvalue(), f"dekoder-figures: {said}\n")


class SingleFile(Scratch):
    """attention.h5 of format 1."""

    def setUp(self):
        super().setUp()
        self.written = write_run(self.folder / "run", layers=4, heads=3, chosen_layers=[1, 3], chosen_heads=[0, 2],
                                 single_file=True)
        self.path = self.folder / "run/attention.h5"

    def test_reads_back(self):
        for path in (self.path, self.folder / "run"):
            attention = read_attention(path)
            self.assertEqual((attention.layers, attention.heads), ([1, 3], [0, 2]))
            self.assertEqual(attention.statistic_names, list(STATISTICS))
            self.assertEqual(attention.config_text, (self.folder / "run/config.yaml").read_text())
            self.same_as_written(attention, self.written)

    def test_a_run_that_a_later_program_went_on_with(self):
        later = write_run(self.folder / "later", layers=4, heads=3, chosen_layers=[1, 3], chosen_heads=[0, 2], seed=2,
                          captured=(40, 60))
        shutil.move(later.path / "attention", self.folder / "run/attention")
        attention = read_attention(self.folder / "run")
        self.assertEqual(attention.probe().steps, [0, 20, 40, 60])
        np.testing.assert_array_equal(attention.probe().weights(20), self.written.maps["text_0"][20])
        np.testing.assert_array_equal(attention.probe().weights(40), later.maps["text_0"][40])

    def test_damaged(self):
        whole = self.path.read_bytes()
        for part in (0, 7, len(whole) // 2, len(whole) - 1):
            self.path.write_bytes(whole[:part])
            with self.assertRaisesRegex(RunError, f"^{self.path}: cannot be opened .*delete it"):
                read_attention(self.folder / "run")

    def test_commands_take_it(self):
        shown = report.build_page([read_run(self.folder / "run")])
        self.assertEqual(shown.count('class="map-data"'), 6)
        with contextlib.redirect_stdout(io.StringIO()) as said:
            self.assertEqual(figures.main([str(self.folder / "run"), "--format", "png"]), 0)
        self.assertIn("initial-and-trained-heads.png", said.getvalue())


if __name__ == "__main__":
    unittest.main()
