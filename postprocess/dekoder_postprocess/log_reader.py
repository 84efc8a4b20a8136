# SPDX-License-Identifier: Apache-2.0
"""Reads files of one JSON object per line, as a run appends them: metrics.jsonl, samples.jsonl and restarts.jsonl.

A last line without its end is being written and is left out; empty lines are, too, and so are rows of kinds that this
version does not know. Line ends may be those of Windows. Whatever stands in a file, a row that is given is one to compute
with: its numbers are null or can be summed and squared, its texts are UTF-8, but for those of samples.
"""
from __future__ import annotations

import json
from datetime import datetime

import numpy as np

from .errors import RunError
from .files import read_file
from .visible_text import is_utf8

STEP_COLUMNS = ("step", "loss", "learning_rate", "gradient_norm", "tokens", "tokens_per_second")
EVALUATION_COLUMNS = ("step", "validation_loss", "bits_per_byte", "tokens")
SOURCE_COLUMNS = ("weight", "validation_loss", "bits_per_byte", "validation_tokens")
WHOLE_NUMBERS = ("step", "tokens", "validation_tokens")
GREATEST = 1e150
"""A number beyond it reads as one that is not finite does: null. Nothing that is measured is so great, and the sums and
squares of lesser ones are finite."""
END_OF_TIME = 253402300800.0
"""The year 10000, seconds since 1970."""


class MetricsReader:
    """Reads metrics.jsonl as it grows: rows are checked one after the other, and by their order."""

    def __init__(self, path):
        self._path = path
        self._newest = 0  # step
        self._known = None  # whether a row was one of dekoder's; None: no row yet
        self._lines = 0  # read so far

    def rows(self, data):
        """(kind, row) of the next whole lines, `data`: "steps", "evaluations", "restarts", or None for other rows (head
        statistics; the attention files hold them too). Raises RunError."""
        before = self._lines
        self._lines += data.count(b"\n")
        for number, row in _rows(data, self._path, _check_metrics, before + 1):
            step = row["step"]
            if step < self._newest:
                raise RunError(f"{self._path}:{number}: step {step} after step {self._newest}; expected steps in order, "
                               "as in the log of one run; rows of another run are in it")
            self._newest = step
            kind = ("steps" if "loss" in row else "evaluations" if "validation_loss" in row else
                    "restarts" if row.get("resumed") else None)
            self._known = bool(self._known) or kind is not None or "attention" in row
            yield kind, row
        if self._known is False:
            raise RunError(f"{self._path}: no row of it is one of dekoder's; expected objects with step and loss; name "
                           "another run")


def read_metrics(path) -> dict:
    """Rows of metrics.jsonl by kind, each kind in the order of the file: steps, evaluations, restarts. Raises
    RunError."""
    rows = {"steps": [], "evaluations": [], "restarts": []}
    for kind, row in MetricsReader(path).rows(read_file(path)):
        if kind:
            rows[kind].append(row)
    return rows


def read_samples(path) -> list:
    """(step, text) of every row of samples.jsonl; a text begins with its prompt. Raises RunError."""
    return [(row["step"], row["text"]) for _, row in _rows(read_file(path), path, _check_sample)]


def read_starts(path) -> list:
    """The starts of a run by restarts.jsonl: (row of the beginning, row of the end); the end is None of one that goes on
    or has left no word. Raises RunError."""
    starts = []
    for _, row in _rows(read_file(path), path, _check_start):
        if row.get("event") == "begin":
            starts.append((row, None))
        elif row.get("event") == "end" and starts and starts[-1][1] is None:
            starts[-1] = (starts[-1][0], row)
    return starts


def seconds_of_time(text) -> float:
    """Seconds since 1970 of a row's "2026-11-24T21:40:03.250Z". Raises ValueError, also for what no calendar or tracker
    takes back: before 1970, or from the year 10000 on."""
    try:
        seconds = datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except OverflowError as error:
        raise ValueError(str(error)) from error
    if not 0 <= seconds < END_OF_TIME:
        raise ValueError(f"{text!r} is not within the years 1970 to 9999")
    return seconds


