# SPDX-License-Identifier: Apache-2.0
"""Who works on which trial: the folder `claims` of a sweep, which only grows.

    0007.0001.claim    the first claim of trial 7: its settings, how far it is to be trained, and the process that holds it
    0007.0001.outcome  that claim is over: how far the trial came

A trial belongs to the claim of the highest number. It is free where that one has an outcome, or its holder is dead; then whoever
makes the file of the next number has it, which one of all can (create_alone). Nothing is ever renamed away, taken back or
deleted, so what is read late is out of date at worst, and leads to a name that exists already; and a process that was taken for
dead and wakes up writes an outcome that nobody looks at. A holder touches its claim every ten seconds."""
from __future__ import annotations

import contextlib
import json
import math
import os
import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ..files import read_file
from ..run_lock import LOCK_TIMEOUT, own_start, process_lives, this_boot
from .fault_point import fault_point
from .shared_file import create_alone, file_system_time, remove_left_over, replace_whole

HEARTBEAT = 10.0
"""Seconds between two touches of a claim by its holder."""
# What an outcome may say of a trial; paused is one that was trained to its rung.
FINISHED, PAUSED, GIVEN_BACK, FAILED, STOPPED = "finished", "paused", "given back", "failed", "stopped"
OUTCOMES = (FINISHED, PAUSED, GIVEN_BACK, FAILED, STOPPED)
_NOTHING_KNOWN = {"state": GIVEN_BACK, "step": 0, "losses": {}, "best_loss": None, "best_step": None, "crashes": 0,
                  "message": "its outcome cannot be read"}
"""Of a claim that is over: the trial is taken up again, and its run directory tells how far it is."""
_NAME = re.compile(r"(\d{4,})\.(\d{4,})\.(claim|outcome)\Z")


@dataclass(frozen=True)
class Claimed:
    """The last claim of a trial, as it was found."""

    number: int
    content: Optional[dict]  # settings, target, holder; None where it cannot be read
    outcome: Optional[dict]  # of this claim; None while it is held; that of a trial given back where it cannot be read
    earlier: Optional[dict]  # the newest outcome of an earlier claim


class Claims:
    """The folder of the claims of a sweep. What does not change is read once."""

    def __init__(self, folder):
        self.folder = Path(folder)
        self._read = {}  # name -> content
        self._now = None  # of the last look, by the file system's clock; None: not asked yet

    def look(self) -> dict:
        """Trial -> Claimed, of all trials that were ever claimed."""
        newest, outcomes, self._now = {}, {}, None
        for name in os.listdir(self.folder):
            found = _NAME.match(name)
            if found and name == _name(trial := int(found[1]), number := int(found[2]), found[3]):
                if found[3] == "claim":
                    newest[trial] = max(number, newest.get(trial, 0))
                else:
                    outcomes.setdefault(trial, {})[number] = name
        looked = {}
        for trial, number in newest.items():
            of_trial = outcomes.get(trial, {})
            before = max((n for n in of_trial if n < number), default=None)
            looked[trial] = Claimed(number, self._content(_name(trial, number, "claim"), _CLAIM),
                                    self._content(of_trial[number], _OUTCOME) or _NOTHING_KNOWN if number in of_trial else None,
                                    self._content(of_trial[before], _OUTCOME) if before else None)
        return looked

    def _content(self, name, fields):
        """None where it is not what dekoder-sweep writes. Where there are no hard links a claim appears before its contents."""
        if name not in self._read:
            try:
                content = json.loads(read_file(self.folder / name))
            except (ValueError, RecursionError):
                return None
            if not _has(content, fields):
                return None
            self._read[name] = content
        return self._read[name]

    def dead(self, trial, claimed) -> bool:
        """Whether the holder of the last claim has ended without an outcome. A process of this boot of this machine, in this
        PID namespace, is looked at, and an earlier start of this process's Slurm job is dead; of any other the age of its last
        touch decides, by the file system's clock."""
        holder, here = (claimed.content or {}).get("holder"), this_process()
        if holder:
            if holder["job"] and holder["job"] == here["job"] and holder["job_restarts"] < here["job_restarts"]:
                return True
            if (holder["boot"], holder["namespace"]) == this_boot() and "-" not in this_boot():
                return not process_lives(holder["pid"], holder["start"])
        path = self.folder / _name(trial, claimed.number, "claim")
        if self._now is None:
            self._now = file_system_time(self.folder) or time.time()
        age = self._now - os.stat(path).st_mtime
        if age < -LOCK_TIMEOUT:  # dated far ahead, by hand or by a clock that was put back since: it counts from now
            with contextlib.suppress(OSError):  # who only looks may not be allowed to
                os.utime(path)
        return age >= LOCK_TIMEOUT

    def take(self, trial, number, settings, target) -> Optional["Claim"]:
        """Claim `number` of the trial; None where another process has it."""
        content = {"trial": trial, "settings": settings, "target": target, "holder": this_process()}
        path = self.folder / _name(trial, number, "claim")
        if not create_alone(path, _json(content), "sweep:claim"):
            return None
        fault_point("sweep:claimed")
        return Claim(self.folder, trial, number, settings, target)

    def taken_over(self, claim) -> bool:
        """Whether the claim before this one was never ended: its holder was killed."""
        return claim.number > 1 and not (self.folder / _name(claim.trial, claim.number - 1, "outcome")).exists()

    def remove_left_over(self):
        remove_left_over(self.folder, LOCK_TIMEOUT)


