# SPDX-License-Identifier: Apache-2.0
"""Reads what a sweep is from its YAML file, strictly: every mistake at once, each with line and column."""
from __future__ import annotations

import difflib
import math
import os
import re
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Optional

import yaml

from ..errors import RunError
from ..files import read_file
from ..visible_text import visible_token
from .combinations import combinations, never_in_force
from .halving import rungs
from .parameters import OPERATORS, SCALES, Condition, Parameter, in_force, plain_value, same

METHODS = ("grid", "random", "quasi-random", "tpe")
KEYS = ("base", "steps", "trials", "seed", "method", "halving", "set", "parameters")
MOST_TRIALS = 100_000
MOST_BYTES = 1_000_000
MOST_KEYS = 200
MOST_VALUES = 1000
MOST_DEEP = 20
"""Of a file, of `set` or `parameters`, of a list, of maps and lists in each other: more is a mistake, and would take long to tell."""
WHOLE, REAL = (-(2**63), 2**64 - 1), (-1e100, 1e100)
"""Ends of ranges, whose widths are to be numbers, too."""
FIXED = {"training.steps": "it is the budget: give `steps` instead",
         "data.tokens": "losses of several texts cannot be compared: name one under `set`",
         "evaluation.tokens": "losses of several validation texts cannot be compared: give one under `set`"}
"""Keys that no parameter may have."""


class DefinitionError(Exception):
    """`lines`: one for each mistake, "sweep.yaml:3:11: what, what was expected". `places`: as a Definition's, of what could be read."""

    def __init__(self, lines, places=()):
        super().__init__("\n".join(lines))
        self.lines = lines
        self.places = dict(places)


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
        return combinations(self.parameters)

    def fault(self, place, text) -> str:
        """A line of a DefinitionError on what stands at a place of `places`."""
        line, column = self.places[place]
        return f"{self.name}:{line}:{column}: {text}"


def read_definition(path, base=None) -> Definition:
    """Reads the file `path`, and the base configuration that it names, relative to its folder, or the file `base` instead.
    Raises DefinitionError, and RunError where the file itself cannot be read."""
    return _Reader(os.fspath(path)).read(read_file(path), base)


class _Shallow:
    """Of a loader of PyYAML, which goes down by Python's stack."""

    _deep = 0

    def compose_node(self, parent, index):
        if self._deep == MOST_DEEP:
            raise yaml.MarkedYAMLError(problem=f"more than {MOST_DEEP} maps and lists in each other", problem_mark=self.peek_event().start_mark)
        self._deep += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._deep -= 1


class _Loader(_Shallow, yaml.SafeLoader):
    pass


class _BaseLoader(_Shallow, yaml.BaseLoader):
    pass


_YAML_ERRORS = (yaml.YAMLError, ValueError, OverflowError, RecursionError)
"""ValueError, OverflowError: "\\U00110000" and its like, of which PyYAML makes no error of its own."""
_CONDITION = re.compile(r"""([\w.-]+)\s*(==|!=|<=|>=|<|>)\s*("[^"]*"|'[^']*'|\[(?:"[^"]*"|'[^']*'|[^]"'])*]|[^\s=<>!\["'][^\s=<>!]*)(?:\s+and\s+|\Z)""",
                        re.ASCII)


