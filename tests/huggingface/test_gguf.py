# SPDX-License-Identifier: Apache-2.0
"""`dekoder export -o FILE.gguf`: every tensor and every key against the checkpoint, for each architecture and type; what a file
cannot hold; and that no part of one is left."""
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

import h5py
import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import dekoder_runs as dk  # noqa: E402
from gguf_file import GgufFile  # noqa: E402

FIXTURES = pathlib.Path(os.environ.get("DEKODER_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2])) / "tests/huggingface/fixtures"
TEXT = "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife.\n" * 20
LLAMA = ["positions=rotary", "norm_kind=rms", "gated=true", "activation=silu", "bias=false"]
GPT2_NAMES = {"qkv": "attn_qkv", "output": "attn_output", "up": "ffn_up", "down": "ffn_down"}
LAST = {"gain": "weight", "weight": "weight", "bias": "bias"}


def rounded(values, kind):
    """As float32, what a type keeps of it."""
    values = values.astype("f4")
    if kind == "F16":
        return values.astype("f2").astype("f4")
    if kind == "BF16":
        bits = values.view("u4").astype("u8")
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16 << 16).astype("u4").view("f4")
    if kind == "Q8_0":
        blocks = values.reshape(-1, 32)
        scale = numpy.abs(blocks).max(1, keepdims=True) / numpy.float32(127)
        with numpy.errstate(divide="ignore"):
            whole = blocks * numpy.where(scale == 0, numpy.float32(0), numpy.float32(1) / scale)
        whole = numpy.sign(whole) * numpy.floor(numpy.abs(whole) + numpy.float32(0.5))
        return (whole * scale.astype("f2").astype("f4")).astype("f4").reshape(values.shape)
    return values


def interleaved(rows, heads):
    """Rows i and i + D/2 of each head next to each other."""
    heads_first = rows.reshape(heads, 2, -1, *rows.shape[1:])
    return numpy.swapaxes(heads_first, 1, 2).reshape(rows.shape)


def expected_tensors(parameters, m):
    """Tensors of llama.cpp, of a checkpoint's parameters and the metadata of a file without its architecture."""
    heads, kv, width = m["attention.head_count"], m["attention.head_count_kv"], m["attention.key_length"]
    gpt2, interleave = m["architecture"] == "gpt2", interleaved if m["architecture"] == "llama" else lambda rows, _: rows
    found = {}
    for name, values in parameters.items():
        *layer, last = name.split(".")
        last = LAST[last]
        if layer[0] != "blocks":
            stem = {"token_embedding": "token_embd", "position_embedding": "position_embd", "final_norm": "output_norm", "head": "output"}[layer[0]]
            found[f"{stem}.{last}"] = values[:m["vocab_size"]] if stem in ("token_embd", "output") else values
            continue
        stem = f"blk.{int(layer[1])}"
        if layer[2] in ("attention_norm", "feed_forward_norm"):
            found[f"{stem}.{'attn' if layer[2][0] == 'a' else 'ffn'}_norm.{last}"] = values
        elif layer[3] in ("query_norm", "key_norm"):
            found[f"{stem}.attn_{layer[3][0]}_norm.{last}"] = values
        elif layer[3] == "qkv" and not gpt2:
            q, k, v = numpy.split(values, [heads * width, (heads + kv) * width])
            found.update({f"{stem}.attn_q.{last}": interleave(q, heads), f"{stem}.attn_k.{last}": interleave(k, kv), f"{stem}.attn_v.{last}": v})
        elif layer[3] == "gate_up":
            found[f"{stem}.ffn_gate.{last}"], found[f"{stem}.ffn_up.{last}"] = numpy.split(values, 2)
        else:
            found[f"{stem}.{GPT2_NAMES[layer[3]]}.{last}"] = values
    if gpt2:  # which has biases and positions always
        for name in list(found):
            if name.endswith(".weight") and not name.startswith(("token", "position", "output.")):
                found.setdefault(name[:-6] + "bias", numpy.zeros(len(found[name])))
        found.setdefault("position_embd.weight", numpy.zeros((m["context_length"], m["embedding_length"])))
    return found


class Gguf(unittest.TestCase):
    def setUp(self):
        place = tempfile.TemporaryDirectory(prefix="dekoder-gguf-")
        self.addCleanup(place.cleanup)
        self.folder = pathlib.Path(place.name)

    def dekoder(self, *words, code=0, fault=None):
        environment = dict(os.environ, OMP_NUM_THREADS="1", OMP_PROC_BIND="false", **({"DEKODER_FAULT": fault} if fault else {}))
        done = subprocess.run([dk.PROGRAM, *map(str, words)], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, code, f"{words}: {done.stderr}")
        return done.stdout + done.stderr

    def train(self, run, *settings, tokenizer="--tokenizer byte"):
        (self.folder / "text.txt").write_text(TEXT)
        self.dekoder("prepare", "text.txt", "-o", "tokens.h5", *tokenizer.split(), "--validation-fraction", "0.2")
        (self.folder / "c.yaml").write_text("model: {layers: 2, channels: 32, feed_forward: 48, context: 16}\ndata: {tokens: tokens.h5}\n"
                                            "training: {steps: 3, batch: 4, warmup_steps: 0}\nsampling: {prompt: It, every: 0}\n")
        self.dekoder("train", "c.yaml", "--run", run, *(word for key in settings for word in ("--set", f"model.{key}")))

    def check(self, run, architecture, only=None):
        with h5py.File(max(dk.checkpoints(self.folder / run).items())[1]) as file:
            parameters = {name: values[()] for name, values in file["parameters"].items()}
        for word, kind in {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "q8_0": "Q8_0"}.items():
            said = self.dekoder("export", run, "-o", "m.gguf", "--dtype", word)
            self.assertRegex(said, f"as {architecture} in {word} -> m.gguf")
            file = GgufFile(self.folder / "m.gguf")
            self.assertEqual(file.metadata["general.architecture"], architecture)
            m = {key.split(".", 1)[1]: value for key, value in file.metadata.items()}
            expected = expected_tensors(parameters, m)
            self.assertEqual(set(file.tensors) - {"rope_freqs.weight"}, set(expected))
            for name, values in expected.items():
                whole = values.ndim == 1 or name == "position_embd.weight"
                here = "F32" if whole else "F16" if kind == "Q8_0" and values.shape[1] % 32 else kind
                self.assertEqual(file.types[name], here, name)
                numpy.testing.assert_array_equal(file.tensors[name], rounded(values, here), f"{name} in {here}")
            self.assertEqual(m["file_type"], {"F32": 0, "F16": 1, "BF16": 32, "Q8_0": 7}[kind])
        return file

    def test_gpt2(self):
        self.dekoder("import", FIXTURES / "gpt2", "-o", "run")
        said = self.check("run", "gpt2").metadata
        self.assertEqual([said[f"gpt2.{key}"] for key in ("context_length", "embedding_length", "block_count", "feed_forward_length",
                                                          "attention.head_count")], [32, 16, 2, 64, 2])
        self.assertAlmostEqual(said["gpt2.attention.layer_norm_epsilon"], 1e-5, places=12)
        # 265 tokens, of which the first one ends texts, in a table of 270 rows.
        self.assertEqual([said[f"tokenizer.ggml.{key}"] for key in ("model", "pre", "bos_token_id", "eos_token_id", "add_bos_token")],
                         ["gpt2", "gpt-2", 0, 0, False])
        self.assertEqual(said["tokenizer.ggml.tokens"][:2] + said["tokenizer.ggml.tokens"][-2:], ["<|endoftext|>", "!", "[PAD268]", "[PAD269]"])
        self.assertEqual(said["tokenizer.ggml.token_type"], [3] + 264 * [1] + 5 * [5])
        self.assertEqual(said["tokenizer.ggml.merges"][:2], ["\u0120 a", "i n"])

    def test_gpt2_of_blocks(self):
        self.train("run", "heads=2", "bias=false", "positions=none", "tied_head=false", "feed_forward=64")
        file = self.check("run", "gpt2")
        self.assertEqual(set(file.types.values()), {"F32", "Q8_0"})
        said = file.metadata
        self.assertEqual(len(said["tokenizer.ggml.tokens"]), 256)
        self.assertEqual(said["tokenizer.ggml.tokens"][ord(" ")], "\u0120")
        self.assertEqual((said["tokenizer.ggml.merges"], said["tokenizer.ggml.eos_token_id"]), ([], 255))

    def test_llama(self):
        self.dekoder("import", FIXTURES / "llama", "-o", "run")
        file = self.check("run", "llama")
        said = file.metadata
        self.assertEqual([said[f"llama.{key}"] for key in ("attention.head_count", "attention.head_count_kv", "attention.key_length",
                                                           "rope.dimension_count", "rope.freq_base", "vocab_size")], [4, 2, 8, 8, 500, 270])
        # Llama 3's stretching by 8 over a context of 16, as transformers' _compute_llama3_parameters has it.
        wavelength = 2 * numpy.pi * 500.0 ** (numpy.arange(4) / 4)
        smooth = (16 / wavelength - 1) / 3
        factor = numpy.where(wavelength < 4, 1, numpy.where(wavelength > 16, 8, 1 / ((1 - smooth) / 8 + smooth)))
        numpy.testing.assert_allclose(file.tensors["rope_freqs.weight"], factor, rtol=1e-6)

    def test_llama_with_biases(self):
        self.train("run", *LLAMA[:-1], "bias=true", "heads=4", "key_value_heads=2", "head_size=12", tokenizer="--tokenizer bpe --vocabulary 280 --split cl100k")
        file = self.check("run", "llama")
        self.assertIn("blk.1.attn_k.bias", file.tensors)
        self.assertNotIn("rope_freqs.weight", file.tensors)
        self.assertEqual(file.metadata["tokenizer.ggml.pre"], "dbrx")

    def test_a_window_of_the_whole_context_is_none(self):
        self.train("run", *LLAMA, "heads=2", "sliding_window=[16]")
        self.check("run", "llama")

    def test_qwen3(self):
        self.dekoder("import", FIXTURES / "qwen3", "-o", "run")
        self.check("run", "qwen3")

    def test_what_llama_cpp_does_not_compute(self):
        for fixture, said in (("llama_bias", "model.activation is gelu_tanh, expected silu: llama.cpp's architecture llama has no other"),
                              ("mistral_window", "model.sliding_window is [4], expected 0 or model.context"),
                              ("qwen3_window", "model.sliding_window is [5, 0], expected 0 or model.context")):
            self.dekoder("import", FIXTURES / fixture, "-o", fixture)
            self.assertIn(said, self.dekoder("export", fixture, "-o", "m.gguf", code=2))
        self.train("run", *LLAMA, "heads=2", "qk_norm=true", "rotary_factor=4")
        self.assertIn("model.rotary_factor is 4, expected 1: llama.cpp's architecture qwen3", self.dekoder("export", "run", "-o", "m.gguf", code=2))
        self.train("relu", "activation=relu", "heads=2", tokenizer="--tokenizer char")
        self.assertIn("model.activation is relu, expected gelu_tanh", self.dekoder("export", "relu", "-o", "m.gguf", code=2))
        self.assertEqual(list(self.folder.glob("*m.gguf*")), [])

    def test_a_tokenizer_that_llama_cpp_does_not_have(self):
        self.train("run", "heads=2", tokenizer="--tokenizer char")
        said = self.dekoder("export", "run", "-o", "m.gguf")
        self.assertIn("m.gguf holds no tokenizer", said)
        metadata = GgufFile(self.folder / "m.gguf").metadata
        self.assertEqual([key for key in metadata if key.startswith("tokenizer.")], ["tokenizer.ggml.model"])
        self.assertEqual(metadata["tokenizer.ggml.model"], "none")

    def test_a_kill_leaves_the_old_file(self):
        self.dekoder("import", FIXTURES / "gpt2", "-o", "run")
        self.dekoder("export", "run", "-o", "m.gguf")
        before = (self.folder / "m.gguf").read_bytes()
        self.dekoder("export", "run", "-o", "m.gguf", "--dtype", "float16", code=-9, fault="gguf:before_rename")
        self.assertEqual((self.folder / "m.gguf").read_bytes(), before)
        self.dekoder("export", "run", "-o", "m.gguf", "--dtype", "float16")
        self.assertLess((self.folder / "m.gguf").stat().st_size, len(before))
        self.assertEqual(sorted(path.name for path in self.folder.iterdir()), ["m.gguf", "run"])


if __name__ == "__main__":
    unittest.main()
