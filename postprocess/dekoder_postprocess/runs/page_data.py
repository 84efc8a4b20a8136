# SPDX-License-Identifier: Apache-2.0
"""The numbers of the page of all runs: what its scripts read as JSON."""
from __future__ import annotations

import json
import os
import shlex
import urllib.parse
from collections import Counter
from pathlib import Path
from typing import Any, Mapping, Sequence

import numpy as np

from ..errors import RunError
from ..files import present, read_file
from ..log_reader import MetricsReader, table
from ..report_data import finite
from ..terminal_chart import smoothed
from ..visible_text import visible_token
from .run_summary import RunSummary, compared_hash
from .setting_columns import FACTOR

POINTS = 200
"""A curve has about that many points at most."""
WINDOW = 0.01
"""A point of a training curve is the mean over that share of the steps on either side of it."""
STEPS = 2000
"""Of a log of twice as many lines or more, that many to twice as many are read besides the evaluations."""
EXACT = 2**53
"""Whole numbers up to there are exact in a script; a column with a greater one is of texts."""

MEASURES = (
    # (field of RunSummary, title, kind, remark)
    ("best_loss", "Best loss", "loss", "least validation loss on the newest validation tokens, nats per token"),
    ("best_step", "Best step", "count", "optimizer step of the best loss"),
    ("last_loss", "Last loss", "loss", "newest validation loss, nats per token"),
    ("state", "State", "text", ""),
    ("bits_per_byte", "Bits per byte", "loss", "of the validation, at the best loss"),
    ("training_loss", "Training loss", "loss", "nats per token, mean of the last 100 steps"),
    ("step", "Step", "count", "newest optimizer step in the log"),
    ("planned_steps", "Planned steps", "count", "optimizer steps of the whole run"),
    ("tokens", "Tokens", "count", "seen in training"),
    ("tokens_per_second", "Tokens/s", "rate", "median"),
    ("seconds", "Time", "duration", "wall time of all starts"),
    ("effective_time", "Effective", "share", "share of the wall time for steps that counted"),
    ("restarts", "Restarts", "count", ""),
    ("created", "Created", "time", "first start, UTC"),
    ("validation_hash", "Validation tokens", "text", "only losses on the same validation tokens can be compared"),
)
"""Columns besides the settings. Kinds: text; loss, count, rate, number, duration (seconds), share (0 to 1), time (seconds
since 1970) are numbers that the page writes in that way."""


def one_line(text) -> str:
    """Any text as one line, every character of which is seen."""
    return visible_token(str(text), spaces=False)


def column(key, title, kind, remark, values, known, **more) -> dict:
    """A column as JSON. `values`: one per run, None where there is none; `known`: for each run whether it could have one.
    Where all that could have the same, it stands as `same` alone. A column of texts has them in order in `levels`, and their
    places there as values."""
    of = {"key": one_line(key), "title": one_line(title), "kind": kind, "remark": remark, **more}
    if kind == "text":
        levels = sorted({value for value in values if value is not None}, key=_natural)
        place = {level: i for i, level in enumerate(levels)}
        of["levels"] = levels
        values = [None if value is None else place[value] for value in values]
    possible = [value for value, may in zip(values, known) if may]
    if possible and all(value == possible[0] for value in possible):
        return {**of, "same": possible[0]}
    return {**of, "values": values}


def _natural(text):
    """Sorts true numbers by value, before all else."""
    try:
        return (0, float(text), text)
    except ValueError:
        return (1, 0.0, text)


def measure_columns(summaries) -> list:
    known = [summary.problem is None for summary in summaries]
    columns = []
    for field, title, kind, remark in MEASURES:
        values = [getattr(summary, field) for summary in summaries]
        values = [None if value is None else one_line(value) if kind == "text" else finite(value) for value in values]
        # What a damaged run is, is known too: its state.
        columns.append(column(field, title, kind, remark, values, [True] * len(known) if field == "state" else known))
    return columns


