# SPDX-License-Identifier: Apache-2.0
"""The exchange of gradients and parameters on ranks of a simulated cluster (SimGrid's SMPI): the bits of one rank, the bytes
that bytes_of_step tells, and times next to the model's and a ring's."""
import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(os.environ.get("DEKODER_SOURCE_DIR", Path(__file__).resolve().parents[2]))
PROGRAMS = Path(os.environ.get("DEKODER_BINARY_DIR", ROOT / "build/tests")) / "tests/scaling"
SMALL = "model: {layers: 3, heads: 2, channels: 48, feed_forward: 96, context: 16, vocabulary: 100}\n"


def simulate(program, *words):
    """The values of the line that it prints, and its exit code."""
    done = subprocess.run([PROGRAMS / program, *map(str, words)], capture_output=True, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_PROC_BIND": "false"})
    return {key: float(value) for key, value in re.findall(r"(\w+)=([0-9.]+)", done.stdout)}, done


class SimulatedRanks(unittest.TestCase):
    def bits(self, ranks, leaves, *words):
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder) / "small.yaml"
            config.write_text(SMALL)
            values, done = simulate("scaling_bits", "--config", config, "--ranks", ranks, "--leaves", leaves, *words)
        said = f"{ranks} ranks, {leaves} micro-batches: {done.stdout}{done.stderr}"
        self.assertEqual(done.returncode, 0, said)
        self.assertEqual(values["different"], 0, said)
        self.assertEqual(values["carried"], values["expected"], said)
        self.assertEqual(values["counted"], values["expected"], said)
        return values

    def test_bits_and_bytes(self):
        """Small units and buckets, so that every rank has pieces of several; as many ranks as micro-batches, fewer, numbers that
        are no powers of two and do not divide."""
        for ranks, leaves in ((2, 2), (8, 16), (13, 29), (32, 32), (48, 100), (64, 64)):
            values = self.bits(ranks, leaves, "--unit", 64, "--bucket", 65536)
            self.assertGreater(values["buckets"], 3)
            if leaves == ranks and ranks & (ranks - 1) == 0:
                self.assertEqual(values["expected"], 2 * (ranks - 1) * 4 * values["elements"])

    def test_more_ranks_than_pieces(self):
        """With the units of a run, small buckets have no piece for most ranks."""
        self.bits(32, 40, "--bucket", 65536)

    def test_times(self):
        """124 million parameters on one leaf switch: the ports are busy most of the time, as the model has it, and a ring's are
        no less so."""
        model = ("--config", ROOT / "input/gpt2-124m.yaml", "--ranks", 4)
        ours, done = simulate("scaling_times", "exchange", *model)
        self.assertEqual(done.returncode, 0, done.stderr)
        for half in ("gradients", "values"):
            self.assertAlmostEqual(ours["model_" + half], 0.75 * 4 * ours["elements"] / 50e9, delta=0.01 * ours["model_" + half])
            self.assertGreater(ours[half], ours["model_" + half])
            self.assertLess(ours[half], 1.1 * ours["model_" + half])
        ring, done = simulate("scaling_times", "allreduce", *model, "--cfg=smpi/allreduce:lr")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertAlmostEqual(ring["allreduce"], 1.5 * 4 * ours["elements"] / 50e9, delta=0.05 * ring["allreduce"])

    def test_times_of_many_messages(self):
        """Where messages are small a rank is busy with starting them."""
        ours, done = simulate("scaling_times", "exchange", "--config", ROOT / "input/char-10m.yaml", "--set", "model.vocabulary=96",
                              "--ranks", 4, "--bucket", 32768, "--unit", 64)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertGreater(ours["model_values"], 2 * 0.75 * 4 * ours["elements"] / 50e9)
        self.assertAlmostEqual(ours["values"], ours["model_values"], delta=0.02 * ours["values"])


if __name__ == "__main__":
    unittest.main()
