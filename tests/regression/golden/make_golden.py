# SPDX-License-Identifier: Apache-2.0
"""Makes the golden runs anew, with the program of a build:

    DEKODER_BINARY_DIR=build/tests python3 tests/regression/golden/make_golden.py

They are what this format's programs have written: later programs must go on with them and read them (test_golden.py). So they
are made anew only where a format changes on purpose; then the earlier ones stay, under another name, as long as
the program promises to read them.

`text.txt` -> tokens-char.h5, tokens-byte.h5; two runs, of the configurations beside, from within this folder, so that all
paths in them are relative: each trains to step 20, goes on to step 30 (a restart that changed a setting), and has
finished. expected.json holds what is computed and read: losses of further steps, digests, a text."""
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER.parents[2] / "postprocess"))
from dekoder_postprocess.run_reader import read_run  # noqa: E402

BINARY = Path(os.environ["DEKODER_BINARY_DIR"]).resolve()
RUNS = ("char", "byte")
STEPS, MORE = 30, 36  # of the golden runs; of their continuation
PROMPT = "the ladder "
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def dekoder(*words, cwd):
    done = subprocess.run([BINARY / "dekoder", *words], cwd=cwd, capture_output=True, text=True, env=ENVIRONMENT)
    if done.returncode != 0:
        raise SystemExit(f"dekoder {words}: exit code {done.returncode}\n{done.stderr}")
    return done.stdout


def train(run, steps, cwd):
    dekoder("train", f"{run}.yaml", "--run", run, "--set", f"training.steps={steps}", cwd=cwd)


def generated(run, cwd):
    """Drawn with a fixed seed; another build's last bits change a draw in one of some hundred thousand texts."""
    return dekoder("generate", run, "--prompt", PROMPT, "--tokens", "12", "--temperature", "0.9", "--top-k", "20", "--seed", "7", cwd=cwd)


def rows(path, key):
    """Step -> value of the rows of a log that have the key."""
    lines = [json.loads(line) for line in Path(path).read_text().splitlines()]
    return {row["step"]: row[key] for row in lines if key in row}


def checkpoint_digests(path):
    """What the program reads of a checkpoint: tensor -> digest; every byte is checked against it."""
    done = subprocess.run([BINARY / "tests/support/checkpoint_digests", path], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{path}: {done.stderr}")
    return dict(line.split() for line in done.stdout.splitlines())


def digest(array):
    return hashlib.sha256(array.tobytes()).hexdigest()


def read_digests(folder, run):
    """Of what is read of a golden run in `folder`: by the program of its checkpoints, by the post-processing of its log and
    attention maps."""
    digests = {path.name: checkpoint_digests(path) for path in sorted((folder / run / "checkpoints").glob("*.h5"))}
    read = read_run(folder / run)
    digests["metrics.jsonl"] = {**{f"steps/{name}": digest(column) for name, column in read.steps.items()},
                                **{f"evaluations/{name}": digest(column) for name, column in read.evaluations.items()}}
    if read.attention:
        digests["attention"] = {f"{name}/{step}": digest(probe.weights(step))
                                for name, probe in read.attention.probes.items() for step in probe.steps}
    return digests


def expected(folder):
    """Of golden runs in `folder`, which it changes."""
    values = {}
    for run in RUNS:
        values[run] = {"generated": generated(run, folder), "digests": read_digests(folder, run)}
        train(run, MORE, folder)
        log = folder / run / "metrics.jsonl"
        values[run].update({key: rows(log, key) for key in ("loss", "validation_loss")})
    return values


def main():
    for name in ("char", "byte"):
        (FOLDER / f"tokens-{name}.h5").unlink(missing_ok=True)
        shutil.rmtree(FOLDER / name, ignore_errors=True)
        dekoder("prepare", "text.txt", "-o", f"tokens-{name}.h5", "--tokenizer", name, cwd=FOLDER)
    for run in RUNS:
        train(run, 20, FOLDER)
        train(run, STEPS, FOLDER)
        (FOLDER / run / "lock").unlink(missing_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "golden"
        shutil.copytree(FOLDER, copy)
        (FOLDER / "expected.json").write_text(json.dumps(expected(copy), indent=1) + "\n")


if __name__ == "__main__":
    main()
