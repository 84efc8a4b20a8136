# SPDX-License-Identifier: Apache-2.0
"""Bits per byte are comparable between tokenizers: nats per token * tokens / bytes / ln 2 of the same held-out text, whose bytes
are counted here from the token file itself. Nats per token are not."""

import json
import math
import os
import random
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

SENTENCEPIECE = Path(os.environ["DEKODER_SOURCE_DIR"]) / "tests/tokenizer/sentencepiece/bpe.model"
TOKENIZERS = {"byte": ["byte"], "char": ["char"], "bpe": ["bpe", "--vocabulary", "400"], "sentencepiece": [SENTENCEPIECE]}
CONFIG = """\
model: {layers: 1, heads: 2, channels: 32, feed_forward: 128, context: 64}
training: {steps: 200, batch: 8, learning_rate: 5.0e-3, schedule: constant}
evaluation: {every: 1000, tokens: 0}
sampling: {tokens: 5, prompt: b}
checkpoint: {every: 0}
"""


def make_documents(count):
    """Texts of words of syllables, the n-th word with a frequency of 1 / (n + 20): more of them than are learnt here, so
    that all tokenizers are left with the syllables. Some are of several bytes a character."""
    draw = random.Random(1)
    syllables = [a + b + c for a in ("b", "st", "l", "m", "tr", "é") for b in ("a", "e", "i", "ou", "ö") for c in ("", "n", "r", "日")]
    words = ["".join(draw.choices(syllables, k=draw.randint(1, 3))) for _ in range(3000)]
    weights = [1 / (n + 20) for n in range(len(words))]
    return [" ".join(draw.choices(words, weights, k=160)) + ".\n" for _ in range(count)]


def pieces_of(model):
    """The bytes of each token of a model of SentencePiece: field 1 of the message is a piece, {1: text, 3: type}."""
    def fields(data):
        at = 0

        def varint():
            nonlocal at
            value = shift = 0
            while True:
                value |= (data[at] & 127) << shift
                shift, at = shift + 7, at + 1
                if data[at - 1] < 128:
                    return value

        while at < len(data):
            tag = varint()
            if tag & 7 == 0:
                yield tag >> 3, varint()
                continue
            length = varint() if tag & 7 == 2 else {1: 8, 5: 4}[tag & 7]
            yield tag >> 3, data[at:at + length]
            at += length

    for number, piece in fields(model):
        if number == 1:
            message = dict(fields(piece))
            text, kind = message[1].decode(), message.get(3, 1)
            yield bytes.fromhex(text[3:5]) if kind == 6 else b"" if kind == 3 else text.replace("▁", " ").encode()


def texts_of_tokens(file, name):
    """The bytes that each token of a token file stands for."""
    if name == "byte":
        return [bytes([i]) for i in range(256)]
    description = file["tokenizer"][:].tobytes() if "tokenizer" in file else bytes(file.attrs["tokenizer"])
    if name == "sentencepiece":
        return list(pieces_of(SENTENCEPIECE.read_bytes()))
    if name == "char":
        return [chr(int(word[2:], 16)).encode() for word in description.decode().split()[1:]]
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    byte_of = {chr(b): b for b in kept} | {chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in kept)}
    document = json.loads(description)
    special = {token["id"] for token in document["added_tokens"]}
    return [b"" if token in special else bytes(byte_of[c] for c in text)
            for text, token in sorted(document["model"]["vocab"].items(), key=lambda entry: entry[1])]


