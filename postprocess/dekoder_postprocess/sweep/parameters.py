# SPDX-License-Identifier: Apache-2.0
"""What a sweep varies: parameters with their values, and the conditions on which they are set."""
from __future__ import annotations

import json
import math
import operator
import re
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Optional


def same(a, b) -> bool:
    """Equality of settings: true is not 1, but 1 is 1.0."""
    return a == b and (type(a) is bool) == (type(b) is bool)


OPERATORS = {"==": same, "!=": lambda a, b: not same(a, b), "<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt}
SCALES = ("linear", "log", "int", "int-log")


@dataclass(frozen=True)
class Condition:
    """`key operator value`, of another parameter."""

    key: str
    operator: str
    value: Any

    def holds(self, settings) -> bool:
        """False also where that parameter is not set itself."""
        return self.key in settings and OPERATORS[self.operator](settings[self.key], self.value)


@dataclass(frozen=True)
class Parameter:
    """A key of the run configuration: one of `values`, or, where there are none, a number from `low` to `high`."""

    key: str
    values: tuple = ()
    low: float = 0
    high: float = 0
    scale: str = "linear"
    step: Optional[float] = None  # of the scales linear and int
    where: tuple = ()  # Conditions, all of which must hold

    @property
    def whole(self) -> bool:
        """Whether the range is one of whole numbers."""
        return self.scale.startswith("int")

    def at(self, share):
        """The value at this share, 0 to below 1, of the range on its scale, or of the values in their order."""
        if self.values:
            return self.values[int(share * len(self.values))]
        if self.step is not None:
            return self.on_step(min(int(share * (self.steps + 1)), self.steps))
        if self.scale == "int-log":  # half a unit beyond both ends, so that these are as likely as their neighbours
            low, high = math.log(self.low - 0.5), math.log(self.high + 0.5)
            return min(max(round(math.exp(low + share * (high - low))), self.low), self.high)
        if self.scale == "log":
            low, high = math.log(self.low), math.log(self.high)
            return self.rounded(math.exp(low + share * (high - low)))
        return self.rounded(self.low + share * (self.high - self.low))

    def grid(self):
        """All values, one after the other; None where they are a continuum, or not listed as their scale is logarithmic."""
        if self.values:
            return iter(self.values)
        return None if self.step is None else (value for value, _ in groupby(map(self.on_step, range(self.count))))

    @property
    def count(self):
        """Of the values that grid() gives, at most."""
        return len(self.values) if self.values else self.steps + 1

    def examples(self, compared) -> list:
        """Values that meet any condition that some value meets, where conditions compare with the values `compared`."""
        if self.values:
            return list(self.values)
        within = [value for value in compared if self.contains(value)]
        if self.step is None and not self.whole:
            points = sorted({self.low, self.high, *within})
            return [*points, *(low + 0.5 * (high - low) for low, high in zip(points, points[1:]))]
        step, last = self.step or 1, (self.high if self.step is None else self.on_step(self.steps))
        near = {int((value - self.low) // step) + i for value in within for i in (-1, 0, 1, 2)}
        return [self.low, last, *(self.rounded(self.low + i * step) for i in sorted(near) if self.low <= self.low + i * step <= last)]

    def rounded(self, value):
        """A value of the range with six significant digits, which are enough to tell two runs apart and can be read."""
        return value if self.whole else min(max(float(f"{value:.6g}"), self.low), self.high)

    def place(self, value):
        """Where among the values it is; None where it is none of them."""
        return next((i for i, other in enumerate(self.values) if same(value, other)), None)

    def contains(self, value) -> bool:
        if self.values:
            return self.place(value) is not None
        return type(value) in (int, float) and self.low <= value <= self.high

    def is_part_of(self, other) -> bool:
        """Whether the other one has all that this one has, on the same scale and conditions."""
        if bool(self.values) != bool(other.values) or self.where != other.where:
            return False
        if self.values:
            return all(other.contains(value) for value in self.values)
        return (self.scale, self.step) == (other.scale, other.step) and other.low <= self.low and self.high <= other.high

    @property
    def steps(self):
        return (self.high - self.low) // self.step if self.whole else round((self.high - self.low) / self.step)

    def on_step(self, i):
        return self.rounded(self.low + i * self.step)


def in_force(parameters, values) -> dict:
    """key -> value of those of the `parameters` whose conditions hold, in their order; `values` has one for each. Conditions
    make no circle."""
    kept, left = {}, list(parameters)
    while left:
        waiting = {parameter.key for parameter in left}
        ready = [p for p in left if not any(condition.key in waiting for condition in p.where)]
        for parameter in ready:
            if all(condition.holds(kept) for condition in parameter.where):
                kept[parameter.key] = values[parameter.key]
        left = [p for p in left if p not in ready]
    return {p.key: kept[p.key] for p in parameters if p.key in kept}


def plain_value(text):
    """A plain scalar's value: number, true, false, None for nothing, else the text."""
    if re.fullmatch(r"[-+]?[0-9]{1,40}", text):
        return int(text)
    if re.fullmatch(r"[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?", text):  # also what is more than any whole number of a configuration
        return float(text)
    return {"true": True, "false": False, "null": None, "~": None}.get(text, text)


def setting_text(value) -> str:
    """A setting as --set takes it."""
    if isinstance(value, str) and re.fullmatch(r"[\w./-]+", value) and plain_value(value) == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def settings_text(settings) -> str:
    return ", ".join(f"{key}={setting_text(value)}" for key, value in settings.items())
