# SPDX-License-Identifier: Apache-2.0
"""attention.h5 reads back bit for bit, also while the trainer replaces it; what is damaged or foreign is refused."""
import fcntl
import os
import sys
import tempfile
import threading
import unittest
from pathlib import Path

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess.attention_reader import read_attention  # noqa: E402
from dekoder_postprocess.errors import RunError  # noqa: E402
from synthetic_run import STATISTICS, TEXTS, write_run  # noqa: E402


class AttentionReader(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)
        self.written = write_run(self.folder / "run", layers=4, heads=3, chosen_layers=[1, 3], chosen_heads=[0, 2])
        self.path = self.folder / "run/attention.h5"

    def refused(self, *words):
        with self.assertRaises(RunError) as caught:
            read_attention(self.path)
        message = str(caught.exception)
        self.assertTrue(message.startswith(f"{self.path}: "), message)
        self.assertNotIn("\n", message)
        for word in words:
            self.assertIn(word, message)

    def test_reads_back(self):
        with read_attention(self.path) as file:
            self.assertEqual((file.layers, file.heads), ([1, 3], [0, 2]))
            self.assertEqual(file.statistic_names, list(STATISTICS))
            self.assertEqual(list(file.probes), ["text_0", "text_1"])
            self.assertEqual(file.config_text, (self.folder / "run/config.yaml").read_text())
            for name, probe in file.probes.items():
                self.assertEqual((probe.steps, probe.source), ([0, 20, 40], "configuration"))
                self.assertEqual(probe.text, self.written.texts[name])
                np.testing.assert_array_equal(probe.tokens, self.written.tokens[name])
                for step in probe.steps:
                    weights, statistics = probe.weights(step), probe.statistics(step)
                    self.assertEqual((weights.dtype, statistics.dtype), (np.float16, np.float32))
                    np.testing.assert_array_equal(weights, self.written.maps[name][step])
                    np.testing.assert_array_equal(statistics, self.written.statistics[name][step])

    def test_token_text(self):
        texts = read_attention(self.path).probe("text_1").token_text
        self.assertEqual(texts[:6], ["N", "a", "\\xC3", "\\xAF", "v", "e"])
        self.assertEqual(texts[6], " ")
        self.assertEqual("".join(read_attention(self.path).probe().token_text), TEXTS[0])

    def test_three_lines_of_h5py(self):
        with h5py.File(self.path) as file:
            step = file["attention/text_0/step_40"]
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
        with self.assertRaisesRegex(RunError, "no step 7 of probe text_0; captured steps: 0, 20, 40"):
            file.probe().weights(7)

    def test_no_probe_at_all(self):
        with h5py.File(self.path, "r+") as file:
            del file["attention/text_0"], file["attention/text_1"]
        file = read_attention(self.path)
        for name in (None, "text_0"):
            with self.assertRaisesRegex(RunError, "holds no probe; expected one at least; set attention.texts"):
                file.probe(name)

    def test_what_is_not_causal(self):
        with h5py.File(self.path, "r+") as file:
            file["attention/text_1/step_20"][1, 0, 3, 4] = 0.5
        probe = read_attention(self.path).probe("text_1")
        with self.assertRaisesRegex(RunError, "attention/text_1/step_20 has weights above the diagonal.*expected"):
            probe.weights(20)
        self.assertEqual(probe.weights(40).shape, (2, 2, 16, 16))
        with h5py.File(self.path, "r+") as file:
            file["attention/text_1"].attrs["causal"] = np.uint8(0)
        self.refused("text_1: maps that are not causal")

    def test_probes_in_order_of_their_numbers(self):
        write_run(self.folder / "many", texts=[f"text {i}" for i in range(12)], captured=(0,))
        probes = read_attention(self.folder / "many/attention.h5").probes
        self.assertEqual(list(probes), [f"text_{i}" for i in range(12)])

    def test_replaced_while_open(self):
        """The trainer renames a longer file over it: the open one stays as it was, the next one has the new step."""
        opened = read_attention(self.path)
        write_run(self.folder / "later", layers=4, heads=3, chosen_layers=[1, 3], chosen_heads=[0, 2], steps=60,
                  captured=(0, 20, 40, 60))
        os.replace(self.folder / "later/attention.h5", self.path)
        self.assertEqual(opened.probe().steps, [0, 20, 40])
        np.testing.assert_array_equal(opened.probe().weights(20), self.written.maps["text_0"][20])
        self.assertEqual(read_attention(self.path).probe().steps, [0, 20, 40, 60])

    def test_replaced_again_and_again(self):
        """A reader beside a writer that renames whole files over it always finds one of them, whole."""
        files = {}
        for number, captured in enumerate(((0, 20), (0, 20, 40))):
            write_run(self.folder / f"later-{number}", captured=captured)
            files[captured] = (self.folder / f"later-{number}/attention.h5").read_bytes()
        stop = threading.Event()

        def write():
            part = self.path.with_suffix(".part")
            while not stop.is_set():
                for content in files.values():
                    part.write_bytes(content)
                    os.replace(part, self.path)

        os.replace(self.folder / "later-0/attention.h5", self.path)
        writer = threading.Thread(target=write)
        writer.start()
        try:
            seen = set()
            for _ in range(60):
                with read_attention(self.path) as file:
                    probe = file.probe("text_1")
                    seen.add(tuple(probe.steps))
                    self.assertEqual(probe.weights(probe.steps[-1]).shape, (2, 3, 16, 16))
        finally:
            stop.set()
            writer.join()
        self.assertTrue(seen <= set(files), seen)

    def test_locks_keep_no_reader_out(self):
        """The lock of a writer elsewhere, as HDF5 sets it, and the same file open in this process with locking."""
        with self.path.open("rb") as writer:
            fcntl.flock(writer, fcntl.LOCK_EX)
            self.assertEqual(read_attention(self.path).layers, [1, 3])
        with h5py.File(self.path, "r"):
            self.assertEqual(read_attention(self.path).layers, [1, 3])

    def test_missing(self):
        self.path.unlink()
        self.refused("no such file", "attention.texts", "dekoder attention RUN")

    def test_truncated(self):
        whole = self.path.read_bytes()
        for part in (0, 7, 100, len(whole) // 2, len(whole) - 1):
            self.path.write_bytes(whole[:part])
            self.refused("cannot be opened", "expected the attention file", "delete it")

    def test_damaged_map(self):
        with h5py.File(self.path) as file:
            dataset = file["attention/text_0/step_20"]
            where = dataset.id.get_chunk_info(1)
        with self.path.open("r+b") as raw:
            raw.seek(where.byte_offset + where.size // 2)
            byte = raw.read(1)
            raw.seek(-1, os.SEEK_CUR)
            raw.write(bytes([byte[0] ^ 0x40]))
        probe = read_attention(self.path).probe()
        with self.assertRaisesRegex(RunError, "attention/text_0/step_20 cannot be read .*; it is damaged"):
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
            file.attrs["major"] = np.int32(2)
        self.refused("version 2.0, expected 1.x")

    def test_reasons_keep_their_quotes(self):
        with h5py.File(self.path, "r+") as file:
            file.attrs["major"] = "one"
        self.refused("is not whole (invalid literal for int() with base 10: 'one')")

    def test_parts_missing(self):
        for part in ("layers", "statistics", "attention/text_0/tokens", "statistics/text_1/step_20"):
            write_run(self.path.parent)
            with h5py.File(self.path, "r+") as file:
                del file[part]
            self.refused("is not whole (Unable to ")

    def test_shapes_that_do_not_fit(self):
        with h5py.File(self.path, "r+") as file:
            del file["heads"]
            file["heads"] = np.array([0], np.int32)
        self.refused("attention/text_0/step_0: shape (2, 2, 24, 24), expected (2, 1, 24, 24)")


if __name__ == "__main__":
    unittest.main()
