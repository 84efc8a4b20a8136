# SPDX-License-Identifier: Apache-2.0
"""Conditions on runs: "training.batch>16 and model.norm==pre".

    condition   = alternative {"or" alternative}
    alternative = part {"and" part}
    part        = "not" part | "(" condition ")" | KEY comparison
    comparison  = ("==" | "!=" | "<" | "<=" | ">" | ">=") value | ["not"] "in" "[" value {"," value} "]"
    value       = number | true | false | none | bare word | "text" | 'text' | "[" values "]" (behind == and != alone)

A value is taken as what it is compared with: `none` is the text of `model.positions: none`, and nothing where a number is
not known; a date (2026-11-28, "2026-11-28 07:16", UTC) is seconds since 1970 to `created`. What a run does not have compares
with none alone: else, as in SQL, neither a comparison nor its negation holds.
"""
from __future__ import annotations

import contextlib
import operator
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Callable, Optional

from ..visible_text import shortened

_TOKEN = re.compile(r"""\s*(?:(?P<sign>[<>=!]=|[<>()\[\],])|(?P<quoted>"[^"]*"|'[^']*')|(?P<word>[^\s<>=!()\[\],"']+)|(?P<end>\Z))""")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_COMPARE = {"==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


class ConditionError(Exception):
    """The condition cannot be understood; one message, with the place in it."""


@dataclass
class _Token:
    kind: str  # sign, quoted, word, end
    text: str  # without quotes
    column: int  # from 1


def compile_condition(text, find) -> Callable[[Any], bool]:
    """Whether a run meets the condition `text`, as a function of the run. find(key) gives the function that takes a
    value of a key from a run (None: it has none), or raises ValueError with what is wrong with the key. Raises
    ConditionError, the function too: where a value is of another kind than what it is compared with."""
    parser = _Parser(text, find)
    try:
        test = parser.alternatives()
    except RecursionError as error:
        raise ConditionError("it is nested too deeply") from error
    if parser.next.kind != "end":
        parser.fail("'and', 'or' or the end")
    return lambda run: test(run) is True


class _Parser:
    """Makes functions of a run that return True, False or None: not known."""

    def __init__(self, text, find):
        self._text, self._find = text, find
        self._tokens = _tokens(text)
        self.next = next(self._tokens)

    def fail(self, expected):
        at = f"{shortened(self.next.text)!r} stands there" if self.next.kind != "end" else "it ends there"
        raise ConditionError(f"column {self.next.column}: {at}; expected {expected}, as in "
                             "training.batch>16 and model.norm==pre")

    def _take(self):
        token = self.next
        if token.kind != "end":
            self.next = next(self._tokens)
        return token

    def _is(self, *texts):
        return self.next.kind in ("sign", "word") and self.next.text in texts

    def _expect(self, text):
        if not self._is(text):
            self.fail(repr(text))
        self._take()

    def alternatives(self):
        tests = self._sequence("or", self._parts)
        return tests[0] if len(tests) == 1 else lambda run: _any(test(run) for test in tests)

    def _parts(self):
        tests = self._sequence("and", self._part)
        return tests[0] if len(tests) == 1 else lambda run: _negated(_any(_negated(test(run)) for test in tests))

    def _sequence(self, word, part):
        parts = [part()]
        while self._is(word):
            self._take()
            parts.append(part())
        return parts

    def _part(self):
        if self._is("not"):
            self._take()
            test = self._part()
            return lambda run: _negated(test(run))
        if self._is("("):
            self._take()
            test = self.alternatives()
            self._expect(")")
            return test
        return self._comparison()

    def _comparison(self):
        if self.next.kind == "sign" or self._is("and", "or", "in") or self.next.kind == "end":
            self.fail("a key")
        key = self._take()
        try:
            value_of = self._find(key.text)
        except ValueError as error:
            raise ConditionError(f"column {key.column}: {error}") from error
        if self._is("not", "in"):
            negative = self._take().text == "not"
            if negative:
                self._expect("in")
            if not self._is("["):
                self.fail("'['")
            literals = self._list()

            def test(run):
                return _any(_compare(key, value_of(run), "==", literal) for literal in literals)

            return (lambda run: _negated(test(run))) if negative else test
        if not self._is(*_COMPARE):
            self.fail("== != < <= > >= or in")
        sign = self._take().text
        literal = self._list() if sign in ("==", "!=") and self._is("[") else self._literal()
        return lambda run: _compare(key, value_of(run), sign, literal)

    def _list(self):
        self._take()
        values = [] if self._is("]") else [self._literal()]
        while values and not self._is("]"):
            if not self._is(","):
                self.fail("',' or ']'")
            self._take()
            values.append(self._literal())
        self._expect("]")
        return values

    def _literal(self):
        if self.next.kind not in ("word", "quoted"):
            self.fail("a value")
        return self._take()


def _tokens(text):
    at = 0
    while True:
        found = _TOKEN.match(text, at)
        if not found:
            at += len(text[at:]) - len(text[at:].lstrip())
            hint = {"=": "; equal is ==", "!": "; not equal is !="}.get(text[at], "; its other end is missing")
            raise ConditionError(f"column {at + 1}: {text[at]!r} is no sign{hint}")
        kind = found.lastgroup
        yield _Token(kind, found[kind][1:-1] if kind == "quoted" else found[kind], found.start(kind) + 1)
        at = found.end()


def _any(results) -> Optional[bool]:
    """Of True, False, None (not known): Kleene's or."""
    results = list(results)
    return True if True in results else None if None in results else False


def _negated(result) -> Optional[bool]:
    return None if result is None else not result


def _compare(key, value, sign, literal) -> Optional[bool]:
    """value: of the run. Raises ConditionError."""
    nothing = isinstance(literal, _Token) and literal.kind == "word" and literal.text == "none"
    if value is None or (nothing and not isinstance(value, str)):
        return (value is None) == (sign == "==") if nothing and sign in ("==", "!=") else None
    if isinstance(value, list) or isinstance(literal, list):
        same = isinstance(value, list) and isinstance(literal, list) and len(value) == len(literal) and \
            all(_compare(key, inner, "==", of) for inner, of in zip(value, literal))
        return same == (sign == "==")
    if sign not in ("==", "!=") and isinstance(value, (bool, str)):
        kind = "a text" if isinstance(value, str) else "true or false"
        raise ConditionError(f"column {key.column}: {key.text} is {kind} ({shortened(str(value))}), which has no order; expected == or !=")
    return _COMPARE[sign](value, _as(key, value, literal))


def _as(key, value, literal):
    """The literal as the kind that the value is of."""
    if isinstance(value, str):
        return literal.text
    if isinstance(value, bool):
        if literal.text in ("true", "false"):
            return literal.text == "true"
        kind = "true or false"
    else:
        if _NUMBER.fullmatch(literal.text):
            whole = literal.text.lstrip("+-").isdigit() and len(literal.text) < 100
            return int(literal.text) if whole else float(literal.text)
        kind = "a number"
        if key.text == "created":
            kind = "a date or seconds since 1970"
            with contextlib.suppress(ValueError):
                return datetime.fromisoformat(literal.text.rstrip("Z")).replace(tzinfo=timezone.utc).timestamp()
    raise ConditionError(f"column {literal.column}: {shortened(literal.text)!r} is no value of {key.text}, which is {kind}")
