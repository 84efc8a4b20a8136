# SPDX-License-Identifier: Apache-2.0
"""Reads what a sweep is from its YAML file, strictly: every mistake at once, each with line and column."""
from __future__ import annotations

import difflib
import math
import os
import re
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Optional

import yaml

from ..files import read_file
from .halving import rungs
from .parameters import OPERATORS, SCALES, Condition, Parameter, in_force, plain_value, same

METHODS = ("grid", "random", "quasi-random", "tpe")
KEYS = ("base", "steps", "trials", "seed", "method", "halving", "set", "parameters")
MOST_TRIALS = 100_000
FIXED = {"training.steps": "it is the budget: give `steps` instead",
         "data.tokens": "losses of several texts cannot be compared: name one under `set`",
         "evaluation.tokens": "losses of several validation texts cannot be compared: give one under `set`"}
"""Keys that no parameter may have."""


class DefinitionError(Exception):
    """`lines`: one for each mistake, "sweep.yaml:3:11: what, what was expected"."""

    def __init__(self, lines):
        super().__init__("\n".join(lines))
        self.lines = lines


@dataclass(frozen=True)
class Halving:
    """Early stop by asynchronous successive halving: rungs at first_rung * factor^k steps."""

    first_rung: int
    factor: int


@dataclass(frozen=True)
class Definition:
    """A sweep. `places`: (line, column) of `base`, "set.KEY", "parameters.KEY" and "parameters.KEY.VALUE" in the file."""

    text: str
    base_text: str
    steps: int  # training.steps of each trial
    trials: int
    seed: int
    method: str
    halving: Optional[Halving]
    fixed: dict  # key -> value, the same for all trials
    parameters: tuple
    places: dict
    name: str  # of the file, as messages call it

    @property
    def rungs(self) -> list:
        """Steps up to which a trial is trained, one after the other; the last is `steps`."""
        return rungs(self.halving.first_rung, self.halving.factor, self.steps) if self.halving else [self.steps]

    def settings(self, values) -> dict:
        """Those of the `values`, one for each parameter, whose conditions hold."""
        return in_force(self.parameters, values)

    def grid(self):
        """Settings of all combinations that differ; the last parameter changes first."""
        keys = [parameter.key for parameter in self.parameters]
        known = set()
        for combination in product(*(parameter.grid() for parameter in self.parameters)):
            settings = self.settings(dict(zip(keys, combination)))
            if repr(settings) not in known:  # not where they differ in what is not in force
                known.add(repr(settings))
                yield settings

    def fault(self, place, text) -> str:
        """A line of a DefinitionError on what stands at a place of `places`."""
        line, column = self.places[place]
        return f"{self.name}:{line}:{column}: {text}"


def read_definition(path, base=None) -> Definition:
    """Reads the file `path`, and the base configuration that it names, relative to its folder, or the file `base` instead.
    Raises DefinitionError, and RunError where the file itself cannot be read."""
    return _Reader(os.fspath(path)).read(read_file(path), base)


