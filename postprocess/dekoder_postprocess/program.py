# SPDX-License-Identifier: Apache-2.0
"""Asks the program `dekoder` what only it knows: which initial values a configuration draws, and whether a process is
at work in a run directory."""
from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

from .errors import RunError

_NO_PROGRAM = "no program dekoder on the PATH; build it, or name it in DEKODER_PROGRAM"
_CHECKOUT = Path(__file__).resolve().parents[2]


# What tells dekoder that it is one of several ranks (src/base/rank_launcher.cpp): this process may be, what it starts is not.
_ANNOUNCEMENTS = ("OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "PMI_SIZE")


def own_environment() -> dict:
    """The environment for a program that is started by this process alone, not by the launcher of this process."""
    return {name: value for name, value in os.environ.items() if name not in _ANNOUNCEMENTS}


class NotKnown(Exception):
    """The program is not there or does not answer; why."""


class Program:
    """`dekoder`: the one that DEKODER_PROGRAM names (dekoder sets it), else that on the PATH, else one that was built
    in the checkout of this package. `backend` is passed on to it."""

    def __init__(self, backend=None):
        built = [str(_CHECKOUT / "build" / preset / "dekoder") for preset in ("openmp", "cuda")]
        self._path = (os.environ.get("DEKODER_PROGRAM") or shutil.which("dekoder") or
                      next(filter(shutil.which, built), None))
        self._backend = ["--backend", backend] if backend else []

    @property
    def path(self) -> str:
        """The program's file. Raises RunError where there is none."""
        if self._path is None:
            raise RunError(f"there is {_NO_PROGRAM}")
        return os.path.abspath(self._path)

    def running(self, run):
        """Starts to ask; returns a function that gives the answer: whether a process trains in the directory `run`. It
        raises NotKnown."""
        answer = self._ask(run, "status", ".", "--json")
        return lambda: bool(answer()["running"])

    def initial_values(self, run):
        """What the run in the directory begins with: its configuration with every default, as YAML, and of every tensor
        name -> (shape, digest); equal digests are equal bits. Raises NotKnown."""
        answer = self._ask(run, "initial-values", ".")()
        return answer["config"], {tensor["name"]: (tensor["shape"], tensor["digest"]) for tensor in answer["tensors"]}

    def _ask(self, folder, command, *words):
        """Starts the command in `folder`, so that no name of any bytes is passed; returns a function that waits for the
        JSON it prints."""
        if self._path is None:
            return _refusing(f"there is {_NO_PROGRAM}")
        try:
            process = subprocess.Popen([os.path.abspath(self._path), command, *words, *self._backend], cwd=folder, env=own_environment(),
                                       stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        except OSError as error:
            return _refusing(f"{self._path} cannot be started: {error.strerror or error}")

        def answer():
            out, said = process.communicate()
            try:
                if process.returncode != 0:
                    raise ValueError("exit code " + str(process.returncode))
                return json.loads(out)
            except ValueError as error:
                lines = said.decode("utf-8", "replace").splitlines()
                reason = next((line for line in lines if "error: " in line), next(iter(lines), error))
                raise NotKnown(f"{self._path} {command} failed: {reason}") from error

        return answer


def _refusing(reason):
    def answer():
        raise NotKnown(reason)

    return answer
