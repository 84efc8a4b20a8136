# SPDX-License-Identifier: Apache-2.0
"""Attention maps of one run at two steps, and of several runs at one step."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np


@dataclass
class MapDistance:
    """How far maps lie apart, head by head: total_variation, averaged over all queries of all probes."""

    first_step: int  # of the two maps
    last_step: int
    probes: list  # names in the first map's run
    layers: list  # which of the model's, counted from 0
    heads: list
    distance: np.ndarray  # float64 (layer, head)


@dataclass
class StatisticsComparison:
    """The statistics of all compared runs at one step."""

    step: int
    names: list
    probes: list
    layers: list
    heads: list
    values: list  # per run: float64 (layer, head, statistic), means over probes; None: no maps


@dataclass
class AttentionComparison:
    """What compare_attention finds."""

    has_maps: list  # per run
    changes: list  # per run: MapDistance from the first to the last captured step, or None
    differences: list  # per run: MapDistance to the first run at the last common step, or None
    statistics: Optional[StatisticsComparison]  # at the last step that all runs with maps have in common


def total_variation(w, v) -> np.ndarray:
    """Total variation distance 1/2 sum_s |w(t,s) - v(t,s)| of rows of weights (..., query, key), from 0 (equal) to 1
    (no key in common): float64 (..., query). Raises ValueError where the shapes differ."""
    if np.shape(w) != np.shape(v):
        raise ValueError(f"total_variation: maps of shapes {np.shape(w)} and {np.shape(v)}, expected equal ones")
    return 0.5 * np.abs(np.asarray(w, np.float64) - np.asarray(v, np.float64)).sum(axis=-1)


def compare_attention(files) -> AttentionComparison:
    """Compares the attention files of runs, None where a run has none; the first is A. Probes are the same where their
    tokens and the texts of these are; heads are matched by their numbers, which says something only where the initial
    values were the same. What has no common probe, head or step is left out. Raises RunError for a damaged file."""
    steps = [_steps(file) if file is not None else [] for file in files]
    changes, differences = [], []
    for i, file in enumerate(files):
        changes.append(_distance(file, steps[i][0], file, steps[i][-1]) if steps[i] else None)
        common = sorted(set(steps[0]) & set(steps[i])) if i else []
        differences.append(_distance(files[0], common[-1], file, common[-1]) if common else None)
    return AttentionComparison([bool(of) for of in steps], changes, differences, _statistics(files, steps))


def _steps(file):
    """Steps that every probe was captured at, in order."""
    return sorted(set.intersection(*(set(probe.steps) for probe in file.probes.values()))) if file.probes else []


def _same_probes(first, other):
    """[(probe, probe of the same text)]."""
    pairs = []
    for probe in first.probes.values():
        for candidate in other.probes.values():
            if np.array_equal(probe.tokens, candidate.tokens) and probe.token_text == candidate.token_text:
                pairs.append((probe, candidate))
                break
    return pairs


def _common(numbers, *others):
    return [number for number in numbers if all(number in other for other in others)]


def _heads(file, values, layers, heads):
    """The values (layer, head, ...) of those layers and heads of the model."""
    return values[np.ix_([file.layers.index(layer) for layer in layers], [file.heads.index(head) for head in heads])]


def _distance(first, first_step, other, other_step):
    """MapDistance of the maps of two files, each at its own step; None where they have no probe or head in common."""
    probes = _same_probes(first, other)
    layers, heads = _common(first.layers, other.layers), _common(first.heads, other.heads)
    if not probes or not layers or not heads:
        return None
    sums = np.zeros((len(layers), len(heads)))
    for a, b in probes:
        sums += total_variation(_heads(first, a.weights(first_step), layers, heads),
                                _heads(other, b.weights(other_step), layers, heads)).sum(axis=-1)
    queries = sum(len(probe.tokens) for probe, _ in probes)
    return MapDistance(first_step, other_step, [probe.name for probe, _ in probes], layers, heads, sums / queries)


def _statistics(files, steps):
    mapped = [(file, of) for file, of in zip(files, steps) if file is not None]
    if not mapped:
        return None
    first, others = mapped[0][0], [file for file, _ in mapped[1:]]
    step = max(set.intersection(*(set(of) for _, of in mapped)), default=None)
    layers = _common(first.layers, *(file.layers for file in others))
    heads = _common(first.heads, *(file.heads for file in others))
    pairs = [dict((a.name, b) for a, b in _same_probes(first, file)) for file, _ in mapped]  # by the first's names
    probes = [name for name in first.probes if all(name in of for of in pairs)]
    if step is None or not layers or not heads or not probes or any(
            file.statistic_names != first.statistic_names for file in others):
        return None
    means = iter([np.mean([_heads(file, of[name].statistics(step).astype(np.float64), layers, heads)
                           for name in probes], axis=0) for (file, _), of in zip(mapped, pairs)])
    return StatisticsComparison(step, first.statistic_names, probes, layers, heads,
                                [next(means) if file is not None else None for file in files])
