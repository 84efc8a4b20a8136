# SPDX-License-Identifier: Apache-2.0
"""Attention maps of real runs: what they cost training (nothing: the same bits with and without), what they hold (weights of
a causal softmax; the last step equals `dekoder attention` on the last checkpoint), that kill -9 at any point of a capture
and restarts leave every step whole and once, and that `dekoder attention` takes the place of nothing but its own files."""

import json
import os
import pathlib
import shutil
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


def step_file(run, step):
    return run / f"attention/step-{step:08}.h5"


def captured_steps(run):
    """Steps of the files in the folder, which holds nothing else."""
    steps = sorted(int(path.name[5:-3]) for path in (run / "attention").iterdir())
    dk.check([step_file(run, step) for step in steps] == sorted((run / "attention").iterdir()), f"names of {steps}")
    return steps


def text_of(file, probe="text_0"):
    with h5py.File(file) as f:
        return f["attention"][probe].attrs["text"].decode()


def attention(*arguments, code=0):
    answer = subprocess.run([dk.PROGRAM, "attention", *map(str, arguments)], capture_output=True, text=True)
    dk.check(answer.returncode == code, f"attention {arguments}: exit code {answer.returncode}, expected {code}: {answer}")
    return answer.stdout if code == 0 else answer.stderr


def check_outputs(run, root):
    """-o takes the place of an earlier output of the command, and of nothing else."""
    place = root / "outputs"
    place.mkdir()
    (place / "folder").mkdir()
    own_maps = step_file(run, STEPS)
    (place / "link.h5").symlink_to(own_maps)
    (place / "notes.txt").write_text("notes")
    (place / "empty.h5").touch()
    os.mkfifo(place / "pipe.h5")
    checkpoint = max(dk.checkpoints(run).values())
    files = [own_maps, run / "config.yaml", checkpoint, place / "notes.txt", place / "empty.h5"]
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}
    listed = sorted(place.iterdir()), sorted(run.rglob("*"))
    for output, why in [(own_maps, "holds the maps of a run's training"), (run / "config.yaml", "cannot be opened"),
                        (checkpoint, "holds no attention maps"), (place / "notes.txt", "cannot be opened"),
                        (place / "empty.h5", "cannot be opened"), (place / "folder", "is a folder"),
                        (place / "link.h5", f"{own_maps}: holds the maps of a run's training"), (place / "pipe.h5", "is a FIFO"),
                        (place / "missing/x.h5", "does not exist; make it first"), (f"{place}/", "names a folder")]:
        said = attention(run, "--text", "alpha", "-o", output, code=3)
        dk.check(str(own_maps if output == place / "link.h5" else output) in said, said)
        dk.check(why in said and ("name another" in said or "make it" in said), said)
    dk.check({file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files} == before, "a refused output was changed")
    dk.check((sorted(place.iterdir()), sorted(run.rglob("*"))) == listed, f"other files: {sorted(place.iterdir())}")

    own = place / "own.h5"
    for text in ("alpha beta", "gamma"):
        attention(run, "--text", text, "-o", own)
        with h5py.File(own) as f:
            dk.check(f["attention/text_0"].attrs["text"].decode() == text, "the earlier text")
            dk.check(f.attrs["step"] == STEPS, f"step {f.attrs['step']}")
    link = place / "to-own.h5"
    link.symlink_to(own.name)
    attention(run, "--text", "beta", "-o", link)
    with h5py.File(own) as f:
        dk.check(link.is_symlink() and f["attention/text_0"].attrs["text"].decode() == "beta", "the link was not followed")
    link.unlink()
    default = run / "attention-text.h5"
    dk.check(str(default) in attention(run, "--text", "alpha") and default.exists(), "no file in the run directory")
    default.unlink()
    dk.check((sorted(path for path in place.iterdir() if path != own), sorted(run.rglob("*"))) == listed, "files are left over")


