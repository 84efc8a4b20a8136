# SPDX-License-Identifier: Apache-2.0
"""Runs whose loss is a known function of their settings, as the table of runs has them: no training, no files."""
from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from dekoder_postprocess.runs.run_summary import RunSummary


def planted_run(number, settings, loss, **fields) -> RunSummary:
    """A finished run of 300 steps; `fields` are those of RunSummary."""
    return RunSummary(**{"path": Path(f"run-{number}"), "name": f"run-{number}", "state": "finished", "step": 300,
                         "best_loss": None if loss is None else float(loss), "validation_hash": "c312fa7a", "settings": settings, **fields})


def planted_runs(runs, draw, loss, seed=1) -> list:
    """`runs` runs: draw(random) gives the settings of one, loss(settings, random) its loss."""
    random = np.random.default_rng(seed)
    drawn = [draw(random) for _ in range(runs)]
    return [planted_run(number, settings, loss(settings, random)) for number, settings in enumerate(drawn)]


NORMS = {"a": -1.5, "b": 0.5, "c": 1.5, "d": -0.5}
SHARES = {"width": 0.5, "rate": 0.3, "norm": 0.15, "depth": 0.05, "nothing": 0.0}
"""Of the variance of additive_loss: all effects are additive, so that first and total Sobol indices are these."""


def additive_settings(random) -> dict:
    return {"width": random.uniform(), "rate": 10 ** random.uniform(-4, -2), "norm": str(random.choice(list(NORMS))),
            "depth": random.uniform(), "nothing": random.uniform()}


def additive_loss(settings, _=None) -> float:
    """Linear in width, depth and log10 of rate, a level per norm; each term has the variance SHARES."""
    uniform = {"width": settings["width"], "rate": (math.log10(settings["rate"]) + 4) / 2, "depth": settings["depth"]}
    return (sum(math.sqrt(12 * SHARES[name]) * (value - 0.5) for name, value in uniform.items())
            + math.sqrt(SHARES["norm"] / 1.25) * NORMS[settings["norm"]])


def ishigami_settings(random) -> dict:
    return {name: random.uniform(-math.pi, math.pi) for name in ("x1", "x2", "x3", "nothing")}


def ishigami_loss(settings, _=None) -> float:
    """Ishigami and Homma, ISUMA 1990, with a = 7 and b = 0.1."""
    return math.sin(settings["x1"]) * (1 + 0.1 * settings["x3"] ** 4) + 7 * math.sin(settings["x2"]) ** 2


def ishigami_total_indices() -> dict:
    """Closed form (Saltelli et al., Global Sensitivity Analysis, 2008): x3 acts together with x1 alone."""
    a, b = 7.0, 0.1
    first = 0.5 * (1 + b * math.pi**4 / 5) ** 2
    second = a**2 / 8
    both = b**2 * math.pi**8 * 8 / 225
    whole = first + second + both
    return {"x1": (first + both) / whole, "x2": second / whole, "x3": both / whole, "nothing": 0.0}


def friedman_settings(random) -> dict:
    return {f"x{i}": random.uniform() for i in range(1, 11)}


def friedman_loss(settings, random) -> float:
    """Friedman, Annals of Statistics 19, 1991, number 1: five of ten inputs act; noise of variance 1."""
    x = [settings[f"x{i}"] for i in range(1, 6)]
    return 10 * math.sin(math.pi * x[0] * x[1]) + 20 * (x[2] - 0.5) ** 2 + 10 * x[3] + 5 * x[4] + random.normal()


def friedman_total_indices() -> dict:
    """Of the loss with its noise; the term of x1 and x2 by quadrature."""
    nodes, weights = np.polynomial.legendre.leggauss(40)
    u, w = (nodes + 1) / 2, weights / 2
    term = 10 * np.sin(np.pi * np.outer(u, u))
    both = w @ term**2 @ w - (w @ term @ w) ** 2
    given_other = w @ term  # mean over x1, as a function of x2
    total = both - (w @ given_other**2 - (w @ given_other) ** 2)  # of x1, and of x2 by symmetry
    variances = {"x1": total, "x2": total, "x3": 400 * (1 / 80 - 1 / 144), "x4": 100 / 12, "x5": 25 / 12}
    whole = both + variances["x3"] + variances["x4"] + variances["x5"] + 1
    return {f"x{i}": variances.get(f"x{i}", 0.0) / whole for i in range(1, 11)}
