# SPDX-License-Identifier: Apache-2.0
"""The folder of a sweep, which is all of its state.

    sweep.yaml      what the sweep is, as it was given
    base.yaml       the base configuration, as it was then
    trials.jsonl    the settings of each planned trial (those of TPE are in the claims, as they depend on the other trials)
    claims/         who works on which trial, and how far it came: see claims.py
    changes/        who made the sweep or added to it, as claims, so that one at a time does
    trials/0007/    the run directory of trial 7, an ordinary one: `dekoder status`, `watch`, `compare` and `report` work on it
    logs/0007.log   what `dekoder train` said"""
from __future__ import annotations

import contextlib
import json
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ..errors import RunError
from ..files import names_in, present, read_file
from ..run_lock import LOCK_TIMEOUT
from .claims import FINISHED, GIVEN_BACK, Claimed, Claims
from .definition import DefinitionError, read_definition
from .fault_point import fault_point
from .samplers import planned
from .shared_file import is_half_written, remove_left_over, replace_whole

WAITING, RUNNING = "waiting", "running"
"""What a trial may be besides the outcomes of a claim."""
MARKS = ("sweep.yaml", "trials.jsonl", "claims")
"""What every folder of a sweep has."""
PATIENCE = 60.0
"""Seconds for which another process may make or change the sweep, before this one gives up."""


@dataclass(frozen=True)
class Trial:
    """A trial as its claims tell it. A trial that is given back is to be taken up again, where it was, up to `target`."""

    index: int
    state: str
    settings: Optional[dict]  # None: not drawn yet (TPE)
    claims: int = 0  # number of the last one
    target: int = 0  # step up to which it is, or was, to be trained; 0: not known
    step: int = 0  # saved
    losses: dict = None  # rung's step -> best validation loss up to there, nats per token; inf: diverged before
    best_loss: Optional[float] = None
    best_step: Optional[int] = None
    crashes: int = 0  # in a row, without a further checkpoint
    message: str = ""


class SweepFolder:
    def __init__(self, path):
        """Raises RunError where `path` is no folder of a sweep."""
        self.path = Path(path)
        for name in MARKS:
            if not present(self.path / name):
                raise RunError(f"{path}: is no folder of a sweep, as it has no {name}; expected one that `dekoder-sweep SWEEP.yaml FOLDER` made")
        self.claims = Claims(self.path / "claims")
        self._stamp = None
        self._refresh()

    @property
    def base(self) -> Path:
        return self.path / "base.yaml"

    def run(self, index) -> Path:
        """The run directory of a trial."""
        return self.path / "trials" / f"{index:04d}"

    def log(self, index) -> Path:
        return self.path / "logs" / f"{index:04d}.log"

    def _refresh(self):
        """Trials may have been added."""
        files = (self.path / "sweep.yaml", self.path / "trials.jsonl")
        stamp = [(found.st_ino, found.st_mtime_ns, found.st_size) for found in map(os.stat, files)]
        if stamp != self._stamp:
            try:
                self.definition = read_definition(files[0], self.base)
            except DefinitionError as error:
                raise RunError(f"{files[0]}: was changed by hand: {error.lines[0]}; {_REMEDY}") from error
            self.planned = read_plan(files[1], self.definition)  # after it: the plan grows first
            self._stamp = stamp

    def look(self) -> list:
        """All trials (Trial), by number."""
        self._refresh()
        claimed = self.claims.look()
        return [self._trial(index, claimed.get(index)) for index in range(self.definition.trials)]

    def _trial(self, index, claimed: Optional[Claimed]) -> Trial:
        settings = self.planned[index] if index < len(self.planned) else None
        if claimed is None:
            return Trial(index, WAITING, settings, losses={})
        content, outcome = claimed.content or {}, claimed.outcome or claimed.earlier or {}
        state = claimed.outcome["state"] if claimed.outcome else GIVEN_BACK if self.claims.dead(index, claimed) else RUNNING
        losses = {int(step): math.inf if loss is None else loss for step, loss in outcome.get("losses", {}).items()}
        return Trial(index, state, content.get("settings", settings), claimed.number, content.get("target", 0), outcome.get("step", 0), losses,
                     outcome.get("best_loss"), outcome.get("best_step"), outcome.get("crashes", 0), outcome.get("message", ""))


_REMEDY = "bring it back, or make the sweep in another folder"


def read_plan(path, definition) -> list:
    """Settings of the planned trials of a sweep, none for TPE. What is planned beyond `definition`, by a process that died as it added
    trials, is none of it. Raises RunError, also where a trial has none: they can be drawn once only, as the sweep may have grown."""
    try:
        lines = [json.loads(line) for line in read_file(path).decode("utf-8").splitlines()]
        settings = [line["settings"] for line in lines]
        if [line["trial"] for line in lines] != list(range(len(lines))) or not all(isinstance(of_trial, dict) for of_trial in settings):
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RunError(f"{path}: is no list of trials; expected what dekoder-sweep wrote; {_REMEDY}") from error
    if definition.method != "tpe" and len(settings) < definition.trials:
        raise RunError(f"{path}: has settings of {len(settings)} trials, and sweep.yaml beside it says {definition.trials}; expected a line for each, "
                       f"as `dekoder-sweep SWEEP.yaml FOLDER` writes them, also to add trials; if one of the files was changed, {_REMEDY}")
    return settings[:definition.trials]


