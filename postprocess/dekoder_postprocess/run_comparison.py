# SPDX-License-Identifier: Apache-2.0
"""What differs between runs. The first one, A, is what the others are compared with."""
from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Optional

import numpy as np

from .attention_comparison import AttentionComparison, compare_attention
from .checkpoint_reader import CheckpointFields, newest_checkpoint
from .errors import RunError
from .program import NotKnown, Program
from .run_reader import Run, check_run_directory, config_texts, open_attention, parse_config, read_run

WINDOWS = 10  # of training losses, at most
NO_CHECKPOINT = "no checkpoint yet"


@dataclass
class ComparedRun:
    """A run as its directory tells it; it may still be training."""

    name: str  # the directory, as given
    run: Run
    saved: Optional[CheckpointFields]  # of the newest checkpoint; None before the first
    running: Optional[bool]  # a process trains in it; None: not known
    not_known: str = ""  # why

    def setting(self, section, key):
        """A value of its configuration; None where it is not set."""
        return self.run.config.get(section, {}).get(key)


@dataclass
class PairedFact:
    """One thing that runs have in common where they are a pair, as both have it."""

    what: str  # "seed"
    first: str
    other: str
    known: bool  # False: one of the runs does not say

    def equal(self):
        return self.known and self.first == self.other


@dataclass
class InitialValues:
    """The initial values of two runs, drawn again from seed and configuration and compared bit for bit by digests."""

    equal: int = 0  # tensors that both have with the same values
    different: list = field(default_factory=list)  # names of tensors that both have
    other_shape: list = field(default_factory=list)
    only_first: list = field(default_factory=list)  # that one of them has
    only_other: list = field(default_factory=list)
    not_known: str = ""  # why they could not be drawn

    def paired(self):
        return self.equal > 0 and not self.different and not self.other_shape


@dataclass
class Pairing:
    """Whether another run is paired with A: same seed, same data in the same order, same initial values of what both
    have. What then differs is the configuration alone."""

    # Seed, text, tokenizer, batch, context: what the order of the data follows from. Equal validation tokens show that
    # the text was split at the same place. Another backend or precision (program) rounds differently.
    facts: list
    initial_values: InitialValues
    differences: list  # (key, text in A, text in the other)

    def unpaired(self) -> list:
        """What is not the same, or not known to be: names of facts, and "initial values"."""
        names = [fact.what for fact in self.facts if not fact.equal()]
        return names if self.initial_values.paired() else [*names, "initial values"]

    def other_training(self) -> list:
        """What keeps the training losses of the run from having a gap to A's: another text, other weights of several, another
        tokenizer, as far as that is known. Another part of the text may be held out."""
        return [fact.what for fact in self.facts if fact.what in ("text", "weights", "tokenizer") and fact.known and
                _without_split(fact.first) != _without_split(fact.other)]


@dataclass
class Losses:
    """Losses over what all runs have logged; nats per token."""

    validation_steps: np.ndarray  # (step): all at which every run was evaluated
    validation: np.ndarray  # (run, step)
    bits_per_byte: np.ndarray  # (run, step)
    same_tokens: np.ndarray  # (run, step): evaluated on the validation tokens that A was evaluated on at that step
    hashes: list  # per run and step: of the validation tokens
    windows: list  # (first step, last step), both included: the common steps in nearly equal parts
    training: np.ndarray  # (run, window): means over the steps
    gap_error: np.ndarray  # (run, window): standard error of the mean of the steps' gaps to A; 0 for A


@dataclass
class Comparison:
    """All that is found."""

    runs: list
    pairings: list  # of runs[1], runs[2], ...
    losses: Losses
    attention: AttentionComparison


def read_compared_runs(paths, program) -> list:
    """Reads run directories. Raises RunError naming the file and what to do where one is missing, truncated, damaged or
    of another run."""
    for path in paths:
        check_run_directory(Path(path))
    answers = [program.running(path) for path in paths]
    return [_read(path, answer) for path, answer in zip(paths, answers)]


def _read(path, answer):
    folder = Path(path)
    # The checkpoint before the log: a log that grows meanwhile is never shorter than the checkpoint says.
    saved = newest_checkpoint(folder / "checkpoints")
    run = read_run(folder, with_attention=False)
    if saved is not None:
        _check_log_length(folder / "metrics.jsonl", saved)
    with _remedy():
        run.attention = open_attention(folder)
        if saved is not None and run.attention is not None and run.attention.run_id != saved.run_id:
            raise RunError(f"{folder}: its attention maps are of another run ({run.attention.run_id}, expected "
                           f"{saved.run_id})")
    running, why = None, ""
    try:
        running = answer()
    except NotKnown as reason:
        why = str(reason)
    return ComparedRun(os.fspath(path), run, saved, running, why)


def _check_log_length(path, saved):
    """Lines that a checkpoint counted on must be there."""
    size = path.stat().st_size
    if size < saved.metrics_bytes:
        raise RunError(f"{path}: has {size} bytes but the checkpoint of step {saved.step} was saved with "
                       f"{saved.metrics_bytes}: truncated; restore it, or train again")


class _remedy:
    """A context whose RunErrors, of attention files, say what to do."""

    def __enter__(self):
        return self

    def __exit__(self, _, error, __):
        if isinstance(error, RunError):
            raise RunError(f"{error}; move the file away to compare the rest") from error


