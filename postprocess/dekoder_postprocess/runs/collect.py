# SPDX-License-Identifier: Apache-2.0
"""Reads all runs below folders, each into a row of the table."""
from __future__ import annotations

import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from .. import run_lock
from ..errors import RunError
from ..files import present
from .run_folders import find_runs
from .run_index import RunIndex, signature
from .run_summary import RunSummary
from .summary_reader import damaged, summarize

READERS = 4
"""Runs read at once: a file server answers many requests in the time of one."""


def collect(paths) -> list[RunSummary]:
    """The runs at or below the folders `paths`, in natural order of their paths; their names are what follows the path that
    all have in common. Raises RunError where one of `paths` is no folder or there is no run at all."""
    folders = list(map(Path, paths))
    found, unreadable = find_runs(folders)
    if not found and not unreadable:
        for folder in folders:
            if present(folder / "sweep.yaml"):
                raise RunError(f"{folder}: a sweep of which no trial has begun yet; dekoder-sweep work {folder} trains them, dekoder-sweep status "
                               f"{folder} says where it stands")
        raise RunError(f"{', '.join(map(str, folders))}: no run directory there or below; expected folders with config.yaml and "
                       "metrics.jsonl (dekoder train ... --run FOLDER); check the path")
    indexes = {folder: RunIndex(folder) for folder in folders if folder not in found}

    def read(run):
        return _read(run, next((indexes[parent] for parent in run.parents if parent in indexes), None))

    with ThreadPoolExecutor(READERS) as readers:
        summaries = list(readers.map(read, found))
    for index in indexes.values():
        index.write()
    summaries += [damaged(folder, problem) for folder, problem in unreadable.items()]
    return _named(sorted(summaries, key=lambda summary: natural(summary.path)))


def _read(run, index):
    # The lock first: a run that ends writes its status, then leaves its lock.
    running = run_lock.held(run)
    try:
        now = signature(run)
    except OSError:  # summarize tells it
        now = None
    summary = index.get(run, now) if index and now else None
    if summary is None:
        summary = summarize(run, running)
        if index and now and not running:
            index.put(summary, now)
    return replace(summary, state="running") if running and summary.problem is None else summary


def _named(summaries):
    paths = [os.path.abspath(summary.path) for summary in summaries]
    common = os.path.commonpath([os.path.dirname(path) for path in paths])
    return [replace(summary, name=os.path.relpath(path, common)) for summary, path in zip(summaries, paths)]


def natural(text):
    """Sorts numbers in texts by their value: run-2 before run-10."""
    parts = re.split(r"0*([0-9]+)", str(text))  # of any length: more digits are a greater number
    return [(-1, part) if i % 2 == 0 else (len(part), part) for i, part in enumerate(parts)]
