# SPDX-License-Identifier: Apache-2.0
"""`dekoder plan` against what a run takes: its figures, and what it refuses before a job waits in a queue."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(os.environ["DEKODER_SOURCE_DIR"])
sys.path.insert(0, str(ROOT / "tests" / "support"))
from dekoder_runs import PROGRAM, Workshop

UNITS = {"B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}


class Plan(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory()
        cls.workshop = Workshop(cls.scratch.name)
        cls.folder = cls.workshop.folder
        cls.config = cls.workshop.config(12, 3)

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    def plan(self, *words, code=0):
        result = subprocess.run([PROGRAM, "plan", self.config, *map(str, words)], capture_output=True, text=True, cwd=self.folder)
        self.assertEqual(result.returncode, code, result.stdout + result.stderr)
        return result.stdout if code == 0 else result.stderr

    def bytes_of(self, name, text):
        number, unit = re.search(rf"(?m)^\s*{name} .*?([\d.]+) ([KMG]?i?B)\b(?! +\d)", text).groups()
        return float(number) * UNITS[unit]

    def test_shares(self):
        batch = ("--set", "training.batch=16")
        self.assertRegex(self.plan(*batch, "--ranks", 4), r"micro-batches of a step +8: 2 on each rank\n")
        self.assertRegex(self.plan(*batch, "--ranks", 3), r"8: 3 on 2 of 3 ranks, 2 on the others, which are idle meanwhile: 11\.1 % of")
        said = self.plan(*batch, "--ranks", 9, code=2)
        self.assertIn("9 ranks for 8 micro-batches", said)
        self.assertIn("start at most 8 ranks", said)

    def test_disk(self):
        """The bytes that are planned are those that the files have, or a little more."""
        wide = "model.channels=256"
        planned = self.bytes_of("checkpoints", self.plan("--set", wide))  # five files: four saves and one in the making
        run = self.folder / "run"
        self.workshop.train(run, 12, 3, sets=[wide])
        files = list((run / "checkpoints").iterdir())
        size = max(file.stat().st_size for file in files)
        self.assertTrue(4.99 * size <= planned <= 5.3 * size, f"{planned} planned, files of {size}")
        self.assertIn("and ", re.search(r"free for the run.*", self.plan("--run", run)).group())
        # Twelve steps have four checkpoints, however many are kept.
        self.assertEqual(self.bytes_of("checkpoints", self.plan("--set", wide, "--set", "checkpoint.keep=100")), planned)
        maps = 'attention.texts=["alpha beta"]'
        self.assertGreater(self.bytes_of("attention maps", self.plan("--set", maps, "--set", "attention.every=2")), 0)

    def test_a_disk_that_is_too_small(self):
        place = self.folder / "small"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", place], check=True)
        try:
            said = self.plan("--run", place / "deep/run", code=2)
            self.assertRegex(said, rf"{place}: 256\.0 KiB are free, .* are needed: free some space, lower checkpoint.keep")
            self.assertEqual(list(place.iterdir()), [])
            said = self.plan("--run", self.config, code=2)
            self.assertIn("is a file, expected a folder for the run", said)
        finally:
            subprocess.run(["umount", place], check=True)

    def test_memory(self):
        together = self.bytes_of("together", self.plan())
        self.plan("--memory", together / 2**30 * 1.01)
        said = self.plan("--memory", together / 2**30 * 0.99, code=2)
        self.assertIn("(--memory)", said)
        self.assertIn("--memory is -1", self.plan("--memory", -1, code=2))
        self.assertIn("--ranks is 1000000000; expected from 1 to 65536", self.plan("--ranks", 10**9, code=2))

    def test_a_run_is_not_touched(self):
        self.plan("--run", self.folder / "never")
        self.assertFalse((self.folder / "never").exists())


if __name__ == "__main__":
    unittest.main(verbosity=2)
