# SPDX-License-Identifier: Apache-2.0
"""Finds run directories below folders."""
from __future__ import annotations

import os
import re

from ..errors import RunError
from ..files import present

_SIGNS = {"metrics.jsonl", "status", "lock"}
_FILES = _SIGNS | {"config.yaml", "checkpoints"}
_INSIDE = re.compile(r"previous-\d+|checkpoints|attention|black_box")
"""Folders of a run directory that hold no other runs, or those that --fresh has set aside."""


def is_run(names) -> bool:
    """Whether a folder with files of these names is a run directory: two that every run has, one of them of no other
    program's. A run that just starts has a lock and a folder of checkpoints."""
    return len(_FILES & names) >= 2 and bool(_SIGNS & names)


def find_runs(paths):
    """(run directories at or below the folders `paths`, {folder below them that cannot be listed: why}). Links are
    followed, after all that is reached without; a folder that is reached twice counts once. Hidden folders are passed over.
    Raises RunError where one of `paths` is no folder or cannot be listed."""
    runs, unreadable, seen, links = [], {}, set(), []
    for path in paths:
        if not (there := present(path)) or not os.path.isdir(path):
            raise RunError(f"{path}: {'is no folder' if there else 'no such folder'}; expected the folder of a run, or one "
                           "with such folders in it; check the path")
    folders = list(reversed(paths))
    while folders or links:
        if not folders:
            folders, links = sorted(links, reverse=True), []
        folder = folders.pop()
        try:
            found = os.stat(folder)
            if (found.st_dev, found.st_ino) in seen:
                continue
            seen.add((found.st_dev, found.st_ino))
            with os.scandir(folder) as entries:
                entries = sorted(entries, key=lambda entry: entry.name)
        except FileNotFoundError:  # removed meanwhile
            continue
        except OSError as error:
            problem = RunError(f"{folder}: cannot be listed: {error.strerror}; check the disk and the permissions")
            if folder in paths:
                raise problem from error
            unreadable[folder] = problem
            continue
        of_a_run = is_run({entry.name for entry in entries})
        if of_a_run:
            runs.append(folder)
        for entry in reversed(entries):
            if not entry.name.startswith(".") and not (of_a_run and _INSIDE.fullmatch(entry.name)) and _is_folder(entry):
                (links if entry.is_symlink() else folders).append(folder / entry.name)
    return runs, unreadable


def _is_folder(entry) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
