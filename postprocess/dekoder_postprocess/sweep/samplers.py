# SPDX-License-Identifier: Apache-2.0
"""Settings of trials. Those of grid, random and quasi-random are a function of (seed, number of the trial) and the definition;
those of TPE are one of what is known of the other trials, too."""
from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from itertools import islice

import numpy as np

from .parameters import in_force


def planned(definition, earlier) -> list:
    """Settings of all trials of the sweep: `earlier`, those planned before more trials or values were added, and then those of
    this definition. [] for TPE."""
    count = definition.trials - len(earlier)
    if definition.method == "tpe" or count <= 0:
        return list(earlier)
    if definition.method == "grid":
        known = {frozenset(map(repr, settings.items())) for settings in earlier}
        added = list(islice((settings for settings in definition.grid() if frozenset(map(repr, settings.items())) not in known), count))
    elif definition.method == "random":
        added = [random_settings(definition, index) for index in range(len(earlier), definition.trials)]
    else:
        added = quasi_random_settings(definition, len(earlier), count)
    return [*earlier, *added]


def random_settings(definition, index) -> dict:
    """Independent draws. A parameter's depends on its key, so that one more changes no other."""
    shares = {}
    for parameter in definition.parameters:
        words = np.random.SeedSequence([definition.seed, index, int.from_bytes(parameter.key.encode(), "big")]).generate_state(1, np.uint64)
        shares[parameter.key] = int(words[0] >> np.uint64(11)) * 2.0**-53
    return definition.settings({parameter.key: parameter.at(shares[parameter.key]) for parameter in definition.parameters})


def quasi_random_settings(definition, first, count) -> list:
    """Points `first` to `first` + `count` - 1 of a scrambled Sobol sequence (scipy), which fill the space more evenly than
    independent draws."""
    from scipy.stats import qmc

    engine = qmc.Sobol(len(definition.parameters), scramble=True, seed=np.random.default_rng(definition.seed))
    if first:
        engine.fast_forward(first)
    points = [engine.random(1)[0] for _ in range(count)]
    return [definition.settings({parameter.key: parameter.at(float(share)) for parameter, share in zip(definition.parameters, point)})
            for point in points]


@dataclass(frozen=True)
class Observed:
    """A trial as TPE learns from it. `losses`: steps -> best validation loss up to there, inf where it diverged."""

    settings: dict
    losses: dict
    ended: bool  # trained to the end, or diverged
    running: bool = False


def tpe_settings(definition, index, observed) -> dict:
    """Those that a tree-structured Parzen estimator proposes (Bergstra et al. 2011; optuna's TPESampler, multivariate, in groups
    of parameters that are in force together), seeded by the number of the trial: the study is built anew from `observed`."""
    import optuna

    optuna.logging.set_verbosity(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.simplefilter("ignore", RuntimeWarning)  # of divisions by 0, in very wide or narrow ranges
        sampler = optuna.samplers.TPESampler(seed=_seed(definition.seed, index), n_startup_trials=10, multivariate=True, group=True,
                                             constant_liar=True)
        study = optuna.create_study(sampler=sampler)
        study.add_trials([_frozen(optuna, definition, trial) for trial in observed])
        return in_force(definition.parameters, _Asked(definition.parameters, study.ask()))


def _seed(*words):
    return int(np.random.SeedSequence(list(words)).generate_state(1)[0])


class _Asked:
    """Values of parameters, each asked of the sampler as it is wanted: those in force alone."""

    def __init__(self, parameters, trial):
        self._trial = trial
        self._parameters = {parameter.key: parameter for parameter in parameters}

    def __getitem__(self, key):
        parameter = self._parameters[key]
        if parameter.values:
            return parameter.values[self._trial.suggest_categorical(key, range(len(parameter.values)))]
        if _in_steps(parameter):
            return parameter.on_step(self._trial.suggest_int(key, 0, parameter.steps))
        suggest = self._trial.suggest_int if parameter.whole else self._trial.suggest_float
        return parameter.rounded(suggest(key, parameter.low, parameter.high, **_grain(parameter)))


def _in_steps(parameter):
    """Whether optuna is asked for the number of the step: it takes no value for one on a step that was rounded to a few digits, or
    drawn before the range was made wider."""
    return parameter.step is not None and (not parameter.whole or parameter.step != 1)


def _grain(parameter):
    return {"log": parameter.scale.endswith("log"), **({} if parameter.step is None else {"step": parameter.step})}


def _distribution(optuna, parameter):
    """Values by their place in the list, as they may be lists themselves."""
    if parameter.values:
        return optuna.distributions.CategoricalDistribution(range(len(parameter.values)))
    if _in_steps(parameter):
        return optuna.distributions.IntDistribution(0, parameter.steps)
    kind = optuna.distributions.IntDistribution if parameter.whole else optuna.distributions.FloatDistribution
    return kind(parameter.low, parameter.high, **_grain(parameter))


def _as_asked(parameter, value):
    if parameter.values:
        return parameter.place(value)
    return round((value - parameter.low) / parameter.step) if _in_steps(parameter) else value


def _frozen(optuna, definition, observed):
    parameters = [p for p in definition.parameters if p.key in observed.settings and p.contains(observed.settings[p.key])]
    params = {p.key: _as_asked(p, observed.settings[p.key]) for p in parameters}
    state = optuna.trial.TrialState
    kind = state.RUNNING if observed.running else state.COMPLETE if observed.ended else state.PRUNED
    return optuna.trial.create_trial(
        state=kind, params=params, distributions={p.key: _distribution(optuna, p) for p in parameters},
        value=observed.losses[max(observed.losses)] if kind == state.COMPLETE else None, intermediate_values=observed.losses)
