# SPDX-License-Identifier: Apache-2.0
"""Reads the attention maps and head statistics that `dekoder train` and `dekoder attention` write.

A run has one file per captured step, attention/step-00000500.h5, that never changes (format 2); earlier programs kept
all steps in attention.h5 (format 1). Both are read here, as one view of the run. No file is held open.
"""
from __future__ import annotations

import contextlib
import re
from pathlib import Path

import h5py
import numpy as np

from .errors import RunError
from .files import HDF5_ERRORS, names_in, present, require_file

FORMAT = "dekoder-attention"
MAJORS = (1, 2)  # a file of another major version has another layout
_NONE = ("expected attention maps of a run: set attention.texts or attention.windows in its configuration, or make some "
         "with `dekoder attention RUN --text \"...\"`")


def attention_files(path) -> list:
    """The attention files of a run directory, or of its folder attention/, by step; attention.h5 comes first."""
    path = Path(path)
    steps = {}
    for folder in (path / "attention", path):
        for name in names_in(folder):
            step = re.fullmatch(r"step-(\d{8,})\.h5", name)
            if step:
                steps[int(step[1])] = folder / name
    single = path / "attention.h5"
    return ([single] if present(single) else []) + [steps[step] for step in sorted(steps)]


def read_attention(path) -> "Attention":
    """The attention maps of a run directory, of its folder attention/, or of one file. Raises RunError where there are
    none, and where a file is damaged, of another program or version."""
    path = Path(path)
    if not path.is_dir():
        return Attention(path, [_File(path)])
    files = []
    for file in attention_files(path):
        try:
            files.append(_File(file))
        except RunError:
            if present(file):
                raise  # else a restart has removed it meanwhile
    if not files:
        raise RunError(f"{path}: holds no attention maps; {_NONE}")
    return Attention(path, files)


class Probe:
    """One text whose attention was captured.

    path: what was read; name; text; source ("configuration", "held-out tokens A to B", "command line"); tokens: int32
    (token); token_text: list of str, one per token, a byte that is no UTF-8 alone as \\xC3; steps: sorted list of int.
    """

    def __init__(self, path, name, head):
        self.path = path
        self.name = name
        self.text, self.source, self.tokens, self.token_text = head.text, head.source, head.tokens, head.token_text
        self._places = {}  # step -> (file, its name of the weights, of the statistics)

    @property
    def steps(self) -> list:
        return sorted(self._places)

    def weights(self, step) -> np.ndarray:
        """Attention weights after `step` optimizer steps: float16 (layer, head, query, key), rows sum to 1, zero where
        key > query. Raises RunError for another step, for a damaged map and for weights above the diagonal."""
        file, name, _ = self._place(step)
        weights = file.read(name, (len(self.tokens),) * 2)
        if np.any(np.triu(weights, 1)):
            raise file.error(f"{name} has weights above the diagonal, where key > query")
        return weights

    def statistics(self, step) -> np.ndarray:
        """Head statistics after `step` optimizer steps: float32 (layer, head, statistic), see statistic_names."""
        file, _, name = self._place(step)
        return file.read(name, (len(file.statistic_names),))

    def add(self, file, head):
        """Takes the steps that another file has of this probe; those that are there already stay."""
        for step, names in head.steps.items():
            self._places.setdefault(step, (file, *names))

    def _place(self, step):
        if step not in self._places:
            steps = ", ".join(map(str, self.steps)) or "none"
            raise RunError(f"{self.path}: no step {step} of probe {self.name}; captured steps: {steps}")
        return self._places[step]


class Attention:
    """The attention maps of a run, or of one file.

    path: what was read; run_id; config_text: the run's configuration as YAML; layers, heads: lists of int, which of the
    model's layers and heads stand at axes 0 and 1 of the maps; statistic_names: list of str; probes: dict name ->
    Probe, texts before windows, in order of their numbers; left_out: list of str, one line per file that is not used.

    Where the files of a run differ, the newest step's file decides: it says run_id, config_text, layers, heads and
    statistic_names, and a file of others is left out. A probe is its text and tokens: as long as these are the same it
    is one probe, under the name of the newest file that has it. Where that name is another text's by then, it is called
    "text_0-until-500", after the last step it has.
    """

    def __init__(self, path, files):
        self.path = path
        self.left_out = []
        self.probes = {}
        newest = files[-1]
        self.run_id, self.config_text = newest.run_id, newest.config_text
        self.layers, self.heads, self.statistic_names = newest.layers, newest.heads, newest.statistic_names
        known = {}
        for file in reversed(files):
            if file.axes() != newest.axes():
                self.left_out.insert(0, f"{file.path}: of another run, other layers, heads or statistics than "
                                        f"{newest.path.name}; left out")
                continue
            alike = {}  # probes of one file with the same text stay apart
            for head in file.probes:
                number = alike[head.contents()] = alike.get(head.contents(), -1) + 1
                probe = known.get((head.contents(), number))
                if probe is None:
                    taken = head.name in self.probes
                    name = f"{head.name}-until-{max(head.steps, default=0)}" if taken else head.name
                    probe = known[head.contents(), number] = self.probes[name] = Probe(path, name, head)
                probe.add(file, head)
        self.probes = {name: self.probes[name] for name in sorted(self.probes, key=_by_number)}

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


