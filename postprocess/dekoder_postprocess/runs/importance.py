# SPDX-License-Identifier: Apache-2.0
"""Which settings mattered: what the settings that differ between runs explain of their loss, and how far that can be trusted.
The same runs, in any order, and the same seed give the same numbers, bit for bit; one thread computes them."""
from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Collection, Optional, Sequence

import numpy as np

from ..errors import RunError
from ..log_reader import read_metrics
from .importance_text import TITLES, importance_text as text  # noqa: F401
from .loss_forest import PERCENTILES, TREES, Estimate, forest_estimates
from .run_summary import RunSummary, compared_hash
from .setting_columns import Dependence, SettingColumns, correlation, dependence, setting_columns

TARGETS = tuple(TITLES)
"""Fields of RunSummary that importance() explains; of each the least is best."""
LEAST_RUNS = 16
"""Fewer runs give no bars: of 12, the intervals miss the importance that many more runs have about every third time."""
WEAK, GOOD = 0.25, 0.5
"""Out-of-bag R^2 below which bars are not to be trusted at all, and from which on they can be read."""


@dataclass(frozen=True)
class Bar:
    """What a setting does to the loss among these runs. Estimates are those of loss_forest.forest_estimates."""

    setting: str
    taken_as: str  # number, log10 or category
    values: int  # how many different ones; not being set is one
    unset: int  # runs that do not set it
    permutation: Estimate  # share of the variance of the loss; 0 for no effect, and about as often below as above it
    impurity: Estimate  # share of all splits, 0 to 1; above 0 also for no effect
    linear: Optional[float]  # Pearson's correlation with the loss over the runs that set it; None for a category
    rank: Optional[float]  # Spearman's


@dataclass(frozen=True)
class Together:
    """Settings that depend on each other, as if they were one."""

    settings: list
    permutation: Estimate
    impurity: Estimate


@dataclass(frozen=True)
class Part:
    """All runs, or the best half of them."""

    runs: int
    least_loss: Optional[float]
    greatest_loss: Optional[float]
    reading: str  # how far the bars can be trusted and why not, or why there are none
    weak: bool = False  # the bars are not to be trusted
    explained: Optional[Estimate] = None  # out-of-bag R^2; None: no bars
    bars: list = field(default_factory=list)  # of Bar, greatest permutation importance first
    dependent: list = field(default_factory=list)  # of Dependence: the bars of these settings cannot be told apart
    together: list = field(default_factory=list)  # of Together, one per group of dependent settings
    no_bar: list = field(default_factory=list)  # settings with a value of its own in every run, of which nothing can be learnt
    constant: dict = field(default_factory=dict)  # settings that differ between all runs, but not between these -> their value as JSON


@dataclass(frozen=True)
class Importance:
    target: str  # TARGETS
    at_step: Optional[int]  # the target is the best validation loss up to that step; None: that of the whole run
    remark: Optional[str]  # a sentence: why that step was taken, where nobody asked for it
    validation_hash: Optional[str]  # of the runs that are taken
    finished: int  # runs taken that trained all their steps
    stopped: int  # runs taken that ended, or were ended, before
    least_step: Optional[int]  # at which a run that is taken ended
    greatest_step: Optional[int]
    left_out: dict  # why runs are not taken ("failed", "running", "on other validation tokens", ...) -> how many
    seed: int
    trees: int
    resamples: int  # of the runs, behind the intervals of importances
    percentiles: tuple  # of the intervals
    all_runs: Part
    best_half: Part

    def as_json(self) -> dict:
        """Dictionaries, lists, texts, numbers and None, as this class has them; no number is NaN."""
        return json.loads(json.dumps(asdict(self), allow_nan=False))


