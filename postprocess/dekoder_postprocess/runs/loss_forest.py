# SPDX-License-Identifier: Apache-2.0
"""A random forest of settings against a loss: how much of it they explain, and through which of them."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Sequence

import numpy as np

TREES = 200
RESAMPLES_EXPLAINED = 1000
PERCENTILES = (5.0, 95.0)


@dataclass(frozen=True)
class Estimate:
    """A number from these runs, and the interval that it moves in when runs are drawn anew."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ForestEstimates:
    explained: Estimate  # out-of-bag R^2
    permutation: list  # an Estimate per feature: share of the variance of the loss
    impurity: list  # an Estimate per feature: share of what the trees' splits take off the variance


def forest_estimates(matrix: np.ndarray, features: Sequence[np.ndarray], losses: np.ndarray, seed: int,
                     resamples: int) -> ForestEstimates:
    """Of scikit-learn's RandomForestRegressor as it is by default (all columns at each split, trees grown to the end) with TREES
    trees. matrix (runs, columns), losses (runs), features: the columns of each, which are permuted and summed as one.

    explained: 1 - squared error of the out-of-bag predictions / variance; interval: percentiles over RESAMPLES_EXPLAINED
    resamples of the pairs of loss and prediction.

    permutation (Breiman, Machine Learning 45, 2001, section 10): by how much the squared error of a tree's prediction of a run
    that it has not seen grows when the feature is taken from another such run; mean over trees and runs, over twice the
    variance of the losses. Where features are independent and the forest has learnt the loss, this is the share of the variance
    that goes through the feature, alone or together with others: Sobol's total index, as Jansen estimates it (Computer
    Physics Communications 117, 1999; Saltelli et al., Global Sensitivity Analysis, 2008, chapter 4; for forests: Gregorutti et
    al., Statistics and Computing 27, 2017). What the forest has not learnt is missing in it.

    Intervals of importances: `resamples` forests of 8 to 30 trees on bootstrap resamples of the runs, a run being out of bag
    where no copy of it is in the bag (the .164 estimator of Ishwaran and Lu, Statistics in Medicine 38, 2019). Such a forest
    knows fewer different runs and has learnt less; so the percentiles are moved by what their median is off the estimate."""
    seeds = np.random.SeedSequence(seed).spawn(resamples + 2)
    runs = np.arange(len(losses))
    permutation, impurity, predicted = _forest(matrix, features, losses, runs, TREES, np.random.default_rng(seeds[0]))
    drawn = []
    for of in seeds[2:]:
        random = np.random.default_rng(of)
        rows = np.sort(random.choice(runs, len(runs)))
        if np.ptp(losses[rows]) > 0:
            drawn.append(_forest(matrix, features, losses, rows, min(30, max(8, 1000 // len(runs))), random)[:2])
    drawn = [pair for pair in drawn if np.isfinite(pair[0]).all()]  # of few runs all may be in every bag
    resampled_permutation, resampled_impurity = map(np.array, zip(*drawn))
    return ForestEstimates(_explained(losses, predicted, np.random.default_rng(seeds[1])),
                           _centered(permutation, resampled_permutation, -np.inf), _centered(impurity, resampled_impurity, 0.0))


def _forest(matrix, features, losses, rows, trees, random):
    """Permutation and impurity importance per feature, and mean out-of-bag prediction of each run (NaN: never out of bag), of
    a forest on `rows`, in which a run may stand more than once."""
    from sklearn.ensemble import RandomForestRegressor

    forest = RandomForestRegressor(trees, random_state=int(random.integers(2**31)), n_jobs=1).fit(matrix[rows], losses[rows])
    chosen = np.zeros((len(features), 1, matrix.shape[1]), bool)
    for f, columns in enumerate(features):
        chosen[f, 0, columns] = True
    times = np.bincount(rows, minlength=len(losses))
    growth, weight = np.zeros(len(features)), 0.0
    predicted, votes = np.zeros(len(losses)), np.zeros(len(losses))
    single = matrix.astype(np.float32)
    for tree, bag in zip(forest.estimators_, forest.estimators_samples_):
        outside = times.copy()
        outside[rows[bag]] = 0
        outside = np.flatnonzero(outside)
        if len(outside) < 2:
            continue
        circle = random.permutation(len(outside))
        other = np.empty_like(circle)
        other[circle] = np.roll(circle, 1)  # no run is its own: that would make the error grow less, and much so for few runs
        seen = single[outside]
        asked = np.concatenate([seen[None], np.where(chosen, seen[other], seen)])
        answers = tree.predict(asked.reshape(-1, matrix.shape[1]), check_input=False).reshape(len(features) + 1, -1)
        errors = (((answers - losses[outside]) ** 2) * times[outside]).sum(1)
        growth += errors[1:] - errors[0]
        weight += times[outside].sum()
        predicted[outside] += answers[0]
        votes[outside] += 1
    impurity = forest.feature_importances_
    with np.errstate(invalid="ignore"):
        return growth / weight / (2 * losses[rows].var()), [impurity[columns].sum() for columns in features], predicted / votes


def _centered(values, resampled, least):
    low, middle, high = np.percentile(resampled, [PERCENTILES[0], 50, PERCENTILES[1]], axis=0)
    return [Estimate(float(v), float(max(v - m + a, least)), float(v - m + b)) for v, a, m, b in zip(values, low, middle, high)]


def _explained(losses, predicted, random):
    rows = random.choice(np.flatnonzero(np.isfinite(predicted)), (RESAMPLES_EXPLAINED, len(losses)))
    rows = rows[np.ptp(losses[rows], axis=1) > 0]
    low, high = np.percentile(_r2(losses[rows], predicted[rows]), PERCENTILES)
    known = np.isfinite(predicted)
    return Estimate(float(_r2(losses[known], predicted[known])), float(low), float(high))


def _r2(losses, predicted):
    around = losses - losses.mean(-1, keepdims=True)
    return 1 - ((losses - predicted) ** 2).sum(-1) / (around**2).sum(-1)