def setting_columns(summaries, scales) -> list:
    """A column per setting, in the order in which the configurations have them."""
    known = [bool(summary.settings) for summary in summaries]
    names = list(dict.fromkeys(name for summary in summaries for name in summary.settings))
    columns = []
    for name in names:
        values = [summary.settings.get(name) for summary in summaries]
        numbers = all(value is None or _is_number(value) for value in values) and any(value is not None for value in values)
        values = [None if value is None else finite(value) if numbers else setting_text(value) for value in values]
        logarithmic = numbers and is_logarithmic(name, [value for value in values if value is not None], scales)
        columns.append(column(name, name, "number" if numbers else "text", "", values, known, setting=True,
                              logarithmic=logarithmic))
    for some in ([of for of in columns if "same" not in of], columns):  # the key alone, where it tells them apart
        last = Counter(of["key"].rpartition(".")[2] for of in some)
        for of in some:
            short = of["key"].rpartition(".")[2]
            of["title"] = short if last[short] == 1 else of["title"]
    return columns


def is_logarithmic(name, numbers, scales) -> bool:
    """Whether axes of a setting are: where `scales` says so or, as for its importance, where it says nothing and the numbers span
    more than a factor of FACTOR."""
    if not numbers or min(numbers) <= 0:
        return False
    return scales[name] == "log" if name in scales else max(numbers) > FACTOR * min(numbers) and not name.endswith("seed")


def _is_number(value) -> bool:
    return type(value) in (int, float) and abs(value) <= EXACT  # true and false are int; NaN is not


def setting_text(value: Any) -> str:
    """A value of a configuration as one line, as YAML and JSON write it."""
    return one_line(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def curves(summary: RunSummary) -> dict:
    """Training and validation loss of a run over steps, about POINTS points each. training: means over neighbouring steps;
    validation: as they stand in the log, of the newest validation tokens, among them the best. A log that cannot be read
    gives empty curves."""
    log = summary.path / "metrics.jsonl"
    rows = {"steps": [], "evaluations": [], "restarts": [], None: []}
    try:
        for kind, row in MetricsReader(log).rows(some_lines(read_file(log))):
            rows[kind].append(row)
    except RunError:  # the table says what is wrong with the run
        return {"training": [[], []], "validation": [[], []]}
    trained = table(rows["steps"], ("step", "loss"))
    newest = rows["evaluations"][-1].get("validation_hash") if rows["evaluations"] else None
    evaluated = table([row for row in rows["evaluations"] if row.get("validation_hash") == newest], ("step", "validation_loss"))
    steps, losses = trained["step"], trained["loss"]
    centers = steps[evenly(len(steps))]
    means = smoothed(steps, losses, centers, int(WINDOW * (steps[-1] - steps[0] + 1)) if len(steps) else 0)
    validation, places = evaluated["validation_loss"], evenly(len(evaluated["step"]))
    if np.isfinite(validation).any():
        places = np.union1d(places, np.nanargmin(validation))
    return {"training": [[int(step) for step in centers], [finite(loss, 6) for loss in means]],
            "validation": [[int(evaluated["step"][i]) for i in places], [finite(validation[i]) for i in places]]}


def some_lines(log: bytes) -> bytes:
    """About STEPS lines of a log at even distances, and all evaluations: to read every row of hundreds of long logs takes
    minutes."""
    lines = log.split(b"\n")[:-1]
    every = len(lines) // STEPS
    if every < 2:
        return log
    return b"".join(line + b"\n" for i, line in enumerate(lines) if i % every == 0 or b'"validation_loss"' in line)


def evenly(count: int) -> np.ndarray:
    """Places of POINTS points among `count`, the first and the last among them; all where they are no more."""
    return np.unique(np.linspace(0, count - 1, min(POINTS, count)).round().astype(int))


def report_of(path: Path, folder) -> dict:
    """Where the report of the run in `path` is, seen from `folder` (a URL), or the command that makes it."""
    page = path / "report.html"
    try:
        if present(page):
            return {"report": urllib.parse.quote(os.fsencode(os.path.relpath(page, folder)))}
    except RunError:
        pass  # a folder that may not be looked at
    return {"command": one_line(f"dekoder-report {shlex.quote(str(path))} -o {shlex.quote(str(page))}")}


def runs_data(summaries: Sequence[RunSummary], scales: Mapping[str, str], folder) -> dict:
    texts = ("problem", "message")
    return {"runs": [{"name": one_line(summary.name),
                      **{of: one_line(getattr(summary, of)) for of in texts if getattr(summary, of) is not None},
                      **report_of(summary.path, folder), **curves(summary)} for summary in summaries],
            "columns": measure_columns(summaries) + setting_columns(summaries, scales),
            "tokens": compared_hash(summaries)}
