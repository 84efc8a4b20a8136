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
import os
import re
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

from ..errors import RunError
from ..run_lock import LOCK_TIMEOUT, own_start, process_lives, this_boot
from .fault_point import fault_point
from .shared_file import create_alone, file_system_time, remove_left_over, replace_whole

HEARTBEAT = 10.0
"""Seconds between two touches of a claim by its holder."""
_NAME = re.compile(r"(\d{4,})\.(\d{4,})\.(claim|outcome)\Z")


@dataclass(frozen=True)
class Claimed:
    """The last claim of a trial, as it was found."""

    number: int
    content: Optional[dict]  # settings, target, holder; None where it cannot be read
    outcome: Optional[dict]  # of this claim; None while it is held
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
            if found := _NAME.match(name):
                trial, number = int(found[1]), int(found[2])
                if found[3] == "claim":
                    newest[trial] = max(number, newest.get(trial, 0))
                else:
                    outcomes.setdefault(trial, {})[number] = name
        looked = {}
        for trial, number in newest.items():
            of_trial = outcomes.get(trial, {})
            before = max((n for n in of_trial if n < number), default=None)
            looked[trial] = Claimed(number, self._content(_name(trial, number, "claim")),
                                    self._content(of_trial[number]) if number in of_trial else None,
                                    self._content(of_trial[before]) if before else None)
        return looked

    def _content(self, name):
        if name not in self._read:
            try:
                content = json.loads((self.folder / name).read_bytes())
            except ValueError:
                content = None
            if not isinstance(content, dict):
                # Where there are no hard links a claim appears before its contents.
                if name.endswith(".outcome"):
                    raise RunError(f"{self.folder / name}: is no outcome of a trial; expected what dekoder-sweep wrote; delete it, and the "
                                   "trial is taken up again")
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


def _name(trial, number, kind):
    return f"{trial:04d}.{number:04d}.{kind}"


def _json(content):
    return (json.dumps(content, ensure_ascii=False, allow_nan=False) + "\n").encode("utf-8", "surrogateescape")