def importance(summaries: Sequence[RunSummary], *, logarithmic: Collection[str] = (), linear: Collection[str] = (), seed: int = 0,
               target: str = "best_loss", at_step: Optional[int] = None, first_rung: Optional[int] = None, finished_only: bool = False,
               resamples: int = 100) -> Importance:
    """Of the finished and the stopped runs (finished_only: of the finished ones) on one set of validation tokens, that of most
    runs. logarithmic, linear: settings that are known to have been sampled so; others are taken as their logarithm where they are
    positive and span more than a factor of 10. at_step: compares best validation losses up to that step, by the logs of the runs
    that reached it; first_rung, that of the runs' sweep, is this step where none is given and the runs ended at different ones. seed: of all random draws. Raises ValueError for a target that is none, ModuleNotFoundError without scikit-learn."""
    import sklearn.ensemble  # noqa: F401  (said also where there are too few runs for a forest)

    possible = ["best_loss"] if at_step is not None else TARGETS
    if target not in possible:
        raise ValueError(f"target {target}: expected {' or '.join(possible)}{'' if at_step is None else ' at a step'}")
    taken, left_out = _taken(summaries, target, at_step, finished_only)
    remark = None
    if at_step is None and first_rung is not None and target == "best_loss" and (ended := _uneven(summary for _, summary in taken)):
        at_step = first_rung
        taken, left_out = _taken(summaries, target, at_step, finished_only)
        remark = f"{ended}: compared are their best losses up to step {at_step}, the first rung of their sweep; --at-step N takes another step."
    taken.sort(key=lambda pair: (pair[0], json.dumps(pair[1].settings, sort_keys=True, default=str)))
    losses, runs = np.array([loss for loss, _ in taken]), [summary for _, summary in taken]
    finished = sum(summary.state == "finished" for summary in runs)
    steps = [summary.step for summary in runs if summary.step is not None]
    settings = [setting_columns(name, [run.settings.get(name) for run in runs], logarithmic, linear)
                for name in sorted({name for run in runs for name in run.settings})]
    settings = [setting for setting in settings if _differs(setting)]
    scales = [{setting.name for setting in settings if setting.logarithmic == log} for log in (True, False)]
    best = len(runs) // 2
    half = [setting_columns(setting.name, [run.settings.get(setting.name) for run in runs[:best]], *scales)
            for setting in settings] if best else []
    return Importance(
        target=target, at_step=at_step, remark=remark, validation_hash=runs[0].validation_hash if runs else None, finished=finished,
        stopped=len(runs) - finished, least_step=min(steps, default=None), greatest_step=max(steps, default=None),
        left_out=left_out, seed=seed, trees=TREES, resamples=resamples, percentiles=PERCENTILES,
        all_runs=_part(settings, losses, "" if at_step else _uneven(runs), {}, seed, resamples),
        best_half=_part([setting for setting in half if _differs(setting)], losses[:best], "" if at_step else _uneven(runs[:best]),
                        {setting.name: json.dumps(runs[0].settings.get(setting.name), ensure_ascii=False, default=str)
                         for setting in half if not _differs(setting)}, seed, resamples))


def _differs(setting: SettingColumns) -> bool:
    return bool(np.ptp(setting.levels) > 0)


def _taken(summaries, target, at_step, finished_only):
    """(loss, summary) of the runs that can be compared; why the others cannot -> how many."""
    left_out: Counter = Counter()
    pairs = []
    for summary in summaries:
        if summary.state not in ("finished", "resumable"):
            left_out[summary.state] += 1
        elif finished_only and summary.state != "finished":
            left_out["stopped"] += 1
        elif at_step is not None and (summary.step or 0) < at_step:
            left_out[f"ended before step {at_step}"] += 1
        else:
            loss = getattr(summary, target) if at_step is None else _loss_at(summary, at_step)
            if loss is None or not math.isfinite(loss):
                left_out["without a loss"] += 1
            else:
                pairs.append((float(loss), summary))
    most = compared_hash(summary for _, summary in pairs)
    of_most = [pair for pair in pairs if pair[1].validation_hash == most]
    if len(of_most) < len(pairs):
        left_out["on other validation tokens"] = len(pairs) - len(of_most)
    return of_most, dict(sorted(left_out.items()))


