#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Simulated ranks, by hand; each simulation tells on stderr what it was, gave and took. After a build of the tests:
    jobs/toolbox python3 tests/scaling/table.py bits [BUILD FOLDER]     # the bits and bytes of 8 to 512 ranks
    jobs/toolbox python3 tests/scaling/table.py times [BUILD FOLDER]    # the README's table of times, as Markdown on stdout
The figures of the network are in tests/scaling/cluster.hpp, the model in tests/scaling/times.cpp."""
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = Path(sys.argv[2] if len(sys.argv) > 2 else ROOT / "build/tests") / "tests/scaling"
MIB = 1 << 20
SMALL = "model: {layers: 3, heads: 2, channels: 48, feed_forward: 96, context: 16, vocabulary: 100}\n"
# GPT-2's smallest and largest.
XL = ("layers=48", "heads=25", "channels=1600", "feed_forward=6400")
MODELS = {"124M": (), "1.5B": tuple(word for key in XL for word in ("--set", "model." + key))}
RANKS = (8, 16, 32, 64, 128, 256, 512)
UNEVEN = ((100, 130), (200, 333), (384, 512))  # ranks and micro-batches
# What SMPI can carry of our exchange in minutes: all flows share the network at once, (ranks)^2 x buckets of them. Bytes of a
# bucket by ranks: those of a run (8 MiB) where it can be, else coarser ones.
BUCKETS = {"124M": {8: 8 * MIB, 16: 8 * MIB, 32: 128 * MIB, 64: 512 * MIB},
           "1.5B": {8: 128 * MIB, 16: 512 * MIB, 32: 1024 * MIB}}
RINGS = {"124M": RANKS, "1.5B": (8, 16, 32, 64)}


def simulate(program, *words):
    begin = time.monotonic()
    command = [str(word) for word in (PROGRAMS / program, *words)]
    # Pages that all buffers share are mapped in large blocks: there is a limit to how many.
    command.append("--cfg=smpi/shared-malloc-blocksize:16777216")
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_PROC_BIND": "false"})
    print(f"{time.monotonic() - begin:.0f} s, exit code {done.returncode}: {' '.join(command[1:])}: {done.stdout.strip()}",
          file=sys.stderr, flush=True)
    if done.returncode != 0:
        sys.exit(f"{command[0]}: {done.stderr}")
    return {key: float(value) for key, value in re.findall(r"(\w+)=([0-9.]+)", done.stdout)}


def check_bits():
    """As times do not matter, a link carries few messages at once, which is simulated in minutes."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "small.yaml"
        config.write_text(SMALL)
        for ranks, leaves in (*((ranks, ranks) for ranks in RANKS), *UNEVEN):
            simulate("scaling_bits", "--config", config, "--ranks", ranks, "--leaves", leaves, "--unit", 16, "--bucket",
                     MIB // 16 if ranks <= 128 else MIB // 4, "--cfg=maxmin/concurrency-limit:4")


def milliseconds(seconds):
    return f"{1e3 * seconds:.1f}" if seconds < 0.1 else f"{1e3 * seconds:.0f}"


def row(name, ranks, leaves):
    """Our exchange and a ring: model / simulation, of ours with its number of buckets."""
    model = ("--config", ROOT / "input/gpt2-124m.yaml", *MODELS[name], "--ranks", ranks, "--leaves", leaves)
    expected = simulate("scaling_times", "model", *model)
    cells = [milliseconds(expected["model_gradients"] + expected["model_values"]), milliseconds(expected["model_ring"])]
    if ranks in BUCKETS[name]:
        ours = simulate("scaling_times", "exchange", *model, "--bucket", BUCKETS[name][ranks])
        cells[0] += f" / {milliseconds(ours['gradients'] + ours['values'])} ({int(ours['buckets'])})"
    if ranks in RINGS[name]:
        cells[1] += f" / {milliseconds(simulate('scaling_times', 'allreduce', *model, '--cfg=smpi/allreduce:lr')['allreduce'])}"
    return cells


def print_times():
    columns = [f"{name}: {what}" for name in MODELS for what in ("exchange", "ring")]
    print("| ranks | " + " | ".join(columns) + " |\n" + "|---" * (1 + len(columns)) + "|")
    for ranks, leaves in (*((ranks, ranks) for ranks in RANKS), *UNEVEN):
        label = f"{ranks}" if ranks == leaves else f"{ranks}, {leaves} micro-batches"
        print(f"| {label} | " + " | ".join(cell for name in MODELS for cell in row(name, ranks, leaves)) + " |", flush=True)


if __name__ == "__main__":
    {"bits": check_bits, "times": print_times}[sys.argv[1]]()
