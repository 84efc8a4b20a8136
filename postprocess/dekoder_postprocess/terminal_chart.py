# SPDX-License-Identifier: Apache-2.0
"""Curves in characters: in Braille patterns (two by four dots a cell), or in ASCII. A picture is a list of lines, a line a
list of (text, run), where run is the place of the run that the text belongs to, None for none: its colour, where there
are colours. Runs are told apart without them: of several, a small letter stands on the training curve and a capital
one for an evaluation."""
from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

LETTERS = "abcdefghijklmnopqrstuvwxyz"
BRAILLE = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # row and column of a dot -> its bit (Unicode 28xx)
LETTER_EVERY = 12  # cells from one letter on a curve to the next
AXIS = 8  # cells of the numbers at the left, with the axis
POINT_EVERY = 3  # cells from one evaluation to the next, at least: the curves are seen between them


@dataclass
class Signs:
    """What a picture is drawn with."""

    dots: tuple  # columns and rows of dots in a cell
    vertical: str
    tick: str
    corner: str
    horizontal: str
    tick_below: str
    restart: str
    training: str  # in the legend, of one run


UTF8 = Signs((2, 4), "\u2502", "\u2524", "\u2514", "\u2500", "\u252c", "\u25b2", "\u2812\u2812")
ASCII = Signs((1, 1), "|", "+", "+", "-", "+", "^", ".")


@dataclass
class Curves:
    """Losses of one run over steps in order; NaN where there is none."""

    steps: np.ndarray
    losses: np.ndarray
    evaluated: np.ndarray  # steps
    validation_losses: np.ndarray
    restarts: list  # steps

    def last_step(self) -> int:
        return int(max((steps[-1] for steps in (self.steps, self.evaluated) if len(steps)), default=0))


def smoothed(steps, losses, centers, half):
    """Mean of the losses at steps within `half` of each center, NaN where there is none."""
    finite = np.isfinite(losses)
    steps, sums = steps[finite], np.concatenate(([0.0], np.cumsum(losses[finite])))
    first, end = np.searchsorted(steps, centers - half, "left"), np.searchsorted(steps, centers + half, "right")
    count = end - first
    return np.where(count > 0, (sums[end] - sums[first]) / np.maximum(count, 1), np.nan)


def ticks(low, high, most):
    """At most `most` round numbers from low to high, and the digits behind the point that they need."""
    step = 10.0 ** math.floor(math.log10(max(high - low, 1e-12)) - 2)
    while (high - low) / step > max(most, 1):
        lead = round(step / 10.0 ** math.floor(math.log10(step) + 1e-9))
        step *= 2.5 if lead == 2 else 2
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)], max(0, -math.floor(math.log10(step) + 1e-9))


