# SPDX-License-Identifier: Apache-2.0
"""Reads what `dekoder predictions` writes: for each token of held-out windows truth, guess, rank, probabilities and the best
tokens, one file per checkpoint (src/io/run/prediction_file.hpp is the format)."""
from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from .errors import RunError
from .files import HDF5_ERRORS, names_in, present, require_file, text_of

FORMAT, MAJOR = "dekoder-predictions", 1
COLUMNS = {"window": "i4", "position": "i8", "input": "i4", "truth": "i4", "guess": "i4", "rank": "i4", "surprise": "f4",
           "truth_probability": "f4", "guess_probability": "f4", "top_tokens": "i4", "top_log_probabilities": "f4"}
_TEXTS = ("run_id", "config", "writer", "tokenizer", "source", "data_hash", "validation_hash")
_NUMBERS = ("step", "top", "vocabulary", "context", "validation_tokens")


@dataclass(frozen=True)
class Window:
    """A stretch of held-out text: rows begin to end - 1 of the table."""

    first: int  # place of its first token in the held-out part, from 0
    begin: int
    end: int


class Predictions:
    """One file. path; step; top: K; vocabulary: V; context: T of the model; validation_tokens: of the held-out part; run_id,
    config, writer, tokenizer, source, data_hash, validation_hash: texts; token_text: list of V str, "" where the tokenizer
    has no such token; columns: name -> array (N), of top_tokens and top_log_probabilities (N, K), see COLUMNS: tokens are
    numbers, surprise and log-probabilities nats, rank 0 was guessed; windows: list of Window, by their places."""

    def __init__(self, path, attributes, token_text, columns):
        self.path, self.token_text, self.columns = path, token_text, columns
        for name in (*_TEXTS, *_NUMBERS):
            if name not in attributes:  # whose error would not name it
                raise ValueError(f"no attribute {name}")
            setattr(self, name, text_of(attributes[name]) if name in _TEXTS else int(attributes[name]))
        self._check()
        borders = [0, *(np.flatnonzero(np.diff(columns["window"])) + 1).tolist(), len(columns["window"])]
        self.windows = [Window(int(columns["position"][begin]), begin, end) for begin, end in zip(borders, borders[1:])]

    def text_key(self):
        """Equal for files of the same held-out tokens, whose windows that begin at the same place can be compared."""
        return self.validation_hash, self.tokenizer, tuple(self.token_text)

    def mean_surprise(self) -> float:
        """Nats per token."""
        return float(self.columns["surprise"].mean(dtype=float))

    def share_within(self, places) -> float:
        """How often the truth was among that many best tokens, 0 to 1."""
        return float((self.columns["rank"] < places).mean())

    def _check(self):
        """Raises ValueError where the table contradicts itself."""
        columns, count = self.columns, len(self.columns["truth"])
        if count == 0 or not 1 <= self.top <= self.vocabulary or len(self.token_text) != self.vocabulary:
            raise ValueError(f"{count} tokens, {self.top} best of {self.vocabulary}, {len(self.token_text)} token_text")
        for name, kind in COLUMNS.items():
            values, shape = columns[name], (count, self.top) if name.startswith("top_") else (count,)
            if values.shape != shape or values.dtype != np.dtype(kind):
                raise ValueError(f"{name}: {values.dtype} {values.shape}, expected {np.dtype(kind)} {shape}")
            if kind == "f4" and np.isnan(values).any():
                raise ValueError(f"{name}: has NaN")
            tokens = name in ("input", "truth", "guess", "rank", "top_tokens")
            if tokens and (values.min() < 0 or values.max() >= self.vocabulary):
                raise ValueError(f"{name}: {values.min()} to {values.max()}, expected 0 to {self.vocabulary - 1}")
        within = np.diff(columns["window"]) == 0
        if columns["window"][0] != 0 or not np.isin(np.diff(columns["window"]), (0, 1)).all():
            raise ValueError("window: not 0, 1, 2, ... in order")
        if np.any(np.diff(columns["position"])[within] != 1) or np.any(np.diff(columns["position"]) < 1):
            raise ValueError("position: not in the order of the text")
        if columns["position"][0] < 0 or columns["position"][-1] >= self.validation_tokens:
            raise ValueError(f"position: outside of the {self.validation_tokens} held-out tokens")
        if not np.array_equal(columns["rank"] == 0, columns["truth"] == columns["guess"]):
            raise ValueError("rank: is 0 where the guess is not the truth, or the other way round")
        if not np.array_equal(columns["guess"], columns["top_tokens"][:, 0]):
            raise ValueError("guess: is not the best token")
        best = columns["top_log_probabilities"]
        if np.any(np.diff(best, axis=1) > 0) or best.max() > 0 or columns["surprise"].min() < 0:
            raise ValueError("top_log_probabilities or surprise: no logarithms of probabilities in descending order")


def prediction_files(path) -> list:
    """The prediction files of a run directory by step; empty where there are none."""
    folder = Path(path) / "predictions"
    steps = {int(match[1]): folder / name for name in names_in(folder)
             for match in [re.fullmatch(r"step-(\d{8,18})\.h5", name)] if match}
    return [steps[step] for step in sorted(steps)]


def read_run_predictions(path) -> list:
    """Predictions of each file of the run directory `path`, by step; empty where there are none. Raises RunError as
    read_predictions, and where a file is not of the step of its name."""
    found = []
    for file in prediction_files(path):
        if not present(file):  # moved away meanwhile
            continue
        found.append(read_predictions(file))
        if found[-1].step != int(file.stem[len("step-"):]):
            raise _error(file, f"holds step {found[-1].step}, not that of its name")
    return found


def read_predictions(path) -> Predictions:
    """One file. Raises RunError where it is missing, damaged, of another program or version."""
    path = Path(path)
    if not present(path):
        raise RunError(f"{path}: no such file; expected one that `dekoder predictions RUN` writes; check the path")
    require_file(path)
    try:
        with path.open("rb") as raw, h5py.File(raw, "r") as file:  # through Python's file: no lock is asked for
            return _read(path, file)
    except HDF5_ERRORS as error:
        # str() of a KeyError is the message in quotes.
        reason = error.args[0] if isinstance(error, KeyError) and error.args else error
        raise _error(path, f"is not whole ({' '.join(str(reason).split())})") from error


def _read(path, file):
    if text_of(file.attrs.get("format", "")) != FORMAT:
        raise _error(path, f"holds no predictions: its attribute format is {text_of(file.attrs.get('format', ''))!r}, not "
                           f"{FORMAT!r}")
    if int(file.attrs["major"]) != MAJOR:
        raise RunError(f"{path}: predictions of format {int(file.attrs['major'])}, this program reads format {MAJOR}; use the "
                       "post-processing that came with the dekoder that wrote it")
    token_text = [text_of(text) for text in file["token_text"][()].tolist()]
    return Predictions(path, file.attrs, token_text, {name: file[name][()] for name in COLUMNS})


def _error(path, what):
    return RunError(f"{path}: {what}; expected what `dekoder predictions` writes; it is damaged or of another program: delete it, "
                    "and make it anew with `dekoder predictions RUN --step N`")
