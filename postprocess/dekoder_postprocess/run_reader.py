# SPDX-License-Identifier: Apache-2.0
"""Reads a run directory: config.yaml, metrics.jsonl, samples, restarts.jsonl, status and attention maps, also while it
trains."""
from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np
import yaml

from .attention_reader import Attention, attention_files, read_attention
from .errors import RunError
from .files import present, read_file
from .log_reader import EVALUATION_COLUMNS, SOURCE_COLUMNS, STEP_COLUMNS, read_metrics, read_samples, read_starts, table
from .visible_text import is_utf8, visible_token

__all__ = ["Run", "RunError", "changes_text", "open_attention", "parse_config", "read_run"]


class _ConfigLoader(yaml.SafeLoader):
    """YAML as dekoder writes it: 1e-05 is a number, which PyYAML by itself takes for text; no node stands in two
    places or in itself."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias, which dekoder never writes")
        return super().compose_node(parent, index)


class _FastLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """The same for _FLAT texts, eight times as fast where PyYAML was built with libyaml, which crashes on deep nesting."""


_FLAT = re.compile(r"(?:(?:#.*|(?:  )?\w+:(?: [^\[{*\t\n][^{*\t\n]*| \[[^\[{*\t\n]*)?)?\n)*")
"""Sections of keys, with texts, numbers and lists of them, no alias, no tab, which libyaml takes elsewhere than PyYAML: as dekoder
writes it, unless a text has such signs."""

for _loader in (_ConfigLoader, _FastLoader):
    _loader.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+\Z"),
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
    seconds: list  # per optimizer step: phase -> seconds; empty where the log has none
    skipped: list  # steps that changed no parameter, as their loss or gradients were not finite
    evaluations: dict  # EVALUATION_COLUMNS -> array, one element per evaluation
    validation_hashes: list  # per evaluation, of its validation tokens: only losses of equal hashes are comparable
    sources: list  # per evaluation: token file of a mixture -> its SOURCE_COLUMNS; empty for a run on one file
    restarts: list  # steps at which the run was resumed, in order
    changes: list  # per restart: key of the configuration -> [value before, value after]
    samples: list  # (step, text)
    starts: list  # (row of the beginning, row of the end or None) of restarts.jsonl; empty for runs of older programs
    attention: Optional[Attention] = None  # None: no maps were captured, or nobody wants them

    @property
    def last_step(self) -> Optional[int]:
        """Newest step with a loss in the log, None before the first."""
        return max((int(step) for rows in (self.steps, self.evaluations) for step in rows["step"][-1:]), default=None)

    @property
    def validation_hash(self) -> Optional[str]:
        """Of the newest evaluation's validation tokens; None before the first."""
        return self.validation_hashes[-1] if self.validation_hashes else None

    def validation_segments(self) -> list:
        """[(first, end)]: the evaluations in order, a new segment wherever the validation tokens are others than
        before. Losses of different segments make no curve."""
        hashes = self.validation_hashes
        borders = [i for i in range(1, len(hashes)) if hashes[i] != hashes[i - 1]]
        return list(zip([0, *borders], [*borders, len(hashes)])) if hashes else []

    def validation_curve(self):
        """Arrays (step, nats per token, bits per byte, place of the evaluation) to draw, with a row of NaN at the place
        -1 between segments, at the step where the next one begins."""
        places = []
        for first, end in self.validation_segments():
            places += [-1] * bool(places) + list(range(first, end))
        steps = [self.evaluations["step"][place if place >= 0 else places[i + 1]] for i, place in enumerate(places)]
        loss, bits = (np.array([self.evaluations[column][place] if place >= 0 else np.nan for place in places])
                      for column in ("validation_loss", "bits_per_byte"))
        return np.array(steps, np.int64), loss, bits, places

    def source_names(self) -> dict:
        """Token file of a mixture -> a short name: the end of its path, as much of it as tells it from the others; in the order
        in which they come."""
        paths = {path: Path(path).parts for of in self.sources for path in of}
        names = {}
        for path, parts in paths.items():
            others = [other for name, other in paths.items() if name != path]
            depth = next((n for n in range(1, len(parts) + 1) if all(other[-n:] != parts[-n:] for other in others)), None)
            names[path] = "/".join(parts[-depth:]) if depth else path
        return names

    def validation_notes(self) -> list:
        """Sentences on evaluations that cannot be compared with each other."""
        return ["evaluated on other validation tokens from step "
                f"{int(self.evaluations['step'][first])} on: losses before and after it cannot be compared"
                for first, _ in self.validation_segments()[1:]]

    def best_evaluation(self) -> Optional[int]:
        """Place of the least validation loss on the newest validation tokens; None where there is none."""
        losses = np.where([of == self.validation_hash for of in self.validation_hashes],
                          self.evaluations["validation_loss"], np.nan)
        return int(np.nanargmin(losses)) if np.isfinite(losses).any() else None


