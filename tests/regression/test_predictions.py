# SPDX-License-Identifier: Apache-2.0
"""`dekoder predictions`: every number of the table against a decoder written here in numpy, in double, from the checkpoint
and the token file; the mean surprise of all held-out text against `dekoder eval`; the same bytes with any number of
threads; windows that two runs share whatever their context; outputs that are left alone, and a kill while one is written."""

import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

import h5py
import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import checkpoint_seal as seal  # noqa: E402
import dekoder_runs as dk  # noqa: E402

STEPS = 80
LAYERS, HEADS, CONTEXT, VOCABULARY = 2, 2, 16, 256
COLUMNS = {"window": "int32", "position": "int64", "input": "int32", "truth": "int32", "guess": "int32", "rank": "int32",
           "surprise": "float32", "truth_probability": "float32", "guess_probability": "float32", "top_tokens": "int32",
           "top_log_probabilities": "float32"}


def command(name, *arguments, code=0, threads=1, fault=None):
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads), OMP_PROC_BIND="false", **({"DEKODER_FAULT": fault} if fault else {}))
    answer = subprocess.run([dk.PROGRAM, name, *map(str, arguments)], capture_output=True, text=True, env=environment)
    dk.check(answer.returncode == code, f"{name} {arguments}: exit code {answer.returncode}, expected {code}: {answer}")
    return answer.stdout if code == 0 else answer.stderr


def predictions(*arguments, **options):
    return command("predictions", *arguments, **options)


def step_file(run, step):
    return run / f"predictions/step-{step:08}.h5"


def table(path):
    with h5py.File(path) as file:
        return {name: file[name][()] for name in file}, dict(file.attrs)


def layer_norm(x, gain, bias):
    return (x - x.mean(-1, keepdims=True)) / numpy.sqrt(x.var(-1, keepdims=True) + 1e-5) * gain + bias


