# SPDX-License-Identifier: Apache-2.0
"""A small run directory for tests, in the layout of a real one: config.yaml, metrics.jsonl, samples.jsonl, status,
attention/. Numbers follow formulas below, so that a test knows what must come out."""
from __future__ import annotations

import codecs
import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

STATISTICS = ("entropy", "mean_distance", "previous_token", "first_token", "same_token", "duplicate_token",
              "induction")
HELD_OUT = ("Mr. Bennet was so odd a mixture of quick parts,\nsarcastic humour, reserve, and caprice, that the experience of "
            "three-and-twenty years had been insufficient to make his wife understand his character. Na\u00efve.\n") * 3
TEXTS = ("It is a truth,\nit is $5.", "Na\u00efve \u2014 ab ab")


@dataclass
class SyntheticRun:
    """What write_run wrote. maps[probe][step] is float16 (layer, head, query, key), statistics[probe][step] float32
    (layer, head, statistic); steps and evaluations are lists of the dicts that stand in metrics.jsonl."""

    path: Path
    steps: list
    evaluations: list
    restarts: list
    samples: list
    captured: list
    texts: dict
    tokens: dict
    maps: dict
    statistics: dict
    pieces: tuple = ()


def write_run(folder, *, layers=2, heads=3, steps=40, captured=(0, 20, 40), restarts=(20,), positions="learned",
              texts=TEXTS, seed=1, chosen_layers=None, chosen_heads=None, attention=True, single_file=False, changes=None,
              phases=False, other_tokens_from=None, pieces=(),
              sources=None) -> SyntheticRun:
    """Writes a finished run of `steps` steps into `folder`, made where it is missing. chosen_layers and chosen_heads
    are the model's layers and heads that were captured (all where None); attention=False: nothing was captured;
    single_file: all maps in attention.h5, as format 1 had them; changes: restart -> what it changed, key -> [before,
    after]; phases: rows of steps have the key seconds; other_tokens_from: from that step on the run is evaluated on
    other tokens, on which its loss is 1 lower; pieces: bytes that are one token each, beside the 256 of a byte; sources: token file -> weight of a
    mixture. What is there already of another run's maps is removed."""
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(path / "attention", ignore_errors=True)
    (path / "attention.h5").unlink(missing_ok=True)
    layer_numbers = list(range(layers)) if chosen_layers is None else list(chosen_layers)
    head_numbers = list(range(heads)) if chosen_heads is None else list(chosen_heads)
    config = config_text(layers, heads, steps, positions, texts if attention else (), seed, chosen_layers,
                         chosen_heads, sources)
    probes = {f"text_{i}": text for i, text in enumerate(texts)} if attention else {}
    run = SyntheticRun(path=path, steps=[], evaluations=[], restarts=list(restarts), samples=[],
                       captured=sorted(captured) if attention else [], texts=probes,
                       tokens={name: encode(text, pieces) for name, text in probes.items()}, pieces=tuple(pieces),
                       maps={name: {} for name in probes}, statistics={name: {} for name in probes})
    for name, tokens in run.tokens.items():
        for step in run.captured:
            maps = attention_maps(tokens, layer_numbers, head_numbers, step / steps, positions != "none", seed)
            run.maps[name][step] = maps
            run.statistics[name][step] = head_statistics(maps, tokens)
    (path / "config.yaml").write_text(config, encoding="utf-8")
    (path / "status").write_text(f"state: finished\nstep: {steps}\nsteps: {steps}\nmessage: \n")
    write_metrics(run, steps, seed, positions, changes or {}, phases, other_tokens_from, sources)
    write_samples(run, steps)
    if single_file:
        write_single_file(path / "attention.h5", run, config, layer_numbers, head_numbers)
    else:
        for step in run.captured:
            write_step(step_file(path, step), run, config, layer_numbers, head_numbers, step)
    return run


def config_text(layers, heads, steps, positions, texts, seed, chosen_layers=None, chosen_heads=None, sources=None):
    """config.yaml as the trainer writes it, the sections that matter here."""
    data = 'tokens: "data/austen-byte.h5"'
    if sources:
        data = f"tokens: {json.dumps(list(sources))}\n  weights: {list(sources.values())}"
    quoted = ", ".join(json.dumps(text, ensure_ascii=False) for text in texts)
    return (
        f"model:\n  layers: {layers}\n  heads: {heads}\n  channels: {16 * heads}\n  context: 32\n  vocabulary: 256\n"
        f"  positions: {positions}\n  norm: pre\n  norm_epsilon: 1e-05\n  dropout: 0\n"
        f"data:\n  {data}\n"
        f"training:\n  seed: {seed}\n  steps: {steps}\n  batch: 4\n  learning_rate: 0.002\n"
        "evaluation:\n  every: 10\n  tokens: 65536\n"
        'sampling:\n  every: 20\n  prompt: "It is"\n'
        f"attention:\n  texts: [{quoted}]\n  windows: 0\n  window_tokens: 0\n  layers: {list(chosen_layers or [])}\n"
        f"  heads: {list(chosen_heads or [])}\n  every: 20\n  steps: []\n  max_megabytes: 256\n")


