# SPDX-License-Identifier: Apache-2.0
"""What a worker is to do next."""
from __future__ import annotations

import math
from dataclasses import dataclass

from .claims import FINISHED, GIVEN_BACK, STOPPED
from .halving import promotion
from .samplers import Observed, tpe_settings
from .trial_folder import RUNNING, WAITING, Trial


@dataclass(frozen=True)
class Job:
    trial: Trial
    settings: dict
    target: int  # step up to which to train it


def next_job(definition, trials, left_alone=(), again=None):
    """A Job; None where there is nothing to do now. In this order: trials that were given back, whose rungs others may wait for;
    promotions; new trials; trials that crashed. `left_alone`: numbers of trials that are not to be taken up now. `again`: trial ->
    number of the claim that ended it, of those that are to be taken up all the same, unless they were claimed since."""
    first_rung = definition.rungs[0]
    to_take_up = [trial for trial in trials if trial.state == GIVEN_BACK and trial.index not in left_alone
                  or (again or {}).get(trial.index) == trial.claims]
    sound = [trial for trial in to_take_up if trial.crashes == 0]
    if sound:
        return _job(definition, trials, sound[0], sound[0].target or first_rung)
    if (job := _promotion(definition, trials, over=False)) is not None:
        return job
    waiting = [trial for trial in trials if trial.state == WAITING]
    for trial in (*waiting, *to_take_up):
        return _job(definition, trials, trial, trial.target or first_rung)
    return _promotion(definition, trials, over=not at_work(trials))


def at_work(trials) -> bool:
    """Whether trials are trained, or left alone: there may be something to do when that ends."""
    return any(trial.state in (RUNNING, GIVEN_BACK) for trial in trials)


def observed(trials) -> list:
    """What TPE learns from: the trials that are trained, and those with a loss."""
    return [Observed(trial.settings, trial.losses, trial.state == FINISHED or math.inf in trial.losses.values(), at_work([trial]))
            for trial in trials if trial.claims and trial.settings is not None and (trial.losses or at_work([trial]))]


def _job(definition, trials, trial, target):
    settings = trial.settings
    if settings is None:
        settings = tpe_settings(definition, trial.index, observed(trials))
    return Job(trial, settings, target)


def _promotion(definition, trials, over):
    if definition.halving is None:
        return None
    results = {trial.index: (trial.losses, trial.target) for trial in trials if trial.claims and trial.state != STOPPED}
    found = promotion(results, definition.rungs, definition.halving.factor, over)
    return found and _job(definition, trials, trials[found[0]], found[1])
