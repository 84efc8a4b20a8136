# SPDX-License-Identifier: Apache-2.0
"""training.precision=bf16, by the real command: near fp32, the same bits through restarts and on any number of ranks and
threads; a change of precision at a restart; products without reference loops, each made once; processors without bf16."""

import collections
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import h5py

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
import dekoder_runs as dk  # noqa: E402

BF16 = ("training.precision=bf16",)
MPI = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_btl": "self,sm", "OMP_PROC_BIND": "false"}


class Bf16(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory()
        cls.folder = Path(cls.scratch.name)
        cls.workshop = dk.Workshop(cls.folder)
        cls.whole = cls.folder / "whole"
        cls.said = cls.workshop.train(cls.whole, sets=BF16)

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    def dekoder(self, *words, code=0, **environment):
        done = subprocess.run([dk.PROGRAM, *words], capture_output=True, text=True, timeout=120, env={**os.environ, **environment})
        self.assertEqual(done.returncode, code, done.stderr)
        return done

    def train(self, run, *sets, ranks=1, **environment):
        words = [dk.PROGRAM, "train", self.workshop.config(200, 40), "--run", self.folder / run, "--backend", "openmp"]
        words += [word for setting in (*BF16, *sets) for word in ("--set", setting)]
        if ranks > 1:
            words = ["mpirun", "--oversubscribe", "-n", str(ranks), *words]
        done = subprocess.run(words, capture_output=True, text=True, timeout=240, env={**os.environ, **MPI, **environment})
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stderr

    def losses(self, run):
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        return {row["step"]: row["validation_loss"] for row in rows if "validation_loss" in row}

    def test_losses_are_near_those_of_float(self):
        single = self.folder / "float"
        self.workshop.train(single)
        ours, theirs = self.losses(self.whole), self.losses(single)
        self.assertEqual(ours.keys(), theirs.keys())
        for step, loss in theirs.items():
            self.assertAlmostEqual(ours[step], loss, delta=0.01, msg=f"step {step}")
        self.assertNotEqual(ours, theirs)
        self.assertRegex(self.said, "(?m)^dekoder: backend: bf16; openmp")

    def test_restarts_ranks_and_threads_change_no_bit(self):
        stopped = self.folder / "stopped"
        self.workshop.train(stopped, sets=BF16, flags=("--until", "70"), expect=85)
        self.workshop.train(stopped, sets=BF16)
        dk.compare_runs(self.whole, stopped)
        for threads in (2, 3):
            self.train(f"threads-{threads}", OMP_NUM_THREADS=str(threads))
            dk.compare_runs(self.whole, self.folder / f"threads-{threads}")
        self.train("ranks-2", ranks=2, OMP_NUM_THREADS="1")
        dk.compare_runs(self.whole, self.folder / "ranks-2")

    def test_a_restart_may_change_the_precision(self):
        run = self.folder / "changed"
        self.workshop.train(run, flags=("--until", "80"), expect=85)
        said = self.workshop.train(run, sets=BF16)
        self.assertIn("training.precision", said)
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        self.assertTrue(any("training.precision" in json.dumps(row) for row in rows if row.get("resumed")), rows[-1])
        for step, loss in self.losses(self.whole).items():
            self.assertAlmostEqual(self.losses(run)[step], loss, delta=0.02)

    def test_other_commands_take_the_precision_of_the_run(self):
        last = dk.checkpoints(self.whole)[200]
        logged = self.losses(self.whole)[200]
        for place in (self.whole, last):
            done = self.dekoder("eval", place)
            self.assertIn("precision: bf16", done.stderr)
            self.assertIn(f"{logged:.4f}", done.stdout)
        self.assertNotIn("precision: bf16", self.dekoder("eval", self.whole, "--precision", "float").stderr)
        self.assertIn("--precision", self.dekoder("eval", self.whole, "--precision", "half", code=2).stderr)
        first = self.dekoder("generate", self.whole, "--tokens", "20", "--temperature", "0").stdout
        self.assertEqual(first, self.dekoder("generate", self.whole, "--tokens", "20", "--temperature", "0").stdout)
        self.assertGreaterEqual(len(first), 20)
        self.dekoder("attention", self.whole, "--text", "alpha beta", "-o", self.folder / "maps.h5")
        self.dekoder("predictions", self.whole, "-o", self.folder / "table.h5")

    def test_a_black_box_is_replayed_in_its_precision(self):
        run = self.folder / "diverged"
        said = self.workshop.train(run, sets=BF16, fault="train:gradients@3!SPOIL", expect=4)
        box = next((run / "black_box").iterdir())
        here = self.dekoder("replay", box)  # what failed then is well here
        self.assertIn("bf16", here.stderr)
        self.assertNotIn("(here: ", here.stdout)
        self.assertIn("(here: dekoder, OpenMP bf16, products by ", self.dekoder("replay", box, ONEDNN_MAX_CPU_ISA="SSE41").stdout)
        moved = self.folder / "moved.h5"
        moved.write_bytes(box.read_bytes())
        self.assertIn("add --precision bf16", self.dekoder("replay", moved, code=2).stderr)
        self.dekoder("replay", moved, "--precision", "bf16")
        self.assertIn("not finite", said)

    def test_products_have_no_reference_loops_and_are_made_once(self):
        said = {}
        for steps in (3, 6):
            done = self.dekoder("bench", self.workshop.config(200, 40), "--set", *BF16, "--set", "model.vocabulary=100", "--steps",
                                str(steps), ONEDNN_VERBOSE="profile_create,profile_exec", OMP_PROC_BIND="false")
            lines = [line.split(",") for line in done.stdout.splitlines() if line.startswith("onednn_verbose,")]
            said[steps] = collections.Counter("create" if "create" in line[2] + line[3] else "exec" for line in lines
                                              if "matmul" in line)
            kernels = {field for line in lines for field in line if "ref" in field and ":" in field}
            self.assertEqual(kernels, set())
        self.assertGreater(said[6]["exec"], said[3]["exec"])
        self.assertEqual(said[6]["create"], said[3]["create"], said)
        self.assertGreater(said[3]["create"], 5)

    def test_activations_computed_once_more(self):
        """training.recompute: with each residual stream, and from a restart on."""
        stored = ("training.residual=stored",)
        self.workshop.train(self.folder / "stored", sets=(*BF16, *stored))
        for whole, sets in ((self.whole, ()), (self.folder / "stored", stored)):
            again = self.folder / f"{whole.name}-again"
            self.train(again, *sets, "training.recompute=block")
            dk.compare_runs(whole, again, same_settings=False)
        turned = self.folder / "turned"
        self.workshop.train(turned, sets=BF16, flags=("--until", "70"), expect=85)
        self.assertIn("training.recompute", self.workshop.train(turned, sets=(*BF16, "training.recompute=block")))
        dk.compare_runs(self.whole, turned, same_settings=False)

    def test_processors_without_bf16(self):
        expected = self.losses(self.whole)
        for isa in ("AVX512_CORE", "AVX2"):
            with self.subTest(isa):
                said = self.train(f"isa-{isa}", ONEDNN_MAX_CPU_ISA=isa, OMP_NUM_THREADS="1")
                self.assertRegex(said, r"training\.precision bf16: this processor has no faster products of bf16 than of fp32.*float is faster")
                for step, loss in self.losses(self.folder / f"isa-{isa}").items():
                    self.assertAlmostEqual(loss, expected[step], delta=0.01)

    def test_a_residual_stream_in_bf16(self):
        whole, stopped = self.folder / "residual", self.folder / "residual-stopped"
        sets = (*BF16, "training.residual=stored")
        self.workshop.train(whole, sets=sets)
        self.assertNotEqual(self.losses(whole), self.losses(self.whole))
        for step, loss in self.losses(whole).items():
            self.assertAlmostEqual(loss, self.losses(self.whole)[step], delta=0.01, msg=f"step {step}")
        self.workshop.train(stopped, sets=sets, flags=("--until", "70"), expect=85)
        self.workshop.train(stopped, sets=sets)
        dk.compare_runs(whole, stopped)
        self.train("residual-ranks", "training.residual=stored", ranks=2, OMP_NUM_THREADS="1")
        dk.compare_runs(whole, self.folder / "residual-ranks")
        self.assertIn(f"{self.losses(whole)[200]:.4f}", self.dekoder("eval", whole).stdout)
        said = self.dekoder("train", self.workshop.config(200, 40), "--run", self.folder / "none", "--set", "training.residual=float",
                            "--set", "model.norm=post", code=2).stderr
        self.assertRegex(said, "training.residual float needs model.norm pre")

    def test_a_norm_after_the_residual_add(self):
        """Products read the residual stream there: stored, also where the run goes on by its own config.yaml."""
        run = self.folder / "post"
        sets = (*BF16, "model.norm=post", "training.steps=20")
        self.workshop.train(run, sets=sets, flags=("--until", "4"), expect=85)
        self.assertIn("  residual: stored\n", (run / "config.yaml").read_text())
        self.assertIn("  residual: float\n", (self.whole / "config.yaml").read_text())
        self.dekoder("train", run / "config.yaml", "--run", run)

    def test_what_becomes_too_large_is_found_where_it_does(self):
        """A learning rate that makes weights of 1e20: products of 1e20 and 1e20 are Inf in bf16 as in fp32."""
        wild = ("training.learning_rate=1e20", "training.final_learning_rate=1e20", "training.clip_norm=0", "training.weight_decay=0")
        for residual in ("stored", "float"):
            with self.subTest(residual):
                sets = (*BF16, *wild, f"training.residual={residual}", "training.warmup_steps=0")
                said = self.workshop.train(self.folder / f"wild-{residual}", sets=sets, expect=4)
                self.assertRegex(said, r"step 2: the loss is nan; first bad tensor: blocks\.00\.attention\.qkv \(linear C -> 3C, "
                                       r"micro-batch 0\), with 0 NaN and \d+ Inf among")
                box = next((self.folder / f"wild-{residual}" / "black_box").iterdir())
                self.assertIn("reproduced: step 2", self.dekoder("replay", box, code=4).stdout)

    def test_commands_compute_in_the_precision_of_the_run(self):
        checkpoint = dk.checkpoints(self.whole)[200]
        words = ("--tokens-file", self.folder / "tokens.h5") if (self.folder / "tokens.h5").exists() else ()
        expected = self.dekoder("eval", checkpoint, *words)
        self.assertIn("precision: bf16", expected.stderr)
        there = subprocess.run([dk.PROGRAM, "eval", checkpoint.name, *words], capture_output=True, text=True, cwd=checkpoint.parent)
        self.assertEqual((there.returncode, there.stdout), (0, expected.stdout), there.stderr)
        alone = self.folder / "alone.h5"
        shutil.copy(checkpoint, alone)
        self.assertIn("computes in float; the run was trained in bf16, which --precision bf16 takes", self.dekoder("eval", alone, *words).stderr)
        self.assertNotIn("computes in", self.dekoder("eval", alone, *words, "--precision", "bf16").stderr)
        for precision in ("float", "bf16"):
            maps = self.folder / f"maps-{precision}.h5"
            self.dekoder("attention", self.whole, "--text", "alpha beta", "--precision", precision, "-o", maps)
            with h5py.File(maps) as file:
                self.assertRegex(file.attrs["writer"].decode(), f"^dekoder, OpenMP {precision}, products by ")

    def test_the_precision_does_not_unpair_runs(self):
        single = self.folder / "to-compare"
        self.workshop.train(single)
        said = self.dekoder("compare", self.whole, single).stdout
        self.assertRegex(said, r"(?m)^ +program +equal")
        self.assertIn("training.precision: bf16 in A, float in B", said)

    def test_copies_of_factors_take_what_describe_says(self):
        """The peak of a run whose products go through copies, beyond that of a tiny one."""
        sets = [f"model.{key}={value}" for key, value in {"layers": 1, "heads": 4, "channels": 256, "feed_forward": 512, "vocabulary": 16000, "context": 64}.items()]
        sets += [*BF16, "training.steps=2", "training.warmup_steps=0", "evaluation.every=0", "sampling.every=0", "training.batch=16", "training.micro_batch=16"]
        peaks, terms = [], []
        for name, these in (("tiny", [*BF16, "training.steps=2", "training.warmup_steps=0"]), ("large", sets)):
            words = [self.workshop.config(200, 40)] + [word for setting in these for word in ("--set", setting)]
            environment = {**os.environ, "ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
            with subprocess.Popen([dk.PROGRAM, "train", *words, "--run", self.folder / f"peak-{name}"], env=environment, stderr=subprocess.DEVNULL) as process:
                _, process.returncode, usage = os.wait4(process.pid, 0)
            self.assertEqual(process.returncode, 0)
            peaks.append(usage.ru_maxrss * 1024)
            text = self.dekoder("describe", *words, ONEDNN_MAX_CPU_ISA="AVX512_CORE").stdout
            terms.append(int(re.search(r"(?m)^  together +(\d+) B", text).group(1)))
        taken, said = peaks[1] - peaks[0], terms[1] - terms[0]
        self.assertLess(taken, 1.1 * said, f"{taken} {said}")

    def test_memory_by_term_has_the_weights(self):
        text = self.dekoder("describe", self.workshop.config(200, 40), "--set", *BF16, "--set", "model.vocabulary=100").stdout
        bytes_of = {name: int(count) for name, count in re.findall(r"(?m)^  (values|weights) +(\d+) B", text)}
        self.assertEqual(bytes_of["values"], 2 * bytes_of["weights"])

    def test_memory_has_the_copies_of_products(self):
        model = {"layers": 1, "heads": 1, "channels": 64, "feed_forward": 256, "context": 32, "vocabulary": 20000}
        sets = [f"model.{key}={value}" for key, value in model.items()] + ["training.batch=8", "training.micro_batch=8", "model.tied_head=true", "model.bias=true"]
        words = [self.workshop.config(200, 40)] + [word for s in (*BF16, *sets) for word in ("--set", s)]
        tokens, vocabulary = 8 * 32, 20032
        expected = 4 * (2 * tokens * vocabulary + vocabulary * 64 + 256)  # logits twice, table, biases
        terms, peak = [], []
        for isa in ("AVX512_CORE", "AVX512_CORE_BF16"):
            text = self.dekoder("describe", *words, ONEDNN_MAX_CPU_ISA=isa).stdout
            terms.append(int((re.search(r"(?m)^  copies of factors of products +(\d+) B", text) or [0, 0])[1]))
            done = self.dekoder("bench", *words, "--steps", "3", "--json", ONEDNN_MAX_CPU_ISA=isa, OMP_NUM_THREADS="1")
            peak.append(json.loads(done.stdout.splitlines()[-1])["peak_memory_bytes"])
        self.assertEqual(terms[0], expected)
        if terms[1] == 0:  # the processor multiplies bf16, too
            self.assertGreater(peak[0] - peak[1], 0.8 * expected, (peak, expected))


if __name__ == "__main__":
    unittest.main()