def _loss_at(summary, step) -> Optional[float]:
    """The best validation loss up to that step; None where there is none, or no log that can be read."""
    try:
        rows = read_metrics(summary.path / "metrics.jsonl")["evaluations"]
    except RunError:
        return None
    losses = [row["validation_loss"] for row in rows if row["step"] <= step and row.get("validation_hash") == summary.validation_hash]
    return min((loss for loss in losses if loss is not None), default=None)


def _uneven(summaries) -> str:
    """That the runs ended at different steps; nothing where they did not."""
    steps = {summary.step for summary in summaries if summary.step is not None}
    return f"The runs ended at steps {min(steps)} to {max(steps)}" if len(steps) > 1 else ""


def _part(settings, losses, uneven, constant, seed, resamples) -> Part:
    """settings: those that differ between the runs; uneven: that the losses are of different steps."""
    part = {"runs": len(losses), "least_loss": float(losses[0]) if len(losses) else None,
            "greatest_loss": float(losses[-1]) if len(losses) else None, "constant": constant}
    if len(losses) < LEAST_RUNS:
        return Part(reading=f"{len(losses)} runs are too few to say which settings mattered: {LEAST_RUNS} are the least.", **part)
    part["no_bar"] = [setting.name for setting in settings if not setting.matrix.shape[1]]
    settings = [setting for setting in settings if setting.matrix.shape[1]]
    if not settings:
        return Part(reading="There is no setting that differs between these runs and that several of them share.", **part)
    if losses[-1] == losses[0]:
        return Part(reading="All these runs have the same loss: there is nothing to explain.", **part)
    dependent = [found for i, a in enumerate(settings) for b in settings[:i] for found in [dependence(b, a)] if found]
    groups = _groups(dependent)
    ends = np.cumsum([0] + [setting.matrix.shape[1] for setting in settings])
    columns = {setting.name: np.arange(ends[i], ends[i + 1]) for i, setting in enumerate(settings)}
    features = [*columns.values(), *(np.concatenate([columns[name] for name in group]) for group in groups)]
    found = forest_estimates(np.column_stack([setting.matrix for setting in settings]), features, losses, seed, resamples)
    bars = [Bar(setting.name, "category" if setting.numbers is None else "log10" if setting.logarithmic else "number",
                int(setting.levels.max()) + 1, int((~setting.is_set).sum()), found.permutation[i], found.impurity[i],
                *(None if setting.numbers is None else correlation(setting.numbers, losses, ranks) for ranks in (False, True)))
            for i, setting in enumerate(settings)]
    together = [Together(group, *estimates) for group, *estimates in
                zip(groups, found.permutation[len(settings):], found.impurity[len(settings):])]
    weak = bool(uneven) or found.explained.low <= 0 or found.explained.value < WEAK
    return Part(reading=_reading(found.explained, weak, uneven), weak=weak, explained=found.explained,
                bars=sorted(bars, key=lambda bar: (-bar.permutation.value, bar.setting)), dependent=dependent, together=together, **part)


def _groups(dependent) -> list:
    """Names of settings that are connected by dependences, each group in order."""
    groups: list = []
    for pair in dependent:
        joined = {pair.first, pair.second}.union(*(group for group in groups if {pair.first, pair.second} & group))
        groups = [group for group in groups if not group & joined] + [joined]
    return sorted(sorted(group) for group in groups)


def _reading(explained, weak, uneven) -> str:
    share = f"{explained.value:.0%}".replace("%", " %") if explained.value > 0 else "nothing"
    trust = ("do not trust the bars." if weak else
             "take the bars as a hint at what mattered most, not as its size." if explained.value < GOOD else
             "the bars can be read, each with its interval.")
    return (f"These runs explain {share} of the variance of the loss (out-of-bag R^2 {explained.value:.2f}, "
            f"{PERCENTILES[1] - PERCENTILES[0]:g} % interval {explained.low:.2f} to {explained.high:.2f}): {trust}"
            + (f" {uneven}, and a loss after fewer steps is greater for that alone; --at-step N compares the best losses up to a step that they "
               "reached." if uneven else ""))