class _Reader:
    def __init__(self, name):
        self._name = name
        self._faults = []  # (line, column, text)
        self._places = {}

    # ---- mistakes

    def _fault(self, node, text):
        self._fault_at(*_place(node), text)

    def _fault_at(self, line, column, text):
        self._faults.append((line, column, visible_token(text, spaces=False)))  # what is quoted may be anything

    def _throw(self):
        if self._faults:
            raise DefinitionError([f"{self._name}:{line}:{column}: {text}" for line, column, text in sorted(self._faults)], self._places)

    # ---- the file

    def read(self, content, base):
        root = self._root(content)
        self._check_texts(root)
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
        documents, loader = [], None
        try:
            if len(content) > MOST_BYTES:
                self._fault_at(1, 1, f"has {len(content)} bytes; expected at most {MOST_BYTES}")
                return None
            text = content.decode("utf-8")
            loader = _Loader(text)
            while loader.check_node():
                documents.append(loader.get_node())
        except UnicodeDecodeError as error:
            self._fault_at(*_position(content, error.start, b"\n"), f"byte 0x{content[error.start]:02X} is no UTF-8; save the file in that encoding")
            return None
        except yaml.reader.ReaderError as error:
            self._fault_at(*_position(text, error.position, "\n"), f"character {error.character:04X}: not valid YAML: remove it")
            return None
        except _YAML_ERRORS as error:
            reason = getattr(error, "problem", None) or str(error)
            mark = getattr(error, "problem_mark", None) or loader.get_mark()
            self._fault(mark, f"not valid YAML: {' '.join(reason.split())}; indent with spaces and write `key: value`")
            return None
        if not documents:
            self._fault_at(1, 1, "is empty; expected base, steps, trials, method and parameters")
        elif len(documents) > 1:
            self._fault(documents[1], "a second YAML document; expected one: remove the line `---`")
        elif not isinstance(documents[0], yaml.MappingNode):
            self._fault(documents[0], f"is {_shown(documents[0])}; expected lines `base: ...`, `steps: ...`")
        else:
            return documents[0]
        return None

    def _check_texts(self, root):
        """No configuration, name of a file or word of a command has these characters, which YAML can write."""
        seen, left = set(), [root] if root is not None else []
        while left:
            node = left.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if isinstance(node, yaml.MappingNode):
                left += [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                left += node.value
            elif found := re.search("[\0\ud800-\udfff]", node.value):
                self._fault(node, f"{_shown(node)} has the character U+{ord(found[0]):04X}, which is none of a text; remove it")

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
                self._fault(key, f"unknown key {_quoted(word)}{inside}{_meant(word, known)}")
            else:
                found[word] = value
        return found

    def _setting_keys(self, node, what):
        """[(section.key, its node, value's node)] of `set` or `parameters`."""
        found = {}
        if not isinstance(node, yaml.MappingNode):
            self._fault(node, f"{what} is {_shown(node)}; expected lines such as `training.batch: ...`")
            return []
        if len(node.value) > MOST_KEYS:
            self._fault(node, f"{what} has {len(node.value)} keys; expected at most {MOST_KEYS}")
            return []
        for key, value in node.value:
            word = key.value if isinstance(key, yaml.ScalarNode) else _shown(key)
            if not re.fullmatch(r"[a-z_]\w*\.[a-z_]\w*", word, re.ASCII):
                self._fault(key, f"{_quoted(word)} in {what} is no key of a run's configuration; expected section.key, e.g. training.batch")
            elif word in found:
                self._fault(key, f"{_quoted(word)} stands here a second time; remove one")
            else:
                found[word] = (key, value)
                self._places[f"{what}.{word}"] = _place(key)
        return [(word, *nodes) for word, nodes in found.items()]

    # ---- values

    def _value(self, node, what):
        """A setting: text, number, true or false, or a list of them; None after a mistake."""
        if isinstance(node, yaml.SequenceNode):
            if len(node.value) > MOST_VALUES:
                self._fault(node, f"{what} has a list of {len(node.value)} elements; expected at most {MOST_VALUES}")
                return None
            if all(isinstance(element, yaml.ScalarNode) for element in node.value):
                return [self._value(element, what) for element in node.value]
        elif isinstance(node, yaml.ScalarNode):
            value = _scalar(node)
            if value is not None and not (type(value) is float and not math.isfinite(value)):
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
        if len(node.value) > MOST_VALUES:
            self._fault(node, f"{what}.values has {len(node.value)} values; expected at most {MOST_VALUES}, or a range")
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
        if low is None or high is None or ("step" in parts and step is None):
            return None
        least, greatest = WHOLE if whole else REAL
        if beyond := [end for end, value in zip(node.value, (low, high)) if not least <= value <= greatest]:
            self._fault(beyond[0], f"{what}.range ends at {_shown(beyond[0])}; expected a number from {least} to {greatest}")
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
        if step is not None and not _divides(step, high - low):
            self._fault(parts["step"], f"{what}.step is {step}; expected a number that divides the width of the range, {high - low:.12g}")
            return None
        if method == "grid" and step is None:
            self._fault(node, f"{what}.range has no end of values, of which a grid takes all; give a step or list the values")
            return None
        for value in (low, high):
            self._places[f"{what}.{value!r}"] = _place(node)
        # 1 and 1.0 are one end, but a range of real numbers has real numbers in it.
        parameter = Parameter(key, low=low if whole else float(low), high=high if whole else float(high), scale=scale, step=step)
        if method == "grid" and parameter.count > MOST_TRIALS:
            self._fault(node, f"{what}.range has {parameter.count} values, of which a grid takes all; expected at most {MOST_TRIALS}: give a "
                              "greater step or list the values")
            return None
        return parameter

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
        nodes = {parameter.key: node for parameter, node in zip(parameters, nodes) if parameter}
        self._check_circles(complete, nodes)
        for key, without in never_in_force(complete):
            self._fault(nodes[key], f"parameters.{key}.where is never true: {without} has no value for all that is asked of it, by the "
                                    "conditions of what is asked for, too; expected conditions that can hold together")
        return complete

    def _conditions(self, key, node, by_key, keys):
        what = f"parameters.{key}.where"
        if not isinstance(node, yaml.ScalarNode) or not node.value.strip():
            self._fault(node, f"{what} is {_shown(node)}; expected a condition, e.g. training.schedule == wsd")
            return
        words, begin = node.value.strip(), 0
        while begin < len(words):
            found = _CONDITION.match(words, begin)
            if not found:
                self._fault(node, f"{what} is {_quoted(words[begin:])}; expected `key == value`, or != < <= > >=, several joined by `and`")
                return
            begin = found.end()
            other, sign, text = found.groups()
            if other == key or other not in keys:
                self._fault(node, f"{what} asks for {_quoted(other)}, which is {'itself' if other == key else 'no parameter'}; expected "
                                  f"another parameter{'' if other == key else _meant(other, sorted(keys - {key}), '; did you mean')}")
                continue
            value = _compared(text)
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
        """(text, section -> key -> value) of the base configuration, whose contents dekoder itself checks; ("", None) after a mistake."""
        if node is None:
            return "", None
        if not isinstance(node, yaml.ScalarNode) or not node.value:
            self._fault(node, f"base is {_shown(node)}; expected the file of a run's configuration, e.g. talk.yaml")
            return "", None
        path = Path(instead) if instead else Path(self._name).parent / node.value
        try:
            content = read_file(path)
            if len(content) > MOST_BYTES:
                raise RunError(f"{path}: has {len(content)} bytes; expected the configuration of a run")
            text = content.decode("utf-8")
            config = yaml.load(text, Loader=_BaseLoader)
        except RunError as error:
            self._fault(node, f"base: {error}; its name is relative to the folder of this file")
        except _YAML_ERRORS as error:
            self._fault(node, f"base: {path} is no YAML: {' '.join(str(error).split())}")
        else:
            return text, config if isinstance(config, dict) else {}
        return "", None

    def _check_evaluations(self, node, halving, fixed, parameters, base):
        """A rung's loss is one that the run measures anyway."""
        if halving is None:
            return
        key = "evaluation.every"
        if f"parameters.{key}" in self._places:
            periods = (period for p in parameters if p.key == key for period in p.grid() or (p.low, p.high))  # may be many
        elif key in fixed:
            periods = [fixed[key]] if fixed[key] is not None else []
        else:
            of_base = base.get("evaluation") if base else None
            every = of_base.get("every", "") if isinstance(of_base, dict) else ""
            periods = [plain_value(every if isinstance(every, str) else "")] if base is not None else []
        for period in periods:  # none where its mistake is told already
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
        size = sum(1 for _ in islice(combinations(parameters), (trials or MOST_TRIALS) + 1))
        if trials is None and size > MOST_TRIALS:
            self._fault(root, f"the grid has more than {MOST_TRIALS} combinations; expected fewer values, or `trials`")
        elif trials is not None and size < trials:
            self._fault(node, f"trials is {trials}, but the grid has {size} combinations; expected at most that")
        return trials or size


_EXPECTED = {"base": "the file of a run's configuration, e.g. base: talk.yaml", "steps": "the optimizer steps of a trial, e.g. steps: 2000",
             "method": "one of " + ", ".join(METHODS), "parameters": "the keys that the sweep varies"}


def _scalar(node):
    return node.value if node.style else plain_value(node.value) if node.value else None


def _compared(text):
    """The value that a condition compares with: a list, a text in quotes, or what a plain scalar is."""
    if text[0] == "[":
        try:
            node = yaml.compose(text, Loader=_Loader)
        except _YAML_ERRORS:
            return text
        return [_scalar(element) if isinstance(element, yaml.ScalarNode) else None for element in node.value]
    return plain_value(text) if text[0] not in "\"'" else text[1:-1]


def _divides(step, width):
    """Whether there is at least one step, and no rest of one."""
    if step <= 0:
        return False
    if type(step) is int and type(width) is int:
        return width % step == 0
    count = width / step
    return count < 2**53 and round(count) >= 1 and abs(count - round(count)) <= 1e-9


def _place(node):
    """Line and column of a node or mark, from 1."""
    mark = getattr(node, "start_mark", node)
    return mark.line + 1, mark.column + 1


def _position(content, index, line_end):
    """Line and column of a byte or character, from 1."""
    before = content[:index]
    return before.count(line_end) + 1, len(before) - before.rfind(line_end)


def _shown(node):
    if isinstance(node, yaml.SequenceNode):
        return "a list" if node.value else "an empty list"
    if isinstance(node, yaml.MappingNode):
        return "a map"
    if node is None or not (node.value or node.style):
        return "nothing"
    return _quoted(node.value)


def _quoted(text):
    return "'" + (text if len(text) <= 60 else text[:57] + "...") + "'"


def _meant(word, known, ask=None):
    """What was meant: the one that it is a longer or shorter form of, as `integer` of int, else the nearest known one."""
    forms = [one for one in known if len(word) > 2 and (word.startswith(one) or one.startswith(word))]
    close = forms or difflib.get_close_matches(word[:60], known, 1, 0.6)
    if ask:
        return f"{ask} '{close[0]}'?" if close else ""
    return f"; did you mean '{close[0]}'?" if close else f"; expected one of {', '.join(known)}"
