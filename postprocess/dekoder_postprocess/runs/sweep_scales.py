# SPDX-License-Identifier: Apache-2.0
"""What the sweeps that runs are trials of say of them: how their settings were sampled, and their first rung."""
from __future__ import annotations

from typing import Optional

from ..errors import RunError
from ..files import present


def scales(summaries) -> dict[str, str]:
    """"section.key" -> "log" or "linear", of the ranges of all sweeps that the runs are trials of."""
    found = {}
    for definition in _definitions(summaries):
        for parameter in definition.parameters:
            if not parameter.values and found.get(parameter.key) != "log":
                found[parameter.key] = "log" if parameter.scale.endswith("log") else "linear"
    return found


def first_rung(summaries) -> Optional[int]:
    """The least step at which one of these sweeps stops trials early; None where none does."""
    return min((definition.rungs[0] for definition in _definitions(summaries) if definition.halving), default=None)


def _definitions(summaries) -> list:
    """Of the sweep.yaml one or two folders above each run. A file that cannot be read tells nothing."""
    try:
        from ..sweep.definition import DefinitionError, read_definition
    except ModuleNotFoundError:
        return []
    found = []
    for folder in sorted({folder for summary in summaries for folder in list(summary.path.parents)[:2]}):
        try:
            if present(folder / "sweep.yaml"):
                found.append(read_definition(folder / "sweep.yaml", folder / "base.yaml"))
        except (DefinitionError, RunError):
            continue
    return found
