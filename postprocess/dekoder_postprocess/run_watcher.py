# SPDX-License-Identifier: Apache-2.0
"""Follows a run while it trains: each look reads what its log has grown by, its status and its lock."""
from __future__ import annotations

import os
import stat
import time
from array import array
from pathlib import Path

from .errors import RunError
from .log_reader import MetricsReader
from .program import NotKnown
from .run_lock import LOCK_TIMEOUT
from .run_reader import check_run_directory, read_status

CHUNK = 1 << 22  # bytes of the log read at once
TAIL = 512  # bytes before the place read last that are compared with the file
RECENT = 50  # steps whose speed is shown
HEARTBEAT = 10.0  # seconds between two renewals of a lock by its holder (src/io/run/run_lock.hpp)


class RunWatcher:
    """The run in a directory, as of the last call of look()."""

    def __init__(self, path, program):
        """Raises RunError where `path` is no run directory. `program` (Program) tells whether the holder of a lock lives
        where the lock alone does not."""
        self.path = Path(path)
        self.name = os.fspath(path)
        check_run_directory(self.path)
        self.status = None  # see read_status
        self._lock = _Lock(self.path, program)
        self._start_over()

    def _start_over(self):
        """Forgets what was read of the log."""
        self._reader = MetricsReader(self.path / "metrics.jsonl")
        self._offset = 0  # of the first byte that was not read, the beginning of a line
        self._tail = b""  # what is in front of it
        self.steps, self.losses = array("q"), array("d")  # one per optimizer step; a loss that is null reads NaN
        self.evaluations = []  # (step, validation loss, hash of the validation tokens)
        self.restarts = []  # steps
        self._speeds = []  # of the last RECENT steps: (tokens so far, tokens/s, seconds with all that is done by period)

    def look(self):
        """Reads what is new. Raises RunError where a file is not what dekoder writes, or cannot be read."""
        # In this order: a run that ends writes its log first, its status then, and leaves its lock last.
        self._lock.look()
        self.status = read_status(self.path / "status")
        log = self.path / "metrics.jsonl"
        try:
            descriptor = os.open(log, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:  # set aside by a new start
            return self._start_over()
        except OSError as error:
            raise RunError(f"{log}: cannot be read: {error.strerror}; check the disk and the permissions") from error
        try:
            self._follow(descriptor, log)
        except OSError as error:
            raise RunError(f"{log}: cannot be read: {error.strerror}; check the disk and the permissions") from error
        finally:
            os.close(descriptor)

    def _follow(self, descriptor, log):
        """A log that grew is read from the place reached. A restart cuts it back to its checkpoint's place, and may have
        written more than it cut by now, and --fresh begins another: such a file is shorter, or has other bytes in front
        of that place, as each row has times in it. It is read from its beginning."""
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise RunError(f"{log}: is a folder, a device or a pipe; expected a file; check the path")
        if os.pread(descriptor, len(self._tail), self._offset - len(self._tail)) != self._tail:
            self._start_over()
        rest = b""  # of a chunk: a line's beginning
        while self._offset + len(rest) < found.st_size:
            at = self._offset + len(rest)
            chunk = os.pread(descriptor, min(CHUNK, found.st_size - at), at)
            if not chunk:  # cut since
                return
            lines, end, rest = (rest + chunk).rpartition(b"\n")
            if end:
                lines += end
                self._take(lines)
                self._offset += len(lines)
                self._tail = (self._tail + lines)[-TAIL:]

    def _take(self, lines):
        for kind, row in self._reader.rows(lines):
            if kind == "steps":
                self.steps.append(row["step"])
                self.losses.append(_number(row["loss"]))
                self._speeds.append((row.get("tokens") or 0, _number(row.get("tokens_per_second")),
                                     sum(value or 0 for value in row.get("seconds", {}).values())))
                del self._speeds[:-RECENT]
            elif kind == "evaluations":
                self.evaluations.append((row["step"], _number(row["validation_loss"]), row.get("validation_hash")))
            elif kind == "restarts":
                self.restarts.append(row["step"])

    @property
    def step(self) -> int:
        """Newest step in the log; 0 before the first."""
        return self.steps[-1] if self.steps else 0

    @property
    def running(self) -> bool:
        """Whether a process trains in the directory."""
        return self._lock.held

    @property
    def state(self) -> str:
        """As `dekoder status` says it."""
        return "running" if self.running else self.status["state"] if self.status else "not begun"

    @property
    def over(self) -> bool:
        """Whether nothing more is to come."""
        return self.state in ("finished", "failed")

    def best(self):
        """(step, loss) of the lowest validation loss on the validation tokens of the last evaluation, or None."""
        of_these = [(loss, step) for step, loss, tokens in self.evaluations
                    if tokens == self.evaluations[-1][2] and loss == loss]
        return min(of_these)[::-1] if of_these else None

    def tokens_per_second(self):
        """Mean of the last steps, without what is done by period; None where it is not known."""
        pairs = [(now[0] - before[0], now[1]) for before, now in zip(self._speeds, self._speeds[1:])]
        pairs = [(tokens, speed) for tokens, speed in pairs if tokens > 0 and speed > 0]
        if not pairs:
            return next((speed for _, speed, _ in self._speeds[-1:] if speed > 0), None)
        return sum(tokens for tokens, _ in pairs) / sum(tokens / speed for tokens, speed in pairs)

    def seconds_to_go(self):
        """By the last steps, with what is done by period; None where it is not known."""
        if not self.status or not self.running or len(self._speeds) < 2:
            return None
        seconds = [whole for _, _, whole in self._speeds if whole > 0]
        if not seconds:  # a log without phases
            speed = self.tokens_per_second()
            seconds = [(self._speeds[-1][0] - self._speeds[-2][0]) / speed] if speed else [0.0]
        return max(0, min(self.status["steps"], 2**63) - self.step) * (sum(seconds) / len(seconds))


class _Lock:
    """Whether the lock of a run is held. One that is renewed while this looks on is; else the program is asked, which
    looks at the process; where there is none, the age of the last heartbeat decides."""

    def __init__(self, run, program):
        self._run, self._program = run, program
        self._seen = None  # inode and time of the last heartbeat
        self._since = 0.0  # when that was first seen, by the monotonic clock
        self.held = False

    def look(self):
        try:
            found = os.stat(self._run / "lock")
        except OSError:
            self._seen, self.held = None, False
            return
        now = time.monotonic()
        heartbeat = (found.st_ino, found.st_mtime_ns)
        if self._seen is not None and heartbeat != self._seen:
            self.held = True
        elif self._seen is None or now - self._since > 1.5 * HEARTBEAT:
            try:
                self.held = self._program.running(self._run)()
            except NotKnown:
                self.held = time.time() - found.st_mtime < LOCK_TIMEOUT
        else:
            return
        self._seen, self._since = heartbeat, now


def _number(value) -> float:
    return float("nan") if value is None else float(value)
