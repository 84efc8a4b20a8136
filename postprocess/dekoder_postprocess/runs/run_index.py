# SPDX-License-Identifier: Apache-2.0
"""What was read of the runs in a folder, kept in a file of that folder, so that runs that have not changed since need not be
read again. Nothing depends on it: a file that is missing, damaged, of another version or cannot be written is as none."""
from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path

from ..errors import RunError
from ..files import read_file, write_file
from .run_summary import RunSummary
from .summary_reader import FILES

NAME = ".dekoder-runs.index"
WORTH = 32_000_000
"""Bytes of logs: where so many had to be read anew, the file is written."""
SETTLED = 2.0
"""Seconds after its last change from which on a file is not changed again without another time of change."""
_FORMAT = b"dekoder-runs index 2 "  # another number where summaries mean something else


class RunIndex:
    """The index of the folder `folder`. A run is named by its path from there."""

    def __init__(self, folder):
        self._path = Path(folder) / NAME
        self._folder = folder
        self._found = {}  # name -> (signature, fields)
        self._kept = {}  # the same, to write
        self._new_bytes = 0
        with contextlib.suppress(RunError, ValueError, RecursionError):
            if self._path.exists():
                head, _, body = read_file(self._path).partition(b"\n")
                if head == _FORMAT + _digest(body):
                    self._found = json.loads(body)

    def get(self, run, signature):
        """The summary of a run whose files have this signature; None where it is not known."""
        name = os.path.relpath(run, self._folder)
        try:
            kept, fields = self._found[name]
            summary = RunSummary(path=run, name=run.name, **fields)
        except (KeyError, TypeError, ValueError):  # not there, or of a program whose summaries have other fields
            return None
        if kept != signature:
            return None
        self._kept[name] = (signature, fields)
        return summary

    def put(self, summary, signature):
        """Keeps a summary that was read after the signature was taken."""
        newest = max((file[1] for file in signature if file), default=0) / 1e9
        if summary.problem is None and newest < time.time() - SETTLED:
            fields = {key: value for key, value in vars(summary).items() if key not in ("path", "name")}
            self._kept[os.path.relpath(summary.path, self._folder)] = (signature, fields)
            self._new_bytes += sum(file[0] for file in signature if file)

    def write(self):
        """Writes the summaries of this time, where that is worth it."""
        if self._new_bytes >= WORTH:
            body = json.dumps(self._kept, separators=(",", ":")).encode()
            with contextlib.suppress(RunError):
                write_file(self._path, _FORMAT + _digest(body) + b"\n" + body)


def signature(run) -> list:
    """[size, time of change in ns, inode] of each of FILES in the run directory; None for what is not there. Raises
    OSError."""
    files = []
    for name in FILES:
        try:
            found = os.stat(os.path.join(run, name))
            files.append([found.st_size, found.st_mtime_ns, found.st_ino])
        except FileNotFoundError:
            files.append(None)
    return files


def _digest(body) -> bytes:
    return hashlib.sha256(body).hexdigest().encode()