def _plan_lines(settings):
    return "".join(json.dumps({"trial": index, "settings": of_trial}, ensure_ascii=False) + "\n"
                   for index, of_trial in enumerate(settings)).encode()


def make_sweep(definition, path) -> int:
    """Makes the folder of a sweep, or adds to it what `definition` has more: trials, parameters, values, wider ranges. Trials
    planned before stay. Returns how many trials are new. Raises DefinitionError where another sweep is there, RunError where
    something else is, OSError."""
    path = Path(path)
    made_so_far(definition, path)  # else nothing is written
    for name in ("claims", "trials", "logs", "changes"):
        (path / name).mkdir(parents=True, exist_ok=True)
    with _alone(path):
        folder = made_so_far(definition, path)  # by now
        remove_left_over(path, LOCK_TIMEOUT)
        if folder is None:
            replace_whole(path / "base.yaml", definition.base_text.encode(), "sweep:base")
            fault_point("sweep:base")
        replace_whole(path / "trials.jsonl", _plan_lines(planned(definition, folder.planned if folder else [])), "sweep:plan")
        fault_point("sweep:planned")
        replace_whole(path / "sweep.yaml", definition.text.encode(), "sweep:definition")  # the last: it says that there is a sweep
    return definition.trials - (folder.definition.trials if folder else 0)


def made_so_far(definition, path):
    """The SweepFolder that `definition` may be put into; None where there is none so far. Raises DefinitionError and RunError."""
    path = Path(path)
    if all(present(path / name) for name in MARKS):
        folder = SweepFolder(path)
        if lines := differences(folder.definition, definition):
            raise DefinitionError([*lines, f"this is another sweep than that in {path}; give what that one has, or choose another folder"])
        return folder
    strangers = set(names_in(path)) - {"base.yaml", "trials.jsonl", "claims", "trials", "logs", "changes"}
    if strangers := sorted(name for name in strangers if not is_half_written(name)):
        raise RunError(f"{path}: is no folder of a sweep, and not empty: it has {strangers[0]}; choose another folder")
    return None


@contextlib.contextmanager
def _alone(path):
    """No other process makes or changes the sweep in `path` meanwhile. Raises RunError where one does, and does not end."""
    claims, end = Claims(path / "changes"), time.monotonic() + PATIENCE
    claims.remove_left_over()
    claim = None
    while claim is None:
        last = claims.look().get(0)
        if last is None or last.outcome is not None or claims.dead(0, last):
            claim = claims.take(0, last.number + 1 if last else 1, {}, 0)
        elif time.monotonic() > end:
            holder = (last.content or {}).get("holder")
            who = f"process {holder['pid']} of {holder['host']}" if holder else "not known which"
            raise RunError(f"{path}: another process makes this sweep or adds to it: {who}; wait until it has ended, and give the command again")
        else:
            time.sleep(0.1)
    try:
        yield
    finally:
        claim.end({"state": FINISHED})  # that it is over is all that is asked


def differences(before, now) -> list:
    """Lines on what makes `now` another sweep than `before`, and no larger one."""
    lines = []

    def differs(place, what, was, is_):
        lines.append(now.fault(place, f"{what} is {is_}, and was {was}"))

    if now.base_text != before.base_text:
        lines.append(now.fault("base", "the base configuration is another one than it was"))
    for key in ("method", "steps", "seed", "halving"):
        was, is_ = getattr(before, key), getattr(now, key)
        if was != is_:
            differs(key, key, was if key != "halving" else _halving_text(was), is_ if key != "halving" else _halving_text(is_))
    if now.trials < before.trials:
        differs("trials", "trials", before.trials, now.trials)
    for key in {**before.fixed, **now.fixed}:
        if before.fixed.get(key) != now.fixed.get(key):
            place = f"set.{key}" if key in now.fixed else "base"
            differs(place, key, before.fixed.get(key, "not set"), now.fixed.get(key, "not set"))
    by_key = {parameter.key: parameter for parameter in now.parameters}
    for parameter in before.parameters:
        other = by_key.get(parameter.key)
        if other is None:
            lines.append(now.fault("parameters", f"{parameter.key} is no parameter any more"))
        elif not parameter.is_part_of(other):
            lines.append(now.fault(f"parameters.{parameter.key}", f"{parameter.key} has lost values that it had, or has another scale, step or condition"))
    return lines


def _halving_text(halving):
    return "none" if halving is None else f"first_rung {halving.first_rung}, factor {halving.factor}"