def check_changes(workshop, root):
    """Restarts with other probes or periods: every log line once, what is missing and how much is to come is said."""
    run = root / "changed"
    workshop.train(run, 75, extra=ATTENTION)
    log = (run / "metrics.jsonl").read_bytes()
    shutil.rmtree(run / "attention")
    said = workshop.train(run, 75, extra=ATTENTION)
    dk.check("4 probes at 1 steps (1 still to come)" in said and "step 0 is not in attention/" in said, said)
    dk.check((run / "metrics.jsonl").read_bytes() == log, "lines behind the end of a finished run")
    dk.check(captured_steps(run) == [75], f"steps {captured_steps(run)}")

    said = workshop.train(run, STEPS, extra=ATTENTION.replace("gamma", "delta"))
    aside = run / "attention/step-00000075.h5.aside-1"
    dk.check(f"holds other texts, layers or heads than the configuration names; renamed to {aside.name}" in said, said)
    dk.check("4 probes at 5 steps (5 still to come)" in said and "step 0 is not in attention/" in said, said)
    expected = {(step, probe) for step in CAPTURED for probe in TOKENS}
    dk.check(set(logged_attention(run)) == expected, f"log: {set(logged_attention(run)) ^ expected}")
    dk.check(text_of(aside, "text_1") == "gamma", "the earlier text is lost")
    aside.unlink()
    dk.check(captured_steps(run) == [75, 100, 125, 150, 160], f"steps {captured_steps(run)}")
    dk.check(all(text_of(step_file(run, step), "text_1") == "delta" for step in captured_steps(run)), "the earlier text")

    # Other texts leave the files of earlier steps as they are.
    run = root / "longer"
    workshop.train(run, 75, extra=ATTENTION)
    before = {step: step_file(run, step).read_bytes() for step in (0, 3, 25, 50, 60)}
    workshop.train(run, 100, extra=ATTENTION.replace("gamma", "delta"))
    dk.check(all(step_file(run, step).read_bytes() == maps for step, maps in before.items()), "earlier maps were changed")
    dk.check([text_of(step_file(run, step), "text_1") for step in (60, 75, 100)] == ["gamma", "delta", "delta"], "texts")

    run = root / "fewer"
    workshop.train(run, 75, extra=ATTENTION)
    said = workshop.train(run, STEPS, extra=ATTENTION.replace("every: 25", "every: 0"))
    dk.check("4 probes at 7 steps (1 still to come)" in said and "is not in attention/" not in said, said)
    dk.check(captured_steps(run) == [0, 3, 25, 50, 60, 75, STEPS], f"steps {captured_steps(run)}")
    for step, every in ((75, 25), (STEPS, 0)):
        with h5py.File(step_file(run, step)) as f:
            dk.check(f"every: {every}\n" in f.attrs["config"].decode(), f"step {step}: the configuration of another start")

    # --fresh puts the maps aside with the rest.
    maps = {path.name: path.read_bytes() for path in (run / "attention").iterdir()}
    workshop.train(run, 25, extra=ATTENTION.replace(", 60", ""), flags=["--fresh"])
    kept = {path.name: path.read_bytes() for path in (run / "previous-1/attention").iterdir()}
    dk.check(kept == maps, f"put aside: {sorted(kept)}, expected {sorted(maps)}")
    dk.check(captured_steps(run) == [0, 3, 25], f"steps {captured_steps(run)}")

    # Maps that cannot be saved stop nothing; their statistics are logged.
    run = root / "unsaved"
    run.mkdir()
    (run / "attention").symlink_to("/proc/maps")  # where nobody can make a folder
    said = workshop.train(run, STEPS, extra=ATTENTION)
    dk.check(said.count("not saved") == len(CAPTURED) and "step 25: attention maps of step 25 are not saved: " in said, said)
    dk.check(set(logged_attention(run)) == expected, f"log: {set(logged_attention(run)) ^ expected}")


