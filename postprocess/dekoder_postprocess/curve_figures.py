# SPDX-License-Identifier: Apache-2.0
"""Curves over the steps of training: loss, and the statistics of every head."""
from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from .figure_style import Sheet, drawable, shortened
from .run_reader import changes_text

# Where a logarithmic axis of losses may have a tick.
LOSS_TICKS = [digit * 10.0 ** power for power in range(-4, 4) for digit in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)]
LABELS = {"entropy": "entropy (nats)", "mean_distance": "mean distance (tokens)",
          "previous_token": "mass on the previous token", "first_token": "mass on the first token",
          "same_token": "mass on the token itself", "duplicate_token": "mass on equal tokens before",
          "induction": "induction: mass"}


# How the lines of the heads of a layer differ.
HEAD_LINES = [{"linestyle": dash, "linewidth": 1.1, "marker": mark, "markersize": 2.5}
              for mark in ("", "o", "s", "^", "x", "D") for dash in ("-", "--", ":", "-.")]


def loss_figure(runs):
    """Training loss (thin: each step; thick: running mean), validation loss, restarts; one colour per run. The loss
    axis is logarithmic: the first steps and the last differ as much as two runs hardly do."""
    sheet = Sheet(7.2, 4.2)
    axes = sheet.axes(0.7, 0.42, 6.3, 3.2)
    names = [drawable(run.name, spaces=False) for run in runs]
    for i, run in enumerate(runs):
        step, loss = run.steps["step"], run.steps["loss"]
        colour = f"C{i}"
        prefix = f"{names[i]}: " if len(runs) > 1 else ""
        axes.plot(step, loss, color=colour, linewidth=0.6, alpha=0.3)
        axes.plot(step, running_mean(loss, max(1, len(loss) // 50)), color=colour, linewidth=1.4,
                  label=f"{prefix}training")
        if len(run.evaluations["step"]):
            steps, losses, _, _ = run.validation_curve()
            axes.plot(steps, losses, "o", color=colour, markersize=4.5,
                      markeredgecolor="white", markeredgewidth=0.7, linestyle="--", linewidth=0.9,
                      label=f"{prefix}validation")
        for k, restart in enumerate(run.restarts):
            axes.axvline(restart, color="0.35" if len(runs) == 1 else colour, linestyle=":", linewidth=1.1,
                         label=f"{prefix}restart" if k == 0 else None)
    logarithmic(axes)
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats per token)")
    open_frame(axes)
    axes.legend(frameon=False, fontsize=8)
    changed = "; ".join(f"{run.name + ', ' if len(runs) > 1 else ''}restart from step {step}: {changes_text(changes)}"
                        for run in runs for step, changes in zip(run.restarts, run.changes) if changes)
    if changed:
        sheet.text(0.1, 0.32, shortened(drawable(changed, spaces=False), 7.0, 7), fontsize=7, color="0.35")
    title = "Loss: " + ", ".join(names)
    sheet.text(0.1, 0.1, shortened(title, 7.0, 11, "bold"), fontsize=11, weight="bold")
    return sheet.figure


def logarithmic(axes):
    """Logarithmic y axis with plain numbers, no more than fit, at least two."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    ticks = [tick for tick in LOSS_TICKS if low <= tick <= high]
    while len(ticks) > 10:
        ticks = ticks[::2]
    if len(ticks) < 2:  # a narrow range
        ticks = [tick for tick in MaxNLocator(5).tick_values(low, high) if low <= tick <= high]
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def open_frame(axes):
    """Light grid, no frame at the top and on the right."""
    axes.grid(color="0.92", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def running_mean(values, half) -> np.ndarray:
    """Mean over each element and its `half` neighbours on both sides; near the start over as many as there are on
    both sides, so that a steep begin is not flattened; at the end over those that there are. NaN is missing."""
    known = np.isfinite(values)
    sums = np.concatenate([[0.0], np.cumsum(np.where(known, values, 0.0))])
    counts = np.concatenate([[0], np.cumsum(known)])
    index = np.arange(len(values))
    half = np.minimum(half, index)
    begin, end = index - half, np.minimum(index + half + 1, len(values))
    number = counts[end] - counts[begin]
    return np.where(number > 0, (sums[end] - sums[begin]) / np.maximum(number, 1), np.nan)


def statistics_figure(title, subtitle, attention, probe):
    """A panel per statistic with one line per head over the captured steps; layers by colour, heads by dashes and
    marks."""
    names = attention.statistic_names
    values = np.stack([probe.statistics(step) for step in probe.steps]).astype(np.float64)  # (step, layer, head, s)
    columns = 4
    rows = -(-(len(names) + 1) // columns)
    width, height, across, down = 1.95, 1.35, 0.5, 0.62
    left, top = 0.5, 0.9
    sheet = Sheet(left + columns * (width + across) - across + 0.2, top + rows * (height + down) - 0.15)
    sheet.text(0.1, 0.1, shortened(title, sheet.width - 0.2, 11, "bold"), fontsize=11, weight="bold")
    sheet.text(0.1, 0.34, shortened(subtitle, sheet.width - 0.2, 8), fontsize=8, color="0.35")
    colours = colormaps["viridis"](np.linspace(0.0, 0.88, len(attention.layers)))
    for s, name in enumerate(names):
        at = left + s % columns * (width + across), top + s // columns * (height + down)
        axes = sheet.axes(*at, width, height)
        for i in range(len(attention.layers)):
            for j in range(len(attention.heads)):
                axes.plot(probe.steps, values[:, i, j, s], color=colours[i], **HEAD_LINES[j % len(HEAD_LINES)])
        axes.set_title(LABELS.get(name) or drawable(name, spaces=False), fontsize=8, pad=4)
        axes.tick_params(labelsize=7, length=2)
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        highest = np.nanmax(values[..., s], initial=0.0)
        axes.set_ylim(0, 1.05 * highest or 1.0)
        axes.set_xlabel("step", fontsize=7, labelpad=1)
        open_frame(axes)
    _legend(sheet, attention, colours, left + (len(names) % columns) * (width + across),
            top + len(names) // columns * (height + down))
    return sheet.figure


def _legend(sheet, attention, colours, left, top):
    """Names of colours and lines in the free panel; many layers are named by the first, the middle and the last."""
    layers = list(zip(attention.layers, colours))
    shown = layers if len(layers) <= 6 else [layers[0], layers[len(layers) // 2], layers[-1]]
    lines = [Line2D([], [], color=colour, label=f"layer {layer}") for layer, colour in shown]
    heads = attention.heads
    for style, head in zip(HEAD_LINES, heads):
        others = heads[heads.index(head) + len(HEAD_LINES)::len(HEAD_LINES)]  # of the same line
        lines.append(Line2D([], [], color="0.3", label=", ".join(map(str, [f"head {head}", *others])), **style))
    size = {"ncols": 3, "fontsize": 6, "columnspacing": 1} if len(lines) > 18 else {"ncols": 2, "fontsize": 7}
    sheet.figure.legend(handles=lines, loc="upper left", frameon=False, **size,
                        bbox_to_anchor=((left - 0.1) / sheet.width, 1 - (top - 0.08) / sheet.height))
