# SPDX-License-Identifier: Apache-2.0
"""What a restart knows of the run: which state is the best one, what changed, which text it was, what a stop left undone."""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import h5py

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import dekoder_runs as dk  # noqa: E402


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def fields(run):
    with h5py.File(dk.checkpoints(run)[max(dk.checkpoints(run))]) as file:
        return {name: value.decode() if isinstance(value, bytes) else value for name, value in file.attrs.items()}


def files_of(run):
    return {path.relative_to(run): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


def best_belongs_to_its_validation_set(workshop, root):
    """The first set is easy to be good at: one token. Its best would stay for ever."""
    run = root / "best"
    every = ["evaluation.every=20"]
    workshop.train(run, 80, every=20, sets=[*every, "evaluation.tokens=1"])
    first = fields(run)
    said = workshop.train(run, 160, every=20, sets=[*every, "evaluation.tokens=200"])
    dk.check("the validation tokens are others than before" in said, said)
    sets = {}
    for row in rows(run):
        if "validation_loss" in row and row["step"] > 0:
            sets.setdefault(row["validation_hash"], {})[row["step"]] = row["validation_loss"]
    dk.check(len(sets) == 2, f"{sets}")
    last = fields(run)
    new = sets[last["best_validation_hash"]]
    dk.check(first["best_validation_hash"] != last["best_validation_hash"] == last["validation_hash"], f"{last}")
    dk.check(last["best_step"] == min(new, key=new.get) and last["best_validation_loss"] == min(new.values()),
             f"best {last['best_step']}: {last['best_validation_loss']}, of {new}")
    dk.check(80 in new, "the state that the run went on from is not measured on the new tokens")
    dk.check(last["best_step"] in dk.checkpoints(run), "the best state was rotated away")
    print("best belongs to its validation set: passed")


def eval_wants_the_runs_text(workshop, root):
    run = root / "text"
    workshop.train(run, 40)
    whole = workshop.tokens.read_bytes()
    other = root / "other.h5"
    shutil.copy(workshop.tokens, other)
    subprocess.run([dk.PROGRAM, "prepare", workshop.folder / "text.txt", "-o", workshop.tokens, "--validation-fraction",
                    "0.3"], check=True, stdout=subprocess.DEVNULL)
    said = subprocess.run([dk.PROGRAM, "eval", run], capture_output=True, text=True)
    dk.check(said.returncode == 2 and "another part held out" in said.stderr and "--tokens-file" in said.stderr,
             f"{said.returncode}: {said.stderr}{said.stdout}")
    for file in (workshop.tokens, other):
        said = subprocess.run([dk.PROGRAM, "eval", run, "--tokens-file", file], capture_output=True, text=True)
        dk.check(said.returncode == 0, said.stderr)
    workshop.tokens.write_bytes(whole)
    print("eval wants the run's text: passed")


def configuration_is_what_was_used(workshop, root):
    run = root / "provenance"
    workshop.train(run, 40)
    before = files_of(run)
    said = workshop.train(run, 40, sets=["training.learning_rate=0.5"])
    dk.check("is now" not in said and "jumps" not in said, f"a start that trains nothing changes nothing: {said}")
    dk.check(files_of(run) == before, "a start that trains nothing changed the run")
    said = workshop.train(run, 30, expect=2)
    dk.check("training.steps is 30, but the run has done 40 steps" in said, said)
    dk.check(files_of(run) == before, "a refused start changed the run")

    log = run / "metrics.jsonl"
    log.write_text(log.read_text() + log.read_text())  # as after a kill: rows behind the checkpoint's
    for name in ("samples.jsonl", "config.yaml"):
        kept = (run / name).read_bytes()
        (run / name).unlink()
        (run / name).mkdir()
        before = files_of(run)
        said = workshop.train(run, 60, expect=2)
        dk.check(f"{name}: " in said and "--run" in said, said)
        dk.check(files_of(run) == before, f"a start refused for its {name} changed the run")
        (run / name).rmdir()
        (run / name).write_bytes(kept)

    said = workshop.train(run, 60, sets=["training.learning_rate=2e-3"])
    dk.check("warning: the learning rate jumps from 0.0001" in said, said)  # the end of a cosine, begun anew
    dk.check("learning_rate: 0.002" in (run / "config.yaml").read_text(), "config.yaml is not that of the last steps")
    changed = {"training.steps": ["40", "60"], "training.learning_rate": ["0.001", "0.002"]}
    restart = [row for row in rows(run) if row.get("resumed")]
    dk.check(restart == [{"step": 40, "resumed": True, "changed": changed}], f"{restart}")
    dk.check([json.loads(line) for line in fields(run)["restarts"].splitlines()] == restart, f"{fields(run)['restarts']}")
    dk.check("products by " in fields(run)["writer"], f"the checkpoint does not say what made its bits: {fields(run)['writer']}")
    print("the configuration is the one that was used: passed")


def a_run_named_after_its_configuration_is_of_that_file(workshop, root):
    """runs/<name> for a configuration of that name from another folder."""
    for folder in ("one", "two"):
        (root / folder).mkdir()
        shutil.copy(workshop.config(20, 20), root / folder / "same.yaml")

    def train(file, *more):
        return subprocess.run([dk.PROGRAM, "train", file, *more], cwd=root, capture_output=True, text=True)

    said = train("one/same.yaml")
    dk.check(said.returncode == 0 and (root / "runs/same/config.yaml").exists(), said.stderr)
    before = files_of(root / "runs/same")
    said = train("two/same.yaml")
    dk.check(said.returncode == 2 and "--run" in said.stderr and "one/same.yaml" in said.stderr, said.stderr)
    dk.check(files_of(root / "runs/same") == before, "a refused start changed the run")
    for more in (["one/same.yaml"], ["two/same.yaml", "--run", "runs/same"], ["two/same.yaml", "--run", "runs/other"]):
        said = train(*more)
        dk.check(said.returncode == 0, f"{more}: {said.stderr}")
    print("a run named after its configuration is of that file: passed")


def a_stop_leaves_nothing_undone(workshop, root):
    """Evaluated at 30, 60, 90, saved every 30 steps: the signal comes in the middle of an evaluation, at a step that is saved
    as well, at the last one, and in the last sample."""
    whole = root / "whole"
    workshop.train(whole, 90, every=30)
    batches = -(-sum(row["tokens"] for row in rows(whole)[:1]) // (16 * 2))
    dk.check(batches > 3, "the evaluation is too short to be stopped within")
    for name, fault in (("within", f"evaluation:batch@{batches + 2}!TERM"), ("last", f"evaluation:batch@{3 * batches + 2}!TERM"),
                        ("sample", "sampling:token@8!TERM")):
        run = root / name
        workshop.train(run, 90, every=30, fault=fault, expect=85)
        dk.check(dk.status(run)["state"] == "resumable", f"{name}: {dk.status(run)}")
        workshop.train(run, 90, every=30)
        dk.compare_runs(whole, run)
        dk.check(sorted(dk.checkpoints(run)) == sorted(dk.checkpoints(whole)),
                 f"{name}: {sorted(dk.checkpoints(run))}, unstopped {sorted(dk.checkpoints(whole))}")
        for step, path in dk.checkpoints(run).items():
            dk.compare_checkpoints(dk.checkpoints(whole)[step], path,
                                   ("validation_loss", "best_step", "best_validation_loss", "sampled_step"))
    print("a stop leaves nothing undone: passed")


def stopped_runs_keep_the_same_files(workshop, root):
    """A checkpoint that only a stop asked for goes once there is a newer one."""
    whole, run = root / "quiet", root / "stopped"
    workshop.train(whole, 100, every=10, sets=["evaluation.every=5"])
    for batch in (60, 40, 25):  # in evaluations of steps that are not saved by period
        workshop.train(run, 100, every=10, sets=["evaluation.every=5"], fault=f"evaluation:batch@{batch}!TERM", expect=85)
    workshop.train(run, 100, every=10, sets=["evaluation.every=5"])
    dk.check(sorted(dk.checkpoints(run)) == sorted(dk.checkpoints(whole)),
             f"{sorted(dk.checkpoints(run))}, unstopped {sorted(dk.checkpoints(whole))}")
    dk.compare_runs(whole, run)
    print("stopped runs keep the same files: passed")


with tempfile.TemporaryDirectory() as folder:
    shop = dk.Workshop(folder)
    for check in (best_belongs_to_its_validation_set, eval_wants_the_runs_text, configuration_is_what_was_used,
                  a_run_named_after_its_configuration_is_of_that_file, a_stop_leaves_nothing_undone,
                  stopped_runs_keep_the_same_files):
        check(shop, pathlib.Path(folder))
print("passed")
