# SPDX-License-Identifier: Apache-2.0
"""Attention maps of real runs: what they cost training (nothing: the same bits with and without), what they hold (weights of
a causal softmax; the last step equals `dekoder attention` on the last checkpoint), and that kill -9 at any point of a capture
and restarts leave every step whole and once."""

import json
import pathlib
import signal
import subprocess
import sys
import tempfile

import h5py
import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import dekoder_runs as dk  # noqa: E402

STEPS = 160
ATTENTION = 'attention: {texts: ["alpha beta", "gamma"], windows: 2, window_tokens: 9, every: 25, steps: [3, 60]}\n'
CAPTURED = [0, 3, 25, 50, 60, 75, 100, 125, 150, 160]
TOKENS = {"text_0": 10, "text_1": 5, "window_0": 9, "window_1": 9}
STATISTICS = ["entropy", "mean_distance", "previous_token", "first_token", "same_token", "duplicate_token", "induction"]


def refused(workshop, run, extra, *fragments):
    process = workshop.start(run, STEPS, extra=extra)
    code = process.wait(timeout=60)
    said = process.log.read_text()
    dk.check(code == 2, f"exit code {code}, expected 2; it said:\n{said}")
    for fragment in fragments:
        dk.check(fragment in said, f"'{fragment}' is not in:\n{said}")


def check_maps(run):
    """Every step whole and once; weights of a causal softmax; statistics as in the log and as recomputed."""
    logged = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "attention" in row:
            dk.check((row["step"], row["probe"]) not in logged, f"logged twice: {row['step']} {row['probe']}")
            logged[row["step"], row["probe"]] = row["attention"]
    with h5py.File(run / "attention.h5") as f:
        dk.check(sorted(f["attention"]) == sorted(TOKENS), f"probes {sorted(f['attention'])}")
        for probe, n in TOKENS.items():
            group = f["attention"][probe]
            steps = sorted(int(name[5:]) for name in group if name.startswith("step_"))
            dk.check(steps == CAPTURED, f"{probe}: steps {steps}, expected {CAPTURED}")
            text = b"".join(token for token in group["token_text"][:]).decode()
            dk.check(text == group.attrs["text"].decode() and len(text) == n, f"{probe}: '{text}', {group.attrs['text']}")
            for step in steps:
                weights = group[f"step_{step}"][:].astype(numpy.float64)
                where = f"{probe} step {step}"
                dk.check(weights.shape == (2, 2, n, n), f"{where}: shape {weights.shape}")
                dk.check(group[f"step_{step}"].dtype == numpy.float16, f"{where}: {group[f'step_{step}'].dtype}")
                dk.check(abs(weights.sum(-1) - 1).max() < n * 2.0**-11, f"{where}: rows do not sum to 1")
                dk.check((weights[..., ~numpy.tri(n, dtype=bool)] == 0).all(), f"{where}: weight above the diagonal")
                statistics = f["statistics"][probe][f"step_{step}"][:]
                previous = numpy.diagonal(weights, -1, 2, 3).sum(-1) / n
                dk.check(abs(statistics[..., 2] - previous).max() < 1e-3, f"{where}: previous-token mass")
                for i, name in enumerate(STATISTICS):
                    values = numpy.array(logged[step, probe][name], numpy.float32)
                    dk.check((values == statistics[..., i]).all(), f"{where}: {name} in the log and in the file")
        dk.check(len(logged) == len(CAPTURED) * len(TOKENS), f"{len(logged)} log lines of attention")


def compare_maps(left, right):
    with h5py.File(left) as a, h5py.File(right) as b:
        for group in ("attention", "statistics"):
            for probe in a[group]:
                dk.check(list(a[group][probe]) == list(b[group][probe]), f"{probe}: other datasets")
                for name in a[group][probe]:
                    dk.check(a[group][probe][name][:].tobytes() == b[group][probe][name][:].tobytes(),
                             f"{group}/{probe}/{name} differs between {left} and {right}")


