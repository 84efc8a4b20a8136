# SPDX-License-Identifier: Apache-2.0
"""Runs that an earlier program wrote (golden/, made by golden/make_golden.py) are read by today's, and go on: every tensor with
the digest it had, and losses that differ in the last bits at most, as builds do."""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

import h5py
import numpy

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent / "support"), str(HERE / "golden"), str(HERE.parents[1] / "postprocess")]
import dekoder_runs as dk  # noqa: E402
import make_golden as golden  # noqa: E402
from dekoder_postprocess.program import Program  # noqa: E402
from dekoder_postprocess.run_watcher import RunWatcher  # noqa: E402

EXPECTED = json.loads((golden.FOLDER / "expected.json").read_text())
LOSS_TOLERANCE = 1e-4  # relative, of steps on another build (see other_state)
BIN = HERE.parents[1] / "postprocess/bin"


def tool(name, *words, cwd):
    done = subprocess.run([sys.executable, "-B", BIN / name, *words], cwd=cwd, capture_output=True, text=True,
                          env={**os.environ, "DEKODER_PROGRAM": str(dk.PROGRAM), "LC_ALL": "C", "COLUMNS": "100"})
    dk.check(done.returncode == 0, f"{name} {words}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def near(got, expected, what, tolerance=LOSS_TOLERANCE):
    dk.check(abs(got - expected) <= tolerance * abs(expected), f"{what}: {got}, expected {expected}")


def same_losses(folder, run, steps):
    for key in ("loss", "validation_loss"):
        got = golden.rows(folder / run / "metrics.jsonl", key)
        expected = {int(step): loss for step, loss in EXPECTED[run][key].items()}
        dk.check(list(got) == list(expected), f"{run}: rows of {key} at {list(got)}, expected {list(expected)}")
        for step in set(steps) & set(expected):
            near(got[step], expected[step], f"{run}, {key} of step {step}")


def small_enough():
    size = sum(path.stat().st_size for path in golden.FOLDER.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc"))
    dk.check(size < 300_000, f"the golden files have {size} bytes")


def is_read(folder, run):
    """By every command that reads a run, which change nothing that a run needs."""
    dk.check(golden.read_digests(folder, run) == EXPECTED[run]["digests"], f"{run}: other digests")
    status = json.loads(golden.dekoder("status", run, "--json", cwd=folder))
    dk.check((status["state"], status["running"], status["step"], status["saved_step"], status["steps"]) == ("finished", False, 30, 30, 30),
             f"{status}")
    validation = EXPECTED[run]["validation_loss"]["30"]
    dk.check(status["validation_loss"] == validation and status["loss"] == EXPECTED[run]["loss"]["30"], f"{status}")
    evaluated = golden.dekoder("eval", run, cwd=folder)
    near(float(re.search(r"step 30: validation loss ([\d.]+)", evaluated).group(1)), validation, evaluated)
    text = golden.generated(run, folder)
    dk.check(text == EXPECTED[run]["generated"], f"{run}: generated {text!r}, expected {EXPECTED[run]['generated']!r}")
    maps_are_computed_again(folder, run)
    tool("dekoder-report", run, "-o", f"{run}.html", cwd=folder)
    page = (folder / f"{run}.html").read_text()
    dk.check(f"{validation:.3f}" in page and "training.steps" in page, f"{run}: a report without its numbers")
    seen = tool("dekoder-watch", run, cwd=folder)
    for words in ("finished  step 30 / 30 (100 %)", f"validation {validation:.4f} at step 30", "1 restart", "^ restart"):
        dk.check(words in seen, f"{run}: no {words!r} in\n{seen}")
    listed = subprocess.run([dk.PROGRAM, "runs", run, "--json"], cwd=folder, capture_output=True, text=True,
                            env={**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"})
    dk.check(listed.returncode == 0, listed.stderr)
    row, = json.loads(listed.stdout)["runs"]
    of_status = (status["state"], status["step"], status["steps"], status["best_validation_loss"], status["best_step"], validation)
    of_table = [row[key] for key in ("state", "step", "planned_steps", "validation_loss", "best_step", "last_validation_loss")]
    dk.check(tuple(of_table) == of_status and row["restarts"] == 1, f"{run}: {row}, expected {of_status}")
    print(f"{run} is read: passed")


def maps_are_computed_again(folder, run):
    golden.dekoder("attention", run, "--text", "the ladder", "-o", "maps.h5", cwd=folder)
    with h5py.File(folder / "maps.h5") as file:
        weights = file["attention/text_0/weights"][()].astype(float)
    dk.check(numpy.abs(weights.sum(-1) - 1).max() < 5e-3, f"{run}: rows of attention")
    captured = folder / run / "attention/step-00000030.h5"
    if captured.exists():  # of the same text
        with h5py.File(captured) as file:
            dk.check(numpy.abs(weights - file["attention/text_0/weights"][()]).max() < 2e-3, f"{run}: other attention maps")
    (folder / "maps.h5").unlink()


def goes_on(folder, run):
    """From its end, six steps more; the log keeps every byte that it has."""
    log = folder / run / "metrics.jsonl"
    before = log.read_bytes()
    golden.train(run, golden.MORE, folder)
    dk.check(log.read_bytes().startswith(before), f"{run}: the log was changed")
    same_losses(folder, run, range(31, golden.MORE + 1))
    dk.check(dk.status(folder / run)["step"] == golden.MORE, f"{run}: {dk.status(folder / run)}")
    print(f"{run} goes on: passed")


def goes_back(folder):
    """Without its newest checkpoint, from that of step 20: the log is cut to the place that the checkpoint names, which one
    who watches notices."""
    run = folder / "char"
    golden_steps = dk.step_lines(run)
    watcher = RunWatcher(run, Program())
    watcher.look()
    dk.check((watcher.step, watcher.restarts) == (30, [20]), f"watched: {watcher.step}, {watcher.restarts}")
    (run / "checkpoints/ckpt-00000030.h5").unlink()
    golden.train("char", golden.MORE, folder)
    watcher.look()
    dk.check((watcher.step, watcher.restarts, len(watcher.steps)) == (36, [20], 36), f"watched: {watcher.step}, {watcher.restarts}")
    same_losses(folder, "char", range(21, golden.MORE + 1))
    kept = [line for line in golden_steps if json.loads(line if line.endswith("}") else line + "}")["step"] < 20]
    dk.check(len(kept) >= 20 and dk.step_lines(run)[:len(kept)] == kept, "the log before the checkpoint was changed")
    print("char goes on from an earlier checkpoint: passed")


def other_state(folder):
    """The tolerance tells apart what it should: an update of another size is far beyond it one step later."""
    golden.dekoder("train", "char.yaml", "--run", "char", "--set", f"training.steps={golden.MORE}", "--set",
                   "training.learning_rate=0.011", cwd=folder)
    got = golden.rows(folder / "char/metrics.jsonl", "loss")
    near(got[31], EXPECTED["char"]["loss"]["31"], "loss before the first other update")
    shift = max(abs(got[step] / EXPECTED["char"]["loss"][str(step)] - 1) for step in range(32, 37))
    dk.check(shift > 2 * LOSS_TOLERANCE, f"updates a tenth larger change losses by {shift} only")
    print(f"the tolerance is {shift / LOSS_TOLERANCE:.0f} times below what updates a tenth larger make: passed")


def main():
    small_enough()
    with tempfile.TemporaryDirectory() as scratch:
        for name, body in (("read", lambda folder: [is_read(folder, run) or goes_on(folder, run) for run in golden.RUNS]),
                           ("back", goes_back), ("other", other_state)):
            folder = pathlib.Path(scratch) / name
            shutil.copytree(golden.FOLDER, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
            body(folder)


if __name__ == "__main__":
    main()
