# SPDX-License-Identifier: Apache-2.0
"""One run of many, as its own files tell it: what a row of the table holds."""
from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Iterable, Optional

Setting = Any
"""A value of a configuration: bool, int, float, str, None or a list of them."""


@dataclass(frozen=True)
class RunSummary:
    """A run directory. None: not known, or not there yet. Losses are nats per token."""

    path: Path
    name: str  # the path below what all runs of the table have in common
    state: str  # running, resumable, finished, failed, not begun, or damaged (then `problem` says how, and the rest is None)
    problem: Optional[str] = None
    created: Optional[float] = None  # seconds since 1970 of its first start
    step: Optional[int] = None  # newest in the log
    planned_steps: Optional[int] = None
    best_loss: Optional[float] = None  # of the validation, on the newest validation tokens
    best_step: Optional[int] = None
    last_loss: Optional[float] = None
    bits_per_byte: Optional[float] = None  # at the best
    training_loss: Optional[float] = None  # mean of the last 100 steps
    tokens: Optional[int] = None  # seen in training
    tokens_per_second: Optional[float] = None  # median of the last 100 steps
    seconds: Optional[float] = None  # wall time of all starts
    effective_time: Optional[float] = None  # share of it for steps that counted, 0 to 1
    restarts: Optional[int] = None
    validation_hash: Optional[str] = None  # only losses of equal ones can be compared
    settings: dict[str, Setting] = field(default_factory=dict)  # "section.key" -> value, of config.yaml
    message: Optional[str] = None  # of its status: why it failed, or who stopped it


def compared_hash(summaries: Iterable[RunSummary]) -> Optional[str]:
    """The validation tokens of most runs that have a loss: losses on others cannot be compared with theirs. None where no run
    has one."""
    counts = Counter(summary.validation_hash for summary in summaries if summary.best_loss is not None)
    return min(counts, key=lambda of: (-counts[of], str(of)), default=None)  # in any order of the runs
