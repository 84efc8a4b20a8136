# SPDX-License-Identifier: Apache-2.0
"""`dekoder export -o FILE.gguf` against llama.cpp itself: its logits on the fixtures that transformers computed, and of trained models
the tokens of texts and the greedy text of `dekoder generate`; every file by the reader of the package gguf, too.

Needs llama-cpp-python and gguf (pip install llama-cpp-python==0.3.36 gguf==0.19.0) in this Python, or in the one that
DEKODER_LLAMA_CPP_PYTHON names; skipped otherwise."""
import json
import os
import pathlib
import random
import subprocess
import sys
import tempfile

import h5py
import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import dekoder_runs as dk  # noqa: E402
from gguf_file import GgufFile  # noqa: E402

PYTHON = os.environ.get("DEKODER_LLAMA_CPP_PYTHON", sys.executable)
FIXTURES = pathlib.Path(os.environ.get("DEKODER_SOURCE_DIR", pathlib.Path(__file__).resolve().parents[2])) / "tests/huggingface/fixtures"
TEXT = "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife.\n" * 40
LLAMA = ["positions=rotary", "norm_kind=rms", "gated=true", "activation=silu", "bias=false"]
# Of the largest logit. ggml rounds the activations as the weights; its GELU on CPUs is a table of float16.
TOLERANCES = {"float32": 1e-6, "float16": 3e-3, "bfloat16": 3e-2, "q8_0": 3e-2}
GELU_TABLE = 5e-4
PROMPT = "It is a truth"
SHAPES = {"gpt2": ["heads=2", "positions=learned"], "llama": [*LLAMA, "heads=4", "key_value_heads=2", "rotary_factor=4", "rotary_original_context=16"],
          "qwen3": [*LLAMA, "heads=2", "qk_norm=true", "tied_head=false"]}
TOKENIZERS = {"byte": ["--tokenizer", "byte"], **{split: ["--tokenizer", "bpe", "--vocabulary", "320", "--split", split] for split in ("gpt2", "cl100k", "qwen2")}}

# Runs in the other Python.
ASK = """
import json, sys, gguf, llama_cpp, numpy
job = json.load(sys.stdin)
reader = gguf.GGUFReader(job["file"])
shown = {tensor.name: [tensor.tensor_type.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype("f4").tobytes().hex()]
         for tensor in reader.tensors}
model = llama_cpp.Llama(job["file"], n_ctx=0, n_threads=1, logits_all=True, flash_attn=False, type_k=0, type_v=0, verbose=False)
logits = []
for row in job["rows"]:
    model.reset()
    model.eval(row)
    logits.append(numpy.array(model.scores[:len(row)]).tolist())
model.reset()
greedy = []
prompt = job["prompt"] if isinstance(job["prompt"], list) else model.tokenize(job["prompt"].encode(), add_bos=True, special=False)
for token in model.generate(prompt, temp=0, repeat_penalty=1.0):
    greedy.append(int(token))
    if len(greedy) == job["count"]:
        break
print(json.dumps({"tensors": shown, "logits": logits, "greedy": greedy, "text": model.detokenize(greedy).decode(errors="replace"),
                  "tokens": [model.tokenize(text.encode(), add_bos=True, special=False) for text in job["texts"]]}))
"""


def run(*words):
    environment = dict(os.environ, OMP_NUM_THREADS="1", OMP_PROC_BIND="false")
    done = subprocess.run([dk.PROGRAM, *map(str, words)], capture_output=True, text=True, env=environment)
    dk.check(done.returncode == 0, f"{words}: {done.stderr}")
    return done.stdout