class Chart:
    """A chart of `width` by `height` cells, axes included, of the steps from `first` on."""

    def __init__(self, curves, width, height, signs, first=0):
        self.signs, self.curves = signs, curves
        self.first = first
        self.last = max([curve.last_step() for curve in curves] + [first + 1])
        self.rows = max(height - 2, 2)
        self.columns = max(width - AXIS, 8)
        self.half = max((self.last - first) / (self.columns * signs.dots[0]) / 2, (self.last - first) / 200, 0.5)
        self.smooth = [self._smooth(curve) for curve in curves]
        self.points = [self._points(curve) for curve in curves]
        values = np.concatenate([y for _, y in (*self.smooth, *self.points)])
        values = values[np.isfinite(values)]
        self.low, self.high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
        if self.high - self.low < 1e-9 * max(1.0, abs(self.high)):
            self.low, self.high = self.low - 0.5, self.high + 0.5
        self.cells = [[(" ", None)] * self.columns for _ in range(self.rows)]

    @property
    def window(self) -> int:
        """Steps of which a point of the training curves is the mean."""
        return 2 * int(self.half) + 1

    def lines(self):
        for run in range(len(self.curves)):
            self._draw_training(run)
        for run in range(len(self.curves)):
            self._draw_letters(run)
        for run in range(len(self.curves)):
            self._draw_points(run)
        return [*self._rows_with_axis(), self._axis(), self._step_labels()]

    def _smooth(self, curve):
        """(dot column, loss) of the smoothed training curve, whatever columns have no step between two others filled
        in."""
        dots = self.columns * self.signs.dots[0]
        chosen = np.isfinite(curve.losses) & (curve.steps >= self.first)
        if not chosen.any():
            return np.zeros(0, int), np.zeros(0)
        steps = curve.steps[chosen]
        first, last = (self._dot_column(step) for step in (steps[0], steps[-1]))
        columns = np.arange(first, last + 1)
        centers = np.clip(self.first + columns / (dots - 1) * (self.last - self.first), steps[0], steps[-1])
        loss = smoothed(curve.steps, curve.losses, centers, self.half)
        there = np.isfinite(loss)
        return columns, np.interp(columns, columns[there], loss[there]) if there.any() else loss

    def _points(self, curve):
        """(dot column, loss) of the evaluations."""
        chosen = np.isfinite(curve.validation_losses) & (curve.evaluated >= self.first)
        return (np.array([self._dot_column(step) for step in curve.evaluated[chosen]], int),
                curve.validation_losses[chosen])

    def _dot_column(self, step):
        dots = self.columns * self.signs.dots[0]
        return int(round((step - self.first) / (self.last - self.first) * (dots - 1)))

    def _dot_row(self, loss):
        """From the top."""
        dots = self.rows * self.signs.dots[1]
        return int(round((self.high - loss) / (self.high - self.low) * (dots - 1)))

    def _put(self, column, row, sign, run):
        self.cells[row // self.signs.dots[1]][column // self.signs.dots[0]] = (sign, run)

    def _draw_training(self, run):
        before = None
        for column, loss in zip(*self.smooth[run]):
            if not math.isfinite(loss):
                continue
            row = self._dot_row(loss)
            step = 1 if before is None or before < row else -1
            for dot in range(row if before is None or before == row else before + step, row + step, step):
                self._dot(column, dot, run)
            before = row

    def _dot(self, column, row, run):
        if self.signs is ASCII:
            return self._put(column, row, "." if len(self.curves) == 1 else LETTERS[run], run)
        bits = 0x2800 | BRAILLE[row % 4][column % 2]
        sign, _ = self.cells[row // 4][column // 2]
        return self._put(column, row, chr(bits | ord(sign) if sign != " " else bits), run)

    def _draw_letters(self, run):
        if len(self.curves) == 1:
            return
        columns, losses = self.smooth[run]
        every = LETTER_EVERY * self.signs.dots[0]
        offset = (run + 0.5) * every / len(self.curves)
        for column, loss in zip(columns, losses):
            if math.isfinite(loss) and (column == columns[-1] or int(column - offset) % every == 0):
                self._put(column, self._dot_row(loss), LETTERS[run], run)

    def _draw_points(self, run):
        """The newest first."""
        right = math.inf
        for column, loss in zip(*(values[::-1] for values in self.points[run])):
            if right - column >= POINT_EVERY * self.signs.dots[0]:
                self._put(column, self._dot_row(loss), "o" if len(self.curves) == 1 else LETTERS[run].upper(), run)
                right = column

    def _rows_with_axis(self):
        values, digits = ticks(self.low, self.high, self.rows / 3 + 1)
        labels = {self._dot_row(value) // self.signs.dots[1]: f"{value:.{digits}f}" for value in values}
        for row, cells in enumerate(self.cells):
            label = labels.get(row, "")
            yield [(label[:AXIS - 1].rjust(AXIS - 1), None), (self.signs.tick if label else self.signs.vertical, None), *_spans(cells)]

    def _marks(self):
        """Cell -> number of a step on the axis, such that numbers do not touch."""
        widest = len(f"{self.last:,}") + 2
        values, _ = ticks(self.first, self.last, max(self.columns // (widest + 2), 1))
        return {self._dot_column(value) // self.signs.dots[0]: f"{round(value):,}" for value in values
                if abs(value - round(value)) < 1e-6}

    def _axis(self):
        marks = self._marks()
        cells = [(self.signs.tick_below if column in marks else self.signs.horizontal, None)
                 for column in range(self.columns)]
        for run, curve in enumerate(self.curves):
            for step in curve.restarts:
                if self.first <= step <= self.last:
                    sign = self.signs.restart if len(self.curves) == 1 else LETTERS[run]
                    cells[self._dot_column(step) // self.signs.dots[0]] = (sign, run)
        return [(" " * (AXIS - 1) + self.signs.corner, None), *_spans(cells)]

    def _step_labels(self):
        line = [" "] * (AXIS + self.columns)
        for column, label in self._marks().items():
            if len(label) > len(line):
                continue
            at = min(max(AXIS + column - (len(label) - 1) // 2, 0), len(line) - len(label))
            line[at:at + len(label)] = label
        return [("".join(line).rstrip(), None)]


def _spans(cells):
    """Neighbours of one run together."""
    spans = []
    for sign, run in cells:
        if spans and spans[-1][1] == run:
            spans[-1] = (spans[-1][0] + sign, run)
        else:
            spans.append((sign, run))
    return spans
