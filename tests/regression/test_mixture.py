# SPDX-License-Identifier: Apache-2.0
"""A run on several token files: the bits of one rank on any number of ranks and through restarts, the validation loss of each
source and of all, and what a restart refuses."""
import json
import math
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import h5py
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
import dekoder_runs as dk  # noqa: E402

ROOT = Path(os.environ["DEKODER_SOURCE_DIR"])
ENVIRONMENT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "OMPI_MCA_btl": "self,sm", "OMP_NUM_THREADS": "1",
               "OMP_PROC_BIND": "false"}
CONFIG = """
model: {layers: 2, heads: 2, channels: 16, feed_forward: 32, context: 16, dropout: 0.1}
data: [{tokens: base.h5, weight: 5}, {tokens: words.h5, weight: 2}, {tokens: whole.h5, weight: 1}]
training: {steps: 24, batch: 8, micro_batch: 2, learning_rate: 3.0e-3, warmup_steps: 5}
evaluation: {every: 8, tokens: 700}
sampling: {every: 12, tokens: 8, prompt: "a"}
attention: {every: 24, windows: 4, window_tokens: 12}
checkpoint: {every: 8, keep: 9}
"""
SHARES = [5 / 8, 2 / 8, 1 / 8]


class Mixture(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.scratch.cleanup)
        cls.work = Path(cls.scratch.name)
        (cls.work / "base.txt").write_text("".join(path.read_text() for path in sorted((ROOT / "src/base").iterdir())))
        (cls.work / "words.txt").write_text("alpha beta gamma, naïve café. " * 30)  # more than once through in the run
        (cls.work / "whole.txt").write_text("one two three four five six " * 300)
        for name, fraction in (("base", 0.1), ("words", 0.3), ("whole", 0)):  # the last one has no held-out part
            cls.dekoder(cls, "prepare", f"{name}.txt", "-o", f"{name}.h5", "--tokenizer", "byte", "--validation-fraction", fraction)
        (cls.work / "config.yaml").write_text(CONFIG)
        cls.said = cls.dekoder(cls, "train", "config.yaml", "--run", "one")

    def dekoder(self, *words, ranks=1, code=0):
        launch = ["mpirun", "--oversubscribe", "-n", str(ranks)] if ranks > 1 else []
        done = subprocess.run([*launch, dk.PROGRAM, *map(str, words)], cwd=self.work, env={**os.environ, **ENVIRONMENT},
                              capture_output=True, text=True)
        assert done.returncode == code, f"exit code {done.returncode}, expected {code}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    def evaluations(self, run):
        rows = [json.loads(line) for line in (self.work / run / "metrics.jsonl").read_text().splitlines()]
        return [row for row in rows if "validation_loss" in row]

    def test_ranks_and_restarts_change_no_bit(self):
        self.dekoder("train", "config.yaml", "--run", "many", "--until", 9, ranks=3, code=85)
        self.dekoder("train", "config.yaml", "--run", "many", "--until", 17, ranks=2, code=85)
        said = self.dekoder("train", "config.yaml", "--run", "many")
        self.assertIn("going on from step 17", said)
        for step in (9, 17):
            (self.work / f"many/checkpoints/ckpt-{step:08}.h5").unlink(missing_ok=True)
        dk.compare_runs(self.work / "one", self.work / "many")

    def test_the_log_says_what_the_mixture_is(self):
        with h5py.File(self.work / "words.h5") as tokens:
            windows = (int(tokens.attrs["training_tokens"]) - 1) // 16
        self.assertIn(f"words.h5: 25.00 % of the samples, each of its {windows} windows {24 * 8 / 4 / windows:.3g} times in 24 steps",
                      self.said)
        self.assertIn("whole.h5: has no held-out part, so there are no validation losses of it", self.said)
        self.assertRegex(self.said, r"step 24: words\.h5: validation loss \d\.\d{4} nats per token, \d\.\d{4} bits per byte \(288 tokens\)")
        config = (self.work / "one/config.yaml").read_text()
        self.assertIn('data:\n  tokens: ["base.h5", "words.h5", "whole.h5"]\n  weights: [5, 2, 1]\n', config)

    def test_loss_of_each_source_and_of_all(self):
        row = self.evaluations("one")[-1]
        self.assertEqual([source["tokens"] for source in row["sources"]], ["base.h5", "words.h5"])
        self.assertEqual([source["weight"] for source in row["sources"]], SHARES[:2])
        self.assertEqual([source["validation_tokens"] for source in row["sources"]], [700, 288])
        self.assertEqual(row["tokens"], 988)
        mean = sum(w * s["validation_loss"] for w, s in zip(SHARES, row["sources"])) / sum(SHARES[:2])
        self.assertAlmostEqual(row["validation_loss"], mean, places=12)
        self.assertAlmostEqual(row["bits_per_byte"], mean / math.log(2), places=12)  # a byte a token
        self.assertEqual(dk.status(self.work / "one")["validation_loss"], row["validation_loss"])

        together = self.dekoder("eval", "one")
        self.assertIn(f"validation loss {mean:.4f} nats per token", together)
        for source in row["sources"]:
            figures = f"validation loss {source['validation_loss']:.4f} nats per token, {source['bits_per_byte']:.4f} bits per byte"
            self.assertIn(f"{source['tokens']}: {figures}", together)
            self.assertIn(figures, self.dekoder("eval", "one", "--tokens-file", source["tokens"]))
        self.assertIn("3 token files (base.h5, words.h5, whole.h5); name the one to predict with --tokens-file",
                      self.dekoder("predictions", "one", code=2))
        self.assertIn("288 tokens", self.dekoder("predictions", "one", "--tokens-file", "words.h5", "--windows", 0))

    def test_windows_of_attention_are_of_all_sources_in_turn(self):
        with h5py.File(self.work / "one/attention/step-00000024.h5") as maps:
            probes = maps["attention"]
            for i, (file, first) in enumerate((("base", 0), ("words", 0), ("base", 0.5), ("words", 0.5))):
                with h5py.File(self.work / f"{file}.h5") as tokens:
                    begin, text = int(tokens.attrs["training_tokens"]), tokens["tokens"][:]
                first = int(first * (len(text) - begin - 12))
                probe = probes[f"window_{i}"]
                self.assertEqual(probe.attrs["source"].decode(), f"held-out tokens {first} to {first + 11} of {file}.h5")
                np.testing.assert_array_equal(probe["tokens"][:], text[begin + first:begin + first + 12])

    def test_a_restart_refuses_another_mixture(self):
        def refusal(*sets):
            words = [word for setting in sets for word in ("--set", setting)]
            return self.dekoder("train", "config.yaml", "--run", "one", "--set", "training.steps=30", *words, code=2)

        self.assertIn("data.weights: [5, 2, 1] in the checkpoint, [5, 2, 2] now", refusal("data.weights=[5,2,2]"))
        for files, told in (("words.h5,base.h5,whole.h5", "(they are the same files in another order); give"),
                            ("base.h5,words.h5", "(2 files, expected 3; the last ones are missing); give"),
                            ("base.h5,words.h5,whole.h5,whole.h5", "(4 files, expected 3; whole.h5 is not among them); give"),
                            ("base.h5,base.h5,whole.h5", "(base.h5: sha256/training tokens: got ")):
            self.assertIn("trained on another text, or with another part held out, than " + files.split(",")[0], refusal(f"data.tokens=[{files}]", "data.weights=[]"))
            self.assertIn(told, refusal(f"data.tokens=[{files}]", "data.weights=[]"))
        self.assertIn("warning: base.h5 is a source of the mixture twice (as base.h5): its held-out part counts twice",
                      refusal("data.tokens=[base.h5,base.h5,whole.h5]", "data.weights=[]"))
        self.assertIn("data.weights has 3 numbers and data.tokens names 1 files", refusal("data.tokens=base.h5"))
        self.dekoder("prepare", "words.txt", "-o", "words-char.h5", "--tokenizer", "char")
        self.assertIn("words-char.h5: has another tokenizer (char, vocabulary",
                      self.dekoder("train", "config.yaml", "--run", "no", "--set", "data.tokens=[base.h5,words-char.h5,whole.h5]", code=3))
        self.assertIn("source 2 of 3 has a share of",
                      self.dekoder("train", "config.yaml", "--run", "no", "--set", "data.weights=[5,1.0e-9,1]", code=2))

    def test_the_black_box_names_the_source_of_each_window(self):
        self.dekoder("train", "config.yaml", "--run", "bad", "--set", "training.learning_rate=1.0e30",
                     "--set", "training.clip_norm=0", "--set", "training.warmup_steps=0", code=4)
        file = next((self.work / "bad/black_box").glob("step-*.h5"))
        with h5py.File(file) as box:
            sources, windows = box["batch/sources"][:], box["batch/windows"][:]
            self.assertEqual(sorted(set(sources.tolist())), [0, 1, 2])
            for row, (source, window) in enumerate(zip(sources, windows)):
                with h5py.File(self.work / ["base.h5", "words.h5", "whole.h5"][source]) as tokens:
                    text = tokens["tokens"][int(window) * 16:int(window) * 16 + 17]
                np.testing.assert_array_equal(box["batch/inputs"][row], text[:-1])
                np.testing.assert_array_equal(box["batch/targets"][row], text[1:])


if __name__ == "__main__":
    unittest.main()