def compare_runs(runs, program=None) -> Comparison:
    """Compares runs[1], runs[2], ... with runs[0]."""
    beginnings = [_beginning(run, program or Program()) for run in runs]
    pairings = [_pair(runs[0], run, beginnings[0], of) for run, of in zip(runs[1:], beginnings[1:])]
    with _remedy():
        attention = compare_attention([run.run.attention for run in runs])
    return Comparison(runs, pairings, compare_losses([run.run for run in runs]), attention)


def _beginning(run, program):
    """(configuration as text, initial values); the configuration as it stands and why the values are not known."""
    try:
        return program.initial_values(run.run.path)
    except NotKnown as reason:
        return run.run.config_text, reason


def _pair(first, other, first_beginning, other_beginning) -> Pairing:
    facts = []

    def fact(what, a, b, known=True):
        facts.append(PairedFact(what, str(a), str(b), known and a is not None and b is not None))

    def saved(what, value):
        fact(what, *(NO_CHECKPOINT if run.saved is None else value(run) for run in (first, other)),
             first.saved is not None and other.saved is not None)

    def setting(what, section, key):
        fact(what, first.setting(section, key), other.setting(section, key))

    setting("seed", "training", "seed")
    saved("text", lambda run: run.saved.data_hash)
    if any(len(run.setting("data", "weights") or ()) > 1 for run in (first, other)):
        fact("weights", *(run.setting("data", "weights") or [] for run in (first, other)))
    saved("tokenizer", _tokenizer)
    setting("batch", "training", "batch")
    setting("context", "model", "context")
    hashes = [run.run.validation_hash or "" for run in (first, other)]
    fact("validation tokens", *hashes, all(hashes))
    saved("program", lambda run: _program(run.saved.writer))
    configurations, values = zip(first_beginning, other_beginning)
    return Pairing(facts, pair_initial_values(*values), config_differences(*configurations))


def _without_split(data_hash):
    """The texts of "digest/training tokens + digest/training tokens"."""
    return re.sub(r"/\d+(?= \+ |$)", "", data_hash)


def _program(writer):
    """Without its precision, which is a setting of the configuration."""
    return re.sub(r"^(dekoder, \w+) (float|bf16|double),", r"\1,", writer)


def _tokenizer(run):
    """A tokenizer in a few letters: equal ones have equal names."""
    text = run.saved.tokenizer
    name = "bpe" if text.startswith("{") else text.replace(":", " ").split()[0] if text.split() else "none"
    digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]
    return f"{name} of {run.setting('model', 'vocabulary')} tokens, digest {digest}"


def pair_initial_values(first, other) -> InitialValues:
    """first, other: name -> (shape, digest), or the NotKnown that says why there are none."""
    for values in (first, other):
        if isinstance(values, NotKnown):
            return InitialValues(not_known=str(values))
    pairing = InitialValues(only_first=[name for name in first if name not in other],
                            only_other=[name for name in other if name not in first])
    for name, (shape, digest) in first.items():
        if name in other:
            if other[name][0] != shape:
                pairing.other_shape.append(name)
            elif other[name][1] != digest:
                pairing.different.append(name)
            else:
                pairing.equal += 1
    return pairing


def config_differences(first, other) -> list:
    """[(key, text in the first, text in the other)] of all keys whose values differ in two configurations as YAML; "(not
    set)" where one lacks the key."""
    values = [{f"{section}.{key}": value for section, keys in parse_config(text, "configuration").items()
               if isinstance(keys, dict) for key, value in keys.items()} for text in (first, other)]
    texts = [config_texts(text) for text in (first, other)]
    keys = dict.fromkeys([*values[0], *values[1]])
    return [(key, *(of.get(key, "(not set)") for of in texts)) for key in keys
            if not (key in values[0] and key in values[1] and values[0][key] == values[1][key])]


def compare_losses(runs) -> Losses:
    """Losses of all runs at the steps that all of them have. The last row of a step counts."""
    places, steps = _common_rows([run.evaluations["step"] for run in runs])
    hashes = [[run.validation_hashes[i] or "" for i in at] for run, at in zip(runs, places)]
    validation = np.array([run.evaluations["validation_loss"][at] for run, at in zip(runs, places)])
    bits = np.array([run.evaluations["bits_per_byte"][at] for run, at in zip(runs, places)])
    same = np.array([[a == b for a, b in zip(of, hashes[0])] for of in hashes], dtype=bool).reshape(validation.shape)

    places, training_steps = _common_rows([run.steps["step"] for run in runs])
    losses = np.array([run.steps["loss"][at] for run, at in zip(runs, places)])  # (run, step)
    count = min(WINDOWS, len(training_steps))
    borders = [w * len(training_steps) // count for w in range(count + 1)] if count else []
    windows = list(zip(borders[:-1], borders[1:]))
    means, errors = np.zeros((len(runs), count)), np.zeros((len(runs), count))
    for w, (begin, end) in enumerate(windows):
        part = losses[:, begin:end]
        means[:, w] = part.mean(axis=1)
        if end - begin > 1:
            errors[:, w] = (part - part[0]).std(axis=1, ddof=1) / (end - begin) ** 0.5
    return Losses(steps, validation, bits, same, hashes,
                  [(int(training_steps[begin]), int(training_steps[end - 1])) for begin, end in windows], means, errors)


def _common_rows(steps_of_runs):
    """([places (row) per run], steps): where every run has its last row of each step that all have."""
    last = []
    for steps in steps_of_runs:
        known, first_of_reversed = np.unique(steps[::-1], return_index=True)
        last.append((known, len(steps) - 1 - first_of_reversed))
    common = reduce(np.intersect1d, (known for known, _ in last))
    return [rows[np.searchsorted(known, common)] for known, rows in last], common
