# SPDX-License-Identifier: Apache-2.0
"""Reads a run directory: config.yaml, metrics.jsonl, samples.txt, status and attention maps, also while it trains."""
from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
import yaml

from .attention_reader import Attention, attention_files, read_attention
from .errors import RunError

__all__ = ["Run", "RunError", "parse_config", "read_run"]

STEP_COLUMNS = ("step", "loss", "learning_rate", "gradient_norm", "tokens", "tokens_per_second")
EVALUATION_COLUMNS = ("step", "validation_loss", "bits_per_byte", "tokens")
WHOLE_NUMBERS = ("step", "tokens")


class _ConfigLoader(yaml.SafeLoader):
    """YAML as dekoder writes it: 1e-05 is a number, which PyYAML by itself takes for text; no node stands in two
    places or in itself."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias, which dekoder never writes")
        return super().compose_node(parent, index)


_ConfigLoader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+\Z"),
                                    list("-+0123456789"))


@dataclass
class Run:
    """A run directory's contents. Arrays of one table have one length; it is 0 before the first row."""

    path: Path
    name: str  # the folder's
    status: Optional[dict]  # state ("resumable", "finished", "failed"), step, steps, message; None: not written yet
    config_text: str  # config.yaml as it stands
    config: dict  # the same, section -> key -> value
    steps: dict  # STEP_COLUMNS -> array, one element per optimizer step; nats per token, tokens/s
    evaluations: dict  # EVALUATION_COLUMNS -> array, one element per evaluation
    validation_hash: Optional[str]  # of the validation tokens: losses of runs with equal hashes are comparable
    restarts: list  # steps at which the run was resumed, in order
    samples: list  # (step, text)
    attention: Optional[Attention] = None  # None: no maps were captured

    @property
    def last_step(self) -> Optional[int]:
        """Newest step with a loss in the log, None before the first."""
        return max((int(step) for table in (self.steps, self.evaluations) for step in table["step"][-1:]), default=None)


def read_run(path) -> Run:
    """Reads the run directory `path`. A last line that is not whole yet (the run is writing it) is left out. Raises
    RunError where the folder is no run directory or one of its files is not what dekoder writes."""
    path = Path(path)
    expected = "expected the folder of a run, with config.yaml and metrics.jsonl (dekoder train ... --run FOLDER)"
    if not path.exists():
        raise RunError(f"{path}: no such folder; {expected}; check the path")
    if not path.is_dir():
        raise RunError(f"{path}: is a file; {expected}")
    for name in ("config.yaml", "metrics.jsonl"):
        if not (path / name).is_file():
            raise RunError(f"{path}: has no {name}; {expected}; name another folder")
    config_text, config = _read_config(path / "config.yaml")
    rows = _read_rows(path / "metrics.jsonl")
    evaluations = rows["evaluations"]
    return Run(
        path=path,
        name=path.resolve().name,
        status=_read_status(path / "status"),
        config_text=config_text,
        config=config,
        steps=_table(rows["steps"], STEP_COLUMNS),
        evaluations=_table(evaluations, EVALUATION_COLUMNS),
        validation_hash=evaluations[-1].get("validation_hash") if evaluations else None,
        restarts=rows["restarts"],
        samples=_read_samples(path / "samples.txt"),
        attention=read_attention(path) if attention_files(path) else None,
    )


def parse_config(text, where) -> dict:
    """Configuration text as section -> key -> value. Raises RunError, which begins with `where` it stood."""
    try:
        config = yaml.load(text, Loader=_ConfigLoader)
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError) as error:  # 2020-13-45 is a ValueError
        reason = " ".join(str(error).split())
        raise RunError(f"{where}: is no YAML: {reason}; expected the configuration that dekoder wrote") from error
    sections = config if isinstance(config, dict) else {}
    for section in ("model", "training"):
        if not isinstance(sections.get(section), dict):
            raise RunError(f"{where}: has no section {section}; expected the configuration that dekoder wrote there; "
                           "name the folder of a run")
    return config


