# SPDX-License-Identifier: Apache-2.0
"""One self-contained page of many runs: their table, losses over time, curves, parallel coordinates, importance, slices."""
from __future__ import annotations

from collections import Counter
from typing import Mapping, Optional, Sequence

from ..errors import how_to_install
from ..page_template import fill, resource
from ..report_data import json_for_html
from ..report_html import duration, number
from ..visible_text import escaped
from .page_data import one_line, runs_data
from .run_summary import RunSummary, compared_hash

_SCRIPTS = ("report_charts.js", "runs/runs_model.js", "runs/runs_scales.js", "runs/runs_scatter.js", "runs/runs_parallel.js",
            "runs/runs_table.js", "runs/runs_dialogs.js", "runs/runs_importance.js", "runs/runs_page.js")
NAMED = 20
"""Damaged runs are named in the notes up to that many; all of them are rows of the table."""


def build_page(summaries: Sequence[RunSummary], scales: Mapping[str, str] = {}, folder=".", at_step: Optional[int] = None,
               first_rung: Optional[int] = None) -> str:
    """The page as text. `scales`: settings -> "log" where their axes are logarithmic; `folder`: where the page will stand,
    which links to reports begin at; `at_step`, `first_rung`: of importance.importance(). Runs whose log cannot be read have no
    curves. There may be no run at all."""
    data = runs_data(summaries, scales, folder)
    data["importance"] = importance_data(summaries, scales, at_step, first_rung)
    return fill(resource("runs/runs_page.html"), {
        "title": f"{len(summaries):,} run{'s' if len(summaries) != 1 else ''}",
        "style": resource("report_page.css", "runs/runs_page.css"),
        "script": resource(*_SCRIPTS),
        "notes": notes(summaries),
        "facts": facts(summaries, data["columns"]),
        "data": json_for_html(data),
    })


def importance_data(summaries, scales, at_step, first_rung) -> dict:
    """Which settings mattered, as JSON of visible texts; {"missing": why} without scikit-learn."""
    from .importance import importance
    logarithmic = [name for name, scale in scales.items() if scale == "log"]
    try:
        return visible_texts(importance(summaries, logarithmic=logarithmic, linear=scales.keys() - set(logarithmic), at_step=at_step,
                                        first_rung=first_rung).as_json())
    except ModuleNotFoundError as error:
        return {"missing": f"Importance needs the Python package {error.name}, which was not there when this page was made: "
                           f"make the page in the toolbox, or after {how_to_install(error.name, 'dekoder-runs')}."}


def visible_texts(value):
    """JSON with every text in it, keys too, as one visible line."""
    if isinstance(value, dict):
        return {one_line(key): visible_texts(of) for key, of in value.items()}
    if isinstance(value, list):
        return [visible_texts(of) for of in value]
    return one_line(value) if isinstance(value, str) else value


def facts(summaries, columns) -> str:
    """Cards about all runs."""
    states = Counter(summary.state for summary in summaries)
    compared = compared_hash(summaries)
    best = min((summary for summary in summaries if summary.best_loss is not None and summary.validation_hash == compared),
               key=lambda summary: summary.best_loss, default=None)
    differing = sum("setting" in column and "same" not in column for column in columns)
    cards = [
        ("Runs", f"{len(summaries):,}", ", ".join(f"{count:,} {state}" for state, count in states.most_common())),
        ("Best validation loss", number(best.best_loss if best else None),
         f"nats per token, {one_line(best.name)}" if best else "no evaluation yet"),
        ("Settings that differ", f"{differing:,}", "between the runs"),
        ("Tokens seen", f"{sum(summary.tokens or 0 for summary in summaries):,}", "in training, by all runs"),
        ("Wall time", duration(sum(summary.seconds or 0 for summary in summaries)), "h:mm:ss, of all starts"),
    ]
    return '<dl class="facts">' + "".join(
        f"<div><dt>{escaped(term)}</dt><dd><b>{escaped(value)}</b> <span>{escaped(remark)}</span></dd></div>"
        for term, value, remark in cards) + "</dl>"


def notes(summaries) -> str:
    """What cannot be compared or read, one line each."""
    lines = []
    compared = compared_hash(summaries)
    others = sum(summary.best_loss is not None and summary.validation_hash != compared for summary in summaries)
    if others:
        lines.append(f"{others:,} run{'s were' if others > 1 else ' was'} evaluated on other validation tokens than most: the "
                     "losses cannot be compared. The charts show the runs of one set of validation tokens at a time; importance is "
                     "that of the most common one.")
    damaged = [summary for summary in summaries if summary.problem is not None]
    lines += [f"{summary.name} is damaged: {summary.problem}" for summary in damaged[:NAMED]]
    if len(damaged) > NAMED:
        lines.append(f"{len(damaged) - NAMED:,} more damaged runs are in the table.")
    items = "".join(f"<li>{escaped(one_line(line))}</li>" for line in lines)
    return f'<ul class="notes" aria-label="What is missing">{items}</ul>' if items else ""