class BitsPerByte(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="dekoder-bits-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.documents = make_documents(80)
        (cls.folder / "text.txt").write_text("".join(cls.documents), encoding="utf-8")
        (cls.folder / "lines.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in cls.documents))
        (cls.folder / "config.yaml").write_text(CONFIG)

    def run_program(self, *words):
        done = subprocess.run([dk.PROGRAM, *map(str, words)], cwd=self.folder, capture_output=True, text=True, timeout=300)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def train(self, name, *settings):
        """The first and the last validation of a run."""
        words = [word for setting in (f"data.tokens={name}.h5", *settings) for word in ("--set", setting)]
        run = f"run-{name}{len(settings)}"
        self.run_program("train", "config.yaml", "--run", run, *words)
        rows = [json.loads(line) for line in (self.folder / run / "metrics.jsonl").read_text().splitlines()]
        first, last = (row for row in rows if "validation_loss" in row)
        said = re.search(r"([\d.]+) nats per token, ([\d.]+) bits per byte", self.run_program("eval", run))
        self.assertAlmostEqual(float(said[1]), last["validation_loss"], delta=6e-5)
        self.assertAlmostEqual(float(said[2]), last["bits_per_byte"], delta=6e-5)
        return first, last

    def held_out(self, name):
        """Tokens, and the bytes of each, of the held-out part."""
        with h5py.File(self.folder / f"{name}.h5") as file:
            begin, tokens = int(file.attrs["training_tokens"]), file["tokens"][:].tolist()
            texts = texts_of_tokens(file, name.split("-")[0])
            self.assertEqual(int(file.attrs["validation_bytes"]), sum(len(texts[token]) for token in tokens[begin:]))
        return len(texts), [texts[token] for token in tokens[:begin]], [texts[token] for token in tokens[begin:]]

    def check_identity(self, row, texts):
        self.assertEqual(row["tokens"], len(texts))
        bits = row["validation_loss"] * len(texts) / len(b"".join(texts)) / math.log(2)
        self.assertAlmostEqual(row["bits_per_byte"], bits, delta=1e-9 * bits)

    def test_a_text(self):
        whole = "".join(self.documents).encode()
        nats, bits = {}, {}
        for name, words in TOKENIZERS.items():
            with self.subTest(name):
                self.run_program("prepare", "text.txt", "-o", f"{name}.h5", "--tokenizer", *words)
                vocabulary, trained_on, held_out = self.held_out(name)
                # Two put something of their own: SentencePiece a space in front, byte pairs an end without bytes.
                self.assertEqual(b"".join(trained_on + held_out).removeprefix(b" "), whole)
                self.assertLess(abs(len(b"".join(held_out)) / len(whole) - 0.1), 0.01)  # nearly the same bytes for all
                first, last = self.train(name)
                for row in (first, last):
                    self.check_identity(row, held_out)
                # Initial values of 0.02 and 32 channels are nearly a uniform guess among the tokens.
                self.assertAlmostEqual(first["validation_loss"], math.log(vocabulary), delta=0.1)
                nats[name], bits[name] = last["validation_loss"], last["bits_per_byte"]
                some, _ = self.train(name, "evaluation.tokens=700", "training.steps=2")
                self.check_identity(some, held_out[:700])
        self.assertEqual(nats.keys(), TOKENIZERS.keys())
        self.assertLess(max(bits.values()) / min(bits.values()), 1.5, bits)
        self.assertGreater(max(nats.values()) / min(nats.values()), 2.2, nats)

    def test_documents(self):
        """Whole documents are held out; their ends are predicted and have no bytes."""
        self.run_program("prepare", "lines.jsonl", "-o", "bpe-lines.h5", "--tokenizer", *TOKENIZERS["bpe"])
        _, _, held_out = self.held_out("bpe-lines")
        self.assertEqual(held_out.count(b""), 8)
        documents = b"".join(held_out).decode()
        self.assertEqual(sum(text in documents for text in self.documents), 8)
        first, _ = self.train("bpe-lines", "training.steps=2")
        self.check_identity(first, held_out)

    def test_a_model_that_loses_text(self):
        """The bytes are those of the text, not of what the tokens decode to; the file's own model comes out of it."""
        model = SENTENCEPIECE.with_name("unigram.model")
        texts = ["x 日本 " + text + "\r\n\r\n" for text in self.documents]
        (self.folder / "lossy.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        said = self.run_program("prepare", "lossy.jsonl", "-o", "lossy.h5", "--tokenizer", model)
        with h5py.File(self.folder / "lossy.h5") as file:
            unknown, begin, tokens = int(file.attrs["unknown_tokens"]), int(file.attrs["training_tokens"]), int(file.attrs["tokens"])
            held_out, of_tokens = int(file.attrs["validation_bytes"]), int(file.attrs["validation_token_bytes"])
            self.assertEqual(unknown, int((file["tokens"][:] == 0).sum()))
        self.assertGreaterEqual(unknown, len(texts))
        self.assertIn(f"{unknown} tokens stand for what the model does not know, which is lost", said)
        self.assertEqual(sum(len(text.encode()) for text in texts), int(re.search(r"(\d+) bytes,", said)[1]))
        self.assertNotEqual(of_tokens, held_out)
        first, _ = self.train("lossy", "training.steps=2")
        bits = first["validation_loss"] * (tokens - begin) / held_out / math.log(2)
        self.assertAlmostEqual(first["bits_per_byte"], bits, delta=1e-9 * bits)
        self.run_program("tokens", "lossy.h5", "-o", "again.model")
        self.assertEqual((self.folder / "again.model").read_bytes(), model.read_bytes())
        before = (self.folder / "lossy.h5").read_bytes()
        refused = subprocess.run([dk.PROGRAM, "tokens", "lossy.h5", "-o", "lossy.h5"], cwd=self.folder, capture_output=True, text=True)
        self.assertEqual(refused.returncode, 3, refused.stderr)
        self.assertIn("it is left alone: name another file with -o", refused.stderr)
        self.assertEqual((self.folder / "lossy.h5").read_bytes(), before)
        self.run_program("tokens", "lossy.h5", "-o", "again.model")


if __name__ == "__main__":
    unittest.main()