def logged_attention(run):
    """Lines of attention in the log by step and probe, each of which must be there once."""
    logged = {}
    for line in (run / "metrics.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "attention" in row:
            dk.check((row["step"], row["probe"]) not in logged, f"logged twice: {row['step']} {row['probe']}")
            logged[row["step"], row["probe"]] = row["attention"]
    return logged


def recomputed(weights, tokens):
    """The seven statistics (layer, head, statistic) of maps, in their order."""
    n = len(tokens)
    query, key = numpy.indices((n, n))
    same = tokens[query] == tokens[key]
    followed = numpy.zeros((n, n), bool)  # the key follows an earlier place of the query's token
    followed[:, 1:] = same[:, :-1]
    with numpy.errstate(divide="ignore", invalid="ignore"):
        entropy = -numpy.where(weights > 0, weights * numpy.log(weights), 0).sum((-2, -1)) / n
    distance = (weights * (query - key)).sum((-2, -1)) / n
    patterns = (key == query - 1, key == 0, key == query, same & (key < query), followed & (key <= query))
    shares = [(weights * pattern).sum((-2, -1)) / weights.sum((-2, -1)) for pattern in patterns]
    return numpy.stack([entropy, distance, *shares], -1)


def check_maps(run):
    """Every step whole and once; weights of a causal softmax; statistics as in the log and as recomputed."""
    logged = logged_attention(run)
    dk.check(captured_steps(run) == CAPTURED, f"steps {captured_steps(run)}, expected {CAPTURED}")
    for step in CAPTURED:
        with h5py.File(step_file(run, step)) as f:
            dk.check(f.attrs["step"] == step, f"step {f.attrs['step']} in the file of {step}")
            dk.check(sorted(f["attention"]) == sorted(TOKENS), f"probes {sorted(f['attention'])}")
            dk.check(f.attrs["statistic_names"].decode().split(",") == STATISTICS, f.attrs["statistic_names"])
            for probe, n in TOKENS.items():
                check_probe(f["attention"][probe], n, logged[step, probe], f"{probe} step {step}")
    dk.check(len(logged) == len(CAPTURED) * len(TOKENS), f"{len(logged)} log lines of attention")


def check_probe(group, n, logged, where):
    text = b"".join(token for token in group["token_text"][:]).decode()
    dk.check(text == group.attrs["text"].decode() and len(text) == n, f"{where}: '{text}', {group.attrs['text']}")
    weights = group["weights"][:].astype(numpy.float64)
    dk.check(weights.shape == (2, 2, n, n), f"{where}: shape {weights.shape}")
    dk.check(group["weights"].dtype == numpy.float16, f"{where}: {group['weights'].dtype}")
    dk.check(abs(weights.sum(-1) - 1).max() < n * 2.0**-11, f"{where}: rows do not sum to 1")
    dk.check((weights[..., ~numpy.tri(n, dtype=bool)] == 0).all(), f"{where}: weight above the diagonal")
    statistics = group["statistics"][:]
    deviation = abs(statistics - recomputed(weights, group["tokens"][:])).max((0, 1))
    dk.check((deviation < [2e-3, n * 1e-3] + 5 * [1e-3]).all(), f"{where}: off by {deviation}, {STATISTICS}")
    for i, name in enumerate(STATISTICS):
        values = numpy.array(logged[name], numpy.float32)
        dk.check((values == statistics[..., i]).all(), f"{where}: {name} in the log and in the file")


def compare_maps(left, right):
    for step in CAPTURED:
        with h5py.File(step_file(left, step)) as a, h5py.File(step_file(right, step)) as b:
            for probe in a["attention"]:
                for name in ("tokens", "weights", "statistics"):
                    dk.check(a["attention"][probe][name][:].tobytes() == b["attention"][probe][name][:].tobytes(),
                             f"step {step}: {probe}/{name} differs between {left} and {right}")


with tempfile.TemporaryDirectory() as folder:
    workshop = dk.Workshop(folder)
    root = pathlib.Path(folder)
    plain, whole = root / "plain", root / "whole"
    workshop.train(plain, STEPS)
    said = workshop.train(whole, STEPS, extra=ATTENTION)
    dk.check(f"4 probes at {len(CAPTURED)} steps" in said and "MB in attention/" in said, f"no size was printed:\n{said}")
    dk.check(not (plain / "attention").exists(), "maps without probes")
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
    compare_maps(whole, run)
    dk.check([p.name for p in run.glob("attention*")] == ["attention"], f"left over: {list(run.glob('attention*'))}")

    # A finished run, started again, writes nothing.
    def written():
        return ({path: path.stat().st_mtime_ns for path in (run / "attention").iterdir()},
                (run / "metrics.jsonl").read_bytes())

    before = written()
    workshop.train(run, STEPS, extra=ATTENTION)
    dk.check(written() == before, "a finished run wrote maps or metrics.jsonl again")

    # From any checkpoint.
    for step in (last, min(dk.checkpoints(run))):
        output = root / f"by-hand-{step}.h5"
        said = attention(run, "--text", "alpha beta", "--step", step, "-o", output)
        dk.check(said.splitlines()[1].split() == ["layer.head", *STATISTICS], said)
        with h5py.File(output) as by_hand, h5py.File(step_file(run, last)) as captured:
            weights = by_hand["attention/text_0/weights"][:]
            dk.check(by_hand.attrs["step"] == step and weights.shape == (2, 2, 10, 10), f"shape {weights.shape}")
            if step == last:
                dk.check((weights == captured["attention/text_0/weights"][:]).all(), "by hand differs from captured")
    saved = ", ".join(map(str, sorted(dk.checkpoints(run))))
    said = attention(run, "--text", "alpha", "--step", 7, code=3)
    dk.check(f"no checkpoint of step 7; there are those of steps {saved}" in said, said)
    (root / "empty/checkpoints").mkdir(parents=True)
    said = attention(root / "empty", "--text", "alpha", "--step", 7, code=3)
    dk.check("no checkpoint of step 7, nor of any other; train first" in said, said)
    said = attention(root / "nothing", "--text", "alpha", "--step", 7, code=3)
    dk.check(f"{root / 'nothing'}: no such run directory" in said, said)
    said = attention(run, "--text", "alpha beta gamma delta", code=2)
    dk.check("--text has 22 tokens" in said, said)
    check_outputs(run, root)
    check_changes(workshop, root)

    # Refused before the run, with nothing written.
    none = root / "none"
    refused(workshop, none, 'attention: {windows: 200, every: 1, max_megabytes: 1}\n', "attention.max_megabytes 1", "MB")
    refused(workshop, none, 'attention: {windows: 2000000000}\n', "attention.max_megabytes 256", "attention.windows")
    refused(workshop, none, 'attention: {texts: ["alpha beta gamma delta"]}\n', "attention.texts[0] has 22 tokens", "16")
    refused(workshop, none, 'attention: {layers: [2], windows: 1}\n', "attention.layers names layer 2")
    refused(workshop, none, 'attention: {steps: [161]}\n', "attention.steps has 161")
    refused(workshop, none, 'attention: {steps: 5}\n', "attention.steps is '5'; expected a list in [ ], each a whole number")
    refused(workshop, none, 'attention: {heads: [0, x]}\n', "attention.heads[1] is 'x'; expected a whole number")
    refused(workshop, none, 'attention: {texts: [[a]]}\n', "attention.texts[0] is a list; expected a text")
    left = [path for path in none.rglob("*") if path.is_file()] if none.exists() else []
    dk.check(not left, f"a refused run wrote {left}")

print("passed")