def phase_seconds(step):
    """Seconds of a step by phase."""
    return {"data": 0.001, "forward": 0.01 + 1e-5 * step, "head and loss": 0.012, "backward": 0.02, "optimizer": 0.002}


def source_rows(sources, loss):
    """What an evaluation says of each token file of a mixture, whose mean by weights is `loss`: the files' own losses lie apart."""
    apart = np.arange(len(sources)) * 0.5
    own = loss + apart - np.dot(apart, list(sources.values()))
    return [{"tokens": name, "weight": weight, "validation_loss": of, "bits_per_byte": of / np.log(2) / (i + 1),
             "validation_tokens": 65536 >> i} for i, ((name, weight), of) in enumerate(zip(sources.items(), own.tolist()))]


def write_metrics(run, steps, seed, positions, changes, phases, other_tokens_from, sources):
    """Rows in the trainer's order: at each step the step's row, then evaluation, attention, at last resumed."""
    gap = 0.2 if positions == "none" else 0.0
    lines = []
    for step in range(steps + 1):
        if step:
            run.steps.append({"step": step,
                              "loss": 2.0 + gap + 3.5 / (1 + 0.3 * step) + 0.05 * np.sin(7 * step + seed),
                              "learning_rate": 0.002 * min(1.0, step / 10), "gradient_norm": 0.5 + 1 / step,
                              "tokens": 128 * step, "tokens_per_second": 5000.0 + step,
                              **({"seconds": phase_seconds(step)} if phases else {})})
            lines.append(run.steps[-1])
        if step % 10 == 0:
            others = other_tokens_from is not None and step >= other_tokens_from
            loss = 2.1 + gap + 3.4 / (1 + 0.3 * step) - (1.0 if others else 0.0)
            run.evaluations.append({"step": step, "validation_loss": loss, "bits_per_byte": loss / np.log(2),
                                    "tokens": 65536, "validation_hash": ("0123abcd" if others else "c312fa7a") * 8,
                                    **({"sources": source_rows(sources, loss)} if sources else {})})
            lines.append(run.evaluations[-1])
        if step in run.captured:
            for probe, by_step in run.statistics.items():
                values = {name: by_step[step][:, :, i].astype(float).tolist() for i, name in enumerate(STATISTICS)}
                lines.append({"step": step, "probe": probe, "attention": values})
        if step in run.restarts:
            lines.append({"step": step, "resumed": True, **({"changed": changes[step]} if step in changes else {})})
    text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    (run.path / "metrics.jsonl").write_text(text, encoding="utf-8")


