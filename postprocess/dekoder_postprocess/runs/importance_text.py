# SPDX-License-Identifier: Apache-2.0
"""Which settings mattered, for a terminal."""
from __future__ import annotations

from ..text_table import text_table
from ..visible_text import shortened, visible_token

TITLES = {"best_loss": "best validation loss", "last_loss": "newest validation loss", "bits_per_byte": "bits per byte at the best loss",
          "training_loss": "training loss over the last 100 steps"}
LONGEST = 80  # characters of a name or value
WIDTH = 10  # characters of a bar that stands for the whole variance


def importance_text(result) -> str:
    """The text of an Importance: R^2 first, then a line per setting. Lines end in newlines."""
    runs = result.finished + result.stopped
    left_out = ", ".join(f"{count} {why}" for why, count in result.left_out.items())
    lines = [f"Which settings mattered for the {TITLES[result.target]}"
             f"{'' if result.at_step is None else f' up to step {result.at_step}'}",
             f"  {runs} runs: {result.finished} finished, {result.stopped} stopped before their last step"
             f"{f'; left out: {left_out}' if left_out else ''}"]
    if result.remark:
        lines.append(f"  {result.remark}")
    parts = [_part_text("All runs", result.all_runs)]
    if result.all_runs.bars:
        parts.append(_part_text("The best half", result.best_half))
        low, high = result.percentiles
        parts.append(f"Intervals are the {low:g}th to the {high:g}th percentile of {result.resamples} bootstrap resamples of the runs; "
                     f"seed {result.seed}.\n")
    return "\n".join(lines) + "\n\n" + "\n".join(parts)


def _part_text(title, part):
    losses = f": {part.runs} runs with losses of {part.least_loss:.4f} to {part.greatest_loss:.4f}" if part.runs else ""
    text = f"{title}{losses}\n  {part.reading}\n"
    if part.bars:
        rows = [["setting", "permutation", "interval", "", "impurity", "interval", "linear", "rank", "as"]]
        rows += [[_name(bar.setting), *_cells(bar), *(_number(c) for c in (bar.linear, bar.rank)), bar.taken_as]
                 for bar in part.bars]
        rows += [[" + ".join(map(_name, group.settings)), *_cells(group)] for group in part.together]
        text += "\n" + text_table(rows)
    for found in part.dependent:
        text += (f"  {_name(found.first)} and {_name(found.second)} depend on each other ({found.measure} {found.value:.2f}): "
                 "their bars cannot be told apart.\n")
    for name in part.no_bar:
        text += f"  {_name(name)} has another value in every run: nothing can be learnt of it.\n"
    for name, value in part.constant.items():
        text += f"  {_name(name)} is {_name(value)} in all of them.\n"
    return text


def _cells(bar):
    permutation, impurity = bar.permutation, bar.impurity
    drawn = "#" * round(WIDTH * min(1, max(0, permutation.value)))
    return [_number(permutation.value), _interval(permutation), drawn.ljust(WIDTH), _number(impurity.value), _interval(impurity)]


def _interval(estimate):
    return f"{_number(estimate.low)} to {_number(estimate.high)}"


def _number(value):
    return "-" if value is None else f"{value:.2f}".replace("-0.00", "0.00")


def _name(text):
    return shortened(visible_token(text, spaces=False), LONGEST)
