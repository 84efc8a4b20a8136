# SPDX-License-Identifier: Apache-2.0
"""Token shards of llm.c and nanoGPT: `dekoder prepare` reads them, `dekoder tokens --shards` writes them. Text -> token file ->
shards -> token file keeps tokens and held-out part; layouts byte by byte; what is in the way is left alone; kills leave nothing."""

import base64
import json
import os
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from array import array
from pathlib import Path

import h5py

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
import dekoder_runs as dk  # noqa: E402

END = 256 + 4  # of the tokenizer below: bytes, four merges, the end of a text


def llm_c(tokens, magic=20240520, version=1, code="H"):
    return struct.pack("<256i", magic, version, len(tokens), *[0] * 253) + array(code, tokens).tobytes()


class TokenShards(unittest.TestCase):
    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="dekoder-shards-"))
        self.addCleanup(shutil.rmtree, self.folder)
        merges = "#version: 0.2\nt h\nth e\nĠ a\ni n\n"
        (self.folder / "merges.txt").write_text(merges, encoding="utf-8")

    def run_program(self, *words, code=0, **environment):
        done = subprocess.run([dk.PROGRAM, *map(str, words)], cwd=self.folder, capture_output=True, timeout=120,
                              env={**os.environ, "OMP_NUM_THREADS": "1", **environment})
        self.assertEqual(done.returncode, code, done.stderr.decode(errors="replace"))
        return done.stdout.decode() if code == 0 else done.stderr.decode()

    def prepare(self, *sources, output="o.h5", tokenizer="merges.txt", flags=(), **options):
        return self.run_program("prepare", *sources, "-o", output, "--tokenizer", tokenizer, *flags, **options)

    def export(self, file="o.h5", *flags, **options):
        return self.run_program("tokens", file, "--show", "0", "--shards", "shards", *flags, **options)

    def read(self, output="o.h5"):
        """Tokens, how many are to train on, ends of documents, attributes."""
        with h5py.File(self.folder / output) as file:
            ends = file["document_ends"][:].tolist() if "document_ends" in file else None
            return file["tokens"][:].tolist(), int(file.attrs["training_tokens"]), ends, dict(file.attrs)

    def write_texts(self, count=40):
        draw = random.Random(3)
        texts = [" ".join(draw.choice(["the", "thin", "inn", "日本", "a", "naïve", "\n"]) for _ in range(draw.randint(1, 80)))
                 for _ in range(count)]
        (self.folder / "t.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
        (self.folder / "t.txt").write_text("\n".join(texts))

    def names(self, folder="shards"):
        return sorted(path.name for path in (self.folder / folder).iterdir())

    def test_round_trip(self):
        """Of documents and of a single text, through both formats, several shards to a part: the same tokens and held-out part."""
        self.write_texts()
        for source in ("t.jsonl", "t.txt"):
            for flags in (("--shard-tokens", "100"), ("--shard-format", "nanogpt")):
                for tokenizer in ("merges.txt", "byte"):
                    with self.subTest(source=source, flags=flags, tokenizer=tokenizer):
                        self.prepare(source, tokenizer=tokenizer)
                        said = self.export("o.h5", *flags)
                        self.assertIn(f"shards: {len(self.names())} shards (", said)
                        self.assertIn(f"unchanged: {len(self.names())}", self.export("o.h5", *flags))
                        self.prepare("shards", output="again.h5", tokenizer=tokenizer)
                        tokens, training, ends, attributes = self.read()
                        tokens_again, training_again, ends_again, again = self.read("again.h5")
                        self.assertEqual((tokens_again, training_again), (tokens, training))
                        self.assertEqual(again["tokenizer"], attributes["tokenizer"])
                        for name in ("source_bytes", "validation_bytes", "tokens", "block_tokens"):
                            self.assertEqual(again[name], attributes[name], name)
                        if tokenizer != "byte" and source == "t.jsonl":
                            self.assertEqual(ends_again, ends)
                            self.assertEqual((again["split"], again["validation_documents"]), (b"document", attributes["validation_documents"]))
                        elif tokenizer != "byte":
                            self.assertEqual(ends_again, [training, len(tokens)])
                        self.assertIn("again.h5 is up to date", self.prepare("shards", output="again.h5", tokenizer=tokenizer))
                        shutil.rmtree(self.folder / "shards")
                        (self.folder / "o.h5").unlink()
                        (self.folder / "again.h5").unlink()

    def test_layout_of_what_is_written(self):
        text = "the inn"  # the, space, in, n and the end
        (self.folder / "t.txt").write_text(text * 3)
        self.prepare("t.txt", flags=("--validation-fraction", "0.3"))
        tokens, training, _, _ = self.read()
        self.assertEqual((len(tokens), training), (13, 9))
        self.export("o.h5", "--shard-tokens", "5")
        self.assertEqual(self.names(), ["o_train_000001.bin", "o_train_000002.bin", "o_val_000000.bin"])
        for name, part in (("o_val_000000.bin", tokens[9:]), ("o_train_000001.bin", tokens[:5]), ("o_train_000002.bin", tokens[5:9])):
            expected = bytes([0x88, 0xD8, 0x34, 0x01, 1, 0, 0, 0, len(part), 0, 0, 0]) + bytes(1012)
            self.assertEqual((self.folder / "shards" / name).read_bytes(), expected + b"".join(struct.pack("<H", t) for t in part), name)
        shutil.rmtree(self.folder / "shards")
        self.assertIn("train.bin to val.bin", self.export("o.h5", "--shard-format", "nanogpt"))
        self.assertEqual(self.names(), ["train.bin", "val.bin"])
        self.assertEqual((self.folder / "shards/train.bin").read_bytes(), array("H", tokens[:9]).tobytes())
        self.assertEqual((self.folder / "shards/val.bin").read_bytes(), array("H", tokens[9:]).tobytes())

    def test_nothing_held_out(self):
        (self.folder / "t.txt").write_text("the inn")
        self.prepare("t.txt", flags=("--validation-fraction", "0"))
        self.assertIn("shards: 1 shard (llm.c, GPT-2, 2 bytes a token), o_train_000000.bin\n", self.export())
        self.prepare("shards", output="again.h5", flags=("--validation-fraction", "0"))
        self.assertEqual(self.read("again.h5")[:2], self.read()[:2])

    def test_large_vocabularies(self):
        """More than 65536 tokens: four bytes each in the format of Llama 3; nanoGPT has no place for them."""
        ranks = [bytes([a]) for a in range(256)] + [bytes([a, b]) for a in range(256) for b in range(256)]
        (self.folder / "ranks").write_text("".join(f"{base64.b64encode(text).decode()} {rank}\n" for rank, text in enumerate(ranks)))
        tokens = [256 + 65535, 97, 65536, 300] * 50
        (self.folder / "l_train.bin").write_bytes(llm_c(tokens, 20240801, 7, "I"))
        (self.folder / "l_val.bin").write_bytes(llm_c(tokens[:7], 20240801, 7, "I"))
        self.prepare("l_train.bin", "l_val.bin", tokenizer="ranks")
        self.assertEqual(self.read()[:2], (tokens + tokens[:7], 200))
        with h5py.File(self.folder / "o.h5") as file:
            self.assertEqual(file["tokens"].dtype, "uint32")
        self.assertIn("(llm.c, Llama 3, 4 bytes a token)", self.export())
        self.assertEqual((self.folder / "shards/o_train_000001.bin").read_bytes(), (self.folder / "l_train.bin").read_bytes())
        self.assertEqual((self.folder / "shards/o_val_000000.bin").read_bytes(), (self.folder / "l_val.bin").read_bytes())
        shutil.rmtree(self.folder / "shards")
        said = self.export("o.h5", "--shard-format", "nanogpt", code=2)
        self.assertIn("has ids above 65535", said)
        self.assertFalse((self.folder / "shards").exists())
        (self.folder / "l_val.bin").write_bytes(llm_c([256 + 65536 + 1], 20240801, 7, "I"))
        said = self.prepare("l_train.bin", "l_val.bin", tokenizer="ranks", output="no.h5", code=3)
        self.assertIn("l_val.bin: token 0, at offset 1024, is 65793; expected 0 to 65792", said)

    def test_shards_of_other_programs(self):
        """Documents begin with the end-of-text token, as in llm.c, or end with it, and go on from shard to shard; formats
        stand side by side; files are in the order of their names, those with val behind all others."""
        first, second, third = [ord("a")] * 5, [ord("b")] * 7, [ord("c")] * 3
        stream = [END, *first, END, *second, END, *third]
        (self.folder / "d/sub").mkdir(parents=True)
        (self.folder / "d/x_train_000001.bin").write_bytes(llm_c(stream[:9]))
        (self.folder / "d/x_train_000002.bin").write_bytes(array("H", stream[9:]).tobytes())
        (self.folder / "d/a_val_000000.bin").write_bytes(llm_c([END, *second, END, END, *first]))
        (self.folder / "d/sub/retrieval_train.bin").write_bytes(llm_c(third))
        (self.folder / "d/.hidden.bin").write_bytes(b"not this one")
        (self.folder / "d/README").write_text("nor this one")
        said = self.prepare("d")
        tokens, training, ends, attributes = self.read()
        # sub/ is before x_; its tokens go on into the first shard, up to its end-of-text token.
        self.assertEqual(tokens, [*third, *stream, END, *second, END, END, *first])
        self.assertEqual(training, 3 + len(stream))
        border = training
        self.assertEqual(ends, [4, 4 + 6, 4 + 6 + 8, border, border + 9, border + 15])
        self.assertEqual((attributes["source_bytes"], attributes["validation_bytes"]), (3 + 5 + 7 + 3 + 12, 12))
        self.assertEqual((attributes["documents"], attributes["validation_documents"], attributes["split"]), (6, 2, b"document"))
        self.assertIn("6 documents, 2 of them held out", said)
        self.assertIn("of retrieval_train.bin and 3 more", said)
        # A tokenizer without that token knows of no documents.
        (self.folder / "n_train.bin").write_bytes(llm_c(first))
        (self.folder / "n_val.bin").write_bytes(llm_c(second))
        self.prepare("n_val.bin", "n_train.bin", tokenizer="byte", output="n.h5")
        tokens, training, ends, attributes = self.read("n.h5")
        self.assertEqual((tokens, training, ends), (first + second, 5, None))
        self.assertEqual(attributes["source"], b"n_train.bin and 1 more")

    def test_split_by_place(self):
        tokens = [random.Random(1).choice([97, 98, END, 257]) for _ in range(200_001)]
        (self.folder / "a.bin").write_bytes(llm_c(tokens[:70_001]))
        (self.folder / "b.bin").write_bytes(array("H", tokens[70_001:]).tobytes())
        for flags, training in (((), 180_001), (("--validation-fraction", "0.5"), 100_000)):
            self.prepare("a.bin", "b.bin", flags=flags)
            got, training_got, ends, attributes = self.read()
            self.assertEqual((got, training_got), (tokens, training))
            bytes_of = {97: 1, 98: 1, 257: 3, END: 0}
            self.assertEqual(attributes["source_bytes"], sum(bytes_of[t] for t in tokens))
            self.assertEqual(attributes["validation_bytes"], sum(bytes_of[t] for t in tokens[training:]))
            self.assertEqual((attributes["split"], attributes["validation_documents"]), (b"place", 0))
            self.assertEqual(ends[-1], len(tokens))
            self.assertIn(" is up to date", self.prepare("a.bin", "b.bin", flags=flags))
        (self.folder / "b.bin").write_bytes(array("H", tokens[70_001:-1] + [99]).tobytes())
        self.assertNotIn(" is up to date", self.prepare("a.bin", "b.bin", flags=("--validation-fraction", "0.5")))
        self.assertEqual(self.read()[0][-1], 99)

    def test_what_is_in_the_way_is_left_alone(self):
        self.write_texts()
        self.prepare("t.txt")
        shards = self.folder / "shards"
        shards.mkdir()
        for name, contents in (("o_val_000000.bin", b"mine"), ("other.bin", b"mine"), ("o_train_000001.bin", None)):
            if contents is None:  # of the size that is to be written, with one other token
                self.export()
                contents = bytearray((shards / name).read_bytes())
                contents[1030] ^= 1
                for path in shards.iterdir():
                    path.unlink()
            (shards / name).write_bytes(contents)
            (shards / "notes.txt").write_text("may stay")
            said = self.export("o.h5", code=3)
            self.assertIn(f"shards/{name}: is there already and is none of the shards to be written; remove it, or name", said)
            self.assertEqual(self.names(), sorted([name, "notes.txt"]))
            self.assertEqual((shards / name).read_bytes(), contents)
            (shards / name).unlink()
            (shards / "notes.txt").unlink()
        shards.rmdir()
        shards.write_text("a file")
        self.assertIn("shards: is a file, expected a folder for shards", self.export("o.h5", code=3))
        self.assertIn("cannot be made", self.run_program("tokens", "o.h5", "--shards", "none/shards", code=3))
        (self.folder / "long.txt").write_text("x" * 10_001)
        self.prepare("long.txt", output="long.h5", tokenizer="byte")
        self.assertIn("--shard-tokens 1 makes 10001 shards of long.h5; expected at most 10000: raise it",
                      self.run_program("tokens", "long.h5", "--shards", "many", "--shard-tokens", "1", code=2))
        self.assertFalse((self.folder / "many").exists())

    def kill_when(self, there, words):
        process = subprocess.Popen([dk.PROGRAM, *words], cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   env={**os.environ, "OMP_NUM_THREADS": "1"})
        deadline = time.monotonic() + 60
        while not there() and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        self.assertEqual(process.wait(), -signal.SIGKILL, "it had ended before")

    def test_kills(self):
        """In the middle of reading and of writing, and when the first shard has its name: no part of a file is ever there."""
        unfinished = ".dekoder-*.tmp"
        (self.folder / "a.bin").write_bytes(llm_c([97, 98, 99, 100] * 4_000_000))
        words = ("prepare", "a.bin", "-o", "o.h5", "--tokenizer", "byte")
        self.kill_when(lambda: any(path.stat().st_size > 100_000 for path in self.folder.glob(unfinished)), words)
        self.assertFalse((self.folder / "o.h5").exists())
        self.assertEqual(len(list(self.folder.glob(unfinished))), 1)
        self.run_program(*words)
        self.assertEqual(list(self.folder.glob(unfinished)), [])
        shards = self.folder / "shards"
        words = ("tokens", "o.h5", "--shards", "shards", "--shard-tokens", "4500000")
        self.kill_when(lambda: any(path.stat().st_size > 100_000 for path in shards.glob(unfinished)), words)
        self.assertEqual(list(shards.glob("*.bin")), [])
        self.run_program(*words, code=-signal.SIGKILL, DEKODER_FAULT="shard:before_rename")
        self.assertEqual(list(shards.glob("*.bin")), [])
        self.assertEqual(len(list(shards.glob(unfinished))), 5)
        self.run_program(*words, code=-signal.SIGKILL, DEKODER_FAULT="shard:after_rename")
        self.assertEqual([path.stat().st_size for path in shards.glob("*.bin")], [1024 + 2 * 900_000])
        self.assertRegex(self.prepare("shards", output="part.h5", tokenizer="byte", code=3), "shards/o: shard 000004 is there and 000000 is not")
        done = subprocess.run([dk.PROGRAM, *words], cwd=self.folder, capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("shards: 5 shards (llm.c, GPT-2, 2 bytes a token), o_val_000000.bin to o_train_000004.bin; unchanged: 1",
                      done.stdout)
        self.assertEqual(done.stderr.count("removed"), 1)
        self.assertRegex(done.stderr, "removed shards/.dekoder-.*-shard.tmp and 3 more, left by a writer that did not finish")
        self.assertEqual(list(shards.glob(unfinished)), [])
        self.prepare("shards", output="again.h5", tokenizer="byte")
        with h5py.File(self.folder / "o.h5") as one, h5py.File(self.folder / "again.h5") as other:
            self.assertTrue((one["tokens"][:] == other["tokens"][:]).all())
            self.assertEqual(one.attrs["training_tokens"], other.attrs["training_tokens"])

    def test_parts_of_sets(self):
        """Where the numbers of a folder's shards tell that some are missing, or an export has left its unfinished files."""
        folder = self.folder / "d"
        (folder / "sub").mkdir(parents=True)

        def names(*numbers, part="train", name="x"):
            return [f"{name}_{part}_{number:06}.bin" for number in numbers]

        for held_out, training, missing in (
                ([0], [1, 2, 3], None), ([], [1, 2, 3], None), ([], [0, 1], None), ([0, 1], [2, 3], None), ([0, 1], [0, 1, 2], None),
                ([0], [1, 3], (3, 2)), ([0], [2], (2, 1)), ([], [2, 3], (2, 0)), ([1], [2, 3, 4], None), ([2], [3, 4], (2, 0)),
                ([0, 1], [0, 2], (2, 1)), ([0, 2], [0, 1, 2], (2, 1))):
            with self.subTest(held_out=held_out, training=training):
                for place in ("", "sub/"):
                    for name in names(*held_out, part="val") + names(*training) + names(0, 1, name="other"):
                        (folder / place / name).write_bytes(llm_c([97, 98, 99]))
                    if missing is None:
                        self.prepare("d", tokenizer="byte", output="n.h5")
                    else:
                        said = self.prepare("d", tokenizer="byte", output="none.h5", code=3)
                        self.assertIn(f"d/{place}x: shard {missing[0]:06} is there and {missing[1]:06} is not", said)
                        self.assertIn("or name the files themselves, not their folder", said)
                        self.prepare(*sorted((folder / place).glob("*_train_*.bin")), tokenizer="byte", output="n.h5")
                    for path in folder.rglob("*.bin"):
                        path.unlink()
        for name in ("news_train_20240103.bin", "data_train.bin", "model-000007.bin"):
            (folder / name).write_bytes(llm_c([97, 98, 99]))
        self.prepare("d", tokenizer="byte", output="n.h5")
        (folder / ".dekoder-0-1-2-shard.tmp").write_bytes(b"")
        said = self.prepare("d", tokenizer="byte", output="none.h5", code=3)
        self.assertIn("d/.dekoder-0-1-2-shard.tmp: is of an export that was killed or is still at work", said)
        self.assertIn("run `dekoder tokens FILE --shards d` again", said)
        self.assertFalse((self.folder / "none.h5").exists())
        (folder / ".dekoder-0-1-2-shard.tmp").rename(folder / ".dekoder-0-1-2-tokens.tmp")  # of a killed `prepare d -o d/n.h5`
        self.prepare("d", tokenizer="byte", output="d/n.h5")

    def test_ten_thousand_shards(self):
        """The most that are written: the processor time that they take grows with their number, not with its square. They are
        there already, so that no time goes to the disk."""
        (self.folder / "t.txt").write_text("x" * 10_000)
        self.prepare("t.txt", tokenizer="byte")
        (self.folder / "shards").mkdir()
        for number in range(10_000):
            (self.folder / f"shards/o_{'val' if number < 1000 else 'train'}_{number:06}.bin").write_bytes(llm_c([ord("x")]))

        def processor_seconds():
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            return used.ru_utime + used.ru_stime

        begin = processor_seconds()
        self.assertIn("unchanged: 10000", self.export("o.h5", "--shard-tokens", "1"))
        self.prepare("shards", tokenizer="byte", output="again.h5")
        self.assertLess(processor_seconds() - begin, 15)  # 1 to 3; with the square it was 60 and more
        self.assertEqual(self.read("again.h5")[:2], self.read()[:2])

    def test_training(self):
        self.write_texts(300)
        self.prepare("t.jsonl", output="t.h5")
        self.export("t.h5")
        self.prepare("shards")
        (self.folder / "c.yaml").write_text(
            "data: {tokens: o.h5}\nmodel: {layers: 1, heads: 2, channels: 16, feed_forward: 16, context: 32}\n"
            "training: {batch: 2, steps: 5, warmup_steps: 1}\nevaluation: {tokens: 64}\n")
        losses = []
        for file in ("o.h5", "t.h5"):
            self.run_program("train", "c.yaml", "--run", file + ".run", "--set", f"data.tokens={file}")
            losses.append(self.run_program("eval", file + ".run"))
        self.assertIn("bits per byte", losses[0])
        self.assertEqual(losses[0], losses[1])


if __name__ == "__main__":
    unittest.main()