def changes_text(changes) -> str:
    """What a restart changed: "training.steps: 30 -> 60, data.tokens: ..."."""
    return ", ".join(f"{key}: {before} -> {now}" for key, (before, now) in changes.items())


def read_run(path, with_attention=True) -> Run:
    """Reads the run directory `path`. A last line that is not whole yet (the run is writing it) is left out. Raises
    RunError where the folder is no run directory or one of its files is not what dekoder writes."""
    path = Path(path)
    check_run_directory(path)
    config_text, config = read_config(path / "config.yaml")
    rows = read_metrics(path / "metrics.jsonl")
    evaluations = rows["evaluations"]
    return Run(
        path=path,
        name=path.resolve().name,
        status=read_status(path / "status"),
        config_text=config_text,
        config=config,
        steps=table(rows["steps"], STEP_COLUMNS),
        seconds=[row.get("seconds", {}) for row in rows["steps"]],
        skipped=[row["step"] for row in rows["steps"] if row.get("skipped") is True],
        evaluations=table(evaluations, EVALUATION_COLUMNS),
        validation_hashes=[row.get("validation_hash") for row in evaluations],
        sources=[_by_file(row.get("sources", ())) for row in evaluations],
        restarts=[row["step"] for row in rows["restarts"]],
        changes=[row.get("changed", {}) for row in rows["restarts"]],
        samples=_read_samples(path),
        starts=read_starts(path / "restarts.jsonl") if present(path / "restarts.jsonl") else [],
        attention=open_attention(path) if with_attention else None,
    )


def _by_file(rows) -> dict:
    """Rows of the sources of an evaluation by token file; one that is there again is called "a.h5 (2)"."""
    found, times = {}, Counter()
    for row in rows:
        name = row["tokens"]
        times[name] += 1
        found[name if times[name] == 1 else f"{name} ({times[name]})"] = {key: row[key] for key in SOURCE_COLUMNS}
    return found


def check_run_directory(path):
    """Raises RunError where the path is no folder with the files that every run has."""
    expected = "expected the folder of a run, with config.yaml and metrics.jsonl (dekoder train ... --run FOLDER)"
    if not present(path):
        raise RunError(f"{path}: no such folder: there is no such run directory; {expected}; check the path, or wait until "
                       "the run has begun")
    if not path.is_dir():
        raise RunError(f"{path}: is a file; {expected}")
    if not present(path / "config.yaml"):
        raise RunError(f"{path}: is no run directory, as it has no config.yaml; {expected}; name another folder")
    if not present(path / "metrics.jsonl"):
        raise RunError(f"{path}: has no metrics.jsonl, which the first step writes; {expected}; train it first, or name another folder")


def open_attention(path) -> Optional[Attention]:
    """The attention maps of the run directory `path`; None where it has none. Raises RunError."""
    return read_attention(path) if attention_files(path) else None


