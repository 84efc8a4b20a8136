# SPDX-License-Identifier: Apache-2.0
"""Settings of runs as columns of numbers for a regression, their correlation with a loss, and which of them depend on each other."""
from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, Collection, Optional, Sequence

import numpy as np

from ..log_reader import GREATEST

FACTOR = 10
"""A number whose scale is not known is taken as its logarithm where its values are positive and span more than this factor."""
MOST_LEVELS = 20
"""A category has at most that many values of its own; the rarest ones, and those of a single run, count as one."""
DEPENDENT = 0.9
"""Two settings with a greater rank correlation, Cramer's V or correlation ratio are dependent."""
LEAST_COMMON = 8
"""A rank correlation of fewer runs names no dependence, nor a correlation ratio of fewer runs besides one per value."""


@dataclass(frozen=True)
class SettingColumns:
    """A setting in the runs, in their order."""

    name: str
    numbers: Optional[np.ndarray]  # float64 (runs): the value or its log10, NaN where it is not set; None: a category
    logarithmic: bool
    levels: np.ndarray  # int (runs): equal where the values are
    is_set: np.ndarray  # bool (runs): the value is not None
    matrix: np.ndarray  # float64 (runs, columns): what a tree sees, in [0, 1]; no columns where it can tell no runs apart


def setting_columns(name: str, values: Sequence[Any], logarithmic: Collection[str] = (), linear: Collection[str] = ()) -> SettingColumns:
    """The columns of a setting. Numbers have one, scaled to [0, 1], and one more for being set where some runs do not set it;
    everything else, and seeds, which name a stream of random numbers and are no quantity, has a
    column per value."""
    texts = [json.dumps(value, sort_keys=True, default=str) for value in values]
    is_set = np.array([value is not None for value in values])
    given = [value for value in values if value is not None]
    if given and all(map(_is_number, given)) and not name.endswith("seed"):
        numbers = np.array([math.nan if value is None else float(value) for value in values])
        least, most = np.nanmin(numbers), np.nanmax(numbers)
        log = bool(least > 0 and name not in linear and (name in logarithmic or most > FACTOR * least))
        numbers = np.log10(numbers) if log else numbers
        levels = np.unique(numbers, return_inverse=True)[1]  # NaN is one value
        return SettingColumns(name, numbers, log, levels, is_set, _number_matrix(numbers, is_set))
    levels = np.unique(texts, return_inverse=True)[1]
    return SettingColumns(name, None, False, levels, is_set, _category_matrix(texts))


def _is_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= GREATEST  # not NaN


def _number_matrix(numbers, is_set):
    least, most = np.nanmin(numbers), np.nanmax(numbers)
    columns = []
    if most > least:
        columns.append(np.where(is_set, (numbers - least) / (most - least), 0))  # apart as float32, too, which trees use
    if not is_set.all():
        columns.append(is_set.astype(float))
    return np.column_stack(columns) if columns else np.empty((len(numbers), 0))


def _category_matrix(texts):
    counts = Counter(texts)
    own = sorted((text for text in counts if counts[text] > 1), key=lambda text: (-counts[text], text))[:MOST_LEVELS]
    if len(own) == len(counts) == 2:
        own.pop()  # it is where the other one is not
    return np.array([[text == level for level in own] for text in texts], float).reshape(len(texts), len(own))


def correlation(numbers: np.ndarray, losses: np.ndarray, ranks: bool = False) -> Optional[float]:
    """Pearson's correlation, or with `ranks` Spearman's, over the runs that set the number; None where one of both is constant."""
    from scipy.stats import rankdata

    is_set = np.isfinite(numbers)
    x, y = numbers[is_set], losses[is_set]
    if len(x) < 3:
        return None
    if ranks:
        x, y = rankdata(x), rankdata(y)
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt((x * x).sum()) * math.sqrt((y * y).sum())  # no BLAS: the same bits with any number of threads
    return float(np.clip((x * y).sum() / scale, -1, 1)) if scale > 0 else None


@dataclass(frozen=True)
class Dependence:
    """Two settings that nearly determine each other, or one the other, among these runs."""

    first: str
    second: str
    measure: str  # what `value` is
    value: float  # -1 to 1 for a rank correlation, else 0 to 1


def dependence(a: SettingColumns, b: SettingColumns) -> Optional[Dependence]:
    """The first of these that exceeds DEPENDENT: Spearman's rank correlation of two numbers; Cramer's V of the partitions
    of the runs into equal values, and into set and not set, with Bergsma's correction (J. Korean Stat. Soc. 42, 2013), which gives
    1 to equal partitions and 0 to those that tell all runs apart; the correlation ratio of a number's ranks over the values of
    a category, corrected as Kelley's epsilon (PNAS 21, 1935)."""
    measures = []
    if a.numbers is not None and b.numbers is not None:
        both = a.is_set & b.is_set
        if both.sum() >= LEAST_COMMON:
            measures.append(("rank correlation", correlation(a.numbers[both], b.numbers[both], ranks=True)))
    measures.append(("Cramer's V", _cramers_v(a.levels, b.levels)))
    for first, second in ((a, b), (b, a)):
        if first.numbers is not None and second.numbers is None:
            measures.append(("correlation ratio", _correlation_ratio(first.numbers, second.levels)))
    for first in (a.levels, a.is_set) if not a.is_set.all() else (a.levels,):
        for second in (b.levels, b.is_set) if not b.is_set.all() else (b.levels,):
            if first is not a.levels or second is not b.levels:
                measures.append(("Cramer's V of being set", _cramers_v(first, second)))
    for measure, value in measures:
        if value is not None and abs(value) > DEPENDENT:
            return Dependence(a.name, b.name, measure, value)
    return None


def _cramers_v(first, second) -> float:
    from scipy.stats.contingency import crosstab

    runs = len(first)
    table = crosstab(first, second)[1].astype(float)
    expected = table.sum(1)[:, None] * table.sum(0) / runs
    rows, columns = table.shape
    if runs < 2 or min(rows, columns) < 2:
        return 0.0
    phi = ((table - expected) ** 2 / expected).sum() / runs - (rows - 1) * (columns - 1) / (runs - 1)
    most = min(rows - (rows - 1) ** 2 / (runs - 1), columns - (columns - 1) ** 2 / (runs - 1)) - 1
    return math.sqrt(max(phi, 0) / most) if most > 1e-9 else 0.0


def _correlation_ratio(numbers, levels) -> Optional[float]:
    from scipy.stats import rankdata

    is_set = np.isfinite(numbers)
    runs = int(is_set.sum())
    groups = np.unique(levels[is_set], return_inverse=True)[1]
    counts = np.bincount(groups)
    if runs < len(counts) + LEAST_COMMON:
        return None
    ranks = rankdata(numbers[is_set])
    ranks -= ranks.mean()
    total = (ranks**2).sum()
    if total == 0:
        return None
    within = ((ranks - (np.bincount(groups, ranks) / counts)[groups]) ** 2).sum()
    return math.sqrt(max(0.0, 1 - within / (runs - len(counts)) / (total / (runs - 1))))