def ask(file, prompt, count, rows=(), texts=()):
    """What llama.cpp says; that both readers find the same tensors is checked here."""
    job = json.dumps({"file": str(file), "prompt": prompt, "count": count, "rows": rows, "texts": texts})
    done = subprocess.run([PYTHON, "-c", ASK], input=job, capture_output=True, text=True)
    dk.check(done.returncode == 0, f"llama.cpp: {done.stderr[-2000:]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    own = GgufFile(file)
    dk.check(answer["tensors"] == {name: [own.types[name], values.tobytes().hex()] for name, values in own.tensors.items()},
             f"{file}: the package gguf reads other tensors")
    return answer


def safetensors(path):
    data = path.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return {name: numpy.frombuffer(data[end + entry["data_offsets"][0]:end + entry["data_offsets"][1]], "<f4").reshape(entry["shape"])
            for name, entry in json.loads(data[8:end]).items() if name != "__metadata__"}


def check_fixture(folder, name):
    expected = safetensors(FIXTURES / name / "expected.safetensors")
    logits = expected["logits"]
    run("import", FIXTURES / name, "-o", folder / "run")
    for word, tolerance in TOLERANCES.items():
        run("export", folder / "run", "-o", folder / "m.gguf", "--dtype", word)
        answer = ask(folder / "m.gguf", expected["prompt"].astype(int).tolist(), len(expected["greedy"]), expected["tokens"].astype(int).tolist())
        worst = numpy.abs(numpy.array(answer["logits"]) - logits).max() / numpy.abs(logits).max()
        print(f"{name}, {word}: logits within {worst:.1e} of the largest")
        dk.check(worst < max(tolerance, GELU_TABLE if name == "gpt2" else 0), f"{name}, {word}: logits differ by {worst:.1e} of the largest")
        if word == "float32":
            dk.check(answer["greedy"] == expected["greedy"].astype(int).tolist(), f"{name}: greedy tokens {answer['greedy']}")


def texts():
    """English, and texts that patterns and alphabets of bytes could trip over; none that Unicode's versions class differently."""
    draw = random.Random(3)
    pieces = ["It's", "WE'LL", "don't", " ", "  ", "\n", "\r\n", "\t", "\u00a0", "1234567", "3.14", "\u00e9", "na\u00efve", "\u0416\u0443\u043a", "\u6f22\u5b57", "\u0661\u0662",
              "\U0001f600", "a", "B", "truth", " truth", "...", "!?", "_", "<|endoftext|>", "$x$", "/path", "\u2019s", "'", "\"", "\u03b1\u03b2", "e\u0301"]
    return [TEXT[:500], *("".join(draw.choices(pieces, k=40)) for _ in range(60))]


def check_trained(folder, shape, tokenizer):
    case = f"{shape}, {tokenizer}"
    (folder / "text.txt").write_text(TEXT)
    run("prepare", folder / "text.txt", "-o", folder / "tokens.h5", *TOKENIZERS[tokenizer], "--validation-fraction", "0.2")
    (folder / "c.yaml").write_text(f"model: {{layers: 2, channels: 64, feed_forward: 96, context: 64}}\ndata: {{tokens: {folder / 'tokens.h5'}}}\n"
                                   "training: {steps: 60, batch: 8, warmup_steps: 5, learning_rate: 0.01}\nsampling: {prompt: It, every: 0}\n")
    run("train", folder / "c.yaml", "--run", folder / "run", *(word for key in SHAPES[shape] for word in ("--set", f"model.{key}")))
    expected = run("generate", folder / "run", "--prompt", PROMPT, "--temperature", 0, "--tokens", 30).removesuffix("\n")
    asked, own = texts(), []
    if tokenizer == "byte":
        own = [list(text.encode()) for text in asked]
    else:
        run("export", folder / "run", "-o", folder / "model")
        for text in asked:
            (folder / "asked.txt").write_text(text, newline="")
            run("prepare", folder / "asked.txt", "-o", folder / "asked.h5", "--tokenizer", folder / "model/tokenizer.json", "--validation-fraction", "0")
            with h5py.File(folder / "asked.h5") as file:
                own.append(file["tokens"][:-1].tolist())  # without the end of the document
    for word in TOLERANCES:
        run("export", folder / "run", "-o", folder / "m.gguf", "--dtype", word)
        answer = ask(folder / "m.gguf", PROMPT, 30, texts=asked if word == "float32" else [])
        for text, tokens, theirs in zip(asked, own, answer["tokens"]):
            dk.check(theirs == tokens, f"{case}: {text!r} is {theirs} in llama.cpp, {tokens} here")
        same = PROMPT + answer["text"] == expected
        print(f"{case}, {word}: greedy text {'equal' if same else 'differs'}")
        dk.check(same or word != "float32", f"{case}: {PROMPT + answer['text']!r}, expected {expected!r}")


def main():
    if subprocess.run([PYTHON, "-c", "import gguf, llama_cpp"], capture_output=True).returncode != 0:
        print(f"skipped: {PYTHON} has no gguf and llama_cpp; DEKODER_LLAMA_CPP_PYTHON may name another Python")
        sys.exit(77)
    for name in ("gpt2", "llama", "mistral", "qwen3"):
        with tempfile.TemporaryDirectory() as folder:
            check_fixture(pathlib.Path(folder), name)
    for shape, tokenizer in (("gpt2", "gpt2"), ("llama", "cl100k"), ("qwen3", "qwen2"), ("llama", "byte")):
        with tempfile.TemporaryDirectory() as folder:
            check_trained(pathlib.Path(folder), shape, tokenizer)


main()
