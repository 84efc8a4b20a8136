# SPDX-License-Identifier: Apache-2.0
"""A model of transformers as a run: what commands do with it, how its training begins and goes on, and exports and imports that
are cut off."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

import h5py
import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import dekoder_runs as dk  # noqa: E402

FIXTURES = pathlib.Path(os.environ.get("DEKODER_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2])) / "tests/huggingface/fixtures"
TEXT = "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife.\n" * 40


class Import(unittest.TestCase):
    def setUp(self):
        place = tempfile.TemporaryDirectory(prefix="dekoder-import-")
        self.addCleanup(place.cleanup)
        self.folder = pathlib.Path(place.name)
        (self.folder / "text.txt").write_text(TEXT)

    def dekoder(self, *words, code=0, fault=None):
        environment = dict(os.environ, OMP_NUM_THREADS="1", OMP_PROC_BIND="false", **({"DEKODER_FAULT": fault} if fault else {}))
        done = subprocess.run([dk.PROGRAM, *map(str, words)], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, code, f"{words}: {done.stderr}")
        return done.stdout + done.stderr

    def prepare(self, name):
        self.dekoder("prepare", "text.txt", "-o", "tokens.h5", "--tokenizer", FIXTURES / name / "tokenizer.json")

    def train(self, *sets, code=0):
        words = [word for text in ("data.tokens=tokens.h5", "training.steps=6", "training.warmup_steps=0", "evaluation.every=3",
                                   *sets) for word in ("--set", text)]
        return self.dekoder("train", "run/config.yaml", "--run", "run", *words, code=code)

    def parameters(self, step):
        with h5py.File(dk.checkpoints(self.folder / "run")[step]) as file:
            return {group: {name: values[()] for name, values in file[group].items()} for group in ("parameters", "first_moment", "second_moment")}

    def test_a_run_begins_with_the_model(self):
        said = self.dekoder("import", FIXTURES / "gpt2", "-o", "run")
        self.assertIn("parameters, bpe tokenizer of 265 tokens, context 32 -> run", said)
        self.assertEqual(dk.status(self.folder / "run")["state"], "resumable")
        self.assertIn("step 0", self.dekoder("checkpoint", "verify", "run"))
        state = self.parameters(0)
        for group in ("first_moment", "second_moment"):
            self.assertTrue(all((values == 0).all() for values in state[group].values()), group)
        self.assertTrue((state["parameters"]["token_embedding.weight"][270:] == 0).all())  # padding
        self.assertIn("layer.head", self.dekoder("attention", "run", "--text", "It is a truth"))
        self.prepare("gpt2")
        loss = float(re.search(r"loss ([\d.]+)", self.dekoder("eval", "run", "--tokens-file", "tokens.h5")).group(1))
        self.train("training.batch=4", "training.micro_batch=2", "training.seed=9", "model.dropout=0", "evaluation.tokens=0")
        rows = [json.loads(line) for line in (self.folder / "run/metrics.jsonl").read_text().splitlines()]
        losses = {row["step"]: row["validation_loss"] for row in rows if "validation_loss" in row}
        self.assertAlmostEqual(losses[0], loss, places=3)
        self.assertLess(losses[6], losses[0])
        self.assertFalse(any(key in row for row in rows for key in ("changed", "changes") if row.get(key)), rows)
        moved = self.parameters(6)["parameters"]
        self.assertFalse(numpy.array_equal(moved["final_norm.gain"], state["parameters"]["final_norm.gain"]))
        # From its first step on the run is like any other.
        self.assertIn("training.batch: 4 in the checkpoint, 8 now", self.train("training.batch=8", code=2))

    def test_what_no_training_can_change(self):
        self.dekoder("import", FIXTURES / "gpt2", "-o", "run")
        self.prepare("gpt2")
        for setting, said in (("model.context=16", "model.context: 32 in the checkpoint, 16 now"), ("model.heads=4", "model.heads: 2"),
                              ("model.vocabulary=300", "model.vocabulary: 270")):
            self.assertIn(said, self.train(setting, code=2))
        self.dekoder("prepare", "text.txt", "-o", "tokens.h5", "--tokenizer", "byte")
        self.assertIn("run: the tokenizer of tokens.h5 is not that of the model", self.train(code=2))
        self.assertEqual(list(dk.checkpoints(self.folder / "run")), [0])

    def test_parameters_are_those_of_the_model(self):
        """Without the rows that pad the vocabulary here, from 270 to 320."""
        with open(FIXTURES / "gpt2/model.safetensors", "rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        elements = sum(numpy.prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
        self.assertIn(f"{elements} parameters, ", self.dekoder("import", FIXTURES / "gpt2", "-o", "run"))
        self.assertIn(f"{elements}  (and {50 * 16} that pad the vocabulary)", self.dekoder("describe", "run/config.yaml"))
        self.dekoder("export", "run", "-o", "model")
        card = (self.folder / "model/README.md").read_text()
        self.assertIn(f"| parameters | {elements} |", card)
        self.assertIn("| tokenizer | bpe, 265 tokens |", card)

    def test_rotary_positions_take_another_context(self):
        self.dekoder("import", FIXTURES / "llama", "-o", "run", "--set", "model.context=12")
        self.prepare("llama")
        self.train("model.context=20")
        self.dekoder("export", "run", "-o", "model", "--best")
        config = json.loads((self.folder / "model/config.json").read_text())
        self.assertEqual(config["max_position_embeddings"], 20)
        card = (self.folder / "model/README.md").read_text()
        self.assertIn("| optimizer steps | 6 of 6 |", card)
        self.assertRegex(card, r"\| validation loss \| \d\.\d{4} nats per token \|")

    def test_every_tokenizer_comes_back(self):
        for kind, words in (("char", "char"), ("byte", "byte"), ("spm", FIXTURES.parents[1] / "tokenizer/sentencepiece/bpe.model")):
            config = self.folder / "c.yaml"
            config.write_text("model: {layers: 1, heads: 2, channels: 8, feed_forward: 8, context: 8}\ndata: {tokens: own.h5}\n"
                              "training: {steps: 1, batch: 1}\nsampling: {prompt: It}\n")
            self.dekoder("prepare", "text.txt", "-o", "own.h5", "--tokenizer", words)
            self.dekoder("train", "c.yaml", "--run", f"own-{kind}")
            said = self.dekoder("export", f"own-{kind}", "-o", f"model-{kind}")
            self.assertEqual("AutoTokenizer does not read" in said, kind == "spm", said)
            self.dekoder("import", f"model-{kind}", "-o", f"back-{kind}", "--set", "sampling.prompt=It")
            texts = [self.dekoder("generate", f"{run}-{kind}", "--prompt", "It is", "--temperature", "0") for run in ("own", "back")]
            self.assertEqual(texts[0], texts[1])
            losses = [self.dekoder("eval", f"{run}-{kind}", "--tokens-file", "own.h5").split(":", 1)[1] for run in ("own", "back")]
            self.assertEqual(losses[0], losses[1])

    def with_json(self, name, file, **changes):
        """A fixture's folder with keys of one file changed."""
        folder = self.folder / f"changed-{name}"
        shutil.copytree(FIXTURES / name, folder, dirs_exist_ok=True)
        (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), **changes}))
        return folder

    def test_ends_of_text_that_generate_does_not_know(self):
        text = json.loads((FIXTURES / "gpt2/tokenizer.json").read_text())
        word, token = next((word, token) for word, token in text["model"]["vocab"].items() if word.startswith("Ġ") and len(word) > 1)
        said = self.dekoder("import", self.with_json("gpt2", "config.json", eos_token_id=token), "-o", "of-config")
        self.assertIn(f"transformers ends a text with token {token}, too: give generate --stop ' {word[1:]}'\n", said)
        said = self.dekoder("import", self.with_json("gpt2", "generation_config.json", eos_token_id=[0, token - 1]), "-o", "of-both")
        self.assertIn(f"with token {token - 1}, too", said)
        self.assertEqual(said.count("transformers ends"), 1, said)  # 0 is <|endoftext|>
        said = self.dekoder("import", self.with_json("gpt2", "generation_config.json", eos_token_id=[0, "b"]), "-o", "none", code=3)
        self.assertIn("generation_config.json: eos_token_id[1] is \"b\"; expected a token", said)
        self.assertNotIn("transformers ends", self.dekoder("import", FIXTURES / "gpt2", "-o", "as-it-is"))

    def test_a_stretching_of_no_kind_is_refused(self):
        said = self.dekoder("import", self.with_json("llama", "config.json", rope_parameters=None, rope_theta=1e4, rope_scaling={"factor": 2}),
                            "-o", "none", code=3)
        self.assertIn("config.json: rope_scaling.rope_type", said)
        self.assertFalse((self.folder / "none").exists())

    def test_models_that_no_family_holds(self):
        (self.folder / "c.yaml").write_text("model: {layers: 1, heads: 1, channels: 8, feed_forward: 8, context: 8, norm: post, positions: sinusoidal}\n"
                                            "data: {tokens: own.h5}\ntraining: {steps: 1, batch: 1}\n")
        self.dekoder("prepare", "text.txt", "-o", "own.h5")
        self.dekoder("train", "c.yaml", "--run", "talk")
        said = self.dekoder("export", "talk", "-o", "model", code=2)
        self.assertIn("GPT2LMHeadModel: model.norm is post, expected pre, model.positions is sinusoidal, expected learned or none; "
                      "LlamaForCausalLM: model.norm is post, expected pre, model.positions is sinusoidal, expected rotary", said)
        self.assertFalse((self.folder / "model").exists())
        self.dekoder("train", "c.yaml", "--run", "head", "--set", "model.norm=pre", "--set", "model.positions=learned", "--set", "model.tied_head=false")
        said = self.dekoder("export", "head", "-o", "model", code=2)
        self.assertIn("model.bias is true and model.tied_head false", said)
        self.assertFalse((self.folder / "model").exists())

    def test_killed_in_the_middle(self):
        """Nothing that looks whole, and the same command goes through."""
        for fault in ("checkpoint:mid_write", "checkpoint:before_rename"):
            self.dekoder("import", FIXTURES / "gpt2", "-o", "run", code=-9, fault=fault)
            self.assertEqual(dk.checkpoints(self.folder / "run"), {})
        self.dekoder("import", FIXTURES / "gpt2", "-o", "run")
        for fault in ("safetensors:before_rename", "safetensors:after_rename"):
            self.dekoder("export", "run", "-o", "model", code=-9, fault=fault)
            self.assertFalse((self.folder / "model/config.json").exists())
        self.dekoder("export", "run", "-o", "model")
        self.assertEqual(sorted(path.name for path in (self.folder / "model").iterdir()),
                         ["README.md", "config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])

    def test_a_full_disk_leaves_nothing(self):
        self.dekoder("import", FIXTURES / "gpt2", "-o", "run")
        words = f"ulimit -f 16; exec {dk.PROGRAM} export run -o model"  # KiB: the tokenizer has room, the weights have not
        done = subprocess.run(["bash", "-c", words], cwd=self.folder, capture_output=True, text=True)
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertRegex(done.stderr, "^dekoder: error: model/model.safetensors: .*\n$")
        self.assertFalse((self.folder / "model").exists())
        words = f"ulimit -f 16; exec {dk.PROGRAM} import {FIXTURES / 'gpt2'} -o second"
        done = subprocess.run(["bash", "-c", words], cwd=self.folder, capture_output=True, text=True)
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertFalse((self.folder / "second/checkpoints").exists(), done.stderr)


if __name__ == "__main__":
    unittest.main()
