# SPDX-License-Identifier: Apache-2.0
"""`dekoder generate`: files of prompts, stop strings, log-probabilities, contexts beyond that of training."""
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))
import dekoder_runs as dk  # noqa: E402

TEXT = "the bridge held the water back and the water went on under the bridge. "
LENGTHS = [1, 20, 3, 7, 2, 31, 5, 11, 9, 16, 4, 26]


class Generate(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="dekoder-generate-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        lines = [json.dumps({"text": TEXT * (1 + i % 3)}) + "\n" for i in range(60)]
        (cls.folder / "d.jsonl").write_text("".join(lines))
        for name, words, positions in (("byte", ["--tokenizer", "byte"], "rotary"),
                                       ("bpe", ["--tokenizer", "bpe", "--vocabulary", "270"], "learned")):
            cls.dekoder("prepare", "d.jsonl", "-o", f"{name}.h5", *words)
            config = {"data": {"tokens": f"{name}.h5"}, "training": {"batch": 4, "steps": 60, "learning_rate": 0.01, "warmup_steps": 5},
                      "evaluation": {"tokens": 64}, "sampling": {"tokens": 9, "prompt": "t"},
                      "model": {"layers": 2, "heads": 2, "channels": 16, "feed_forward": 32, "context": 32, "positions": positions}}
            (cls.folder / f"{name}.yaml").write_text(json.dumps(config))
            cls.dekoder("train", f"{name}.yaml", "--run", name)
        cls.prompts = [{"id": 12345678901234567890123 + i, "prompt": TEXT[i:i + length], "of": {"any": [1, None]}}
                       for i, length in enumerate(LENGTHS)]
        (cls.folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in cls.prompts))

    @classmethod
    def dekoder(cls, *words):
        done = subprocess.run([dk.PROGRAM, *map(str, words)], cwd=cls.folder, capture_output=True, timeout=300,
                              env={**os.environ, "OMP_NUM_THREADS": "1"})
        dk.check(done.returncode == 0, f"{words}: {done.stderr.decode(errors='replace')}")
        return done.stdout.decode()

    def rows(self, *words):
        return [json.loads(line) for line in self.dekoder("generate", *words).splitlines()]

    def test_each_text_is_that_of_its_prompt_alone(self):
        words = ["byte", "--tokens", 40, "--temperature", 0]
        rows = self.rows(*words, "--prompts", "p.jsonl", "--logprobs", 2)
        self.assertEqual([{key: row[key] for key in ("id", "prompt", "of")} for row in rows], self.prompts)
        for row in rows:
            self.assertEqual((row["tokens"], row["finish"], len(row["logprobs"])), (40, "length", 40))
            self.assertEqual(self.dekoder("generate", *words, "--prompt", row["prompt"]), row["prompt"] + row["text"] + "\n")
            (self.folder / "one.jsonl").write_text(json.dumps({key: row[key] for key in ("id", "prompt", "of")}))
            self.assertEqual(self.rows(*words, "--prompts", "one.jsonl", "--logprobs", 2), [row])  # every bit of it
            alone, = self.rows(*words, "--prompt", row["prompt"], "--logprobs", 2)  # in passes of one row, whose last bits may differ
            for one, of_many in zip(alone.pop("logprobs"), row["logprobs"], strict=True):
                self.assertAlmostEqual(one["logprob"], of_many["logprob"], places=4)
            self.assertEqual(alone, {key: row[key] for key in ("prompt", "text", "tokens", "finish")})

    def test_draws_are_of_the_seed_and_the_place(self):
        words = ["byte", "--tokens", 12, "--temperature", 1.5, "--top-k", 40, "--top-p", 0.95, "--min-p", 0.01, "--repetition-penalty", 1.2]
        rows = self.rows(*words, "--prompts", "p.jsonl")
        shorter = self.folder / "some.jsonl"
        shorter.write_text("".join(json.dumps({"prompt": row["prompt"] if i % 3 == 0 else "x"}) + "\n" for i, row in enumerate(self.prompts)))
        self.assertEqual([row["text"] for row in self.rows(*words, "--prompts", shorter)][::3], [row["text"] for row in rows][::3])
        self.assertNotEqual([row["text"] for row in self.rows(*words, "--prompts", "p.jsonl", "--seed", 2)], [row["text"] for row in rows])
        self.assertEqual(self.dekoder("generate", *words, "--prompt", rows[0]["prompt"]), rows[0]["prompt"] + rows[0]["text"] + "\n")

    def test_a_file_has_what_stdout_has(self):
        words = ["generate", "byte", "--tokens", 5, "--prompts", "p.jsonl"]
        printed = self.dekoder(*words)
        self.assertEqual(self.dekoder(*words, "-o", "texts.jsonl"), "")
        self.assertEqual((self.folder / "texts.jsonl").read_text(), printed)
        self.assertTrue(printed.startswith(json.dumps(self.prompts[0])[:-1] + ', "text": "') or
                        printed.startswith(json.dumps(self.prompts[0])[:-1] + ', "text":"'))

    def test_log_probabilities(self):
        row, = self.rows("byte", "--prompt", "the wat", "--tokens", 6, "--temperature", 0, "--repetition-penalty", 1.5, "--logprobs", 256)
        for one in row["logprobs"]:
            self.assertAlmostEqual(sum(math.exp(best["logprob"]) for best in one["best"]), 1, places=9)
            self.assertEqual(sorted(best["id"] for best in one["best"]), list(range(256)))
            logs = [best["logprob"] for best in one["best"]]
            self.assertEqual(logs, sorted(logs, reverse=True))
            self.assertIn({key: one[key] for key in ("id", "text", "logprob")}, one["best"])
        self.assertTrue(any(one["id"] != one["best"][0]["id"] for one in row["logprobs"]))  # the penalty, which they do not show
        self.assertEqual("".join(one["text"] for one in row["logprobs"]), row["text"])
        row, = self.rows("byte", "--prompt", "the", "--tokens", 3, "--logprobs", 0)
        self.assertEqual([one["best"] for one in row["logprobs"]], [[], [], []])

    def test_stops_and_the_end_of_a_text(self):
        words = ["bpe", "--prompt", "the bridge", "--tokens", 20, "--temperature", 0]
        whole, = self.rows(*words, "--logprobs", 0)
        text, first = whole["text"], whole["logprobs"][0]["text"]
        stop = text[len(first) - 1:len(first) + 1]  # in two tokens
        before = text[:text.index(stop)]
        row, = self.rows(*words, "--logprobs", 0, "--stop", "nowhere", "--stop", stop)
        self.assertEqual((row["text"], row["finish"]), (before, "stop"))
        self.assertEqual(row["logprobs"], whole["logprobs"][:row["tokens"]])
        self.assertEqual(self.dekoder("generate", *words, "--stop", stop), "the bridge" + before + "\n")
        self.assertEqual(self.dekoder("generate", *words, "--stop", "nowhere"), "the bridge" + text + "\n")
        rows = self.rows("bpe", "--prompts", "p.jsonl", "--tokens", 300, "--temperature", 100, "--logprobs", 0)
        ended = [row for row in rows if row["finish"] == "end_of_text"]
        self.assertTrue(0 < len(ended) and all(row["tokens"] == 300 for row in rows if row["finish"] == "length"))
        for row in ended:
            self.assertEqual([one["text"] for one in row["logprobs"]].index("<|endoftext|>"), row["tokens"] - 1)
            self.assertNotIn("<|endoftext|>", row["text"])

    def test_contexts(self):
        """A longer one is another text once that of training is full, and not before; learned positions have none."""
        words = ["byte", "--prompt", "the bridge", "--temperature", 0, "--tokens"]
        own, longer = (self.dekoder("generate", *words, 120, *more) for more in ([], ["--context", 64]))
        self.assertEqual(own[:32], longer[:32])
        self.assertEqual(self.dekoder("generate", *words, 120, "--context", 32), own)
        self.assertEqual(self.dekoder("generate", *words, 50, "--context", 100000)[:-1], longer[:60])
        long = TEXT[:50]
        self.assertTrue(self.dekoder("generate", "byte", "--prompt", long, "--context", 64).startswith(long))

    def test_a_signal_leaves_whole_lines(self):
        done = subprocess.Popen([dk.PROGRAM, "generate", "byte", "--prompts", "p.jsonl", "--tokens", "100000000", "-o", "never.jsonl"],
                                cwd=self.folder, stdout=subprocess.PIPE)
        with self.assertRaises(subprocess.TimeoutExpired):
            done.wait(3)
        done.send_signal(signal.SIGTERM)
        self.assertEqual((done.communicate(timeout=60)[0], done.returncode), (b"", 85))
        self.assertFalse((self.folder / "never.jsonl").exists())


if __name__ == "__main__":
    unittest.main()