class Claim:
    """A claim that this process holds."""

    def __init__(self, folder, trial, number, settings, target):
        self.trial, self.number, self.settings, self.target = trial, number, settings, target
        self._folder = folder
        self._path = folder / _name(trial, number, "claim")
        self._touched = time.monotonic()
        self.lost = False  # another process has it

    def beat(self) -> bool:
        """Touches the claim where it is time to; False where another process has taken the trial, as one may from a process
        that was stopped, or cut off from its disk, for LOCK_TIMEOUT."""
        if time.monotonic() - self._touched >= HEARTBEAT:
            self._touched = time.monotonic()
            with contextlib.suppress(OSError):  # the disk may come back; meanwhile the run's own lock decides
                os.utime(self._path)
            self.lost = (self._folder / _name(self.trial, self.number + 1, "claim")).exists()
        return not self.lost

    def end(self, outcome):
        """Gives the trial free. Raises OSError where the outcome cannot be written: then the claim ends with this process."""
        replace_whole(self._folder / _name(self.trial, self.number, "outcome"), _json(outcome), "sweep:outcome")
        fault_point("sweep:outcome")


def this_process() -> dict:
    """What tells this process from any other on any machine."""
    boot, namespace = this_boot()
    restarts = os.environ.get("SLURM_RESTART_COUNT", "")
    return {"host": socket.gethostname(), "boot": boot, "namespace": namespace, "pid": os.getpid(), "start": own_start(),
            "job": os.environ.get("SLURM_JOB_ID", ""), "job_restarts": int(restarts) if restarts.isdigit() else 0}


def _whole(value):
    return type(value) is int and 0 <= value < 2**63


def _text(value):
    return isinstance(value, str)


def _loss(value):
    return value is None or (type(value) is float and math.isfinite(value)) or _whole(value)


# What is read of a claim, of its holder, and of an outcome: name -> whether a value is right.
_HOLDER = {**dict.fromkeys(("host", "boot", "namespace", "start", "job"), _text), "pid": _whole, "job_restarts": _whole}
_CLAIM = {"settings": lambda value: isinstance(value, dict), "target": _whole, "holder": lambda value: _has(value, _HOLDER)}
_OUTCOME = {"state": OUTCOMES.__contains__, "step": _whole, "best_loss": _loss, "best_step": lambda value: value is None or _whole(value),
            "crashes": _whole, "message": _text,
            "losses": lambda value: isinstance(value, dict) and all(key.isascii() and key.isdigit() and len(key) < 20 and _loss(loss)
                                                                   for key, loss in value.items())}


def _has(content, fields):
    return isinstance(content, dict) and all(name in content and right(content[name]) for name, right in fields.items())


def _name(trial, number, kind):
    return f"{trial:04d}.{number:04d}.{kind}"


def _json(content):
    return (json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "surrogateescape")
