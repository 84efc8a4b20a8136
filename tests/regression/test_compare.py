# SPDX-License-Identifier: Apache-2.0
"""`dekoder compare` (dekoder-compare of the post-processing) of real small runs, with and without positions: its
numbers are those recomputed here from metrics.jsonl and the attention files; what is no pair is named; directories that are
missing, truncated or foreign are refused with exit code 3."""

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

STEPS = 120
PROBES = {"text_0": "alpha beta", "text_1": "zeta", "window_0": None}
ATTENTION = 'attention: {texts: ["alpha beta", "zeta"], windows: 1, window_tokens: 12, every: 50}\n'
STATISTICS = ["entropy", "mean_distance", "previous_token", "first_token", "same_token", "duplicate_token",
              "induction"]


BIN = pathlib.Path(__file__).resolve().parents[2] / "postprocess/bin"


def compare(*arguments, code=0, command=(dk.PROGRAM, "compare"), path=f"{BIN}:{os.environ['PATH']}"):
    answer = subprocess.run([*command, *arguments], capture_output=True, text=True, env=dict(os.environ, PATH=path))
    dk.check(answer.returncode == code,
             f"compare {arguments}: exit code {answer.returncode}, expected {code}\n{answer.stderr}")
    return answer.stdout if code == 0 else answer.stderr


def compare_json(*runs):
    return json.loads(compare(*runs, "--json"))


def equal(got, expected, what, tolerance=1e-12):
    got, expected = numpy.array(got, float), numpy.array(expected, float)
    dk.check(got.shape == expected.shape and numpy.abs(got - expected).max() <= tolerance,
             f"{what}: {got}, expected {expected}")


