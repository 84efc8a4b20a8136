# SPDX-License-Identifier: Apache-2.0
"""The numbers of a report: what the page's scripts read as JSON."""

import json
import math

import numpy as np

from .run_reader import changes_text
from .visible_text import visible, visible_token

BEGINNING = 100
BINS = 400
"""A curve keeps its first BEGINNING points and merges the others into BINS groups: mean, least and greatest."""


def finite(value, digits=None):
    """A JSON number, or None for NaN and infinities."""
    value = float(value)
    if not math.isfinite(value):
        return None
    return float(f"{value:.{digits}g}") if digits else value


def shortest(value):
    """A float32 as the shortest decimal number that reads back as the same float32; None for NaN and infinities."""
    return float(str(np.float32(value))) if np.isfinite(value) else None


def bin_edges(count):
    """Borders of the groups that a curve of `count` points is merged into."""
    if count <= BEGINNING + BINS:
        return np.arange(count + 1)
    later = np.linspace(BEGINNING, count, BINS + 1).round().astype(int)
    return np.concatenate([np.arange(BEGINNING), later])


def step_curves(steps):
    """Training loss and rate over steps; `merged`: 0, or how many steps a point stands for at most; it has the place
    of the last one."""
    count = len(steps["step"])
    edges = bin_edges(count)
    largest = int(np.diff(edges).max(initial=0))
    curves = {"step": [], "loss": [], "low": [], "high": [], "rate": [], "merged": largest if largest > 1 else 0}
    for first, end in zip(edges[:-1], edges[1:]):
        losses = np.asarray(steps["loss"][first:end], float)
        losses = losses[np.isfinite(losses)]
        rates = np.asarray(steps["tokens_per_second"][first:end], float)
        rates = rates[np.isfinite(rates)]
        curves["step"].append(int(steps["step"][end - 1]))
        curves["loss"].append(finite(losses.mean(), 7) if losses.size else None)
        curves["low"].append(finite(losses.min(), 7) if losses.size else None)
        curves["high"].append(finite(losses.max(), 7) if losses.size else None)
        curves["rate"].append(finite(np.median(rates), 5) if rates.size else None)
    return curves


def evaluation_curves(run):
    """Losses in segments of the same validation tokens, nulls between them; tokens: the hash at each point."""
    steps, loss, bits, places = run.validation_curve()
    return {"step": [int(step) for step in steps], "loss": [finite(value) for value in loss],
            "bits": [finite(value) for value in bits],
            "tokens": [run.validation_hashes[place] if place >= 0 else None for place in places],
            "sources": [source_curve(run, path, name, places) for path, name in run.source_names().items()],
            "changes": [int(run.evaluations["step"][first]) for first, _ in run.validation_segments()[1:]]}


def source_curve(run, path, name, places):
    """Losses on one token file of a mixture at the places of evaluation_curves."""
    rows = [run.sources[place].get(path) if place >= 0 else None for place in places]
    value = lambda row, key: finite(row[key]) if row and row[key] is not None else None
    return {"name": visible_token(name, spaces=False), "loss": [value(row, "validation_loss") for row in rows],
            "bits": [value(row, "bits_per_byte") for row in rows]}


def probe_data(probe):
    """Texts of the tokens and every captured step's statistics (layer, head, statistic) in one list."""
    return {"name": probe.name, "source": visible(probe.source),
            "tokens": [visible(text) for text in probe.token_text],
            "labels": [visible_token(text) for text in probe.token_text],
            "ids": [int(token) for token in probe.tokens],
            "steps": [int(step) for step in probe.steps],
            "statistics": {str(step): [shortest(v) for v in probe.statistics(step).ravel()] for step in probe.steps}}


def attention_data(attention):
    if attention is None:
        return None
    return {"layers": [int(layer) for layer in attention.layers], "heads": [int(head) for head in attention.heads],
            "statistics": list(attention.statistic_names),
            "probes": [probe_data(probe) for probe in attention.probes.values() if probe.steps]}


def run_data(run, name):
    return {"name": visible(name), "curves": step_curves(run.steps),
            "evaluations": evaluation_curves(run),
            "restarts": [{"step": int(step),
                          "changed": visible_token(changes_text(changes), spaces=False) if changes else ""}
                         for step, changes in zip(run.restarts, run.changes)],
            "attention": attention_data(run.attention)}


def json_for_html(value):
    """JSON that may stand inside a script element: ASCII, and no character that HTML gives a meaning."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