def table(rows, columns) -> dict:
    """Columns of rows as arrays; what is null or missing reads NaN, in whole numbers 0."""
    arrays = {}
    for column in columns:
        values = [row.get(column) for row in rows]
        if column in WHOLE_NUMBERS:
            arrays[column] = np.array([value or 0 for value in values], dtype=np.int64)
        else:
            arrays[column] = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return arrays


def _rows(data, path, check, first=1):
    """(line number, object) of every whole line of `data`, whose first is line `first` of the file `path`; check(object)
    raises ValueError where it is none that dekoder writes."""
    for number, line in enumerate(data.split(b"\n")[:-1], first):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or row.get("step") is None:
                raise ValueError("no object with a step")
            check(row)
        except (ValueError, RecursionError) as error:
            start = line[:40].decode("utf-8", "replace")
            raise RunError(
                f"{path}:{number}: not a row of a log ({error}): {start!r}; expected one JSON object per line with a "
                "step; the file is damaged or of another program: restore it from a copy, or overwrite the line with "
                "as many spaces, which leaves it out (to remove it would make the file shorter than its checkpoints "
                "say)") from error
        yield number, row


def _check_metrics(row):
    for key in (*STEP_COLUMNS, *EVALUATION_COLUMNS):
        if key in row:
            row[key] = _number(key, row[key])
    _check_text("validation_hash", row.get("validation_hash"))
    if "sources" in row:
        _check_sources(row["sources"])
    if "changed" in row:
        _check_changed(row["changed"])
    if "seconds" in row:
        if not isinstance(row["seconds"], dict):
            raise ValueError("seconds is no object")
        for phase, value in row["seconds"].items():
            _check_text("a phase of seconds", phase)
            row["seconds"][phase] = _number(f"seconds of {phase}", value)


def _check_sources(sources):
    """The token files of a mixture in an evaluation, each with its name and the numbers SOURCE_COLUMNS."""
    if not isinstance(sources, list):
        raise ValueError("sources is no list")
    for source in sources:
        if not (isinstance(source, dict) and isinstance(source.get("tokens"), str)):
            raise ValueError("sources: no object with tokens, the name of a file")
        _check_text("tokens of sources", source["tokens"])
        for key in SOURCE_COLUMNS:
            source[key] = _number(key, source.get(key))


def _check_changed(changed):
    """What a restart changed: key -> [value before, value after], as texts."""
    if not isinstance(changed, dict):
        raise ValueError("changed is no object")
    for key, pair in changed.items():
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(value, str) for value in pair)):
            raise ValueError(f"changed: {key} is no pair of texts")
        for text in (key, *pair):
            _check_text("changed", text)


def _check_sample(row):
    _number("step", row["step"])
    for key in ("text", "prompt"):
        if not isinstance(row.get(key, ""), str):
            raise ValueError(f"{key} is no text")
    if "text" not in row:
        raise ValueError("no text")


def _check_start(row):
    for key in ("step", "steps", "lost_steps", "ranks"):
        if key in row and not (type(row[key]) is int and 0 <= row[key] < 2**63):
            raise ValueError(f"{key} is no whole number from 0 to 2^63")
    for key in ("wall_seconds", "step_seconds", "save_seconds", "effective_time"):
        if key in row:
            row[key] = _number(key, row[key])
    for key in ("time", "reason", "host", "job"):
        _check_text(key, row.get(key))


def _check_text(key, value):
    """Raises ValueError where the value of a row is neither null nor text. JSON can write halves of characters, "\\ud800", which
    no file, stream or tracker takes."""
    if value is not None and not (isinstance(value, str) and is_utf8(value)):
        raise ValueError(f"{key} is no text")


def _number(key, value):
    """The value of a row as a number to compute with, or None. Raises ValueError where it is not what the trainer writes: null,
    or one that an array holds."""
    kind = type(value)  # not isinstance: true and false are int
    if key in WHOLE_NUMBERS:
        if value is not None and not (kind is int and 0 <= value < 2**63):
            raise ValueError(f"{key} is no whole number from 0 to 2^63")
    elif not (value is None or kind is float or (kind is int and abs(value) < 2**63)):
        raise ValueError(f"{key} is no number")
    return value if kind is not float or abs(value) <= GREATEST else None  # NaN is not