class _Reader:
    def __init__(self, name):
        self._name = name
        self._faults = []  # (line, column, text)
        self._places = {}

    # ---- mistakes

    def _fault(self, node, text):
        mark = getattr(node, "start_mark", node)
        self._faults.append((mark.line + 1, mark.column + 1, text) if mark else (0, 0, text))

    def _throw(self):
        if self._faults:
            raise DefinitionError([f"{self._name}:{line}:{column}: {text}" if line else f"{self._name}: {text}"
                                   for line, column, text in sorted(self._faults)])

    # ---- the file

    def read(self, content, base):
        root = self._root(content)
        self._throw()
        top = self._map(root, KEYS, "")
        for key in ("base", "steps", "method", "parameters"):
            if key not in top:
                self._fault(root, f"'{key}' is missing; expected {_EXPECTED[key]}")
        self._places.update({key: _place(top.get(key, root)) for key in KEYS})
        steps = self._whole(top.get("steps"), "steps", 1)
        seed = self._whole(top.get("seed"), "seed", 0, 2**64 - 1) if "seed" in top else 1
        method = self._one_of(top.get("method"), "method", METHODS)
        fixed = self._fixed(top.get("set"))
        halving = self._halving(top.get("halving"), steps)
        parameters = self._parameters(top.get("parameters"), fixed, method)
        base_text, base_config = self._base(top.get("base"), base)
        self._check_evaluations(top.get("halving"), halving, fixed, parameters, base_config)
        trials = self._trials(root, top.get("trials"), method, parameters)
        self._throw()
        return Definition(content.decode("utf-8"), base_text, steps, trials, seed, method, halving, fixed, tuple(parameters),
                          self._places, self._name)

    def _root(self, content):
        try:
            text = content.decode("utf-8")
            documents = list(yaml.compose_all(text, Loader=yaml.SafeLoader))
        except UnicodeDecodeError as error:
            before = content[:error.start]
            self._faults.append((before.count(b"\n") + 1, len(before) - before.rfind(b"\n"),
                                 f"byte 0x{content[error.start]:02X} is no UTF-8; save the file in that encoding"))
            return None
        except (yaml.YAMLError, RecursionError) as error:
            reason = getattr(error, "problem", None) or str(error)
            self._fault(getattr(error, "problem_mark", None),
                        f"not valid YAML: {' '.join(reason.split())}; indent with spaces and write `key: value`")
            return None
        if not documents:
            self._fault(None, "is empty; expected base, steps, trials, method and parameters")
        elif len(documents) > 1:
            self._fault(documents[1], "a second YAML document; expected one: remove the line `---`")
        elif not isinstance(documents[0], yaml.MappingNode):
            self._fault(documents[0], f"is {_shown(documents[0])}; expected lines `base: ...`, `steps: ...`")
        else:
            return documents[0]
        return None

    def _map(self, node, known, what):
        """Key -> node of what is known; mistakes are named."""
        found = {}
        if not isinstance(node, yaml.MappingNode):
            self._fault(node, f"{what} is {_shown(node)}; expected `key: value` lines: {', '.join(known)}")
            return found
        for key, value in node.value:
            word = key.value if isinstance(key, yaml.ScalarNode) else _shown(key)
            if word in found:
                self._fault(key, f"'{word}' stands here a second time; remove one")
            elif word not in known:
                inside = f" in {what}" if what else ""
                self._fault(key, f"unknown key '{word}'{inside}{_meant(word, known)}")
            else:
                found[word] = value
        return found

    def _setting_keys(self, node, what):
        """[(section.key, its node, value's node)] of `set` or `parameters`."""
        found = {}
        if not isinstance(node, yaml.MappingNode):
            self._fault(node, f"{what} is {_shown(node)}; expected lines such as `training.batch: ...`")
            return []
        for key, value in node.value:
            word = key.value if isinstance(key, yaml.ScalarNode) else _shown(key)
            if not re.fullmatch(r"[a-z_]\w*\.[a-z_]\w*", word):
                self._fault(key, f"'{word}' in {what} is no key of a run's configuration; expected section.key, e.g. training.batch")
            elif word in found:
                self._fault(key, f"'{word}' stands here a second time; remove one")
            else:
                found[word] = (key, value)
                self._places[f"{what}.{word}"] = _place(key)
        return [(word, *nodes) for word, nodes in found.items()]

    # ---- values

    def _value(self, node, what):
        """A setting: text, number, true or false, or a list of them; None after a mistake."""
        if isinstance(node, yaml.SequenceNode):
            if all(isinstance(element, yaml.ScalarNode) for element in node.value):
                return [self._value(element, what) for element in node.value]
        elif isinstance(node, yaml.ScalarNode):
            value = _scalar(node)
            if value is not None:
                return value
        self._fault(node, f"{what} is {_shown(node)}; expected a text, a number, true or false, or a list of them")
        return None

    def _number(self, node, what, whole):
        value = _scalar(node) if isinstance(node, yaml.ScalarNode) else None
        if type(value) is int or (type(value) is float and not whole and math.isfinite(value)):
            return value
        self._fault(node, f"{what} is {_shown(node)}; expected a {'whole ' if whole else ''}number")
        return None

    def _whole(self, node, what, low, high=2**31 - 1):
        if node is None:
            return None
        value = self._number(node, what, True)
        if value is not None and not low <= value <= high:
            self._fault(node, f"{what} is {value}; expected a whole number from {low} to {high}")
            return None
        return value

    def _one_of(self, node, what, words):
        if node is None:
            return None
        word = node.value if isinstance(node, yaml.ScalarNode) else None
        if word not in words:
            self._fault(node, f"{what} is {_shown(node)}; expected one of {', '.join(words)}"
                              f"{_meant(word, words, '; did you mean') if word else ''}")
            return None
        return word

    # ---- sections

    def _fixed(self, node):
        fixed = {}
        for key, key_node, value in self._setting_keys(node, "set") if node is not None else ():
            if key == "training.steps":
                self._fault(key_node, f"set.{key}: {FIXED[key]}")
            self._places[f"set.{key}"] = _place(value)
            fixed[key] = self._value(value, f"set.{key}")
        return fixed

    def _halving(self, node, steps):
        if node is None:
            return None
        keys = self._map(node, ("first_rung", "factor"), "halving")
        for key in ("first_rung", "factor"):
            if key not in keys and isinstance(node, yaml.MappingNode):
                self._fault(node, f"halving has no '{key}'; expected e.g. halving: {{first_rung: 100, factor: 3}}")
        first, factor = self._whole(keys.get("first_rung"), "halving.first_rung", 1), self._whole(keys.get("factor"), "halving.factor", 2)
        if first is not None and steps is not None and first >= steps:
            self._fault(keys["first_rung"], f"halving.first_rung is {first}; expected less than the steps of a trial, {steps}")
            return None
        return Halving(first, factor) if first and factor else None

    def _parameters(self, node, fixed, method):
        if node is None:
            return []
        found = self._setting_keys(node, "parameters")
        if isinstance(node, yaml.MappingNode) and not node.value:
            self._fault(node, "parameters is empty; expected at least one key with values or a range")
        parameters, conditions = [], []
        for key, key_node, value in found:
            if key in FIXED:
                self._fault(key_node, f"parameters.{key}: {FIXED[key]}")
            if key in fixed:
                self._fault(key_node, f"{key} is a parameter and stands under `set` too; remove one")
            parameter, where = self._parameter(key, value, method)
            parameters.append(parameter)
            conditions.append(where)
        return self._with_conditions(parameters, conditions, {key for key, _, _ in found})

    def _parameter(self, key, node, method):
        """(Parameter, or None after a mistake; the node of its conditions)"""
        what = f"parameters.{key}"
        parts = self._map(node, ("values", "range", "scale", "step", "where"), what)
        where = parts.get("where")
        if not isinstance(node, yaml.MappingNode):
            return None, None
        if ("values" in parts) == ("range" in parts):
            self._fault(node, f"{what} has {'both values and' if 'values' in parts else 'neither values nor'} a range; expected one of them: "
                              "{values: [8, 16]} or {range: [1.0e-4, 1.0e-2], scale: log}")
            return None, where
        if "values" in parts:
            for word in ("scale", "step"):
                if word in parts:
                    self._fault(parts[word], f"{what}.{word} belongs to a range, and this one has values; remove it")
            return self._values(key, what, parts["values"]), where
        return self._range(key, what, parts, method), where

    def _values(self, key, what, node):
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self._fault(node, f"{what}.values is {_shown(node)}; expected a list, e.g. [8, 16, 32]")
            return None
        values = []
        for element in node.value:
            value = self._value(element, f"{what}.values")
            if value is not None and any(same(value, other) for other in values):
                self._fault(element, f"{what}.values has {_shown(element)} twice; remove one")
            values.append(value)
            self._places[f"{what}.{value!r}"] = _place(element)
        return Parameter(key, values=tuple(values))

    def _range(self, key, what, parts, method):
        scale = self._one_of(parts["scale"], f"{what}.scale", SCALES) if "scale" in parts else "linear"
        node = parts["range"]
        if not isinstance(node, yaml.SequenceNode) or len(node.value) != 2:
            self._fault(node, f"{what}.range is {_shown(node)}; expected its two ends, e.g. [1.0e-4, 1.0e-2]")
            return None
        if scale is None:
            return None
        whole = scale.startswith("int")
        low, high = (self._number(end, f"{what}.range", whole) for end in node.value)
        step = self._number(parts["step"], f"{what}.step", whole) if "step" in parts else (1 if scale == "int" else None)
        if low is None or high is None:
            return None
        if low >= high:
            self._fault(node, f"{what}.range is from {low} to {high}; expected the lower end first")
            return None
        if scale.endswith("log") and low <= 0:
            self._fault(node.value[0], f"{what}.range begins at {low}; expected above 0, as its scale is {scale}")
            return None
        if "step" in parts and scale.endswith("log"):
            self._fault(parts["step"], f"{what}.step: scale {scale} has no steps; remove it, or list the values")
            return None
        if step is not None and (step <= 0 or abs((high - low) / step - round((high - low) / step)) > 1e-9):
            self._fault(parts["step"], f"{what}.step is {step}; expected a number that divides the width of the range, {high - low:.12g}")
            return None
        if method == "grid" and step is None:
            self._fault(node, f"{what}.range has no end of values, of which a grid takes all; give a step or list the values")
        for value in (low, high):
            self._places[f"{what}.{value!r}"] = _place(node)
        # 1 and 1.0 are one end, but a range of real numbers has real numbers in it.
        return Parameter(key, low=low if whole else float(low), high=high if whole else float(high), scale=scale, step=step)

    # ---- conditions

    def _with_conditions(self, parameters, nodes, keys):
        """The parameters that are right, with their conditions."""
        by_key = {parameter.key: parameter for parameter in parameters if parameter}
        complete = []
        for parameter, node in zip(parameters, nodes):
            if parameter is None:
                continue
            where = tuple(self._conditions(parameter.key, node, by_key, keys)) if node is not None else ()
            complete.append(Parameter(**{**vars(parameter), "where": where}))
        self._check_circles(complete, {p.key: n for p, n in zip(parameters, nodes) if p})
        return complete

    def _conditions(self, key, node, by_key, keys):
        what = f"parameters.{key}.where"
        if not isinstance(node, yaml.ScalarNode) or not node.value.strip():
            self._fault(node, f"{what} is {_shown(node)}; expected a condition, e.g. training.schedule == wsd")
            return
        for part in re.split(r"\s+and\s+", node.value.strip()):
            found = re.fullmatch(r"([\w.-]+)\s*(==|!=|<=|>=|<|>)\s*(\"[^\"]*\"|'[^']*'|[^\s=<>!]+)", part)
            if not found:
                self._fault(node, f"{what} is '{part}'; expected `key == value`, or != < <= > >=, several joined by `and`")
                continue
            other, sign, text = found.groups()
            if other == key or other not in keys:
                self._fault(node, f"{what} asks for '{other}', which is {'itself' if other == key else 'no parameter'}; expected "
                                  f"another parameter{'' if other == key else _meant(other, sorted(keys - {key}), '; did you mean')}")
                continue
            value = plain_value(text) if text[0] not in "\"'" else text[1:-1]
            if other in by_key and self._can_hold(what, node, by_key[other], sign, value):
                yield Condition(other, sign, value)

    def _can_hold(self, what, node, other, sign, value):
        numbers = all(type(v) in (int, float) for v in (value, *other.values))
        if sign not in ("==", "!=") and not numbers:
            self._fault(node, f"{what}: '{sign}' is for numbers, and {other.key} has others; expected == or !=")
        elif sign in ("==", "!=") and not other.contains(value):
            known = [str(v) for v in other.values]
            self._fault(node, f"{what}: {other.key} is never {value}"
                              f"{_meant(str(value), known, '; did you mean') or '; expected one of its values'}")
        elif not any(OPERATORS[sign](v, value) for v in other.values or (other.low, other.high)) and sign not in ("==", "!="):
            self._fault(node, f"{what}: {other.key} is never {sign} {value}; expected a value within those of {other.key}")
        else:
            return True
        return False

    def _check_circles(self, parameters, nodes):
        needs = {parameter.key: {condition.key for condition in parameter.where} for parameter in parameters}
        while free := [key for key, others in needs.items() if not others & set(needs)]:
            for key in free:
                del needs[key]
        if needs:
            self._fault(nodes[next(iter(needs))], f"the conditions of {', '.join(needs)} ask for each other; expected no circle")

    # ---- what hangs together

    def _base(self, node, instead):
        """(text, section -> key -> value) of the base configuration, whose contents dekoder itself checks."""
        if node is None:
            return "", {}
        if not isinstance(node, yaml.ScalarNode) or not node.value:
            self._fault(node, f"base is {_shown(node)}; expected the file of a run's configuration, e.g. talk.yaml")
            return "", {}
        path = Path(instead) if instead else Path(self._name).parent / node.value
        try:
            text = path.read_bytes().decode("utf-8")
            config = yaml.load(text, Loader=yaml.BaseLoader)
        except OSError as error:
            self._fault(node, f"base: {path} cannot be read: {error.strerror}; expected a configuration, relative to the folder of this file")
        except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
            self._fault(node, f"base: {path} is no YAML: {' '.join(str(error).split())}")
        else:
            return text, config if isinstance(config, dict) else {}
        return "", {}

    def _check_evaluations(self, node, halving, fixed, parameters, base):
        """A rung's loss is one that the run measures anyway."""
        if halving is None:
            return
        of_base = base.get("evaluation")
        periods = [fixed.get("evaluation.every", plain_value(str((of_base if isinstance(of_base, dict) else {}).get("every", ""))))]
        for parameter in parameters:
            if parameter.key == "evaluation.every":
                periods = parameter.grid() or [parameter.low, parameter.high]
        for period in periods:
            if type(period) is not int or period < 1 or halving.first_rung % period != 0:
                shown = "not given" if period in ("", None) else period
                self._fault(node, f"halving.first_rung is {halving.first_rung}, and evaluation.every is {shown}; expected a period that "
                                  f"divides it, so that each rung has its loss, e.g. set: {{evaluation.every: {halving.first_rung}}}")
                return

    def _trials(self, root, node, method, parameters):
        trials = self._whole(node, "trials", 1, MOST_TRIALS)
        if node is None and method != "grid":
            self._fault(root, "'trials' is missing; expected a number (a grid may leave it out)")
        if method != "grid" or self._faults:
            return trials
        grid = Definition("", "", 0, 0, 0, method, None, {}, tuple(parameters), {}, "").grid()
        size = sum(1 for _ in islice(grid, (trials or MOST_TRIALS) + 1))
        if trials is None and size > MOST_TRIALS:
            self._fault(root, f"the grid has more than {MOST_TRIALS} combinations; expected fewer values, or `trials`")
        elif trials is not None and size < trials:
            self._fault(node, f"trials is {trials}, but the grid has {size} combinations; expected at most that")
        return trials or size


_EXPECTED = {"base": "the file of a run's configuration, e.g. base: talk.yaml", "steps": "the optimizer steps of a trial, e.g. steps: 2000",
             "method": "one of " + ", ".join(METHODS), "parameters": "the keys that the sweep varies"}


def _scalar(node):
    return node.value if node.style else plain_value(node.value) if node.value else None


def _place(node):
    return node.start_mark.line + 1, node.start_mark.column + 1


def _shown(node):
    if isinstance(node, yaml.SequenceNode):
        return "a list" if node.value else "an empty list"
    if isinstance(node, yaml.MappingNode):
        return "a map"
    if node is None or not (node.value or node.style):
        return "nothing"
    return "'" + (node.value if len(node.value) <= 60 else node.value[:57] + "...") + "'"


def _meant(word, known, ask=None):
    """What was meant: the nearest known one."""
    close = difflib.get_close_matches(word, known, 1, 0.6)
    if ask:
        return f"{ask} '{close[0]}'?" if close else ""
    return f"; did you mean '{close[0]}'?" if close else f"; expected one of {', '.join(known)}"
