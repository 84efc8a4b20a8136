# SPDX-License-Identifier: Apache-2.0
"""The number of threads changes no bit: products of every shape of input/*.yaml, and runs of these configurations. Beyond
five threads gradients of weights are left out: oneDNN then splits their long sums over tokens among the threads."""

import os
import pathlib
import random
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(os.environ["DEKODER_SOURCE_DIR"])
sys.path.insert(0, str(ROOT / "tests" / "support"))
from dekoder_runs import PROGRAM, check, checkpoints, compare_checkpoints, step_lines

INPUTS = sorted(path for path in (ROOT / "input").glob("*.yaml") if not path.name.startswith("sweep-"))
# More threads than cores are only slower.
THREADS = (1, 2, 3)
PRODUCT_THREADS = (1, 2, 3, 5, 8)
FOR_ALL_PRODUCTS = 5
OF_WEIGHT_GRADIENTS = "dekoder::gemm::tn "
# What keeps a step of the larger ones short; every shape of theirs is among the products.
SMALLER = {
    "char-10m": ["training.batch=8", "training.micro_batch=4", "model.layers=2"],
    "gpt2-124m": ["training.batch=1", "model.layers=1", "model.context=256", "model.vocabulary=5000"],
    "llama-150m": ["training.batch=2", "training.micro_batch=1", "model.layers=1", "model.context=256", "model.vocabulary=5000"],
}


def environment(threads):
    return dict(os.environ, OMP_NUM_THREADS=str(threads), OMP_PROC_BIND="false")


def check_products(precision):
    program = pathlib.Path(os.environ["DEKODER_BINARY_DIR"]) / "tests" / f"product_digests_{precision}"
    digests = {}
    for threads in PRODUCT_THREADS:
        digests[threads] = subprocess.run([program, *INPUTS], env=environment(threads), capture_output=True, text=True,
                                          check=True).stdout.splitlines()
    check(len(digests[1]) > 30, f"only {len(digests[1])} products")
    different = [f"{threads} threads: {line}\n  1 thread: {first}" for threads in PRODUCT_THREADS
                 for line, first in zip(digests[threads], digests[1])
                 if line != first and (threads <= FOR_ALL_PRODUCTS or not line.startswith(OF_WEIGHT_GRADIENTS))]
    check(not different, f"products in {precision} differ by the number of threads:\n" + "\n".join(different))
    print(f"{len(digests[1])} products in {precision}, the same bits with {PRODUCT_THREADS} threads where promised")


def check_run(config, folder, tokens):
    settings = [f"data.tokens={tokens}", "training.steps=2", "training.warmup_steps=0", "evaluation.tokens=300",
                "attention.texts=[]", "attention.windows=0", *SMALLER.get(config.stem, [])]
    runs = {}
    for threads in THREADS:
        runs[threads] = folder / f"{config.stem}-{threads}"
        answer = subprocess.run(
            [PROGRAM, "train", config, "--run", runs[threads], *(w for s in settings for w in ("--set", s))],
            env=environment(threads), capture_output=True, text=True)
        check(answer.returncode == 0, f"{config.stem}: exit code {answer.returncode}; it said:\n{answer.stderr}")
        check(step_lines(runs[threads]) == step_lines(runs[1]), f"{config.stem}: other losses with {threads} threads")
        compare_checkpoints(checkpoints(runs[1])[2], checkpoints(runs[threads])[2])
    print(f"{config.stem}: the same bits with {THREADS} threads")


with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    for precision in ("float", "bf16"):
        check_products(precision)
    random.seed(7)
    text = folder / "text.txt"
    text.write_text("".join(random.choice("abcdefgh ijklm\n") for _ in range(60000)))
    tokens = folder / "tokens.h5"
    subprocess.run([PROGRAM, "prepare", text, "-o", tokens], check=True, stdout=subprocess.DEVNULL)
    for config in INPUTS:
        check_run(config, folder, tokens)
