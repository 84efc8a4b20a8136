# SPDX-License-Identifier: Apache-2.0
"""What a start may and may not do to the files of a run: --fresh, missing checkpoints, another split of the text, refused
configurations, diverged runs, which checkpoints are kept, and output that cannot be written."""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import dekoder_runs as dk  # noqa: E402


def files_of(run):
    """Contents of every file of a run but the lock."""
    return {path.relative_to(run): path.read_bytes() for path in sorted(run.rglob("*")) if path.is_file()}


def steps_kept(run):
    return sorted(dk.checkpoints(run))


with tempfile.TemporaryDirectory() as folder:
    workshop = dk.Workshop(folder)
    root = pathlib.Path(folder)

    # --fresh begins anew beside what was there, also in an empty folder, and saves.
    run = root / "fresh"
    workshop.train(run, 80)
    before = (run / "metrics.jsonl").read_bytes()
    said = workshop.train(run, 40, flags=["--fresh"])
    dk.check("earlier files are in" in said, said)
    dk.check(steps_kept(run) == [40], f"after --fresh: {steps_kept(run)}")
    dk.check((run / "previous-1" / "metrics.jsonl").read_bytes() == before, "--fresh lost the earlier log")
    dk.check(steps_kept(run / "previous-1") == [40, 80], "--fresh lost the earlier checkpoints")
    workshop.train(root / "empty", 40, flags=["--fresh"])
    dk.check(steps_kept(root / "empty") == [40], "--fresh in a new folder saves nothing")
    dk.check(not (root / "empty" / "previous-1").exists(), "--fresh put nothing aside")

    # A run whose checkpoints are gone is not begun anew silently.
    run = root / "gone"
    workshop.train(run, 80)
    shutil.rmtree(run / "checkpoints")
    before = files_of(run)
    said = workshop.train(run, 80, expect=3)
    dk.check("had saved step 80" in said and "--fresh" in said, said)
    dk.check(files_of(run) == before, "a refused start changed the run")

    # Another held-out part is other data.
    run = root / "split"
    workshop.train(run, 40)
    whole_tokens = workshop.tokens.read_bytes()
    subprocess.run([dk.PROGRAM, "prepare", workshop.folder / "text.txt", "-o", workshop.tokens, "--validation-fraction", "0.3"],
                   check=True, stdout=subprocess.DEVNULL)
    before = files_of(run)
    said = workshop.train(run, 80, expect=2)
    dk.check("another part held out" in said, said)
    dk.check(files_of(run) == before, "a refused start changed the run")

    # Where no part is held out, a line tells why no validation loss comes.
    subprocess.run([dk.PROGRAM, "prepare", workshop.folder / "text.txt", "-o", workshop.tokens, "--validation-fraction", "0"],
                   check=True, stdout=subprocess.DEVNULL)
    said = workshop.train(root / "whole-text", 20)
    dk.check(f"{workshop.tokens}: has no held-out part, so there are no validation losses" in said and "validation loss " not in said, said)
    workshop.tokens.write_bytes(whole_tokens)
    workshop.train(run, 80)

    # What is refused changes no file: maps too large, a probe too long, another seed.
    before = files_of(run)
    probes = "attention: {texts: [abc], every: 1, max_megabytes: 1}\n"
    said = workshop.train(run, 500000, extra=probes, expect=2)
    dk.check("max_megabytes" in said, said)
    said = workshop.train(run, 120, extra=f"attention: {{texts: [{'long' * 9}]}}\n", expect=2)
    dk.check("attention.texts[0] has 36 tokens" in said, said)
    said = workshop.train(run, 120, sets=["training.seed=7"], expect=2)
    dk.check("a restart cannot change" in said and "training.seed" in said, said)
    dk.check(files_of(run) == before, "a refused start changed the run")
    new = root / "refused"
    workshop.train(new, 500000, extra=probes, expect=2)
    dk.check(not files_of(new), f"a refused start left {list(files_of(new))}")

    # status: the best loss of the validation tokens in use, that of others apart; a log with other line ends; and what
    # cannot be read is named, not taken for what is not there.
    run = root / "status"
    workshop.train(run, 60)
    answer = dk.status(run)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    loss = {row["step"]: row["validation_loss"] for row in rows if "validation_loss" in row}
    best = min(loss, key=loss.get)
    dk.check(answer["best_step"] == best and answer["best_validation_loss"] == loss[best], f"{answer}, {loss}")
    dk.check(answer["best_step_on_another_set"] is None and answer["heartbeat_age"] is None, f"{answer}")
    said = subprocess.run([dk.PROGRAM, "status", run], capture_output=True, text=True).stdout
    dk.check(f"best validation loss {loss[best]:.4f}, at step {best}" in said and "comparable" not in said, said)
    workshop.train(run, 90, sets=["evaluation.tokens=32"])
    answer = dk.status(run)
    dk.check(answer["best_step"] > 60 and answer["best_step_on_another_set"] == best, f"{answer}")
    said = subprocess.run([dk.PROGRAM, "status", run], capture_output=True, text=True).stdout
    dk.check(f"best on other validation tokens than the last one's, not comparable: {loss[best]:.4f}, at step {best}" in said,
             said)
    # With the words of `train`: where the training that they ask for stands.
    asked = lambda *words: subprocess.run([dk.PROGRAM, "status", *words, "--json"], capture_output=True, text=True, cwd=root)
    config = workshop.config(90, 40)
    done = asked(config, "--run", run)
    changed = {"evaluation.tokens": ["32", "32768"]}  # in the run, here
    dk.check(json.loads(done.stdout) == dict(answer, run=str(run), changed=changed), f"{done.stdout}{done.stderr}")
    said = subprocess.run([dk.PROGRAM, "status", config, "--run", run], capture_output=True, text=True).stdout
    dk.check("evaluation.tokens: 32 in the run, 32768 here\n" in said, said)
    more = json.loads(asked(config, "--run", run, "--set", "training.steps=91").stdout)
    dk.check((more["state"], more["saved_step"], more["steps"]) == ("resumable", 90, 91), f"{more}")
    none = json.loads(asked(config).stdout)  # no run yet
    dk.check((none["state"], none["run"], none["saved_step"], none["steps"]) == ("resumable", f"runs/{config.stem}", 0, 90), f"{none}")
    dk.check(not (root / "runs").exists(), "status made a folder")
    for words, code, message in (([run, "--run", run], 2, "is no configuration file"), ([config, "--set", "training.step=3"], 2, "training.step"),
                                 ([run, "--set", "training.steps=3"], 2, "is no configuration file")):
        refused = asked(*words)
        dk.check(refused.returncode == code and message in refused.stderr, f"{words}: {refused}")

    log = (run / "metrics.jsonl").read_bytes()
    (run / "metrics.jsonl").write_bytes(log.replace(b"\n", b"\r\n"))
    dk.check(dk.status(run) == answer, f"with CRLF: {dk.status(run)}, expected {answer}")
    for name in ("metrics.jsonl", "status"):
        (run / name).unlink()
        (run / name).symlink_to(name)
        said = subprocess.run([dk.PROGRAM, "status", run, "--json"], capture_output=True, text=True)
        dk.check(said.returncode == 3 and f"{name}: cannot be read: Too many levels of symbolic links" in said.stderr,
                 f"{name}: {said.stdout}{said.stderr}")

    # micro_batch 0 is the batch.
    run = root / "micro"
    workshop.train(run, 40, sets=["training.micro_batch=0"])
    workshop.train(run, 80, sets=["training.micro_batch=4"])

    # The best checkpoint is one that was saved, and it is kept. Warm-up alone first, then a rate that spoils it.
    run = root / "best"
    sets = ["training.schedule=constant", "training.learning_rate=0.3", "training.warmup_steps=400", "evaluation.every=7",
            "training.clip_norm=0", "model.dropout=0"]
    workshop.train(run, 400, every=20, sets=sets)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    loss = {row["step"]: row["validation_loss"] for row in rows if "validation_loss" in row}
    best = min((step for step in loss if step % 20 == 0 and step > 0), key=loss.get)
    dk.check(best < 340, f"the run is no test: its best saved state is its last ones ({best})")
    dk.check(steps_kept(run) == [best, 360, 380, 400], f"kept {steps_kept(run)}, best {best}")

    # A validation loss that is no number is never saved over good states.
    run = root / "diverged"
    sets = ["evaluation.every=1", "training.warmup_steps=0"]
    workshop.train(run, 3, every=1, sets=sets)
    said = workshop.train(run, 60, every=1, sets=[*sets, "training.learning_rate=1e9", "training.clip_norm=0"], expect=4)
    dk.check("-nan" not in said and "the last checkpoint is of step" in said, said)
    dk.check(dk.status(run)["state"] == "failed", f"{dk.status(run)}")
    newest = max(steps_kept(run))
    said = subprocess.run([dk.PROGRAM, "eval", run], capture_output=True, text=True)
    dk.check(said.returncode == 0 and "nan" not in said.stdout, f"{steps_kept(run)}: {said.stdout}{said.stderr}")
    workshop.train(run, newest + 2, every=1, sets=sets)  # a sane rate goes on from there

    # A vocabulary above the tokenizer's trains and samples what the tokenizer has.
    run = root / "wide"
    workshop.train(run, 50, sets=["model.vocabulary=4000"])
    said = subprocess.run([dk.PROGRAM, "generate", run, "--prompt", "a", "--tokens", "40", "--temperature", "5"],
                          capture_output=True)
    dk.check(said.returncode == 0, f"generate: {said.stderr}")

    # Output that cannot be written is no success.
    for command in (["status", run, "--json"], ["eval", run], ["generate", run, "--prompt", "a"],
                    ["attention", run, "--text", "a"]):
        with open("/dev/full", "w") as full:
            said = subprocess.run([dk.PROGRAM, *command], stdout=full, stderr=subprocess.PIPE, text=True)
        dk.check(said.returncode == 3 and "standard output cannot be written" in said.stderr,
                 f"{command[0]}: exit code {said.returncode}: {said.stderr}")

    # A damaged newest checkpoint is named once.
    newest = dk.checkpoints(run)[max(dk.checkpoints(run))]
    newest.write_bytes(newest.read_bytes()[:5000])
    for command in (["generate", run, "--prompt", "a"], ["eval", run]):
        said = subprocess.run([dk.PROGRAM, *command], capture_output=True, text=True)
        dk.check(said.returncode == 0 and said.stderr.count("checkpoint not used") == 1, f"{command[0]}: {said.stderr}")
    dk.check(workshop.train(run, 60, sets=["model.vocabulary=4000"]).count("checkpoint not used") == 1, "named twice")

print("passed")
