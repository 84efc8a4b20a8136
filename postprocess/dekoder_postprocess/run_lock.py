# SPDX-License-Identifier: Apache-2.0
"""Whether a process trains in a run directory, by its lock: as `dekoder status` tells it (src/io/run/lock_file.cpp), without
that program, for many runs at once."""
from __future__ import annotations

import os
import stat
import time
from functools import lru_cache
from pathlib import Path

LOCK_TIMEOUT = 120.0
"""Seconds after the last heartbeat at which a lock counts for nothing whose holder cannot be looked at."""


def held(run) -> bool:
    """Whether the holder of the lock of the run directory `run` may be alive. A process of this boot and this PID namespace
    is looked at; of any other one the age of the last heartbeat decides."""
    path = Path(run) / "lock"
    try:
        found = os.stat(path)
    except OSError:
        return False
    if not stat.S_ISREG(found.st_mode):
        return False
    try:
        fields = path.read_bytes()[:1024].decode("utf-8", "replace").split()
    except FileNotFoundError:  # the run has ended meanwhile
        return False
    except OSError:  # not to be read: as alive as any
        return True
    if len(fields) >= 9:  # host, boot, PID, start of the process, job, its restarts, since, PID namespace, token
        boot, pid, start, namespace = fields[1], fields[2], fields[3], fields[7]
        if (boot, namespace) == this_boot() and "-" not in (boot, namespace):
            return process_lives(pid, start)
    return time.time() - found.st_mtime < LOCK_TIMEOUT


@lru_cache(maxsize=None)
def this_boot():
    """Boot of this machine, and PID namespace of this process; "-" where not known."""
    try:
        return (Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip(), str(os.stat("/proc/self/ns/pid").st_ino))
    except OSError:
        return "-", "-"


def process_lives(pid, start) -> bool:
    """Whether the process of that number is the one that was started then (ticks since boot), and has not ended."""
    try:
        os.kill(int(pid), 0)
    except (ProcessLookupError, OverflowError, ValueError):
        return False
    except OSError:  # another user's
        pass
    try:
        if os.readlink("/proc/self") != str(os.getpid()):  # the processes of another PID namespace
            return True
        state, started = _state_and_start(pid)
        return started == start and state not in "ZX"  # a zombie has ended
    except (OSError, IndexError):
        return True


def own_start() -> str:
    """When this process was started, ticks since boot; "-" where not known."""
    try:
        return _state_and_start("self")[1]
    except (OSError, IndexError):
        return "-"


def _state_and_start(pid):
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    return fields[0], fields[19]
