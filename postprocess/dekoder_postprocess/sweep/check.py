# SPDX-License-Identifier: Apache-2.0
"""Asks the program `dekoder` whether a sweep's base configuration and the settings of its trials are right."""
from __future__ import annotations

import os
import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ..errors import RunError
from ..program import own_environment
from .definition import DefinitionError
from .parameters import setting_text
from .samplers import planned, tpe_settings

AT_ONCE = 4
"""Processes."""
REAL = ("linear", "log")
"""Scales of ranges of real numbers."""
DRAWN = 32
"""Settings that stand for those of TPE, which are not known beforehand."""


def check_with_program(definition, program):
    """`dekoder describe` of every planned trial. Raises DefinitionError with its messages, those on a setting with the place of
    its value in the sweep's file, and RunError where the program cannot be started."""
    trials = planned(definition, []) or [tpe_settings(definition, index, []) for index in range(DRAWN)]
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base.yaml"
        base.write_text(definition.base_text, "utf-8")

        def ask(settings):
            words = [program.path, "describe", os.fspath(base)]
            for key, value in {**definition.fixed, **settings, "training.steps": definition.steps}.items():
                words += ["--set", f"{key}={setting_text(value)}"]
            try:
                done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, env=own_environment())
            except OSError as error:
                raise RunError(f"{program.path}: cannot be started: {error.strerror or error}; check DEKODER_PROGRAM") from error
            return [] if done.returncode == 0 else _faults(definition, settings, done, base)

        with ThreadPoolExecutor(AT_ONCE) as threads:
            lines = [line for faults in threads.map(ask, trials) for line in faults]
    if lines:
        raise DefinitionError(sorted(set(lines), key=_by_place))


def with_unknown_keys(error, name, program) -> DefinitionError:
    """The DefinitionError of the sweep's file `name` with what dekoder says of unknown keys in it, as they need not wait until the rest is
    mended. Only what is in `error` where the program is missing or cannot be started."""
    keys = {found[1]: place for of, place in error.places.items() if (found := re.fullmatch(r"(?:set|parameters)\.(\w+\.\w+)", of))}
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder) / "base.yaml"
        base.write_text("model: {}\n", "utf-8")
        try:
            words = [program.path, "describe", os.fspath(base), *(word for key in keys for word in ("--set", f"{key}=0"))]
            done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, env=own_environment())
        except (OSError, RunError):
            return error
    said = re.findall(r"--set ([\w.]+)=0: (unknown .*)", done.stderr.decode("utf-8", "replace"))
    lines = [f"{name}:{keys[key][0]}:{keys[key][1]}: {text}" for key, text in said if key in keys]
    return DefinitionError(sorted({*error.lines, *lines}, key=_by_place))


def _faults(definition, settings, done, base):
    text = done.stderr.decode("utf-8", "replace")
    _, found, errors = text.partition("dekoder: error: ")
    if not found:
        return [definition.fault("base", f"dekoder describe ended with exit code {done.returncode}: {' '.join(text.split())}")]
    texts = {setting_text(value): value for value in settings.values()}
    lines = []
    for line in errors.strip().splitlines():
        of_setting = re.match(r"--set ([\w.]+)=(.*?): ", line)
        if of_setting:
            key, said = of_setting[1], line[of_setting.end():]
            if "expected a whole number" in said and any(of.key == key and not of.values and of.scale in REAL for of in definition.parameters):
                said = f"{key} is a whole number, and this range is of real ones; expected scale: int, or int-log"
            value = f"parameters.{key}.{texts.get(of_setting[2])!r}"
            places = (value if not said.startswith("unknown key") else "", f"parameters.{key}", f"set.{key}", "steps")
            lines.append(definition.fault(next(place for place in places if place in definition.places), said))
        else:
            lines.append(definition.fault("base", line.replace(os.fspath(base), "base")))
    return lines


def _by_place(line):
    place = re.search(r":(\d+):(\d+): ", line)
    return int(place[1]), int(place[2]), line