def _read_bytes(path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {error.strerror}; check the disk and the permissions") from error


def _read_config(path):
    try:
        text = _read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RunError(f"{path}: is no YAML: {error}; expected the configuration that dekoder wrote") from error
    return text, parse_config(text, path)


def _read_status(path):
    if not path.exists():
        return None
    pairs = [line.partition(":") for line in _read_bytes(path).decode("utf-8", "replace").splitlines()]
    values = {key: value.strip() for key, _, value in pairs}
    try:
        if values["state"] not in ("resumable", "finished", "failed"):
            raise ValueError(values["state"])
        return {"state": values["state"], "step": int(values["step"]), "steps": int(values["steps"]),
                "message": values.get("message", "")}
    except (KeyError, ValueError) as error:
        raise RunError(f"{path}: is not the status of a run; expected lines state, step, steps, message; "
                       "delete it") from error


def _read_samples(path):
    if not path.exists():
        return []
    text = _read_bytes(path).decode("utf-8", "replace")
    heads = list(re.finditer(r"(?:\A|(?<=\n\n))=== step (\d{1,18})\n", text))
    if text.strip() and (not heads or heads[0].start() != 0):
        raise RunError(f"{path}:1: is no text of samples; expected '=== step N' on the first line; delete it")
    ends = [head.start() for head in heads[1:]] + [len(text)]
    samples = []
    for head, end in zip(heads, ends):
        sample = text[head.end():end]
        samples.append((int(head.group(1)), sample[:-2] if sample.endswith("\n\n") else sample))
    return samples


def _read_rows(path):
    """Rows of metrics.jsonl by kind; rows of kinds that this version does not know are left out."""
    rows = {"steps": [], "evaluations": [], "restarts": [], "attention": []}
    lines = _read_bytes(path).split(b"\n")[:-1]  # behind the last line end: nothing, or a line being written
    newest = 0
    for number, line in enumerate(lines, 1):
        row = _parse_row(path, number, line)
        if row is None:
            continue
        step = row["step"]
        if step < newest:
            raise RunError(f"{path}:{number}: step {step} after step {newest}; expected steps in order, as in the "
                           "log of one run; rows of another run are in it")
        newest = step
        if "loss" in row:
            rows["steps"].append(row)
        elif "validation_loss" in row:
            rows["evaluations"].append(row)
        elif row.get("resumed"):
            rows["restarts"].append(step)
        elif "attention" in row:
            rows["attention"].append(step)  # a row of head statistics: read from the attention files, which hold them too
    if lines and not any(rows.values()):
        raise RunError(f"{path}: no row of it is one of dekoder's; expected objects with step and loss; name another "
                       "run")
    return rows


def _parse_row(path, number, line):
    if not line.strip():
        return None
    try:
        row = json.loads(line)
        if not isinstance(row, dict) or row.get("step") is None:
            raise ValueError("no object with a step")
        for key in (*STEP_COLUMNS, *EVALUATION_COLUMNS, "validation_hash"):
            _check_value(key, row.get(key))
        return row
    except (ValueError, RecursionError) as error:
        start = line[:40].decode("utf-8", "replace")
        raise RunError(f"{path}:{number}: not a row of a log ({error}): {start!r}; expected one JSON object per line "
                       "with a step; the file is damaged or of another program: restore it from a copy") from error


def _check_value(key, value):
    """Raises ValueError where the value of a row is not what the trainer writes: null, or one that an array holds."""
    whole = type(value) is int and abs(value) < 2**63  # type, not isinstance: true and false are int
    if key == "validation_hash":
        fits, expected = isinstance(value, str), "text"
    elif key in WHOLE_NUMBERS:
        fits, expected = whole and value >= 0, "whole number from 0 to 2^63"
    else:
        fits, expected = whole or type(value) is float, "number"
    if value is not None and not fits:
        raise ValueError(f"{key} is no {expected}")


def _table(rows, columns):
    """Columns of rows as arrays; what is null or missing reads NaN, in whole numbers 0."""
    table = {}
    for column in columns:
        values = [row.get(column) for row in rows]
        if column in WHOLE_NUMBERS:
            table[column] = np.array([value or 0 for value in values], dtype=np.int64)
        else:
            table[column] = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    return table