def parse_config(text, where) -> dict:
    """Configuration text as section -> key -> value. Raises RunError, which begins with `where` it stood."""
    try:
        config = yaml.load(text, Loader=_FastLoader if _FLAT.fullmatch(text) else _ConfigLoader)
    # 2020-13-45 is a ValueError; a value that is not of its tag, `!!int x`, may be anything.
    except (yaml.YAMLError, ValueError, OverflowError, RecursionError, LookupError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise RunError(f"{where}: is no YAML: {reason}; expected the configuration that dekoder wrote") from error
    sections = config if isinstance(config, dict) else {}
    for section in ("model", "training"):
        if not isinstance(sections.get(section), dict):
            raise RunError(f"{where}: has no section {section}; expected the configuration that dekoder wrote there; "
                           "restore it, or name the folder of a run")
    _check_values(config, where)
    return config


def _check_values(config, where):
    """Raises RunError where a key or value is one that no program could have read: a whole number beyond 64 bits, or half of a
    character ("\\ud800"). So nobody who computes with a value or writes it down has to expect such."""
    left = [((), config)]  # (keys that lead there, value)
    while left:
        keys, value = left.pop()
        if isinstance(value, dict):
            left += [((*keys, name), of) for name, of in value.items()]
            left += [(keys, name) for name in value]  # taken before what they lead to
        elif isinstance(value, (list, tuple, set)):
            left += [(keys, of) for of in value]
        elif (type(value) is int and not -2**63 <= value < 2**64) or (isinstance(value, str) and not is_utf8(value)):
            kind = "a whole number beyond 64 bits" if type(value) is int else "no text that can be written"
            raise RunError(f"{where}: {visible_token('.'.join(map(str, keys)), spaces=False)}: {kind}; expected the configuration "
                           "that dekoder wrote; restore it from a copy")


def config_texts(text) -> dict:
    """section.key -> the value as it stands in a configuration that parse_config takes."""
    texts = {}
    for section, keys in yaml.compose(text, Loader=_ConfigLoader).value:
        for key, value in keys.value if isinstance(keys, yaml.MappingNode) else ():
            texts[f"{section.value}.{key.value}"] = " ".join(
                text[value.start_mark.index:value.end_mark.index].split("\n")).strip()
    return texts


def read_config(path):
    """(text, section -> key -> value) of config.yaml. Raises RunError."""
    try:
        text = read_file(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise RunError(f"{path}: is no YAML: {error}; expected the configuration that dekoder wrote") from error
    return text, parse_config(text, path)


def read_status(path) -> Optional[dict]:
    """The file `status` of a run: state ("resumable", "finished", "failed"), step of the newest checkpoint, steps of the
    whole run, message; None where there is none. Raises RunError."""
    if not present(path):
        return None
    pairs = [line.partition(":") for line in read_file(path).decode("utf-8", "replace").splitlines()]
    values = {key: value.strip() for key, _, value in pairs}
    try:
        if values["state"] not in ("resumable", "finished", "failed"):
            raise ValueError(values["state"])
        if not all(re.fullmatch("-?[0-9]{1,18}", values[key]) for key in ("step", "steps")):
            raise ValueError(values)
        return {"state": values["state"], "step": int(values["step"]), "steps": int(values["steps"]),
                "message": values.get("message", "")}
    except (KeyError, ValueError) as error:
        raise RunError(f"{path}: is not the status of a run; expected lines state, step, steps, message; "
                       "delete it") from error


def _read_samples(path):
    """Those of samples.txt, which older runs wrote, before those of samples.jsonl."""
    samples = _old_samples(path / "samples.txt") if present(path / "samples.txt") else []
    return samples + (read_samples(path / "samples.jsonl") if present(path / "samples.jsonl") else [])


def _old_samples(path):
    text = read_file(path).decode("utf-8", "replace")
    if re.match(r"=== step \d+\r\n", text):  # somebody has made the line ends those of Windows
        text = text.replace("\r\n", "\n")
    heads = list(re.finditer(r"(?:\A|(?<=\n\n))=== step (\d{1,18})\n", text))
    if text.strip() and (not heads or heads[0].start() != 0):
        raise RunError(f"{path}:1: is no text of samples; expected '=== step N' on the first line; delete it")
    ends = [head.start() for head in heads[1:]] + [len(text)]
    samples = []
    for head, end in zip(heads, ends):
        sample = text[head.end():end]
        samples.append((int(head.group(1)), sample[:-2] if sample.endswith("\n\n") else sample))
    return samples