class _Head:
    """A probe as one file has it: all but the arrays of its steps."""

    def __init__(self, name, group):
        self.name = name
        self.text = _text(group.attrs.get("text", ""))
        self.source = _text(group.attrs.get("source", ""))
        if not group.attrs.get("causal", 1):
            raise ValueError(f"{name}: maps that are not causal")
        self.tokens = group["tokens"][()]
        self.token_text = [_text(text) or "\\x00" for text in group["token_text"][()]]
        if len(self.token_text) != len(self.tokens):
            raise ValueError(f"{name}: {len(self.token_text)} token_text for {len(self.tokens)} tokens")
        self.steps = {}  # step -> names of the weights and of the statistics

    def contents(self):
        return self.text, self.tokens.tobytes(), tuple(self.token_text)


class _File:
    """One attention file; its head is in memory."""

    def __init__(self, path):
        self.path = path
        with self._opened() as file:
            try:
                self._read_head(file)
            except HDF5_ERRORS as error:
                raise self.error(f"is not whole ({_reason(error)})") from error

    def axes(self):
        """What the maps of two files must have in common to stand in one view."""
        return self.run_id, self.layers, self.heads, self.statistic_names

    def read(self, name, last_axes):
        """A dataset (layer, head, *last_axes). Raises RunError where its checksum or its compressed form is wrong."""
        with self._opened() as file:
            try:
                values = file[name][()]
            except HDF5_ERRORS as error:
                raise self.error(f"{name} cannot be read (its checksum or its compressed form is wrong: "
                                 f"{_reason(error)})") from error
        if values.shape != (len(self.layers), len(self.heads), *last_axes):
            raise RunError(f"{self.path}: {name} is another one than a moment ago; a restart of the run has replaced "
                           "the file: read the run again")
        return values

    def error(self, what):
        return RunError(f"{self.path}: {what}; expected the attention file that dekoder writes; it is damaged or of "
                        "another program: delete it, and make maps anew from a checkpoint with "
                        "`dekoder attention RUN --text \"...\" --step N`")

    @contextlib.contextmanager
    def _opened(self):
        if not present(self.path):
            raise RunError(f"{self.path}: no such file; {_NONE}")
        require_file(self.path)
        with contextlib.ExitStack() as stack:
            try:
                # Through Python's file: no lock is asked for or held, whoever else has the file open, and in which way.
                raw = stack.enter_context(self.path.open("rb"))
                file = stack.enter_context(h5py.File(raw, "r"))
            except HDF5_ERRORS as error:
                raise self.error(f"cannot be opened ({_reason(error)})") from error
            yield file

    def _read_head(self, file):
        attributes = file.attrs
        found = _text(attributes.get("format", ""))
        if found != FORMAT:
            raise self.error(f"holds no attention maps: its attribute format is {found!r}, not {FORMAT!r}")
        major, minor = int(attributes["major"]), int(attributes.get("minor", 0))
        if major not in MAJORS:
            raise RunError(f"{self.path}: attention file of version {major}.{minor}, expected "
                           f"{' or '.join(f'{known}.x' for known in MAJORS)}; use the post-processing that came with "
                           "the dekoder that wrote it")
        self.run_id = _text(attributes["run_id"])
        self.config_text = _text(attributes["config"])
        self.layers = [int(layer) for layer in file["layers"][()]]
        self.heads = [int(head) for head in file["heads"][()]]
        names = file["statistics"].attrs["names"] if major == 1 else attributes["statistic_names"]
        self.statistic_names = _text(names).split(",")
        self.probes = [_Head(name, group) for name, group in file["attention"].items()]
        for head in self.probes:
            group = f"attention/{head.name}"
            if major == 1:
                head.steps = {step: (f"{group}/step_{step}", f"statistics/{head.name}/step_{step}")
                              for step in _step_numbers(file[group])}
            else:
                head.steps = {int(attributes["step"]): (f"{group}/weights", f"{group}/statistics")}
            self._check_shapes(file, head)

    def _check_shapes(self, file, head):
        maps = (len(self.layers), len(self.heads))
        for names in head.steps.values():
            for name, shape in zip(names, ((len(head.tokens),) * 2, (len(self.statistic_names),))):
                if file[name].shape != maps + shape:
                    raise ValueError(f"{name}: shape {file[name].shape}, expected {maps + shape}")


def _text(value):
    value = value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogateescape")
    return value.decode("utf-8", "replace")


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
