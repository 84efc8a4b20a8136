# SPDX-License-Identifier: Apache-2.0
"""What commands and the files of a run show of tokens that are pieces of characters, marks, or have no form of their own."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import h5py

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
import dekoder_runs as dk  # noqa: E402

MODELS = Path(__file__).resolve().parents[1] / "tokenizer/sentencepiece"
MERGES = ["Ġ t", "r u", "æ Ĺ", "â Ģ"]  # " t", "ru", two bytes of 日, two of a joiner and of a line separator
DOCUMENT = "a true\n日本 e\u0301 \u200d\u00a0<|endoftext|>"
MARK = "<|endoftext|>"


class Shown(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="dekoder-shown-"))
        self.addCleanup(shutil.rmtree, self.folder)
        (self.folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n", encoding="utf-8")
        lines = [json.dumps({"text": DOCUMENT + " the bridge held" * (i % 5)}) + "\n" for i in range(60)]
        (self.folder / "d.jsonl").write_text("".join(lines))

    def run_program(self, *words):
        done = subprocess.run([dk.PROGRAM, *map(str, words)], cwd=self.folder, capture_output=True, timeout=120,
                              env={**os.environ, "OMP_NUM_THREADS": "1"})
        self.assertEqual(done.returncode, 0, done.stderr.decode(errors="replace"))
        return done.stdout.decode()  # which is UTF-8, whatever the model says

    def trained(self, tokenizer, prompt):
        self.run_program("prepare", "d.jsonl", "-o", "o.h5", "--tokenizer", tokenizer)
        config = {"data": {"tokens": "o.h5"}, "training": {"batch": 2, "steps": 2, "warmup_steps": 0}, "evaluation": {"tokens": 64},
                  "model": {"layers": 1, "heads": 2, "channels": 16, "feed_forward": 16, "context": 32},
                  "sampling": {"prompt": prompt, "every": 1, "tokens": 9},
                  "attention": {"texts": [prompt], "windows": 1, "window_tokens": 32}}
        (self.folder / "c.yaml").write_text(json.dumps(config))
        self.run_program("train", "c.yaml", "--run", "run")
        return self.folder / "run"

    def listed(self, count):
        return [line.strip().split("  ", 1) for line in self.run_program("tokens", "o.h5", "--show", count).splitlines()[-count:]]

    def texts_of_window(self, run):
        with h5py.File(run / "attention/step-00000002.h5") as file:
            return [text.decode() for text in file["attention/window_0/token_text"][:]]

    def check_samples(self, run, prompt):
        samples = [json.loads(line) for line in (run / "samples.jsonl").read_text(encoding="utf-8").splitlines()]
        self.assertEqual([(row["step"], row["prompt"], row["text"][:len(prompt)]) for row in samples], [(1, prompt, prompt), (2, prompt, prompt)])
        said = self.run_program("generate", "run", "--prompt", prompt, "--tokens", 12)
        self.assertTrue(said.startswith(prompt) and len(said) > len(prompt) + 1, said)

    def test_byte_pairs(self):
        prompt = "a tru" + MARK  # it ends within a word, with a mark, which in prompts is its token
        run = self.trained("merges.txt", prompt)
        self.check_samples(run, prompt)
        shown = [text for _, text in self.listed(24)]
        self.assertEqual(shown[:5], ["'a'", "' t'", "'ru'", "'e'", "'\\x0A'"])
        self.assertEqual(shown[5:9], ["'\\xE6\\x97'", "'\\xA5'", "'\\xE6'", "'\\x9C'"])
        self.assertIn("'\\xCC'", shown)  # the first byte of an accent
        self.assertIn("'\\xE2\\x80'", shown)
        with h5py.File(run / "attention/step-00000002.h5") as file:
            texts = [text.decode() for text in file["attention/text_0/token_text"][:]]
        self.assertEqual(texts, ["a", " t", "ru", MARK])
        self.assertIn(MARK, self.texts_of_window(run) + [text.strip("'") for _, text in self.listed(200)])  # ends a document

    def test_sentencepiece(self):
        prompt = "The bri"
        run = self.trained(MODELS / "unigram.model", prompt)
        self.check_samples(run, prompt)  # without the space that its encoding begins with
        self.assertIn("'</s>'", [text for _, text in self.listed(200)])
        self.assertIn("</s>", self.texts_of_window(run))
        with h5py.File(run / "attention/step-00000002.h5") as file:
            self.assertNotIn("</s>", file["attention/window_0"].attrs["text"].decode())
        self.run_program("predictions", "run", "--windows", 4)
        with h5py.File(run / "predictions/step-00000002.h5") as file:
            self.assertEqual([text.decode() for text in file["token_text"][:3]], [" \u2047 ", "<s>", "</s>"])
            self.assertEqual(file["token_text"].compression, "gzip")

    def test_characters_without_a_form(self):
        self.run_program("prepare", "d.jsonl", "-o", "o.h5", "--tokenizer", "char")
        shown = [text for _, text in self.listed(20)]
        for text in ("'日'", "'e'", "'\u0301' (U+0301)", "'\u200d' (U+200D)", "'\u00a0' (U+00A0)", "' '", "'\\x0A'"):
            self.assertIn(text, shown)


if __name__ == "__main__":
    unittest.main()
