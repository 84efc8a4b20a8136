# SPDX-License-Identifier: Apache-2.0
"""GPT-2's own tokens: input/gpt2-124m.yaml trains on those of Jane Austen's novels, and their ids are those of OpenAI's tiktoken.
The merges come from PyPI, the novels from Debian: exit code 77, skipped, where these are out of reach."""

import array
import hashlib
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

ROOT = Path(os.environ["DEKODER_SOURCE_DIR"])
DATA = Path(os.environ["DEKODER_BINARY_DIR"]) / "data"  # kept from one run of the tests to the next
MERGES, NOVELS = DATA / "gpt2/vocab.bpe", DATA / "austen.txt"
OUT_OF_REACH, SKIPPED = 69, 77  # exit codes of the scripts of jobs/setup, and of this one
# What tests/tokenizer/gpt2_digests.py prints.
NOVELS_TOKENS, NOVELS_SHA256 = 993329, "6e7a3fa4ae25929da0c9e2988ef85dbdeffd8271ca7e6de06465034f9f490f68"
FIXTURES_TOKENS, FIXTURES_SHA256 = 21555, "5d74441be02c289e866eb6150f7f3620178a33fc168d844f2b74eb67e6f3d11f"
END_OF_TEXT = 50256


def run(*words, code=0, **options):
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=600, **options)
    if done.returncode != code:
        raise AssertionError(f"{words}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout if code == 0 else done.stderr


def get(script, output):
    done = subprocess.run([sys.executable, str(ROOT / "jobs/setup" / script), str(output)], capture_output=True, text=True)
    if done.returncode == OUT_OF_REACH:
        print(f"skipped: {done.stderr.strip()}")
        sys.exit(SKIPPED)
    if done.returncode != 0:
        sys.exit(f"FAILED: {done.stderr}")


class Gpt2Tokens(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="dekoder-gpt2-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.prepare(NOVELS, "data/austen-gpt2.h5")

    @classmethod
    def prepare(cls, text, output, tokenizer=MERGES, *words):
        (cls.folder / output).parent.mkdir(exist_ok=True)
        return run(dk.PROGRAM, "prepare", text, "-o", output, "--tokenizer", tokenizer, *words, cwd=cls.folder)

    def tokens(self, name):
        with h5py.File(self.folder / name) as file:
            return array.array("I", file["tokens"][:].tolist())

    def check_ids(self, name, count, digest):
        ids = self.tokens(name)
        self.assertEqual(len(ids), count)
        self.assertEqual(hashlib.sha256(ids).hexdigest(), digest)

    def test_ids_are_those_of_tiktoken(self):
        self.check_ids("data/austen-gpt2.h5", NOVELS_TOKENS, NOVELS_SHA256)
        texts = json.loads((ROOT / "tests/tokenizer/fixtures/texts.json").read_text(encoding="utf-8"))
        (self.folder / "texts.jsonl").write_text("".join(json.dumps({"text": entry["text"]}) + "\n" for entry in texts))
        self.prepare("texts.jsonl", "fixtures.h5", MERGES, "--validation-fraction", "0")
        self.check_ids("fixtures.h5", FIXTURES_TOKENS, FIXTURES_SHA256)
        (self.folder / "hello.txt").write_text("Hello, world!")
        self.prepare("hello.txt", "hello.h5")
        self.assertEqual(list(self.tokens("hello.h5")), [15496, 11, 995, 0, END_OF_TEXT])

    def test_the_list_of_merges_alone_gives_the_ids(self):
        (self.folder / "alone").mkdir()
        shutil.copy(MERGES, self.folder / "alone/vocab.bpe")
        said = self.prepare(NOVELS, "alone.h5", "alone/vocab.bpe")
        self.assertIn("vocabulary 50257", said)
        self.check_ids("alone.h5", NOVELS_TOKENS, NOVELS_SHA256)

    def test_training(self):
        """20 steps of the configuration as it stands, with two of its layers: a minute or two."""
        settings = ("model.layers=2", "model.context=128", "training.batch=2", "training.steps=20", "training.warmup_steps=4",
                    "evaluation.tokens=4096", "sampling.tokens=80")
        run(dk.PROGRAM, "train", ROOT / "input/gpt2-124m.yaml", "--run", "run", *(w for s in settings for w in ("--set", s)),
            cwd=self.folder)
        rows = [json.loads(line) for line in (self.folder / "run/metrics.jsonl").read_text().splitlines()]
        losses = [row["loss"] for row in rows if "loss" in row]
        before, after = (row for row in rows if "validation_loss" in row)
        self.assertEqual(len(losses), 20)
        # GPT-2's initial values are near a uniform guess, ln 50257 = 10.82; the frequencies of the tokens alone give 6.5.
        for loss in (losses[0], before["validation_loss"]):
            self.assertLess(abs(loss - 10.82), 0.5)
        for loss in (losses[-1], after["validation_loss"]):
            self.assertLess(loss, 8)
        self.assertLess(after["bits_per_byte"], 3)  # order 0 of the bytes: 4.46
        said = run(dk.PROGRAM, "eval", "run", cwd=self.folder)
        self.assertIn(f"{after['bits_per_byte']:.4f} bits per byte", said)

        known = set(re.findall(r"[a-z]+", NOVELS.read_text(encoding="utf-8").lower()))
        sample = json.loads((self.folder / "run/samples.jsonl").read_text().splitlines()[-1])["text"]
        drawn = run(dk.PROGRAM, "generate", "run", "--prompt", "It is a truth", "--tokens", "80", cwd=self.folder)
        for text in (sample, drawn):
            self.assertTrue(text.startswith("It is a truth"), text)
            words = re.findall(r"[a-z]+", text.removeprefix("It is a truth").lower())
            self.assertGreater(len(words), 20, text)
            # Of the words in tokens that are drawn without training a quarter is in these novels.
            self.assertGreater(sum(word in known for word in words) / len(words), 0.7, text)


if __name__ == "__main__":
    get("gpt2_merges.py", MERGES.parent)
    get("austen_corpus.py", NOVELS)
    unittest.main()