def logits(checkpoint, inputs):
    """Logits (token, vocabulary) of one sequence: the pre-norm decoder with learned positions, tanh-GELU and a tied head."""
    with h5py.File(checkpoint) as file:
        p = {name: values[()].astype(float) for name, values in file["parameters"].items()}
    n, channels = len(inputs), p["token_embedding.weight"].shape[1]
    x = p["token_embedding.weight"][inputs] + p["position_embedding.weight"][:n]
    for layer in range(LAYERS):
        block = lambda name: p[f"blocks.{layer:02}.{name}"]
        linear = lambda name, values: values @ block(f"{name}.weight").T + block(f"{name}.bias")
        y = layer_norm(x, block("attention_norm.gain"), block("attention_norm.bias"))
        query, key, value = linear("attention.qkv", y).reshape(n, 3, HEADS, channels // HEADS).transpose(1, 2, 0, 3)
        score = query @ key.transpose(0, 2, 1) / numpy.sqrt(channels // HEADS)
        weight = numpy.exp(numpy.where(numpy.tri(n, dtype=bool), score, -numpy.inf))
        weight /= weight.sum(-1, keepdims=True)
        x = x + linear("attention.output", (weight @ value).transpose(1, 0, 2).reshape(n, channels))
        y = linear("feed_forward.up", layer_norm(x, block("feed_forward_norm.gain"), block("feed_forward_norm.bias")))
        y = 0.5 * y * (1 + numpy.tanh(numpy.sqrt(2 / numpy.pi) * (y + 0.044715 * y**3)))
        x = x + linear("feed_forward.down", y)
    return (layer_norm(x, p["final_norm.gain"], p["final_norm.bias"]) @ p["token_embedding.weight"].T)[:, :VOCABULARY]


def held_out(tokens):
    """The held-out tokens, with the last training token before them."""
    with h5py.File(tokens) as file:
        return file["tokens"][int(file.attrs["training_tokens"]) - 1:].astype(int)


def check_numbers(columns, checkpoint, text, windows, top):
    """Every column of `windows` [(first, tokens)] against the decoder above."""
    expected = {name: [] for name in COLUMNS}
    for window, (first, count) in enumerate(windows):
        scores = logits(checkpoint, text[first:first + count])
        log_p = scores - numpy.log(numpy.exp(scores).sum(-1, keepdims=True))
        for t, (row, truth) in enumerate(zip(log_p, text[first + 1:first + count + 1])):
            order = numpy.lexsort((numpy.arange(VOCABULARY), -row))
            for name, value in (("window", window), ("position", first + t), ("input", text[first + t]), ("truth", truth),
                                ("guess", order[0]), ("rank", int(numpy.nonzero(order == truth)[0][0])),
                                ("surprise", -row[truth]), ("truth_probability", numpy.exp(row[truth])),
                                ("guess_probability", numpy.exp(row[order[0]])), ("top_tokens", order[:top]),
                                ("top_log_probabilities", row[order[:top]])):
                expected[name].append(value)
    near = numpy.array(expected["surprise"])
    for name, kind in COLUMNS.items():
        got, want = columns[name], numpy.array(expected[name])
        dk.check(got.dtype == kind and got.shape == want.shape, f"{name}: {got.dtype} {got.shape}, expected {kind} {want.shape}")
        if kind.startswith("float"):
            dk.check(numpy.allclose(got, want, rtol=1e-4, atol=1e-4), f"{name}: off by {abs(got - want).max()}")
        elif name in ("rank", "top_tokens", "guess"):  # scores in single precision may change places where they are close
            dk.check((got != want).mean() < 0.01, f"{name}: {(got != want).sum()} of {want.size} differ")
        else:
            dk.check((got == want).all(), f"{name} differs")
    dk.check(len(near) == sum(count for _, count in windows), "another number of tokens")


def check_table(run, workshop):
    """Layout, attributes, texts and numbers of the default output."""
    said = predictions(run, "--windows", 5, "--top", 7)
    path = step_file(run, STEPS)
    dk.check(said.startswith(f"step {STEPS}: 5 windows, 80 tokens: surprise ") and str(path) in said, said)
    columns, attributes = table(path)
    dk.check(sorted(columns) == sorted([*COLUMNS, "token_text"]), f"datasets {sorted(columns)}")
    text = held_out(workshop.tokens)
    count = len(text) - 1
    check_numbers(columns, dk.checkpoints(run)[STEPS], text, [(i * count // 5, CONTEXT) for i in range(5)], 7)
    dk.check(f"surprise {columns['surprise'].mean(dtype=float):.4f} nats" in said, said)
    dk.check(f"{100 * (columns['rank'] == 0).mean():.1f} % guessed" in said, said)
    facts = {"format": b"dekoder-predictions", "major": 1, "minor": 0, "step": STEPS, "tokenizer": b"byte", "source": b"text.txt",
             "validation_tokens": count, "context": CONTEXT, "vocabulary": VOCABULARY, "top": 7}
    dk.check({name: attributes[name] for name in facts} == facts, attributes)
    with h5py.File(dk.checkpoints(run)[STEPS]) as checkpoint, h5py.File(workshop.tokens) as tokens:
        for name, other in (("run_id", "run_id"), ("config", "config_yaml"), ("data_hash", "data_hash"), ("writer", "writer")):
            dk.check(attributes[name] == checkpoint.attrs[other], f"{name}: {attributes[name]}")
        dk.check(attributes["data_hash"] == tokens.attrs["source_sha256"] + b"/%d" % tokens.attrs["training_tokens"], "data_hash")
    dk.check([columns["token_text"][i] for i in (0, 10, 97, 0xC3)] == [b"\\x00", b"\n", b"a", b"\\xC3"], "token_text")


def check_eval(run, workshop, root):
    """--windows 0: each held-out token once, with the loss that `dekoder eval` measures, on a ragged end too."""
    output = root / "all.h5"
    predictions(run, "--windows", 0, "-o", output)
    columns, _ = table(output)
    count = len(held_out(workshop.tokens)) - 1
    dk.check(count % CONTEXT != 0, "the last window is whole: nothing tells ragged ones")
    dk.check((columns["position"] == numpy.arange(count)).all(), "not each token once")
    dk.check((columns["window"] == numpy.arange(count) // CONTEXT).all(), "other windows than those of the evaluation")
    said = command("eval", run)
    loss, tokens = re.search(r"validation loss ([\d.]+) nats.*\((\d+) tokens", said).groups()
    dk.check(int(tokens) == count, f"eval counts {tokens} tokens of {count}")
    dk.check(abs(columns["surprise"].mean(dtype=float) - float(loss)) < 6e-5, f"mean {columns['surprise'].mean()}, {said}")


def check_bytes(run, root):
    """The same bytes with any number of threads and at any time."""
    outputs = []
    for threads in (1, 2, 3, 1):
        time.sleep(0.4)  # HDF5's own times are of seconds
        outputs.append(root / f"threads-{len(outputs)}.h5")
        predictions(run, "-o", outputs[-1], threads=threads)
    dk.check(len({path.read_bytes() for path in outputs}) == 1, "other bytes with other threads")


def check_shared_windows(run, other, root):
    """A run of half the context has windows at the same places: the same tokens, after the same ones, as far as it goes."""
    a, b = root / "long.h5", root / "short.h5"
    predictions(run, "--windows", 4, "-o", a)
    predictions(other, "--windows", 4, "-o", b)
    (long, of_long), (short, of_short) = table(a), table(b)
    dk.check(of_long["validation_hash"] == of_short["validation_hash"], "other validation_hash")
    dk.check((of_long["context"], of_short["context"]) == (CONTEXT, CONTEXT // 2), "contexts")
    for name in ("position", "input", "truth"):
        dk.check((long[name].reshape(4, -1)[:, :CONTEXT // 2] == short[name].reshape(4, -1)).all(), f"{name} differs")


def check_steps_and_files(run, root):
    """Any checkpoint by its step or its file; the default output is in the run directory either way."""
    first, last = min(dk.checkpoints(run)), max(dk.checkpoints(run))
    predictions(run, "--step", first)
    columns, attributes = table(step_file(run, first))
    dk.check(attributes["step"] == first, "another step")
    step_file(run, last).unlink()
    predictions(dk.checkpoints(run)[last])
    dk.check(table(step_file(run, last))[1]["step"] == last, "not in the run directory")
    dk.check(abs(table(step_file(run, last))[0]["surprise"] - columns["surprise"]).max() > 0.01, "steps do not differ")
    alone = root / "alone/any.h5"
    alone.parent.mkdir()
    alone.write_bytes(dk.checkpoints(run)[last].read_bytes())
    predictions(alone)
    dk.check(step_file(root / "alone", last).exists(), "not beside a checkpoint that is in no run directory")
    said = predictions(run, "--step", 7, code=3)
    dk.check(f"no checkpoint of step 7; there are those of steps {first}" in said, said)
    said = predictions(alone, "--step", 7, code=2)
    dk.check("--step 7 and a checkpoint file" in said, said)


def check_diverged(run, root):
    """Parameters that are not finite end in one message and exit code 4, with no file."""
    spoilt = root / "spoilt.h5"
    spoilt.write_bytes(max(dk.checkpoints(run).values()).read_bytes())

    def edit(file):
        file["parameters/final_norm.bias"][3] = numpy.nan

    seal.change(spoilt, edit)
    said = predictions(spoilt, "-o", root / "none.h5", code=4)
    dk.check("no prediction: the logit of token 0 is not finite" in said and "use an earlier checkpoint" in said, said)
    dk.check(not (root / "none.h5").exists(), "a file of numbers that are none")


def check_outputs(run, root):
    """-o takes the place of an earlier table, and of nothing else; a kill leaves what was there."""
    own = root / "own.h5"
    predictions(run, "--windows", 2, "-o", own)
    before = own.read_bytes()
    for fault in ("predictions:before_fsync", "predictions:before_rename"):
        predictions(run, "--windows", 3, "-o", own, fault=fault, code=-signal.SIGKILL)
        dk.check(own.read_bytes() == before, f"changed by a kill at {fault}")
    predictions(run, "--windows", 3, "-o", own)
    dk.check(table(own)[0]["window"].max() == 2, "an earlier table keeps its place")
    dk.check(not list(root.glob(".*own*")), f"left over: {list(root.iterdir())}")
    checkpoint = max(dk.checkpoints(run).values())
    notes = root / "notes.txt"
    notes.write_text("notes")
    for output, why in ((checkpoint, "holds no predictions"), (notes, "cannot be opened"), (root, "is a folder"),
                        (root / "missing/x.h5", "does not exist; make it first")):
        bytes_before = output.read_bytes() if output.is_file() else None
        said = predictions(run, "-o", output, code=3)
        dk.check(str(output) in said and why in said, said)
        dk.check(bytes_before is None or output.read_bytes() == bytes_before, f"{output} was changed")
    (root / "blocked").mkdir()
    (root / "blocked/checkpoints").symlink_to(run / "checkpoints")
    (root / "blocked/predictions").write_text("a file")
    said = predictions(root / "blocked", code=3)
    dk.check(f"{root / 'blocked/predictions'}: " in said and "expected a folder for predictions" in said, said)


with tempfile.TemporaryDirectory() as folder:
    workshop = dk.Workshop(folder)
    root = pathlib.Path(folder)
    run, other = root / "run", root / "other"
    workshop.train(run, STEPS)
    workshop.train(other, STEPS, sets=("model.context=8", "training.batch=2"))
    check_table(run, workshop)
    check_eval(run, workshop, root)
    check_bytes(run, root)
    check_shared_windows(run, other, root)
    check_steps_and_files(run, root)
    check_diverged(run, root)
    check_outputs(run, root)
    workshop.train(run, STEPS, flags=("--fresh",))
    dk.check(not (run / "predictions").exists() and (run / "previous-1/predictions").is_dir(), "a new run beside old predictions")

print("passed")
