# SPDX-License-Identifier: Apache-2.0
"""A step whose loss or gradients are NaN or Inf: what is kept of it, `dekoder replay`, and training that leaves such steps out, on
one rank and on three."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

import h5py
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import dekoder_runs as dk  # noqa: E402

DIGESTS = pathlib.Path(os.environ["DEKODER_BINARY_DIR"]) / "tests/support/checkpoint_digests"
ENVIRONMENT = {**os.environ, "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_btl": "self,sm",
               "OMPI_MCA_mpi_yield_when_idle": "1", "OMP_NUM_THREADS": "1", "OMP_PROC_BIND": "false"}
CONFIG = """
model: {layers: 3, heads: 2, channels: 64, feed_forward: 128, context: 32, dropout: 0.1}
data: {tokens: tokens.h5}
training: {steps: 30, batch: 12, micro_batch: 4, learning_rate: 1.0e-3, warmup_steps: 2}
evaluation: {every: 0, tokens: 200}
sampling: {every: 0}
checkpoint: {every: 10, keep: 2}
"""
DIVERGES = ["--set", "training.learning_rate=1.0e+30", "--set", "training.warmup_steps=0"]
SKIP = ["--set", "training.on_nonfinite=skip"]


def spoilt(*leaves):
    """Of one rank, whose micro-batches are counted from 1."""
    return {"DEKODER_FAULT": ",".join(f"train:gradients@{leaf}!SPOIL" for leaf in leaves)}


class BlackBox(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(scratch.cleanup)
        cls.work = pathlib.Path(scratch.name)
        dk.Workshop(cls.work)
        (cls.work / "config.yaml").write_text(CONFIG)

    def dekoder(self, *words, code=0, launch=(), **environment):
        said = subprocess.run([*launch, dk.PROGRAM, *map(str, words)], cwd=self.work, env={**ENVIRONMENT, **environment},
                              capture_output=True, text=True, timeout=120)
        self.assertEqual(said.returncode, code, said.stdout + said.stderr)
        return said.stdout + said.stderr

    def train(self, run, *words, ranks=1, **options):
        launch = ["mpirun", "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []
        return self.dekoder("train", "config.yaml", "--run", run, *words, launch=launch, **options)

    def train_with_a_bad_last_rank(self, run, fault, *words, code=0):
        """Three ranks, each of which has one of the three micro-batches of a step."""
        launch = ["mpirun", "--oversubscribe", "-n", "3", "bash", "-c",
                  f'[ "$OMPI_COMM_WORLD_RANK" != 2 ] || export DEKODER_FAULT={fault["DEKODER_FAULT"]}; exec "$@"', "-"]
        return self.dekoder("train", "config.yaml", "--run", run, *words, launch=launch, code=code)

    def box(self, run, step):
        return self.work / run / f"black_box/step-{step:08}.h5"

    def digests(self, run):
        newest = sorted((self.work / run / "checkpoints").glob("ckpt-*.h5"))[-1]
        said = subprocess.run([DIGESTS, newest], capture_output=True, text=True, check=True).stdout
        self.assertIn("parameters/blocks.00", said)
        return said

    def steps(self, run):
        rows = [json.loads(line) for line in (self.work / run / "metrics.jsonl").read_text().splitlines()]
        return [[row[key] for key in ("step", "loss", "gradient_norm", "tokens")] + [row.get("skipped", False)]
                for row in rows if "loss" in row]

    def test_what_is_kept_of_a_step_that_diverges(self):
        said = self.train("diverges", *DIVERGES, code=4)
        file = self.box("diverges", 2)
        bad = "blocks.00.attention.qkv"
        self.assertIn(f"error: step 2: the loss is nan; first bad tensor: {bad} (linear C -> 3C, micro-batch 0)", said)
        self.assertIn(f"dekoder replay diverges/black_box/{file.name}", said)
        with h5py.File(file) as box, h5py.File(self.work / "tokens.h5") as tokens:
            self.assertEqual(box["batch/sample_indices"][:].tolist(), list(range(12, 24)))
            text = tokens["tokens"][:]
            for row, window in enumerate(box["batch/windows"][:].astype(int)):
                np.testing.assert_array_equal(box["batch/inputs"][row], text[window * 32:window * 32 + 32])
                np.testing.assert_array_equal(box["batch/targets"][row], text[window * 32 + 1:window * 32 + 33])
            names = [name.decode() for name in box["tensors/name"][:]]
            self.assertEqual(names[int(np.argmax(box["tensors/first"][:] >= 0))], bad)
            self.assertEqual([json.loads(row)["step"] for row in box["metrics"][:] if b'"loss"' in row], [1])
            self.assertTrue(np.isfinite(box["parameters/blocks.01.attention.qkv.weight"][:]).all())
        self.assertFalse(list((self.work / "diverges/checkpoints").glob("*")))
        self.assertEqual(dk.status(self.work / "diverges")["state"], "failed")

        # From the file alone, elsewhere.
        elsewhere = self.work / "elsewhere"
        elsewhere.mkdir()
        shutil.copy(file, elsewhere / "box.h5")
        said = subprocess.run([dk.PROGRAM, "replay", "box.h5"], cwd=elsewhere, capture_output=True, text=True, env=ENVIRONMENT)
        self.assertEqual(said.returncode, 4, said.stdout + said.stderr)
        self.assertRegex(said.stdout, rf"(?m)^reproduced: step 2: the loss is nan\nfirst bad tensor: {bad} ")
        self.assertEqual(os.listdir(elsewhere), ["box.h5"])

    def test_many_ranks_keep_one_file_and_one_rank_replays_it(self):
        said = self.train("many", *DIVERGES, ranks=3, code=4)
        self.assertEqual(said.count("error:"), 1, said)
        self.assertIn("micro-batch 0 of rank 0", said)
        said = self.dekoder("replay", self.box("many", 2), code=4)
        self.assertIn("3 ranks: step 2: the loss is nan", said)
        self.assertEqual(said.count(" same\n"), 3, said)

    def test_a_fault_of_the_machine_is_not_reproduced(self):
        said = self.train("machine", code=4, **spoilt(40))
        self.assertRegex(said, r"error: step 14: the gradient is not finite \(the first of them is of \S+\); every tensor is finite when the "
                               "step is computed once more")
        self.assertIn("Run dekoder selftest on the nodes of this run", said)
        self.assertNotIn("Lower training.learning_rate", said)
        said = self.dekoder("replay", self.box("machine", 14))
        self.assertIn("not reproduced: here the step is finite", said)
        self.assertEqual(said.count(" same\n"), 3, said)  # the losses, to the last bit
        self.train("machine")
        self.train("undisturbed")
        self.assertEqual(self.digests("machine"), self.digests("undisturbed"))

    def test_steps_are_left_out_on_any_number_of_ranks(self):
        said = self.train("skips", *SKIP, **spoilt(42, 57))
        self.assertRegex(said, r"warning: step 14: the gradient is not finite.*left out, the parameters stay as they were \(1 of at most 10")
        self.assertRegex(said, r"warning: step 19: .*\(2 of at most 10 such steps\)\n")  # and no second file
        self.assertEqual(os.listdir(self.work / "skips/black_box"), [self.box("skips", 14).name])
        rows = self.steps("skips")
        self.assertEqual([row[0] for row in rows], list(range(1, 31)))
        self.assertEqual([row[0] for row in rows if row[4]], [14, 19])
        self.assertTrue(all(row[2] is None for row in rows if row[4]))
        self.train_with_a_bad_last_rank("skips-3", spoilt(14, 19), *SKIP)
        self.assertEqual(self.steps("skips-3"), rows)
        self.assertEqual(self.digests("skips-3"), self.digests("skips"))
        self.train("no-skips", *SKIP)
        self.assertNotEqual(self.digests("no-skips"), self.digests("skips"))

    def test_a_step_that_is_left_out_changes_no_parameter(self):
        self.train("before", "--set", "checkpoint.every=1", *SKIP, "--set", "training.steps=14", **spoilt(42))
        checkpoints = [self.work / f"before/checkpoints/ckpt-{step:08}.h5" for step in (13, 14)]
        with h5py.File(checkpoints[0]) as left, h5py.File(checkpoints[1]) as right:
            for group in ("parameters", "first_moment", "second_moment"):
                for name in left[group]:
                    np.testing.assert_array_equal(left[group][name][:], right[group][name][:])

    def test_so_many_steps_and_no_more_over_restarts(self):
        words = [*SKIP, "--set", "training.skip_at_most=2"]
        self.train("bounded", *words, code=85, DEKODER_FAULT="train:gradients@42!SPOIL,train:step@20!TERM")
        said = self.train("bounded", *words, code=4, **spoilt(3, 9))  # one more is left out, and not a third
        self.assertIn("(2 of at most 2 such steps)", said)
        self.assertIn("2 steps were skipped before, training.skip_at_most of a run over all its restarts", said)
        self.train("bounded", *words)
        self.assertEqual([row[0] for row in self.steps("bounded")], list(range(1, 31)))

    def test_parameters_that_are_spoilt_end_the_run_on_any_number_of_ranks(self):
        """Every step from the second on is left out, until there were too many."""
        for ranks in (1, 3):
            run = f"hopeless-{ranks}"
            said = self.train(run, *DIVERGES, *SKIP, ranks=ranks, code=4)
            self.assertEqual(said.count("error:"), 1, said)
            self.assertIn("10 steps were skipped before, training.skip_at_most of", said)
            self.assertEqual(sorted(os.listdir(self.work / run / "black_box")), [self.box(run, step).name for step in (2, 12)])
            rows = self.steps(run)
            self.assertEqual([row[0] for row in rows if row[4]], list(range(2, 12)))
            self.assertTrue(all(row[1] is None for row in rows if row[4]))
            # Time of steps that were left out is none that counted.
            lines = [json.loads(line) for line in (self.work / run / "restarts.jsonl").read_text().splitlines()]
            phases = [json.loads(line).get("seconds", {}) for line in (self.work / run / "metrics.jsonl").read_text().splitlines()]
            self.assertLess(lines[-1]["step_seconds"], sum(sum(seconds.values()) for seconds in phases))
        self.assertEqual(self.steps("hopeless-1"), rows)

    def test_tensors_come_in_the_order_of_backward(self):
        for norm, parts in (("pre", ("feed_forward", "feed_forward_norm", "attention", "attention_norm")),
                            ("post", ("feed_forward_norm", "feed_forward", "attention_norm", "attention"))):
            run = f"{norm} norm"
            said = self.train(run, *DIVERGES, "--set", f"model.norm={norm}", code=4)
            file = next((self.work / run / "black_box").iterdir())
            self.assertIn(f"dekoder replay '{run}/black_box/{file.name}'", said)
            with h5py.File(file) as box:
                names = [name.decode() for name in box["tensors/name"][:]]
            for block in ("01", "00"):
                prefix = f"gradient of blocks.{block}."
                self.assertEqual(tuple(dict.fromkeys(name[len(prefix):].split(".")[0] for name in names if name.startswith(prefix))), parts)

    def test_activations_that_are_computed_once_more_are_looked_at_too(self):
        boxes = []
        for recompute in ("none", "block"):
            self.train(f"recompute-{recompute}", *DIVERGES, "--set", f"training.recompute={recompute}", code=4)
            with h5py.File(self.box(f"recompute-{recompute}", 2)) as box:
                boxes.append(repr([(name, box["tensors"][name][:].tolist()) for name in box["tensors"]]))
        self.assertIn("nan", boxes[0])
        self.assertEqual(*boxes)

    def test_what_keeps_the_file_from_being_written(self):
        run = self.work / "in-the-way"
        run.mkdir()
        (run / "black_box").write_text("")
        said = self.train("in-the-way", *DIVERGES, code=4)
        self.assertRegex(said, r"warning: the black box of step 2 is not saved: in-the-way/black_box is a file; rename it\n")
        self.assertNotIn("dekoder replay", said)
        self.assertEqual(said.count("error:"), 1, said)

    def test_files_that_are_none(self):
        self.train("bad-files", *DIVERGES, code=4)
        good = self.box("bad-files", 2).read_bytes()
        bad = self.work / "bad.h5"
        checkpoint = self.work / "checkpointed"
        self.train("checkpointed", "--set", "training.steps=1", "--set", "training.warmup_steps=0")
        bad.write_bytes(good[:len(good) // 2])
        self.dekoder("replay", bad, code=3)
        place = good.find(np.arange(12, 24, dtype=np.uint64).tobytes())
        self.assertGreater(place, 0)
        bad.write_bytes(good[:place] + b"\xff" + good[place + 1:])
        self.assertIn("sample_indices", self.dekoder("replay", bad, code=3))
        for path in (checkpoint / "checkpoints/ckpt-00000001.h5", self.work / "tokens.h5", self.work / "config.yaml", self.work,
                     self.work / "missing.h5"):
            said = self.dekoder("replay", path, code=3)
            self.assertEqual(said.count("error:"), 1, said)
            self.assertIn(path.name, said)
        shutil.copy(self.box("bad-files", 2), bad)
        with h5py.File(bad, "r+") as box:
            box["batch/inputs"][0, 0] = 100000
        self.assertIn("holds token 100000", self.dekoder("replay", bad, code=3))
        with h5py.File(bad, "r+") as box:
            del box["losses"]
            box["losses"] = np.zeros(7)
        self.assertIn("7 losses", self.dekoder("replay", bad, code=3))


if __name__ == "__main__":
    unittest.main()
