# SPDX-License-Identifier: Apache-2.0
"""Reads attention.h5, the attention maps and head statistics that `dekoder train` and `dekoder attention` write.

The trainer replaces the file as a whole at each captured step, so an open one stays as it was: a reader sees the
steps that were there when it opened the file.
"""
from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np

from .errors import RunError

FORMAT = "dekoder-attention"
MAJOR = 1  # a file of another major version has another layout


def read_attention(path) -> "AttentionFile":
    """Opens an attention file. Raises RunError where it is missing, damaged, of another program or version."""
    return AttentionFile(path)


class _Handle:
    """The file itself: what AttentionFile and its probes read through."""

    def __init__(self, path):
        self.path = path
        self.file = self._raw = None
        self.open()

    def __del__(self):
        self.close()

    def open(self):
        if not self.path.exists():
            raise RunError(f"{self.path}: no such file; expected attention maps of a run: set attention.texts or "
                           "attention.windows in its configuration, or make some with "
                           "`dekoder attention RUN --text \"...\"`")
        try:
            # Through Python's file: no lock is asked for or held, whoever else has the file open, and in which way.
            self._raw = self.path.open("rb")
            self.file = h5py.File(self._raw, "r")
        except OSError as error:
            self.close()
            raise self.error(f"cannot be opened ({_reason(error)})") from error

    def close(self):
        if self.file is not None:
            self.file.close()
        if self._raw is not None:
            self._raw.close()
        self.file = self._raw = None

    def read(self, name):
        """A dataset by its path. Raises RunError where its checksum or its compressed form is wrong."""
        if self.file is None:
            raise ValueError("the attention file is closed")
        try:
            return self.file[name][()]
        except (OSError, KeyError) as first:
            # A file on a network disk can be gone once the trainer has replaced it: the new one has the same steps.
            self.close()
            self.open()
            try:
                return self.file[name][()]
            except (OSError, KeyError):
                raise self.error(f"{name} cannot be read ({_reason(first)})") from first

    def error(self, what):
        return RunError(f"{self.path}: {what}; expected the attention file that dekoder writes; it is damaged or of "
                        "another program: delete it, and make maps anew from a checkpoint with "
                        "`dekoder attention RUN --text \"...\" --step N`")


class Probe:
    """One text whose attention was captured.

    path: of the file; name; text; source ("configuration", "held-out tokens A to B", "command line"); tokens: int32
    (token); token_text: list of str, one per token, a byte that is no UTF-8 alone as \\xC3; steps: sorted list of int.
    """

    def __init__(self, handle, name, group):
        self._handle = handle
        self.path = handle.path
        self.name = name
        self.text = _text(group.attrs.get("text", ""))
        self.source = _text(group.attrs.get("source", ""))
        if not group.attrs.get("causal", 1):
            raise ValueError(f"{name}: maps that are not causal")
        self.tokens = group["tokens"][()]
        self.token_text = [_text(text) or "\\x00" for text in group["token_text"][()]]
        self.steps = sorted(_step_numbers(group))

    def weights(self, step) -> np.ndarray:
        """Attention weights after `step` optimizer steps: float16 (layer, head, query, key), rows sum to 1, zero where
        key > query. Raises RunError for another step, for a damaged map and for weights above the diagonal."""
        weights = self._handle.read(f"/attention/{self.name}/step_{self._known(step)}")
        if np.any(np.triu(weights, 1)):
            raise self._handle.error(f"attention/{self.name}/step_{step} has weights above the diagonal, where "
                                     "key > query")
        return weights

    def statistics(self, step) -> np.ndarray:
        """Head statistics after `step` optimizer steps: float32 (layer, head, statistic), see statistic_names."""
        return self._handle.read(f"/statistics/{self.name}/step_{self._known(step)}")

    def _known(self, step):
        if step not in self.steps:
            steps = ", ".join(map(str, self.steps)) or "none"
            raise RunError(f"{self.path}: no step {step} of probe {self.name}; captured steps: {steps}")
        return step


class AttentionFile:
    """An open attention file; also a context manager that closes it.

    path; config_text: the run's configuration as YAML; layers, heads: lists of int, which of the model's layers and
    heads stand at axes 0 and 1 of the maps; statistic_names: list of str; probes: dict name -> Probe, texts before
    windows, in order of their numbers.
    """

    def __init__(self, path):
        self.path = Path(path)
        self._handle = _Handle(self.path)
        try:
            self._read_head(self._handle.file)
        except (KeyError, OSError, ValueError, TypeError, AttributeError) as error:
            raise self._handle.error(f"is not whole ({_reason(error)})") from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Closes the file; maps cannot be read after it."""
        self._handle.close()

    def probe(self, name=None) -> Probe:
        """The probe of that name, the first one without a name. Raises RunError where there is none."""
        if name is None and self.probes:
            return next(iter(self.probes.values()))
        if not self.probes:
            raise RunError(f"{self.path}: holds no probe; expected one at least; set attention.texts or "
                           "attention.windows in the configuration of the run")
        if name not in self.probes:
            raise RunError(f"{self.path}: no probe {name}; it holds {', '.join(self.probes)}")
        return self.probes[name]

    def axis_of(self, layer, head):
        """Positions on axes 0 and 1 of the maps of the model's layer and head. Raises RunError for others."""
        if layer not in self.layers or head not in self.heads:
            raise RunError(f"{self.path}: no layer {layer}, head {head}; it holds layers "
                           f"{_ranges(self.layers)} and heads {_ranges(self.heads)}")
        return self.layers.index(layer), self.heads.index(head)

    def _read_head(self, file):
        attributes = file.attrs
        found = _text(attributes.get("format", ""))
        if found != FORMAT:
            raise self._handle.error(f"its attribute format is {found!r}, not {FORMAT!r}")
        major, minor = int(attributes["major"]), int(attributes.get("minor", 0))
        if major != MAJOR:
            raise RunError(f"{self.path}: attention file of version {major}.{minor}, expected {MAJOR}.x; use the "
                           "post-processing that came with the dekoder that wrote it")
        self.config_text = _text(attributes["config"])
        self.layers = [int(layer) for layer in file["layers"][()]]
        self.heads = [int(head) for head in file["heads"][()]]
        self.statistic_names = _text(file["statistics"].attrs["names"]).split(",")
        groups = file["attention"]
        self.probes = {name: Probe(self._handle, name, groups[name]) for name in sorted(groups, key=_by_number)}
        for probe in self.probes.values():
            self._check(file, probe)

    def _check(self, file, probe):
        maps = (len(self.layers), len(self.heads))
        tokens = len(probe.tokens)
        if len(probe.token_text) != tokens:
            raise ValueError(f"{probe.name}: {len(probe.token_text)} token_text for {tokens} tokens")
        for step in probe.steps:
            for name, shape in ((f"attention/{probe.name}/step_{step}", maps + (tokens, tokens)),
                                (f"statistics/{probe.name}/step_{step}", maps + (len(self.statistic_names),))):
                if file[name].shape != shape:
                    raise ValueError(f"{name}: shape {file[name].shape}, expected {shape}")


def _text(value):
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _reason(error):
    # str() of a KeyError is the message in quotes.
    return " ".join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())


def _step_numbers(group):
    return [int(name[len("step_"):]) for name in group if re.fullmatch(r"step_\d+", name)]


def _by_number(name):
    """Sort key: text_2 before text_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _ranges(numbers):
    """[0, 1, 2, 5] as "0 to 2, 5"."""
    parts = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in parts)
