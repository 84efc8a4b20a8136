# SPDX-License-Identifier: Apache-2.0
"""Asynchronous successive halving (ASHA): which trial is worth more steps.

Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht, Talwalkar: A System for Massively Parallel Hyperparameter Tuning,
MLSys 2020, Algorithm 2: of the trials with a result at rung k the best 1 / factor go on to rung k + 1, each as soon as it is
among them; nobody waits for a rung to fill up."""
from __future__ import annotations

import math


def rungs(first_rung, factor, steps) -> list:
    """Steps of the rungs: first_rung * factor^k below `steps`, and `steps`."""
    below = []
    while first_rung < steps:
        below.append(first_rung)
        first_rung *= factor
    return [*below, steps]


def promotion(results, rung_steps, factor, over):
    """(trial, steps of the next rung) of the trial to go on with; None where none is worth it.

    `results`: trial -> (losses at the rungs that it has reached, steps -> nats per token, inf for a trial that diverged;
    steps that it was promoted to). `over`: no trial is begun or trained any more, so there will be no further results. Then the
    best of the highest rung goes on even where 1 / factor of so few is none, unless one has been given the whole budget: a
    sweep has a winner that was trained to the end."""
    for k in reversed(range(len(rung_steps) - 1)):
        at = _ranking(results, rung_steps[k])
        for trial in at[:len(at) // factor]:
            if _may_go_on(results, trial, rung_steps[k]):
                return trial, rung_steps[k + 1]
    top = rung_steps[-1]
    if over and not any(target >= top and math.isfinite(losses.get(top, 0)) for losses, target in results.values()):
        for k in reversed(range(len(rung_steps) - 1)):
            for trial in _ranking(results, rung_steps[k]):
                if _may_go_on(results, trial, rung_steps[k]):
                    return trial, rung_steps[k + 1]
    return None


def _ranking(results, rung):
    """Trials with a result at this rung, the best first."""
    reached = [(losses[rung], trial) for trial, (losses, _) in results.items() if rung in losses]
    return [trial for _, trial in sorted(reached)]


def _may_go_on(results, trial, rung):
    losses, target = results[trial]
    return target <= rung and math.isfinite(losses[rung])
