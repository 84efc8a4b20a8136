# SPDX-License-Identifier: Apache-2.0
"""`dekoder prepare` of corpora: the same documents as files, folders, JSON lines, packed and through standard input are the same
tokens; documents are split, not cut; what is damaged is named; a kill leaves nothing. `dekoder tokens` shows what came of it."""

import base64
import contextlib
import gzip
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import h5py
import numpy

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
import dekoder_runs as dk  # noqa: E402

MERGES = ["t h", "Ġ th", "Ġth e", "i n", "Ġ a", "Ġa n", "Ġan d", "e r", "h e", "r e", "Ġ w", "Ċ Ċ", "æ Ĺ", "æĹ ¥"]
WORDS = ["the", "and", "water", "within", "日本", "where", "naïve", "an", "Käse", "12345", "😀", "there's"]


def documents(count, seed=1):
    draw = random.Random(seed)
    return ["".join(draw.choice(" \n") + draw.choice(WORDS) for _ in range(draw.randint(1, 60))) for _ in range(count)]


class Prepare(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="dekoder-prepare-"))
        self.addCleanup(shutil.rmtree, self.folder)
        (self.folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(MERGES) + "\n", encoding="utf-8")

    def run_program(self, *words, code=0, threads=2, **options):
        done = subprocess.run([dk.PROGRAM, *map(str, words)], cwd=self.folder, capture_output=True, timeout=120,
                              env={**os.environ, "OMP_NUM_THREADS": str(threads)}, **options)
        self.assertEqual(done.returncode, code, done.stderr.decode(errors="replace"))
        return done.stdout.decode() if code == 0 else done.stderr.decode()

    def prepare(self, *texts, tokenizer="merges.txt", output="o.h5", **options):
        words = [word for pair in options.pop("flags", {}).items() for word in pair]
        return self.run_program("prepare", *texts, "-o", output, "--tokenizer", tokenizer, *words, **options)

    def read(self, output="o.h5"):
        """Everything but the names of the sources."""
        with h5py.File(self.folder / output) as file:
            attributes = {name: value for name, value in file.attrs.items() if name != "source"}
            return {**{name: str(value) for name, value in attributes.items()},
                    **{name: file[name][:].tolist() for name in file}}

    def write_kinds(self, texts):
        """The documents in every way that prepare takes; each a list of its words."""
        lines = "".join(json.dumps({"id": i, "text": text}, ensure_ascii=i % 2 == 0) + "\n" for i, text in enumerate(texts))
        files = self.folder / "files"
        (files / "sub").mkdir(parents=True)
        (files / ".hidden.txt").write_text("not this one")
        (files / "a.md").write_text("nor this one")
        for i, text in enumerate(texts):
            data = text.encode()
            name = f"{'sub/' if i >= len(texts) // 2 else ''}{i:04}.txt"
            if i % 3 == 1:
                (files / (name + ".gz")).write_bytes(gzip.compress(data))
            elif i % 3 == 2:
                subprocess.run(["zstd", "-q", "-o", files / (name + ".zst")], input=data, check=True)
            else:
                (files / name).write_bytes(data)
        (self.folder / "d.jsonl").write_text(lines, encoding="utf-8")
        # Two members one behind the other, as gzip -c a; gzip -c b >> makes them.
        (self.folder / "d.jsonl.gz").write_bytes(gzip.compress(lines.encode()[:1000]) + gzip.compress(lines.encode()[1000:]))
        subprocess.run(["zstd", "-q", "d.jsonl", "-o", "d.jsonl.zst"], cwd=self.folder, check=True)
        half = lines.splitlines(keepends=True)
        (self.folder / "first.jsonl").write_text("".join(half[:7]).rstrip("\n"), encoding="utf-8")
        (self.folder / "second.jsonl").write_text("\n \n" + "".join(half[7:]).replace("\n", "\r\n"), encoding="utf-8", newline="")
        return lines.encode()

    def test_a_vocabulary_of_ones_own(self):
        text = self.folder / "text.txt"
        text.write_text("\n".join(documents(200)), encoding="utf-8")
        flags = {"--vocabulary": "300"}
        for threads in (1, 3):
            self.prepare(text, tokenizer="bpe", output=f"t{threads}.h5", flags=flags, threads=threads)
        tokens = self.read("t1.h5")
        self.assertEqual(tokens, self.read("t3.h5"))
        self.assertGreater(max(tokens["tokens"]), 290)
        self.assertEqual(tokens["tokens"].count(299), 1)  # the end of the text
        self.assertIn("300 tokens", self.run_program("tokens", "t1.h5", "-o", "own.json").replace("vocabulary 300", "300 tokens"))
        own = json.loads((self.folder / "own.json").read_text(encoding="utf-8"))
        self.assertEqual(own["model"]["vocab"]["<|endoftext|>"], 299)
        self.assertEqual(len(own["model"]["merges"]), 43)
        self.prepare(text, tokenizer="own.json", output="again.h5")
        self.assertEqual(self.read("again.h5"), tokens)
        self.assertIn("has no file of its own, as bpe and sentencepiece have", self.byte_file_has_none(text))
        self.assertIn("pairs for a vocabulary of", self.few_pairs())

    def test_a_model_of_sentencepiece(self):
        models = Path(os.environ["DEKODER_SOURCE_DIR"]) / "tests/tokenizer/sentencepiece"
        (self.folder / "text.txt").write_text("\n".join(documents(50)), encoding="utf-8")
        self.prepare("text.txt", tokenizer=models / "bpe.model")
        self.assertIn("(sentencepiece tokenizer, vocabulary 420)", self.run_program("tokens", "o.h5"))
        damaged = self.folder / "damaged.model"
        damaged.write_bytes((models / "bpe.model").read_bytes()[:1000])
        self.assertIn("damaged.model: ", self.prepare("text.txt", tokenizer=damaged, output="d.h5", code=3))

    def test_sentencepiece_cuts_a_long_text_without_a_blank(self):
        """At 16 MiB, as every tokenizer does, and no sooner; the model adds a space to each of both parts."""
        model = Path(os.environ["DEKODER_SOURCE_DIR"]) / "tests/tokenizer/sentencepiece/bpe.model"
        text = b"Thebridgeheld" * 1_540_000
        tokens = []
        for part in (text, text[: 1 << 24], text[1 << 24:]):
            (self.folder / "text.txt").write_bytes(part)
            self.prepare("text.txt", tokenizer=model, flags={"--validation-fraction": "0"})
            with h5py.File(self.folder / "o.h5") as file:
                self.assertEqual(file.attrs["source_bytes"], len(part))
                tokens.append(file["tokens"][:])
        whole, first, second = tokens
        self.assertTrue(numpy.array_equal(whole, numpy.concatenate([first[:-1], second])))  # without the first one's </s>

    def byte_file_has_none(self, text):
        self.prepare(text, tokenizer="byte", output="byte.h5")
        return self.run_program("tokens", "byte.h5", "-o", "none.json", code=2)

    def few_pairs(self):
        (self.folder / "few.txt").write_text("abab abab cdcd")
        words = ("prepare", "few.txt", "-o", "few.h5", "--tokenizer", "bpe", "--vocabulary", "1000")
        done = subprocess.run([dk.PROGRAM, *words], cwd=self.folder, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stderr

    def test_a_vocabulary_that_cannot_be_made(self):
        (self.folder / "text.txt").write_text("some text\n")
        for words, message in ((("text.txt", "--tokenizer", "bpe"), "--vocabulary is 0; expected 258 to 1000000"),
                               (("text.txt", "--tokenizer", "bpe", "--vocabulary", "257"), "--vocabulary is 257; expected 258"),
                               (("text.txt", "--vocabulary", "300"), "--vocabulary is 300, and --tokenizer byte"),
                               (("-", "--tokenizer", "bpe", "--vocabulary", "300"), "a reading of its own")):
            with self.subTest(words):
                self.assertIn(message, self.run_program("prepare", *words, "-o", "o.h5", code=2, stdin=subprocess.DEVNULL))
                self.assertFalse((self.folder / "o.h5").exists())

    def test_every_kind_gives_the_same_file(self):
        texts = documents(60)
        texts[3] = texts[59] = ""
        lines = self.write_kinds(texts)
        for tokenizer in ("byte", "char", "merges.txt"):
            said = self.prepare("d.jsonl", tokenizer=tokenizer)
            expected = self.read()
            self.assertIn("58 documents, 5 of them held out; empty ones left out: 2", said)
            for words in (["files"], ["d.jsonl.gz"], ["d.jsonl.zst"], ["first.jsonl", "second.jsonl"],
                          ["-", "--field", "text"]):
                if words[0] == "-" and tokenizer == "char":
                    continue
                with self.subTest(tokenizer=tokenizer, words=words):
                    self.assertIn(" is up to date" if words[0] != "-" else "o.h5: ",
                                  self.prepare(*words, tokenizer=tokenizer, input=lines))
                    for threads in (1, 3):
                        self.prepare(*words, tokenizer=tokenizer, output=f"{threads}.h5", threads=threads, input=lines)
                        self.assertEqual(self.read(f"{threads}.h5"), expected)
                        (self.folder / f"{threads}.h5").unlink()
            (self.folder / "o.h5").unlink()

    def test_documents_are_whole_and_end(self):
        texts = documents(200)
        self.write_kinds(texts)
        self.prepare("d.jsonl", flags={"--validation-fraction": "0.05"})
        with h5py.File(self.folder / "o.h5") as file:
            tokens, ends = file["tokens"][:].tolist(), file["document_ends"][:].tolist()
            vocabulary = json.loads(file.attrs["tokenizer"])["model"]["vocab"]
            attributes = dict(file.attrs)
        self.assertEqual((attributes["minor"], attributes["documents"], attributes["validation_documents"]), (1, 200, 10))
        end_of_text = max(vocabulary.values())
        shift = {chr(c): c for c in [*range(33, 127), *range(161, 173), *range(174, 256)]}
        shift.update({chr(256 + i): c for i, c in enumerate(c for c in range(256) if chr(c) not in shift)})
        text_of = {token: bytes(shift[c] for c in text) for text, token in vocabulary.items() if token != end_of_text}
        read, begin = [], 0
        for end in ends:
            self.assertEqual(tokens[end - 1], end_of_text)
            read.append(b"".join(text_of[token] for token in tokens[begin:end - 1]).decode())
            begin = end
        self.assertEqual(sorted(read), sorted(texts))
        held_out, trained_on = read[190:], read[:190]
        self.assertEqual(ends[189], attributes["training_tokens"])
        self.assertEqual(attributes["validation_bytes"], sum(len(text.encode()) for text in held_out))
        self.assertEqual([t for t in texts if t not in held_out], trained_on)  # both in the corpus' order
        self.assertEqual([t for t in texts if t in held_out], held_out)
        places = [texts.index(text) for text in held_out]
        self.assertEqual([place // 20 for place in places], list(range(10)), "one in each group of 20")

    def test_a_single_text(self):
        """Split by place; through a pipe and packed the same tokens; tokenizers of bytes and characters write the older format."""
        text = "".join(documents(3000)).encode()
        self.assertGreater(len(text), 2 << 18)
        (self.folder / "t.txt").write_bytes(text)
        (self.folder / "t.txt.gz").write_bytes(gzip.compress(text))
        for tokenizer, minor in (("byte", "0"), ("char", "0"), ("merges.txt", "1")):
            self.prepare("t.txt", tokenizer=tokenizer)
            expected = self.read()
            self.assertEqual(expected["minor"], minor)
            self.assertEqual("document_ends" in expected, minor == "1")
            self.prepare("t.txt.gz", tokenizer=tokenizer, output="gz.h5")
            self.assertEqual(self.read("gz.h5"), expected)
            if tokenizer != "char":
                self.prepare("-", tokenizer=tokenizer, output="in.h5", input=text)
                self.assertEqual(self.read("in.h5"), expected)
        self.assertIn("save the text as a file", self.prepare("-", tokenizer="char", code=2, input=text))

    def test_tokenizer_files(self):
        """A tokenizer.json, merges with and without ids, ranks: told apart by content, whatever their names say."""
        (self.folder / "t.txt").write_text("".join(documents(50)), encoding="utf-8")
        self.prepare("t.txt")
        expected = self.read()
        (self.folder / "own").mkdir()
        with h5py.File(self.folder / "o.h5") as file:
            (self.folder / "own/any.name").write_bytes(file.attrs["tokenizer"])
        self.prepare("t.txt", tokenizer="own/any.name", output="json.h5")
        self.assertEqual(self.read("json.h5"), expected)
        vocabulary = json.loads((self.folder / "own/any.name").read_text(encoding="utf-8"))["model"]["vocab"]
        names = list(vocabulary)
        moved = {name: len(names) - 1 - token for name, token in vocabulary.items()}
        (self.folder / "encoder.json").write_text(json.dumps(moved), encoding="utf-8")
        self.prepare("t.txt", output="ids.h5")
        self.assertEqual([len(names) - 1 - token for token in self.read("ids.h5")["tokens"]], expected["tokens"])
        ranks = "".join(f"{base64.b64encode(bytes([i])).decode()} {i}\n" for i in range(256)) + "dGg= 256\n"
        (self.folder / "ranks").write_text(ranks)
        for split in ("gpt2", "cl100k", "qwen2"):
            self.prepare("t.txt", tokenizer="ranks", output=f"{split}.h5", flags={"--split": split})
            self.assertIn(256, self.read(f"{split}.h5")["tokens"])
        (self.folder / "tokenizer.model").write_text(ranks)  # as Llama 3's
        self.prepare("t.txt", tokenizer="tokenizer.model", output="model.h5", flags={"--split": "qwen2"})
        self.assertEqual(self.read("model.h5"), self.read("qwen2.h5"))
        self.assertIn("is no rank file", self.prepare("t.txt", code=2, flags={"--split": "gpt2"}))
        self.assertIn("expected gpt2, cl100k or qwen2", self.prepare("t.txt", code=2, flags={"--split": "gpt4"}))
        (self.folder / "foreign").write_bytes(b"\x0a\x05\x00\x01")
        self.assertIn("expected a .model file of SentencePiece", self.prepare("t.txt", tokenizer="foreign", code=3))
        self.assertIn("there is no such file", self.prepare("t.txt", tokenizer="none.json", code=2))

    def test_lists_that_may_be_cut_short_are_counted(self):
        """Of ranks, and of merges without ids, nothing tells whether they are all: the log says how many there are."""
        (self.folder / "t.txt").write_text("some text of a few words")
        ranks = [f"{base64.b64encode(bytes([i])).decode()} {i}\n" for i in range(256)] + ["dGg= 256\n", "aW4= 257\n"]
        for lines in (ranks, ranks[:-1]):
            (self.folder / "ranks.tiktoken").write_text("".join(lines))
            self.assertIn(f"ranks.tiktoken: {len(lines)} ranks", self.said_of("ranks.tiktoken"))
        self.assertIn(f"merges.txt: {len(MERGES)} merges, and no encoder.json or vocab.json", self.said_of("merges.txt"))

    def said_of(self, tokenizer):
        done = subprocess.run([dk.PROGRAM, "prepare", "t.txt", "-o", "o.h5", "--tokenizer", tokenizer], cwd=self.folder,
                              capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        (self.folder / "o.h5").unlink()
        return done.stderr

    def test_what_is_wrong_is_named(self):
        good = '{"text": "some text"}\n' * 3
        for line, fragment in (('{"text": "cut', "bad.jsonl:4: is no JSON, at byte"), ("[1]", "bad.jsonl:4: is of type array"),
                               ('{"body": "x"}', 'bad.jsonl:4: has no field "text"'),
                               ('{"text": null}', 'bad.jsonl:4: its field "text" is of type null'),
                               ('{"text": "x"} {"text": "y"}', "bad.jsonl:4: is no JSON"),
                               ('{"text": "' + "\\ud800" + '"}', "bad.jsonl:4: is no JSON")):
            (self.folder / "bad.jsonl").write_text(good + line + "\n" + good)
            said = self.prepare("bad.jsonl", code=3)
            self.assertIn(fragment, said)
            self.assertIn("expected a JSON object in each line", said)
        (self.folder / "bad.jsonl").write_bytes(good.encode() + b'{"text": "caf\xe9"}\n')
        self.assertIn("bad.jsonl:4: is no JSON", self.prepare("bad.jsonl", code=3))
        self.assertIn('has no field "body"', self.prepare("bad.jsonl", code=3, flags={"--field": "body"}))
        self.assertIn("standard input:2: has no field", self.prepare("-", code=3, flags={"--field": "text"},
                                                                     input=b'{"text": "a"}\n{"b": 1}\n'))
        (self.folder / "t.txt").write_text("some text")
        self.assertIn("no text is JSON lines", self.prepare("t.txt", code=2, flags={"--field": "text"}))
        packed = gzip.compress(random.Random(1).randbytes(300_000))
        damaged = bytearray(packed)
        damaged[-6] ^= 1
        for name, data, fragment in (("a.txt.gz", packed[:-100_000], "ends in the middle of its gzip data"),
                                     ("a.txt.gz", bytes(damaged), "its gzip data is damaged"),
                                     ("a.txt.gz", packed + b"rest", "its gzip data is damaged"),
                                     ("a.txt.gz", b"plain", "is no gzip data, which its name says"),
                                     ("a.txt.zst", b"plain", "is no zstd data, which its name says"),
                                     ("a.txt.zst", subprocess.run(["zstd", "-q", "-c"], input=packed[10:], check=True,
                                                                  capture_output=True).stdout[:-9000],
                                      "ends in the middle of its zstd data")):
            (self.folder / name).write_bytes(data)
            said = self.prepare(name, code=3, tokenizer="byte")
            self.assertIn(f"{name}: {fragment}", said)
        os.mkfifo(self.folder / "pipe.txt")
        self.assertIn("pipe.txt: is a FIFO, no regular file", self.prepare("pipe.txt", code=3))
        self.assertIn("pipe.txt: is a FIFO, no regular file", self.prepare("t.txt", "pipe.txt", code=3))
        (self.folder / "none").mkdir()
        self.assertIn("none: is a folder without texts", self.prepare("none", code=3))
        (self.folder / "empty.jsonl").write_text('{"text": ""}\n\n')
        self.assertIn("empty.jsonl: is empty, expected text", self.prepare("empty.jsonl", code=3))
        self.assertIn("- is there twice", self.prepare("-", "-", code=2))
        self.assertEqual([p.name for p in self.folder.iterdir() if p.suffix == ".h5" or p.name.startswith(".")], [])

    def test_a_byte_of_zero_ends_no_json(self):
        """The parser takes it for the end: the rest of its line, whole documents, would be lost."""
        (self.folder / "z.jsonl").write_bytes(b'{"text":"first"}\0{"text":"second"}\n{"text":"third one"}\n')
        self.assertIn("z.jsonl:1: is no JSON, at byte 17 of the line: a NUL byte", self.prepare("z.jsonl", code=3))
        self.prepare("z.jsonl", "--skip-bad-lines", flags={"--validation-fraction": "0"})
        self.assertEqual(self.read()["source_bytes"], str(len("third one")))

    def test_each_text_once(self):
        (self.folder / "d").mkdir()
        (self.folder / "d/a.txt").write_text("a text, and more of it")
        os.link(self.folder / "d/a.txt", self.folder / "d/b.txt")
        os.symlink("d/a.txt", self.folder / "c.txt")
        for words in (["d"], ["d/a.txt", "c.txt"], ["d/a.txt", "d/a.txt"]):
            self.assertIn(f": is the same file as d/a.txt, which is among the texts already", self.prepare(*words, code=2))
        self.assertFalse((self.folder / "o.h5").exists())

    def test_names_are_printed_as_text(self):
        name = "a\x1b[31m\n.txt"
        (self.folder / name).write_text("a text, and more of it" * 9)
        said = self.prepare(name, output="o\x1b[31m.h5") + self.run_program("tokens", "o\x1b[31m.h5", "--show", 0)
        self.assertNotIn("\x1b", said)
        self.assertIn("a\\x1B[31m\\x0A.txt", said)

    def test_documents_that_nothing_separates(self):
        for name in ("a", "b"):
            (self.folder / f"{name}.txt").write_text(f"a text of {name}, and more of it")
        for tokenizer, told in (("byte", True), ("merges.txt", False)):
            words = [dk.PROGRAM, "prepare", "a.txt", "b.txt", "-o", f"{tokenizer}.h5", "--tokenizer", tokenizer, "--validation-fraction", "0"]
            said = subprocess.run(words, cwd=self.folder, capture_output=True, text=True, check=True).stderr
            self.assertEqual("nothing separates the 2 documents: the tokenizer (byte) has no token" in said, told, said)

    def test_endings_in_capitals(self):
        texts = documents(20)
        (self.folder / "small").mkdir()
        (self.folder / "large").mkdir()
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts[:10]).encode()
        for folder, change in (("small", str), ("large", str.upper)):
            (self.folder / folder / change("a.jsonl")).write_bytes(lines)
            (self.folder / folder / change("b.txt.gz")).write_bytes(gzip.compress(texts[10].encode()))
            (self.folder / folder / change("c.txt")).write_text(texts[11])
            self.prepare(folder, output=f"{folder}.h5")
        self.assertEqual(self.read("large.h5"), self.read("small.h5"))
        self.assertEqual(self.read("large.h5")["documents"], "12")
        (self.folder / "small/d.bin.gz").write_bytes(b"")
        self.assertIn("small/d.bin.gz: is a packed token shard", self.prepare("small", code=3))

    def test_the_output_is_no_source(self):
        """Not even that of the next call, which reads the folder with the output in it."""
        (self.folder / "d/sub").mkdir(parents=True)
        (self.folder / "d/a.txt").write_text("some text")
        (self.folder / "link").symlink_to("d")
        os.link(self.folder / "d/a.txt", self.folder / "hard.h5")
        for output in ("d/x.txt", "d/sub/x.JSONL", "link/x.bin", "d/../d/x.txt.gz"):
            said = self.prepare("d", output=output, code=2)
            self.assertIn(f"--output {output} has the name of a text or token shard, and is in d", said)
            self.assertFalse((self.folder / output).exists())
        self.assertIn("--output hard.h5 is the same file as d/a.txt, which is read", self.prepare("d", output="hard.h5", code=2))
        for output in ("d/x.h5", "d/.x.txt", "d/notes", "x.txt"):
            self.prepare("d", output=output)
            self.assertIn(" is up to date", self.prepare("d", output=output))
        (self.folder / "d/y.txt").write_bytes((self.folder / "d/x.h5").read_bytes())
        self.assertIn("d/y.txt: is no text, but an HDF5 file, as token files are", self.prepare("d", output="z.h5", code=3))

    def test_a_text_that_changes(self):
        """Between the choice of the texts and its turn: nothing is written. (More: tests/unit/test_corpus.cpp.)"""
        (self.folder / "a.txt").write_text("some text")
        with subprocess.Popen([dk.PROGRAM, "prepare", "-", "a.txt", "-o", "o.h5"], cwd=self.folder, stdin=subprocess.PIPE,
                              stderr=subprocess.PIPE) as process:
            deadline = time.monotonic() + 60
            while not list(self.folder.glob(".dekoder-*")) and time.monotonic() < deadline:
                time.sleep(0.01)
            with (self.folder / "a.txt").open("a") as file:
                file.write(" more")
            process.stdin.close()
            self.assertEqual(process.wait(timeout=60), 3)
            self.assertIn(b"a.txt: changed while it was read: it had 9 bytes and has 14; start again when nothing writes to it",
                          process.stderr.read())
        self.assertEqual([p.name for p in self.folder.iterdir() if p.suffix == ".h5" or p.name.startswith(".")], [])

    def test_packed_as_other_programs_pack(self):
        """Zeros behind gzip members, as tapes leave them; zstd with the largest window of --long; pzstd's frame in front."""
        text = "".join(documents(100)).encode()
        (self.folder / "t.txt").write_bytes(text)
        self.prepare("t.txt", tokenizer="byte")
        expected = self.read()
        (self.folder / "pad.txt.gz").write_bytes(gzip.compress(text[:99]) + gzip.compress(text[99:]) + bytes(700_000))
        # From a pipe, zstd does not know the size and asks for all of the window.
        for name, words in (("long.txt.zst", ["--long=31"]), ("usual.txt.zst", [])):
            subprocess.run(["zstd", "-q", *words, "-o", name], cwd=self.folder, input=text, check=True)
        frame = (self.folder / "usual.txt.zst").read_bytes()
        (self.folder / "front.txt.zst").write_bytes(b"\x50\x2a\x4d\x18\4\0\0\0size" + frame)
        for name in ("pad.txt.gz", "long.txt.zst", "front.txt.zst"):
            self.prepare(name, tokenizer="byte", output=f"{name}.h5")
            self.assertEqual(self.read(f"{name}.h5"), expected, name)
        (self.folder / "pad.txt.gz").write_bytes(gzip.compress(text) + bytes(9) + gzip.compress(text))
        self.assertIn("its gzip data is damaged (other bytes behind the zeros at its end)",
                      self.prepare("pad.txt.gz", tokenizer="byte", output="no.h5", code=3))
        # A header that asks for a window of 2^41 bytes.
        (self.folder / "huge.txt.zst").write_bytes(b"\x28\xb5\x2f\xfd\x00\xf8" + frame[6:])
        said = self.prepare("huge.txt.zst", tokenizer="byte", output="no.h5", code=3)
        self.assertIn("huge.txt.zst: its zstd data needs a window of more than 2.00 GiB", said)

    def test_numbers_beside_the_text(self):
        """JSON knows no largest number; what is no JSON is none still."""
        lines = [f'{{"a": {number}, "text": "t{i}, 1e999 \\" 1e999"}}\n'
                 for i, number in enumerate(("1e999", "-" + "9" * 400, "9" * 400 + ".5E+99", "[1e999, true, 0.25e400]", "-1.5e-999"))]
        plain = "".join(re.sub('"a": .*, "text"', '"text"', line) for line in lines)
        for name, text in (("large.jsonl", "".join(lines)), ("plain.jsonl", plain)):
            (self.folder / name).write_text(text)
            self.prepare(name, tokenizer="byte", output=f"{name}.h5")
        self.assertEqual(self.read("large.jsonl.h5"), self.read("plain.jsonl.h5"))
        for number in ("01e999", "1e999e", "1e999.5", "-", "1e999 5", "00" + "9" * 400):
            (self.folder / "bad.jsonl").write_text(f'{{"a": 1e999, "b": {number}, "text": "t"}}\n')
            said = self.prepare("bad.jsonl", tokenizer="byte", output="no.h5", code=3)
            self.assertRegex(said, r"bad.jsonl:1: is no JSON, at byte \d+ of the line(, whose long numbers are cut short)?: syntax error")
            self.assertNotIn("json.exception", said)

    def test_bad_lines_can_be_skipped(self):
        texts = documents(3000, 5)
        good = [json.dumps({"text": text}) + "\n" for text in texts]
        bad = ['{"text": "cut\n', "[1]\n", '{"body": "x"}\n', '{"text": null}\n', "\x00\n"]
        (self.folder / "good.jsonl").write_text("".join(good))
        mixed = good[:]
        for i, line in enumerate(bad):
            mixed.insert(7 + 500 * i, line)
        (self.folder / "mixed.jsonl").write_text("".join(mixed))
        for tokenizer in ("merges.txt", "char"):
            self.prepare("good.jsonl", tokenizer=tokenizer, output="good.h5")
            self.assertIn("mixed.jsonl:8: is no JSON", self.prepare("mixed.jsonl", tokenizer=tokenizer, output="no.h5", code=3))
            for threads in (1, 3):
                for up_to_date in (False, True):
                    words = ["prepare", "mixed.jsonl", "-o", f"{threads}.h5", "--tokenizer", tokenizer, "--skip-bad-lines"]
                    done = subprocess.run([dk.PROGRAM, *words], cwd=self.folder, capture_output=True, text=True,
                                          env={**os.environ, "OMP_NUM_THREADS": str(threads)})
                    self.assertEqual(done.returncode, 0, done.stderr)
                    self.assertEqual("is up to date" in done.stdout, up_to_date)
                    self.assertEqual(done.stderr.count("5 bad JSON lines are left out, as --skip-bad-lines says; the first: mixed.jsonl:8: is no JSON"), 1)
                self.assertEqual(self.read(f"{threads}.h5"), self.read("good.h5"))
                (self.folder / f"{threads}.h5").unlink()
        (self.folder / "bad.jsonl").write_text("".join(bad))
        for tokenizer in ("byte", "char"):
            said = self.run_program("prepare", "bad.jsonl", "-o", "no.h5", "--tokenizer", tokenizer, "--skip-bad-lines", code=3)
            self.assertIn("bad.jsonl: has no text, as all of its 5 JSON lines are bad; the first: bad.jsonl:1: is no JSON", said)
        (self.folder / "t.txt").write_text("some text")
        self.assertIn("--skip-bad-lines is given and no text is JSON lines",
                      self.run_program("prepare", "t.txt", "-o", "no.h5", "--skip-bad-lines", code=2))
        self.assertFalse((self.folder / "no.h5").exists())

    def test_an_error_does_not_wait_for_standard_input(self):
        with subprocess.Popen([dk.PROGRAM, "prepare", "-", "--field", "text", "-o", "o.h5"], cwd=self.folder, stdin=subprocess.PIPE,
                              stderr=subprocess.PIPE) as process:
            with contextlib.suppress(BrokenPipeError):  # it may have ended already
                process.stdin.write(b'{"body": 1}\n' * 100_000)
                process.stdin.flush()
            self.assertEqual(process.wait(timeout=60), 3)
            self.assertIn(b"standard input:1: has no field", process.stderr.read())

    def start_and_kill(self, line):
        """Kills a call while it reads, with held-out documents in their temporary file."""
        process = subprocess.Popen([dk.PROGRAM, "prepare", "-", "--field", "text", "-o", "o.h5", "--tokenizer", "merges.txt"],
                                   cwd=self.folder, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(3000):
            process.stdin.write(line)
        process.stdin.flush()
        deadline = time.monotonic() + 60
        while len(list(self.folder.glob(".dekoder-*.tmp"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdin.close()
        self.assertEqual(len(list(self.folder.glob(".dekoder-*.tmp"))), 2)

    def test_kill(self):
        """Nothing is there; the next call clears up, be it one that has nothing to write."""
        line = json.dumps({"text": " the water and" * 200}).encode() + b"\n"
        self.start_and_kill(line)
        self.assertFalse((self.folder / "o.h5").exists())
        self.prepare("-", flags={"--field": "text"}, input=line * 20)
        self.assertEqual(list(self.folder.glob(".dekoder-*")), [])
        self.assertEqual(self.read()["documents"], "20")
        (self.folder / "few.txt").write_bytes(b"the water and the water")
        self.prepare("few.txt", output="few.h5")
        self.start_and_kill(line)
        self.assertIn("few.h5 is up to date", self.prepare("few.txt", output="few.h5"))
        self.assertEqual(list(self.folder.glob(".dekoder-*")), [])

    def test_long_documents(self):
        """One longer than the buffers, in a line of JSON and as a file, without an end of a line."""
        long = " ".join(documents(9000, 7)).replace("\n", " ")
        texts = ["short one", long, "最後" * 300_000, "another"]
        self.write_kinds(texts)
        self.prepare("d.jsonl", threads=3)
        self.prepare("files", output="files.h5", threads=1)
        self.assertEqual(self.read(), self.read("files.h5"))
        self.assertEqual(self.read()["source_bytes"], str(sum(len(text.encode()) for text in texts)))

    def test_tokens_command(self):
        self.write_kinds(documents(30))
        self.prepare("d.jsonl")
        said = self.run_program("tokens", "o.h5", "--show", "5")
        self.assertIn("30 documents, 3 of them held out", said)
        self.assertIn("tokens per document", said)
        shown = [line.split(maxsplit=1) for line in said.splitlines()[-5:]]
        self.assertEqual([int(token) for token, _ in shown], self.read()["tokens"][:5])
        self.assertTrue(all(text.startswith("'") and text.endswith("'") for _, text in shown))
        self.assertIn("expected at least 0", self.run_program("tokens", "o.h5", "--show", "-1", code=2))
        self.assertIn("no such", self.run_program("tokens", "none.h5", code=3))
        (self.folder / "t.txt").write_text("plain text of bytes")
        self.prepare("t.txt", tokenizer="byte", output="byte.h5")
        self.assertIn("19 tokens of t.txt", self.run_program("tokens", "byte.h5", "--show", "0"))

    def test_training(self):
        self.write_kinds(documents(300))
        self.prepare("d.jsonl")
        (self.folder / "c.yaml").write_text(
            "data: {tokens: o.h5}\nmodel: {layers: 1, heads: 2, channels: 16, feed_forward: 16, context: 32}\n"
            "training: {batch: 2, steps: 10, warmup_steps: 1}\nevaluation: {tokens: 64}\n"
            "sampling: {prompt: the, tokens: 4}\n")
        self.run_program("train", "c.yaml", "--run", "run")
        rows = [json.loads(line) for line in (self.folder / "run/metrics.jsonl").read_text().splitlines()]
        self.assertEqual(max(row.get("step", 0) for row in rows), 10)
        self.assertIn("bits per byte", self.run_program("eval", "run"))
        self.assertTrue(self.run_program("generate", "run", "--prompt", "the water", "--tokens", "3").startswith("the water"))


if __name__ == "__main__":
    unittest.main()
