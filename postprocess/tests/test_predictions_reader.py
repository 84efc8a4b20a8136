# SPDX-License-Identifier: Apache-2.0
"""Prediction files: what is read back, and that each kind of damage is one message that names the file."""
import os
import sys
import tempfile
import unittest
from pathlib import Path

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess.errors import RunError  # noqa: E402
from dekoder_postprocess.predictions_reader import COLUMNS, prediction_files, read_predictions, read_run_predictions  # noqa: E402
from synthetic_run import HELD_OUT, predictions_file, write_predictions  # noqa: E402


class Scratch(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.run_ = Path(scratch.name)
        self.columns = write_predictions(self.run_, 20, windows=3, context=40)
        self.file = predictions_file(self.run_, 20)

    def refused(self, *fragments, read=read_predictions, path=None):
        with self.assertRaises(RunError) as caught:
            read(path or self.file)
        said = str(caught.exception)
        for fragment in (str(path or self.file), *fragments):
            self.assertIn(fragment, said)


class Reading(Scratch):
    def test_everything_is_there(self):
        table = read_predictions(self.file)
        for name in COLUMNS:
            np.testing.assert_array_equal(table.columns[name], self.columns[name])
            self.assertEqual(table.columns[name].dtype, COLUMNS[name])
        held_out = len(HELD_OUT.encode())
        self.assertEqual([(w.first, w.begin, w.end) for w in table.windows],
                         [(i * held_out // 3, 40 * i, 40 * i + 40) for i in range(3)])
        self.assertEqual((table.step, table.top, table.vocabulary, table.context, table.validation_tokens, table.tokenizer),
                         (20, 5, 256, 40, held_out, "byte"))
        self.assertEqual([table.token_text[i] for i in (0, 10, 97, 195)], ["\\x00", "\n", "a", "\\xC3"])
        self.assertEqual(table.mean_surprise(), self.columns["surprise"].astype(float).mean())
        self.assertEqual(table.share_within(5), np.mean([truth in best for truth, best in
                                                         zip(self.columns["truth"], self.columns["top_tokens"])]))

    def test_files_of_a_run_come_by_step(self):
        write_predictions(self.run_, 100)
        write_predictions(self.run_, 3)
        for name in (".dekoder-1.tmp", "step-5.h5", "step-00000005.h5.aside-1", "notes"):
            (self.run_ / "predictions" / name).write_text("no file of a step")
        self.assertEqual(prediction_files(self.run_), [predictions_file(self.run_, step) for step in (3, 20, 100)])
        self.assertEqual([table.step for table in read_run_predictions(self.run_)], [3, 20, 100])
        self.assertEqual(read_run_predictions(self.run_ / "predictions"), [])

    def test_texts_are_told_apart(self):
        other = self.run_ / "other"
        other.mkdir()
        keys = [read_predictions(self.file).text_key()]
        for options in ({}, {"context": 8}, {"text": HELD_OUT[1:]}):
            write_predictions(other, 1, **options)
            keys.append(read_predictions(predictions_file(other, 1)).text_key())
        self.assertEqual([key == keys[0] for key in keys], [True, True, True, False])


class Damage(Scratch):
    def edit(self, change):
        with h5py.File(self.file, "r+") as file:
            change(file)

    def put(self, name, place, value):
        self.edit(lambda file: file[name].__setitem__(place, value))

    def test_no_such_file(self):
        self.refused("no such file", path=self.run_ / "nowhere.h5")

    def test_no_file(self):
        self.file.unlink()
        os.mkfifo(self.file)
        self.refused("expected a file")

    def test_no_hdf5(self):
        whole = self.file.read_bytes()
        for content in (b"", b"text\n" * 99, whole[:len(whole) // 2], whole[:-1]):
            self.file.write_bytes(content)
            self.refused("is not whole", "dekoder predictions RUN --step N")

    def test_any_byte(self):
        """A changed byte is an error, or in nothing that is read."""
        whole = self.file.read_bytes()
        damaged = 0
        for at in range(0, len(whole), len(whole) // 97):
            self.file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1:])
            try:
                table = read_predictions(self.file)
            except RunError as error:
                self.assertIn(str(self.file), str(error))
                damaged += 1
                continue
            for name in COLUMNS:
                np.testing.assert_array_equal(table.columns[name], self.columns[name])
        self.assertGreater(damaged, 20)

    def test_another_format(self):
        self.edit(lambda file: file.attrs.modify("format", np.bytes_(b"dekoder-attention")))
        self.refused("holds no predictions", "'dekoder-attention'")

    def test_a_newer_format(self):
        self.edit(lambda file: file.attrs.modify("major", np.int32(2)))
        self.refused("predictions of format 2, this program reads format 1")

    def test_another_step_than_the_name_says(self):
        self.file.rename(predictions_file(self.run_, 21))
        self.file = predictions_file(self.run_, 21)
        with self.assertRaisesRegex(RunError, "step-00000021.h5: holds step 20, not that of its name"):
            read_run_predictions(self.run_)

    def test_what_is_missing(self):
        for name in (*COLUMNS, "token_text"):
            with self.subTest(name):
                write_predictions(self.run_, 20)
                self.edit(lambda file: file.__delitem__(name))
                self.refused("is not whole", name)
        write_predictions(self.run_, 20)
        self.edit(lambda file: file.attrs.__delitem__("validation_hash"))
        self.refused("is not whole", "validation_hash")

    def test_contradictions(self):
        rank = int(self.columns["rank"][3])
        for name, place, value, said in (
                ("truth", 3, 256, "truth: "), ("input", 3, -1, "input: -1"), ("rank", 3, 0 if rank else 1, "rank: is 0 where"),
                ("guess", 3, (int(self.columns["guess"][3]) + 1) % 256, "guess"), ("surprise", 3, np.nan, "surprise: has NaN"),
                ("surprise", 3, -1, "no logarithms"), ("top_log_probabilities", (3, 4), 0, "no logarithms"),
                ("window", 3, 1, "window: not 0, 1, 2"), ("window", 0, 2, "window: not 0"), ("position", 3, 99, "not in the order"),
                ("position", slice(None), np.arange(120) + 2000, "outside of the 621 held-out tokens"),
                ("top_tokens", (3, 1), 300, "top_tokens: ")):
            with self.subTest(name=name, value=value):
                write_predictions(self.run_, 20, windows=3, context=40)
                self.put(name, place, value)
                self.refused("is not whole", said)

    def test_another_shape(self):
        def shorten(file):
            values = file["top_tokens"][:, :4]
            del file["top_tokens"]
            file["top_tokens"] = values

        self.edit(shorten)
        self.refused("top_tokens: int32 (120, 4), expected int32 (120, 5)")


if __name__ == "__main__":
    unittest.main()
