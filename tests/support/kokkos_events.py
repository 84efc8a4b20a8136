# SPDX-License-Identifier: Apache-2.0
"""What Kokkos Tools are told while the real command runs: events of tests/support/record_tool.cpp."""

import os
import pathlib
import subprocess

from dekoder_runs import check

TOOL = pathlib.Path(os.environ["DEKODER_BINARY_DIR"]) / "tests" / "libkokkos_record_tool.so"
SCRATCH = "Kokkos::OpenMP::scratch_mem"  # Kokkos' own, by thread


def record(command, file):
    """Runs `command` with the tool loaded; its events, each a list of words."""
    answer = subprocess.run(command, capture_output=True, text=True,
                            env=dict(os.environ, KOKKOS_TOOLS_LIBS=str(TOOL), DEKODER_RECORD=str(file)))
    check(answer.returncode == 0, f"exit code {answer.returncode}; it said:\n{answer.stderr}")
    return [line.split("\t") for line in pathlib.Path(file).read_text().splitlines()]


def most_bytes(events, is_counted):
    """The most bytes alive at one time of the allocations whose label is counted."""
    alive, now, most = {}, 0, 0
    for event in events:
        if event[0] == "allocate" and is_counted(event[3]):
            alive[event[1]] = int(event[2])
            now += int(event[2])
            most = max(most, now)
        elif event[0] == "free" and event[1] in alive:
            now -= alive.pop(event[1])
    return most


class Kernel:
    """One kernel and the regions it ran in, outermost first."""

    def __init__(self, name, regions):
        self.name, self.regions = name, tuple(regions)


def kernels_of(events):
    """All kernels and the set of all region paths. Fails where regions or kernels are not balanced, or kernels nest."""
    stack, kernels, paths, open_kernel = [], [], set(), None
    for event in events:
        if event[0] == "push":
            stack.append(event[1])
            paths.add(tuple(stack))
        elif event[0] == "pop":
            check(stack, "a region ends that has not begun")
            stack.pop()
        elif event[0] == "begin":
            check(open_kernel is None, f"{event[2]} begins inside of another kernel")
            open_kernel = event[1]
            kernels.append(Kernel(event[2], stack))
        elif event[0] == "end":
            check(open_kernel == event[1], f"kernel {event[1]} ends, but {open_kernel} is open")
            open_kernel = None
    check(not stack and open_kernel is None, f"at the end {stack} and kernel {open_kernel} are open")
    return kernels, paths