def rows(run, key):
    """Log lines that have this key, by step."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {line["step"]: line for line in lines if key in line}


def attention_file(run, step=STEPS):
    return run / f"attention/step-{step:08}.h5"


def maps(run, step):
    """Weights (layer, head, query, key) of every probe, in double."""
    with h5py.File(attention_file(run, step)) as f:
        return [f[f"attention/{probe}/weights"][:].astype(float) for probe in PROBES]


def total_variation(first, other):
    """Per layer and head: every query of every probe counts once."""
    distances = [0.5 * numpy.abs(a - b).sum(-1) for a, b in zip(first, other)]  # (layer, head, query)
    return numpy.concatenate(distances, axis=-1).mean(-1).ravel()


def check_losses(report, text, runs):
    losses = report["losses"]
    validation = [rows(run, "validation_loss") for run in runs]
    steps = sorted(set.intersection(*(set(v) for v in validation)))
    dk.check(len(steps) >= 5 and [row["step"] for row in losses["validation"]] == steps, f"evaluated at {steps}")
    for row in losses["validation"]:
        expected = [v[row["step"]]["validation_loss"] for v in validation]
        bits = [v[row["step"]]["bits_per_byte"] for v in validation]
        equal(row["loss"], expected, "validation loss", 0)
        equal(row["gap"], [loss - expected[0] for loss in expected], "gap")
        equal(row["gap_bits_per_byte"], [b - bits[0] for b in bits], "gap in bits per byte")
        line = next(line for line in text.splitlines() if line.split()[:1] == [str(row["step"])])
        dk.check(line.split()[1:] == [*(f"{loss:.4f}" for loss in expected), f"{expected[1] - expected[0]:+.4f}",
                                      f"{bits[1] - bits[0]:+.4f}"], line)
    last = losses["validation"][-1]
    dk.check(f"final gap B - A at step {STEPS}: {last['gap'][1]:+.4f} nats per token, "
             f"{last['gap_bits_per_byte'][1]:+.4f} bits per byte" in text, f"no final gap in:\n{text}")

    training = [rows(run, "loss") for run in runs]
    dk.check(len(losses["training"]) == 10, "ten windows")
    dk.check(losses["training"][0]["first_step"] == 1 and losses["training"][-1]["last_step"] == STEPS,
             "training windows from the first to the last step")
    for before, after in zip(losses["training"], losses["training"][1:]):
        dk.check(after["first_step"] == before["last_step"] + 1, "windows without gaps")
    for window in losses["training"]:
        steps = range(window["first_step"], window["last_step"] + 1)
        table = numpy.array([[of_run[step]["loss"] for of_run in training] for step in steps])  # (step, run)
        gaps = table - table[:, :1]
        equal(window["loss"], table.mean(0), "training loss")
        equal(window["gap"], gaps.mean(0), "training gap")
        equal(window["gap_error"], gaps.std(0, ddof=1) / len(table) ** 0.5, "error of the training gap")


def check_attention(report, text, runs):
    attention = report["attention"]
    for run, change in zip(runs, attention["changes"]):
        dk.check(change["first_step"] == 0 and change["last_step"] == STEPS, f"change from 0 to the end: {change}")
        dk.check(change["probes"] == list(PROBES) and change["layers"] == change["heads"] == [0, 1], f"{change}")
        equal(change["distance"], total_variation(maps(run, 0), maps(run, STEPS)), "change")
        dk.check(min(change["distance"]) > 1e-4, f"training changed nothing: {change}")
    dk.check(attention["differences"][0] is None, "A against itself")
    difference = attention["differences"][1]
    expected = total_variation(maps(runs[0], STEPS), maps(runs[1], STEPS))
    dk.check(difference["first_step"] == difference["last_step"] == STEPS, f"{difference}")
    equal(difference["distance"], expected, "difference")
    table = text[text.index("B against A, both at step"):].splitlines()
    values = [f"{value:.4f}" for value in expected]
    dk.check([line.split() for line in table[1:4]] ==
             [["head", "0", "head", "1"], ["layer", "0", *values[:2]], ["layer", "1", *values[2:]]],
             f"table of differences: {table[:4]}")

    statistics = attention["statistics"]
    dk.check(statistics["step"] == STEPS and statistics["names"] == STATISTICS and
             statistics["probes"] == list(PROBES), f"{statistics}")
    lines = text[text.index(f"head statistics at step {STEPS}"):].splitlines()
    dk.check(lines[1].split() == ["layer.head", "run", *STATISTICS] and len(lines) == 10, f"{lines}")
    for r, run in enumerate(runs):
        with h5py.File(attention_file(run)) as f:
            mean = numpy.mean([f[f"attention/{probe}/statistics"][:].astype(float) for probe in PROBES], axis=0)
        equal(statistics["values"][r], mean.ravel(), "statistics")
        for i, head in enumerate(mean.reshape(4, len(STATISTICS))):
            name = [f"{i // 2}.{i % 2}"] if r == 0 else []
            dk.check(lines[2 + 2 * i + r].split() == [*name, "AB"[r], *(f"{value:.4f}" for value in head)],
                     f"{lines[2 + 2 * i + r]}: {head}")


def check_pairing(with_positions, without, root, workshop):
    tensors = set(h5py.File(dk.checkpoints(with_positions)[STEPS])["parameters"])
    pairing = compare_json(with_positions, without)["pairings"][0]
    dk.check(pairing["paired"] and pairing["unpaired"] == [], f"{pairing}")
    dk.check({fact["what"] for fact in pairing["facts"]} ==
             {"seed", "text", "tokenizer", "batch", "context", "validation tokens", "program"}, f"{pairing['facts']}")
    values = pairing["initial_values"]
    dk.check(values == {"equal": len(tensors) - 1, "different": [], "other_shape": [], "only_other": [],
                        "only_first": ["position_embedding.weight"]}, f"{values}")
    differences = [{"key": "model.positions", "first": "learned", "other": "none"}]
    dk.check(pairing["differences"] == differences, f"{pairing}")

    # What makes no pair is named.
    for name, sets, unpaired, check_values in (
            ("seed", ["training.seed=2"], {"seed", "initial values"},
             lambda v: "token_embedding.weight" in v["different"] and not any("norm" in n for n in v["different"])),
            ("layers", ["model.layers=3"], {"initial values"},
             lambda v: "token_embedding.weight" not in v["different"] and v["different"] and
             all(name.startswith("blocks.0") for name in v["different"] + v["only_other"])),
            ("width", ["model.feed_forward=32"], {"initial values"}, lambda v: len(v["other_shape"]) == 6),
            ("batch", ["training.batch=6"], {"batch"}, lambda v: v["equal"] == len(tensors)),
            ("hash", ["evaluation.tokens=50"], {"validation tokens"}, lambda v: v["equal"] == len(tensors))):
        run = root / name
        workshop.train(run, STEPS, extra=ATTENTION, sets=sets)
        report, text = compare_json(with_positions, run), compare(with_positions, run)
        other = report["pairings"][0]
        dk.check(not other["paired"] and set(other["unpaired"]) == unpaired, f"{name}: {other}")
        dk.check(check_values(other["initial_values"]), f"{name}: {other['initial_values']}")
        dk.check("B is NOT paired with A: " + ", ".join(other["unpaired"]) in text, text)
        comparable = report["losses"]["comparable"]
        dk.check(comparable == [True, name != "hash"], f"{name}: {comparable}")
        dk.check(("losses of B are NOT comparable" in text) == (name == "hash"), text)
        dk.check(report["losses"]["training_comparable"] == [True, True], f"{name}: {report['losses']}")
        dk.check("training losses of B" not in text, text)
        if name == "hash":
            dk.check(all(row["gap"] == [0, None] for row in report["losses"]["validation"]), "a gap of other tokens")


def check_other_tokens(with_positions, root, workshop):
    """Losses per token of another tokenizer, or of another text, have no gap."""
    text = root / "other.txt"
    source_text = workshop.folder / "text.txt"
    text.write_text(source_text.read_text().replace("alpha", "omega"))
    for name, source, tokenizer, other in (("characters", source_text, "char", "another tokenizer than A's"),
                                           ("text", text, "byte", "another text than A's"),
                                           ("both", text, "char", "another text, another tokenizer than A's")):
        tokens = root / f"{name}.h5"
        subprocess.run([dk.PROGRAM, "prepare", source, "-o", tokens, "--tokenizer", tokenizer], check=True,
                       stdout=subprocess.DEVNULL)
        run = root / f"other-{name}"
        workshop.train(run, STEPS, sets=[f"data.tokens={tokens}"])
        losses, said = compare_json(with_positions, run)["losses"], compare(with_positions, run)
        dk.check(losses["comparable"] == losses["training_comparable"] == [True, False], f"{name}: {losses}")
        for window in losses["training"]:
            dk.check(window["gap"] == window["gap_error"] == [0, None] and None not in window["loss"], f"{name}: {window}")
        dk.check(f"training losses of B are NOT comparable: {other}" in said, f"{name}: {said}")
        table = said[said.index("training loss, means over steps"):].splitlines()[3:13]
        dk.check(all(line.split()[-2:] == ["-", "-"] for line in table), f"{name}: {table}")


def check_three_and_partial(first, second, root):
    """Three runs; one without maps; a log in the middle of a line; no checkpoint."""
    bare = root / "bare"
    shutil.copytree(second, bare)
    shutil.rmtree(bare / "attention")
    with open(bare / "metrics.jsonl", "a") as log:
        log.write('{"step":121,"lo')
    report, text = compare_json(first, bare, second), compare(first, bare, second)
    dk.check(report["attention"]["has_maps"] == [True, False, True], f"{report['attention']}")
    differences = report["attention"]["differences"]
    dk.check(differences[1] is None and differences[2] is not None, f"{differences}")
    dk.check(report["attention"]["statistics"]["values"][1] is None, "statistics without maps")
    dk.check("B has no attention maps" in text and "C - A" in text and "C against A" in text, text)
    gaps = report["losses"]["validation"][-1]["gap"]
    dk.check(gaps[1] == gaps[2] != 0, f"the same run twice: {gaps}")

    unsaved = root / "unsaved"
    shutil.copytree(second, unsaved)
    shutil.rmtree(unsaved / "checkpoints")
    text = compare(first, unsaved)
    dk.check("not known" in text and "B is NOT paired with A: text, tokenizer, program" in text, text)


def check_restarted(first, root, workshop):
    """The same run, killed and restarted: no gap, no difference of maps, and the restart is counted."""
    run = root / "restarted"
    workshop.train(run, STEPS, extra=ATTENTION, fault="attention:after_rename@3", expect=-signal.SIGKILL)
    workshop.train(run, STEPS, extra=ATTENTION)
    report, text = compare_json(first, run), compare(first, run)
    dk.check(report["pairings"][0]["paired"] and report["pairings"][0]["differences"] == [], f"{report['pairings']}")
    dk.check(report["runs"][1]["restarts"] == 1 and f"step {STEPS} of {STEPS}, finished, restarts: 1" in text, text)
    losses = report["losses"]
    dk.check(all(row["gap"] == [0, 0] for row in losses["validation"] + losses["training"]), f"{losses}")
    dk.check(report["attention"]["differences"][1]["distance"] == [0] * 4, f"{report['attention']['differences']}")


def check_running(first, root, workshop):
    """A run that is being trained: its log and maps grow while they are read."""
    run = root / "running"
    process = workshop.start(run, 100000, extra=ATTENTION)
    log = run / "metrics.jsonl"
    dk.wait_until(lambda: dk.checkpoints(run) and log.exists() and log.read_bytes().count(b"\n") > 150,
                  "a checkpoint and 150 log lines", process)
    for _ in range(5):
        report, text = compare_json(first, run), compare(first, run)
        dk.check(report["runs"][1]["running"] and not report["runs"][0]["running"], f"{report['runs']}")
        dk.check("of 100000, running" in text and "gap so far B - A" in text and "B is paired with A" in text, text)
        dk.check(report["losses"]["validation"][-1]["step"] >= 90, "no common evaluation step")
        dk.check(report["attention"]["differences"][1]["last_step"] >= 100, f"{report['attention']}")
    dk.check(dk.stop(process) == 85, "the run did not stop as asked")


def check_refusals(first, second, root, tokens):
    dk.check("compare got 1 run directory; expected at least two" in compare(first, code=2), "one run")
    dk.check("compare got 0 run directories; expected at least two" in compare(code=2), "no run")
    dk.check("there is no such run directory" in compare(first, root / "nothing", code=3), "a missing directory")
    dk.check("is a file" in compare(first, tokens, code=3), "a file")
    (root / "empty").mkdir()
    said = compare(root / "empty", first, code=3)
    dk.check(str(root / "empty") in said and "config.yaml" in said, said)

    def damaged(damage, *fragments):
        copy = root / "damaged"
        shutil.copytree(second, copy)
        damage(copy)
        said = compare(first, copy, code=3)
        for fragment in fragments:
            dk.check(fragment in said, f"'{fragment}' is not in: {said}")
        dk.check("HDF5-DIAG" not in said and len(said) < 2000, said)
        shutil.rmtree(copy)

    def cut(path, share):
        data = path.read_bytes()
        path.write_bytes(data[:int(len(data) * share)])

    def flip_weights(copy):
        file = attention_file(copy)
        with h5py.File(file) as f:
            place = f["attention/text_0/weights"].id.get_chunk_info(0)
        data = bytearray(file.read_bytes())
        data[place.byte_offset + place.size // 2] ^= 1
        file.write_bytes(data)

    def other_maps(copy):
        shutil.rmtree(copy / "attention")
        shutil.copytree(first / "attention", copy / "attention")

    name = attention_file(second).name

    damaged(lambda c: (c / "config.yaml").write_text("hello"), "config.yaml", "restore it")
    damaged(lambda c: (c / "config.yaml").unlink(), "is no run directory")
    damaged(lambda c: (c / "metrics.jsonl").unlink(), "metrics.jsonl")
    damaged(lambda c: (c / "metrics.jsonl").write_text("step,loss\n1,2\n"), "metrics.jsonl:1")
    damaged(lambda c: cut(c / "metrics.jsonl", 0.5), "metrics.jsonl", "truncated")
    damaged(lambda c: (c / "status").write_text("fine"), "status")
    damaged(lambda c: [cut(path, 0.3) for path in (c / "checkpoints").iterdir()], "ckpt-")
    damaged(lambda c: cut(attention_file(c), 0.5), name, "move the file away")
    damaged(flip_weights, name, "attention/text_0/weights", "checksum")
    damaged(lambda c: shutil.copy(tokens, attention_file(c)), name, "holds no attention maps")
    damaged(other_maps, "attention", "of another run")
    damaged(lambda c: attention_file(c).write_text("hello"), name)


def check_without_the_other_half(first, second, root):
    """dekoder without dekoder-compare says where it is; dekoder-compare without a dekoder says what it cannot know."""
    nothing = root / "nothing-on-the-path"
    nothing.mkdir()
    said = compare(first, second, code=2, path=str(nothing))
    dk.check(said.count("\n") == 1 and "dekoder-compare" in said and "postprocess/bin" in said, said)

    copy = root / "postprocess"  # no build stands beside it
    shutil.copytree(BIN.parent / "dekoder_postprocess", copy / "dekoder_postprocess")
    shutil.copytree(BIN, copy / "bin")
    alone = {"command": (sys.executable, copy / "bin/dekoder-compare"), "path": str(nothing)}
    text, report = compare(first, second, **alone), json.loads(compare(first, second, "--json", **alone))
    dk.check("initial values     not known  there is no program dekoder" in text, text)
    dk.check("whether a process trains in it is not known" in text, text)
    dk.check("B is NOT paired with A: initial values;" in text, text)
    pairing = report["pairings"][0]
    dk.check(pairing["initial_values"] is None and pairing["unpaired"] == ["initial values"], f"{pairing}")
    dk.check([run["running"] for run in report["runs"]] == [None, None], f"{report['runs']}")

    told = dict(alone, command=("env", f"DEKODER_PROGRAM={dk.PROGRAM}", *alone["command"]), path=os.environ["PATH"])
    dk.check("B is paired with A" in compare(first, second, **told), "DEKODER_PROGRAM")


with tempfile.TemporaryDirectory() as folder:
    workshop = dk.Workshop(folder)
    root = pathlib.Path(folder)
    runs = [root / "positions", root / "no-positions"]
    for run, sets in zip(runs, ([], ["model.positions=none"])):
        workshop.train(run, STEPS, extra=ATTENTION, sets=sets)
    report, text = compare_json(*runs), compare(*runs)
    dk.check("B is paired with A" in text and "model.positions: learned in A, none in B" in text, text)
    check_losses(report, text, runs)
    check_attention(report, text, runs)
    check_pairing(*runs, root, workshop)
    check_other_tokens(runs[0], root, workshop)
    check_three_and_partial(*runs, root)
    check_restarted(runs[0], root, workshop)
    check_running(runs[0], root, workshop)
    check_refusals(*runs, root, workshop.tokens)
    check_without_the_other_half(*runs, root)

print("passed")