with tempfile.TemporaryDirectory() as folder:
    workshop = dk.Workshop(folder)
    root = pathlib.Path(folder)
    plain, whole = root / "plain", root / "whole"
    workshop.train(plain, STEPS)
    said = workshop.train(whole, STEPS, extra=ATTENTION)
    dk.check(f"4 probes at {len(CAPTURED)} steps" in said and "MB in attention.h5" in said, f"no size was printed:\n{said}")
    dk.check(not (plain / "attention.h5").exists(), "maps without probes")
    check_maps(whole)

    # The same bits with and without.
    without = [line for line in dk.step_lines(whole) if '"attention"' not in line]
    dk.check(without == dk.step_lines(plain), "the log differs with attention maps on")
    last = max(dk.checkpoints(plain))
    dk.compare_checkpoints(dk.checkpoints(plain)[last], dk.checkpoints(whole)[last],
                           fields=("step", "tokens_seen", "tokenizer", "data_hash", "best_validation_loss"))

    # kill -9 at each point of a capture, and a signal in between.
    run = root / "killed"
    for fault in ("attention:mid_write", "attention:before_rename@2", "attention:after_rename@2", "checkpoint:mid_write",
                  "attention:after_rename@4", "attention:mid_write@3"):  # the last two: behind the checkpoint of step 40
        workshop.train(run, STEPS, extra=ATTENTION, fault=fault, expect=-signal.SIGKILL)
    workshop.train(run, STEPS, extra=ATTENTION)
    dk.compare_runs(whole, run)
    check_maps(run)
    compare_maps(whole / "attention.h5", run / "attention.h5")
    dk.check([p.name for p in run.glob("attention*")] == ["attention.h5"], f"left over: {list(run.glob('attention*'))}")

    # A finished run, started again, writes nothing.
    before = (run / "attention.h5").stat().st_mtime_ns, (run / "metrics.jsonl").read_bytes()
    workshop.train(run, STEPS, extra=ATTENTION)
    dk.check((run / "attention.h5").stat().st_mtime_ns == before[0], "a finished run wrote attention.h5 again")

    # From any checkpoint.
    for step in (last, min(dk.checkpoints(run))):
        output = root / f"by-hand-{step}.h5"
        answer = subprocess.run([dk.PROGRAM, "attention", run, "--text", "alpha beta", "--step", str(step), "-o", output],
                                capture_output=True, text=True)
        dk.check(answer.returncode == 0 and "previous_token" in answer.stdout, f"dekoder attention: {answer}")
        with h5py.File(output) as by_hand, h5py.File(run / "attention.h5") as captured:
            weights = by_hand[f"attention/text_0/step_{step}"][:]
            dk.check(weights.shape == (2, 2, 10, 10), f"shape {weights.shape}")
            if step == last:
                dk.check((weights == captured[f"attention/text_0/step_{step}"][:]).all(), "by hand differs from captured")
    answer = subprocess.run([dk.PROGRAM, "attention", run, "--text", "alpha", "--step", "7"], capture_output=True, text=True)
    dk.check(answer.returncode == 3 and "no checkpoint of step 7" in answer.stderr, f"{answer}")
    answer = subprocess.run([dk.PROGRAM, "attention", run, "--text", "alpha beta gamma delta"], capture_output=True, text=True)
    dk.check(answer.returncode == 2 and "--text has 22 tokens" in answer.stderr, f"{answer}")

    # Refused before the run, with nothing written.
    none = root / "none"
    refused(workshop, none, 'attention: {windows: 200, every: 1, max_megabytes: 1}\n', "attention.max_megabytes 1", "MB")
    refused(workshop, none, 'attention: {texts: ["alpha beta gamma delta"]}\n', "attention.texts[0] has 22 tokens", "16")
    refused(workshop, none, 'attention: {layers: [2], windows: 1}\n', "attention.layers names layer 2")
    refused(workshop, none, 'attention: {steps: [161]}\n', "attention.steps has 161")
    refused(workshop, none, 'attention: {steps: 5}\n', "attention.steps is '5'; expected a list in [ ], each a whole number")
    refused(workshop, none, 'attention: {heads: [0, x]}\n', "attention.heads[1] is 'x'; expected a whole number")
    refused(workshop, none, 'attention: {texts: [[a]]}\n', "attention.texts[0] is a list; expected a text")

print("passed")