def write_samples(run, steps):
    """One sample at half of the steps and one at the end; the first has what was a mark between samples in older files
    in it."""
    run.samples = [(steps // 2, "It is it is\n\n=== step 7\n\u2014 the the\n"),
                   (steps, "It is a truth universally acknowledged")]
    rows = [{"step": step, "prompt": "It is", "text": text} for step, text in run.samples]
    (run.path / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_checkpoint(folder, step, **fields):
    """The root's attributes of a checkpoint in folder, as HDF5 lays them out for the trainer."""
    values = {"step": step, "tokens_seen": 128 * step, "config_yaml": "model: {}\n" * 50, "tokenizer": "byte",
              "data_hash": "c312fa7a" * 8 + "/2700", "validation_loss": 2.5, "best_validation_loss": 2.5,
              "best_step": step, "sampled_step": step, "metrics_bytes": 0, "samples_bytes": 0,
              "run_id": "0123456789abcdef", "writer": "dekoder, OpenMP float", **fields}
    with new_file(folder / f"ckpt-{step:08}.h5") as file:
        for name, value in {"format": "dekoder-checkpoint", "major": np.int32(1), "minor": np.int32(0), **values}.items():
            file.attrs[name] = fixed(value) if isinstance(value, str) else value


def write_predictions(folder, step, *, windows=4, context=48, top=5, seed=1, text=HELD_OUT, pieces=()) -> dict:
    """The file of `dekoder predictions` of a step in the run directory `folder`: windows spread evenly over `text`, the
    held-out part, after a token " "; random logits of (seed, place in the text), in which that of the truth is raised the
    more, the later the step is; pieces as in write_run. Returns its columns."""
    tokens, vocabulary = encode(" " + text, pieces), 256 + len(pieces)
    held_out = len(tokens) - 1
    places = np.concatenate([np.arange(context) + i * held_out // windows for i in range(windows)])
    logits = np.stack([np.random.default_rng([seed, place]).normal(size=vocabulary) for place in places])
    truth = tokens[places + 1]
    logits[np.arange(len(places)), truth] += 6 * step / (step + 20)
    log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    order = np.argsort(-log_p, axis=1, kind="stable")
    of_truth = np.take_along_axis(log_p, truth[:, None], 1)[:, 0]
    best = np.take_along_axis(log_p, order[:, :top], 1)
    columns = {"window": np.repeat(np.arange(windows, dtype=np.int32), context), "position": places.astype(np.int64),
               "input": tokens[places], "truth": truth, "guess": order[:, 0].astype(np.int32),
               "rank": np.argmax(order == truth[:, None], axis=1).astype(np.int32), "surprise": (-of_truth).astype(np.float32),
               "truth_probability": np.exp(of_truth).astype(np.float32), "guess_probability": np.exp(best[:, 0]).astype(np.float32),
               "top_tokens": order[:, :top].astype(np.int32), "top_log_probabilities": best.astype(np.float32)}
    path = predictions_file(folder, step)
    path.parent.mkdir(exist_ok=True)
    with new_file(path) as file:
        for name, value in {"format": "dekoder-predictions", "major": np.int32(1), "minor": np.int32(0), "step": np.int64(step),
                            "run_id": "0123456789abcdef", "config": "model: {}\n", "writer": "dekoder 0.1.0", "tokenizer": "byte",
                            "source": "text.txt", "data_hash": "c312fa7a/2700", "validation_tokens": np.uint64(held_out),
                            "validation_hash": hashlib.sha256(tokens.tobytes()).hexdigest(), "context": np.int32(context),
                            "vocabulary": np.int32(vocabulary), "top": np.int32(top)}.items():
            file.attrs[name] = fixed(value) if isinstance(value, str) else value
        texts = [text.encode() for text in token_text(range(vocabulary), pieces)]
        texts[0] = b"\\x00"
        file["token_text"] = np.array(texts, dtype=h5py.string_dtype("utf-8", max(map(len, texts))))
        for name, values in columns.items():
            file.create_dataset(name, data=values, shuffle=True, compression="gzip", fletcher32=True)
    return columns


def predictions_file(run, step):
    """Path of the predictions of a step of the run directory `run`."""
    return Path(run) / f"predictions/step-{step:08}.h5"


def new_file(path):
    """An HDF5 file whose metadata have checksums, as the trainer's: a damaged one is an error, not another value."""
    return h5py.File(path, "w", libver=("v110", "v110"))


def fixed(text):
    """A text of fixed length, which stands in the metadata."""
    return np.array(text.encode(), dtype=f"S{max(1, len(text.encode()))}")


def attention_maps(tokens, layer_numbers, head_numbers, trained, positions, seed):
    """float16 (layer, head, query, key): at trained = 0 about even weights; on the way to trained = 1 head h of layer
    l goes to the pattern number (l + h) of previous token, first token, earlier equal tokens; without positions all
    go to equal tokens."""
    n = len(tokens)
    query, key = np.indices((n, n))
    equal = tokens[:, None] == tokens[None, :]
    patterns = [key == np.maximum(query - 1, 0), key == 0, equal & (key <= query)]
    maps = np.zeros((len(layer_numbers), len(head_numbers), n, n))
    for i, layer in enumerate(layer_numbers):
        for j, head in enumerate(head_numbers):
            noise = np.random.default_rng([seed, layer, head]).normal(size=(n, n))
            pattern = patterns[(layer + head) % 3] if positions else patterns[2]
            score = 0.1 * noise + trained * (0.5 * noise + 6.0 * pattern)
            weights = np.where(key <= query, np.exp(score), 0.0)
            maps[i, j] = weights / weights.sum(axis=1, keepdims=True)
    return maps.astype(np.float16)


def head_statistics(maps, tokens):
    """float32 (layer, head, statistic) of float16 maps, straight from the definitions."""
    weights = maps.astype(np.float64)
    n = len(tokens)
    query, key = np.indices((n, n))
    earlier = key < query
    equal = tokens[:, None] == tokens[None, :]
    induction = np.zeros((n, n))
    for t in range(n):
        for s in range(1, t + 1):
            induction[t, s] = s - 1 < t and tokens[s - 1] == tokens[t]
    patterns = {"previous_token": key == query - 1, "first_token": key == 0, "same_token": key == query,
                "duplicate_token": equal & earlier, "induction": induction}
    logarithm = np.log(weights, where=weights > 0, out=np.zeros_like(weights))
    values = {"entropy": -(weights * logarithm).sum(axis=(2, 3)) / n,
              "mean_distance": (weights * (query - key)).sum(axis=(2, 3)) / n}
    total = weights.sum(axis=(2, 3))
    for name, pattern in patterns.items():
        values[name] = (weights * pattern).sum(axis=(2, 3)) / total
    return np.stack([values[name] for name in STATISTICS], axis=2).astype(np.float32)


def token_text(tokens, pieces=()):
    """Text of tokens, a byte that is no UTF-8 alone as \\xC3."""
    return [(bytes([token]) if token < 256 else pieces[token - 256]).decode("utf-8", "by-number") for token in tokens]


codecs.register_error("by-number", lambda error: (
    "".join(f"\\x{byte:02X}" for byte in error.object[error.start:error.end]), error.end))


def encode(text, pieces=()):
    """Tokens of a text: the longest piece that fits, else a byte."""
    left, tokens = text.encode(), []
    while left:
        fitting = max((piece for piece in pieces if left.startswith(piece)), key=len, default=left[:1])
        tokens.append(256 + pieces.index(fitting) if fitting in pieces else left[0])
        left = left[len(fitting):]
    return np.array(tokens, np.int32)


def step_file(run, step):
    """Path of the attention file of a step of the run directory `run`."""
    return Path(run) / f"attention/step-{step:08}.h5"


def write_step(path, run, config, layer_numbers, head_numbers, step):
    """The attention file of one step."""
    path.parent.mkdir(exist_ok=True)
    with new_file(path) as file:
        write_head(file, 2, config, layer_numbers, head_numbers)
        file.attrs["step"] = np.int64(step)
        file.attrs["statistic_names"] = fixed(",".join(STATISTICS))
        for name in run.texts:
            group = write_probe(file, name, run)
            write_maps(group, "weights", run.maps[name][step])
            write_statistics(group, "statistics", run.statistics[name][step])


def write_single_file(path, run, config, layer_numbers, head_numbers):
    """attention.h5 of format 1 with all captured steps."""
    with new_file(path) as file:
        write_head(file, 1, config, layer_numbers, head_numbers)
        file.create_group("statistics").attrs["names"] = fixed(",".join(STATISTICS))
        for name in run.texts:
            group = write_probe(file, name, run)
            statistics = file.create_group(f"statistics/{name}")
            for step in run.captured:
                write_maps(group, f"step_{step}", run.maps[name][step]).attrs["step"] = np.int64(step)
                write_statistics(statistics, f"step_{step}", run.statistics[name][step]).attrs["step"] = np.int64(step)


def write_head(file, major, config, layer_numbers, head_numbers):
    """What both formats have in common."""
    file.attrs["format"] = fixed("dekoder-attention")
    file.attrs["major"], file.attrs["minor"] = np.int32(major), np.int32(0)
    file.attrs["run_id"] = fixed("0123456789abcdef")
    file.attrs["config"] = fixed(config)
    file.attrs["tokenizer"] = fixed("byte")
    file.attrs["writer"] = fixed("dekoder 0.1.0")
    file["layers"] = np.array(layer_numbers, np.int32)
    file["heads"] = np.array(head_numbers, np.int32)


def write_probe(file, name, run):
    """Group /attention/<name> without maps."""
    group = file.create_group(f"attention/{name}")
    group.attrs["text"] = fixed(run.texts[name])
    group.attrs["source"] = fixed("configuration")
    group.attrs["causal"] = np.uint8(1)
    group["tokens"] = run.tokens[name]
    encoded = [text.encode() for text in token_text(run.tokens[name], run.pieces)]
    group["token_text"] = np.array(encoded, dtype=h5py.string_dtype("utf-8", max(map(len, encoded))))
    return group


def write_maps(group, name, maps):
    written = group.create_dataset(name, data=maps, chunks=(1, 1) + maps.shape[2:], shuffle=True, compression="gzip",
                                   fletcher32=True)
    written.attrs["axes"] = fixed("layer,head,query,key")
    return written


def write_statistics(group, name, statistics):
    written = group.create_dataset(name, data=statistics)
    written.attrs["axes"] = fixed("layer,head,statistic")
    return written
