# SPDX-License-Identifier: Apache-2.0
"""`dekoder export` against transformers itself: AutoModelForCausalLM and AutoTokenizer load the folder, without code of its own,
and give the tokens, the losses and the probabilities of `dekoder predictions`.

Needs torch and transformers (pip install torch==2.13.0 transformers==5.24.0) in this Python, or in the one that
DEKODER_TRANSFORMERS_PYTHON names; skipped otherwise."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import h5py
import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import dekoder_runs as dk  # noqa: E402

PYTHON = os.environ.get("DEKODER_TRANSFORMERS_PYTHON", sys.executable)
TEXT = "It is a truth universally acknowledged, that a single man in possession of a good fortune, must be in want of a wife.\n" * 30
CONTEXT = 24
COMMON = ["layers=2", "channels=16", "feed_forward=24", f"context={CONTEXT}"]
LLAMA = ["positions=rotary", "norm_kind=rms", "gated=true", "activation=silu", "bias=false"]
# Words of prepare, settings of the model, the architecture.
CASES = {
    "gpt2": (["--tokenizer", "byte"], ["heads=2"], "GPT2LMHeadModel"),
    "gpt2_no_bias": (["--tokenizer", "char"], ["heads=4", "bias=false", "tied_head=false", "positions=none", "activation=relu_squared"],
                     "GPT2LMHeadModel"),
    "llama": (["--tokenizer", "bpe", "--vocabulary", "300"],
              [*LLAMA, "heads=4", "key_value_heads=2", "tied_head=false", "rotary_base=500", "rotary_factor=8", "rotary_original_context=16"],
              "LlamaForCausalLM"),
    "llama_bias": (["--tokenizer", "bpe", "--vocabulary", "280", "--split", "cl100k"],
                   [*LLAMA[:-1], "bias=true", "heads=2", "head_size=6", "activation=gelu_tanh", "norm_epsilon=1e-6"], "LlamaForCausalLM"),
    "qwen3": (["--tokenizer", "bpe", "--vocabulary", "280", "--split", "qwen2"],
              [*LLAMA, "heads=3", "key_value_heads=1", "head_size=6", "qk_norm=true", "norm_epsilon=1e-6"], "Qwen3ForCausalLM"),
    "mistral_window": (["--tokenizer", "char"], [*LLAMA, "heads=2", "sliding_window=[7]", "tied_head=false"], "MistralForCausalLM"),
    "qwen3_window": (["--tokenizer", "char"], [*LLAMA, "heads=2", "qk_norm=true", "sliding_window=[0, 5]"], "Qwen3ForCausalLM"),
}

# Runs in the other Python: folder, windows of tokens and a text, as JSON on stdin.
ASK = """
import json, sys, torch
from transformers import AutoModelForCausalLM, AutoTokenizer
job = json.load(sys.stdin)
model = AutoModelForCausalLM.from_pretrained(job["folder"]).float().eval()
words = AutoTokenizer.from_pretrained(job["folder"])
with torch.no_grad():
    chances = torch.log_softmax(model(torch.tensor(job["windows"])).logits.double(), -1)
tokens = words(job["text"])["input_ids"]
print(json.dumps({"architecture": type(model).__name__, "chances": chances.tolist(), "tokens": tokens,
                  "text": words.decode(tokens), "end": words.eos_token_id}))
"""


def run(*words):
    done = subprocess.run([dk.PROGRAM, *map(str, words)], capture_output=True, text=True)
    dk.check(done.returncode == 0, f"{words}: {done.stderr}")
    return done.stdout


def ask(folder, windows, text):
    job = json.dumps({"folder": str(folder), "windows": windows, "text": text})
    done = subprocess.run([PYTHON, "-c", ASK], input=job, capture_output=True, text=True, env=dict(os.environ, HF_HUB_OFFLINE="1"))
    dk.check(done.returncode == 0, f"transformers: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def check_case(folder, name):
    tokenizer, model, architecture = CASES[name]
    (folder / "text.txt").write_text(TEXT)
    run("prepare", folder / "text.txt", "-o", folder / "tokens.h5", *tokenizer, "--validation-fraction", "0.2")
    config = folder / "c.yaml"
    config.write_text(f"data: {{tokens: {folder / 'tokens.h5'}}}\n"
                      "training: {steps: 60, batch: 4, warmup_steps: 5, learning_rate: 0.01}\nsampling: {prompt: It}\n")
    run("train", config, "--run", folder / "run", *(word for key in COMMON + model for word in ("--set", f"model.{key}")))
    run("export", folder / "run", "-o", folder / "model")
    run("predictions", folder / "run", "--windows", 3, "--top", 20, "-o", folder / "table.h5")
    with h5py.File(folder / "table.h5") as file:
        table = {key: file[key][()] for key in file}
    text = TEXT[:60]
    windows = table["input"].reshape(-1, CONTEXT)
    answer = ask(folder / "model", windows.tolist(), text)
    dk.check(answer["architecture"] == architecture, f"{name}: {answer['architecture']}")
    chances = numpy.array(answer["chances"]).reshape(len(table["truth"]), -1)
    rows = numpy.arange(len(chances))
    best = numpy.take_along_axis(chances, table["top_tokens"], 1)
    worst = max(numpy.abs(chances[rows, table["truth"]] + table["surprise"]).max(), numpy.abs(best - table["top_log_probabilities"]).max())
    scale = numpy.abs(chances).max()
    dk.check(worst < 2e-5 * scale, f"{name}: log-probabilities differ by {worst:.2e}, the largest is {scale:.2f}")
    own = first_tokens(folder / "tokens.h5", text)
    dk.check(answer["tokens"] == own, f"{name}: tokens {answer['tokens']}, expected {own}")
    dk.check(answer["text"] == text, f"{name}: decoded {answer['text']!r}")
    dk.check((answer["end"] is not None) == ("bpe" in tokenizer), f"{name}: end of text {answer['end']}")
    # And back: the run that is begun from the export says the same of the same tokens.
    run("import", folder / "model", "-o", folder / "back", "--set", "sampling.prompt=It")
    before = run("eval", folder / "run").split(":", 1)[1]
    after = run("eval", folder / "back", "--tokens-file", folder / "tokens.h5").split(":", 1)[1]
    dk.check(before == after, f"{name}: {before} and after import {after}")
    print(f"{name}: {len(chances)} tokens, log-probabilities within {worst / scale:.1e} of the largest")


def first_tokens(file, text):
    """Tokens of a token file up to the end of `text`, with which it begins."""
    tokens, rest = [], text
    for line in run("tokens", file, "--show", len(text)).splitlines():
        if rest and "  '" in line:
            token, piece = line.split("  '", 1)
            tokens.append(int(token))
            dk.check(rest.startswith(piece[:-1]), f"{line} where {rest!r} is expected")
            rest = rest[len(piece) - 1:]
    return tokens


def main():
    if subprocess.run([PYTHON, "-c", "import torch, transformers"], capture_output=True).returncode != 0:
        print(f"skipped: {PYTHON} has no torch and transformers; DEKODER_TRANSFORMERS_PYTHON may name another Python")
        sys.exit(77)
    for name in sys.argv[1:] or CASES:
        with tempfile.TemporaryDirectory() as folder:
            check_case(pathlib.Path(folder), name)


main()
