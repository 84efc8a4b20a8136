# SPDX-License-Identifier: Apache-2.0
"""Reads a run directory into a row of the table, also while it trains."""
from __future__ import annotations

import math
import os
import statistics
from pathlib import Path
from typing import Optional

from ..errors import RunError
from ..files import present, read_file
from ..log_reader import read_starts, seconds_of_time
from ..run_reader import read_config, read_status
from .log_excerpt import LogExcerpt, read_excerpt
from .run_summary import RunSummary

FILES = ("config.yaml", "metrics.jsonl", "status", "restarts.jsonl")
"""What a summary is made of, besides the lock."""


def summarize(path, running=False) -> RunSummary:
    """The run in the directory `path`. Its state is that of its files: a run that trains is resumable to them. A directory
    that cannot be read, or is not what dekoder writes, becomes a damaged one. `running`: whether a process may be at work in it."""
    path = Path(path)
    try:
        return _summarize(path, running)
    except (RunError, OSError) as error:
        return damaged(path, error)


def damaged(path, problem) -> RunSummary:
    return RunSummary(path=Path(path), name=Path(path).name, state="damaged", problem=" ".join(str(problem).split()))


def _summarize(path, running):
    # The status first: a run that ends writes its log before it.
    status = read_status(path / "status")
    log = path / "metrics.jsonl"
    if not present(log) and status is not None:
        raise RunError(f"{path}: has no metrics.jsonl; expected the log of the run; restore it from a copy")
    changed = os.stat(log).st_mtime if present(log) else None
    excerpt = read_excerpt(log, read_file(log) if present(log) else b"")
    newest = max((of[-1]["step"] for of in (excerpt.steps, excerpt.evaluations) if of), default=None)
    if status and not running and (newest or 0) < status["step"]:  # else a restart may have cut the log, and not yet said so
        raise RunError(f"{log}: ends at step {newest or 0}, but {path / 'status'} tells of a checkpoint of step {status['step']}, before "
                       "which the log is saved; expected the rows up to there; the log is damaged, as after a loss of power: restore it "
                       "from a copy")
    rows = excerpt.steps or excerpt.evaluations
    config = {}
    if present(path / "config.yaml") or rows:
        _, config = read_config(path / "config.yaml")
    starts = read_starts(path / "restarts.jsonl") if present(path / "restarts.jsonl") else []
    planned = config["training"].get("steps") if config else None
    return RunSummary(
        path=path, name=path.name, state=status["state"] if status else "not begun",
        message=(status["message"] or None) if status else None,
        created=_time(starts[0][0].get("time")) if starts else None,
        step=newest,
        planned_steps=planned if type(planned) is int else None,
        **_of_steps(excerpt), **_of_evaluations(excerpt),
        seconds=_wall_seconds(starts, changed),
        effective_time=starts[-1][1].get("effective_time") if starts and starts[-1][1] else None,
        restarts=max(len(starts) - 1, len(excerpt.restarts)) if rows or starts else None,
        settings={f"{section}.{key}": _setting(value) for section, keys in config.items() if isinstance(keys, dict)
                  for key, value in keys.items()},
    )


def _setting(value):
    """A value of YAML as RunSummary has it: what dekoder never writes (a date, a NaN, a mapping) as text."""
    if isinstance(value, list):
        return [_setting(inner) for inner in value]
    known = isinstance(value, (bool, int, str, type(None))) or (isinstance(value, float) and math.isfinite(value))
    return value if known else str(value)


def _of_steps(excerpt: LogExcerpt) -> dict:
    losses = [row["loss"] for row in excerpt.steps if row["loss"] is not None]
    speeds = [row["tokens_per_second"] for row in excerpt.steps if row.get("tokens_per_second") is not None]
    return {"training_loss": math.fsum(losses) / len(losses) if losses else None,
            "tokens": excerpt.steps[-1].get("tokens") if excerpt.steps else None,
            "tokens_per_second": statistics.median(speeds) if speeds else None}


def _of_evaluations(excerpt: LogExcerpt) -> dict:
    """The best is the least one on the validation tokens of the newest."""
    if not excerpt.evaluations:
        return {}
    newest = excerpt.evaluations[-1]
    of = newest.get("validation_hash")
    finite = [row for row in excerpt.evaluations if row.get("validation_hash") == of and row["validation_loss"] is not None]
    best = min(finite, key=lambda row: row["validation_loss"], default={})
    return {"best_loss": best.get("validation_loss"), "best_step": best.get("step"),
            "bits_per_byte": best.get("bits_per_byte"), "last_loss": newest["validation_loss"],
            "validation_hash": of}


def _wall_seconds(starts, changed) -> Optional[float]:
    """Of all starts; of one that goes on or left no word, until its log was last changed."""
    seconds = [end.get("wall_seconds") for _, end in starts if end]
    if starts and starts[-1][1] is None and changed is not None:
        begun = _time(starts[-1][0].get("time"))
        seconds.append(max(0.0, changed - begun) if begun is not None else None)
    known = [value for value in seconds if value is not None]
    return math.fsum(known) if known else None


def _time(text) -> Optional[float]:
    """Seconds since 1970 of "2026-11-24T21:40:03.250Z"."""
    try:
        return seconds_of_time(text)
    except (AttributeError, ValueError):
        return None
