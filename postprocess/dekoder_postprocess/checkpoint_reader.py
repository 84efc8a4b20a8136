# SPDX-License-Identifier: Apache-2.0
"""Reads the fields of checkpoints, ckpt-<step>.h5: what the run was trained on and by which program. Tensors are read
with h5py (README.md). HDF5 keeps a checksum of every attribute, so that a damaged one is no wrong one."""
from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import h5py

from .errors import RunError
from .files import HDF5_ERRORS, names_in, require_file, text_of

FORMAT, MAJOR = "dekoder-checkpoint", 1


@dataclass
class CheckpointFields:
    """Attributes of a checkpoint's root."""

    step: int  # optimizer steps done
    run_id: str  # names the run over all its restarts
    tokenizer: str  # text form of the tokenizer: its name first
    data_hash: str  # of the token file
    writer: str  # program and backend
    metrics_bytes: int  # length of metrics.jsonl that belongs to this state


class _Rejected(Exception):
    """The file's contents are not those of a checkpoint; why."""


def newest_checkpoint(folder) -> Optional[CheckpointFields]:
    """Fields of the newest checkpoint of `folder` that is whole, None where there are no checkpoints. Newer ones that
    are not are named on the error stream. Raises RunError where there are some but none can be used, where one may
    not be read, and where a newer program wrote it."""
    rejected = []
    for step, path in _files(Path(folder)):
        try:
            fields = _read(path)
            if fields.step != step:
                raise _Rejected(f"{path}: holds step {fields.step}, not that of its name")
            for reason in rejected:
                print(f"warning: checkpoint not used: {reason}", file=sys.stderr)
            return fields
        except _Rejected as reason:
            rejected.append(str(reason))
    if rejected:
        raise RunError(f"none of {len(rejected)} checkpoint files can be used: {'; '.join(rejected)}; restore one, or "
                       "move the folder away to compare the rest")
    return None


def _files(folder):
    """[(step, path)], newest first."""
    found = [(int(match.group(1)), folder / name) for name in names_in(folder)
             for match in [re.fullmatch(r"ckpt-(\d{8,18})\.h5", name)] if match]
    return sorted(found, reverse=True)


def _read(path):
    require_file(path)
    try:
        raw = path.open("rb")  # no lock is asked for
    except FileNotFoundError as error:  # rotated away
        raise _Rejected(f"{path}: is gone") from error
    except OSError as error:
        raise RunError(f"{path}: cannot be opened: {error.strerror}; check the disk and the permissions") from error
    try:
        with raw, h5py.File(raw, "r") as file:
            return _fields(path, file)
    except HDF5_ERRORS as error:
        raise _Rejected(f"{path}: is damaged or no checkpoint ({' '.join(str(error).split())})") from error


def _fields(path, file):
    attributes = file.attrs
    if text_of(attributes["format"]) != FORMAT:
        raise _Rejected(f"{path}: is HDF5 but no checkpoint of dekoder")
    if int(attributes["major"]) > MAJOR:
        raise RunError(f"{path}: has checkpoint format {int(attributes['major'])}, this program reads up to {MAJOR}; use "
                       "the post-processing that came with the dekoder that wrote it")
    # A tokenizer that is too long for an attribute is a dataset of one text.
    long = {name: file[name][0] for name in ("tokenizer",) if name in file}
    texts = {name: text_of(long[name] if name in long else attributes[name]) for name in ("run_id", "tokenizer", "data_hash", "writer")}
    return CheckpointFields(step=int(attributes["step"]), metrics_bytes=int(attributes["metrics_bytes"]), **texts)
