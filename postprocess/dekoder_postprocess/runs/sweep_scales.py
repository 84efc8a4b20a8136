# SPDX-License-Identifier: Apache-2.0
"""How the settings of runs were sampled, by the sweeps that the runs are trials of."""
from __future__ import annotations

from ..errors import RunError
from ..files import present


def scales(summaries) -> dict[str, str]:
    """"section.key" -> "log" or "linear", of the ranges of all sweeps that the runs are trials of: the sweep.yaml one or two
    folders above them. A file that cannot be read tells nothing."""
    try:
        from ..sweep.definition import DefinitionError, read_definition
    except ModuleNotFoundError:
        return {}
    found = {}
    for folder in sorted({folder for summary in summaries for folder in list(summary.path.parents)[:2]}):
        try:
            if present(folder / "sweep.yaml"):
                definition = read_definition(folder / "sweep.yaml", folder / "base.yaml")
                for parameter in definition.parameters:
                    if not parameter.values and found.get(parameter.key) != "log":
                        found[parameter.key] = "log" if parameter.scale.endswith("log") else "linear"
        except (DefinitionError, RunError):
            continue
    return found
