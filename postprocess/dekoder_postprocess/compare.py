# SPDX-License-Identifier: Apache-2.0
"""dekoder-compare RUN RUN2 ...: whether runs are a pair, and what differs: losses, attention maps, head statistics."""
from __future__ import annotations

import argparse
import sys

from .comparison_report import comparison_json, comparison_text
from .errors import run_command
from .files import path_name
from .program import Program
from .run_comparison import compare_runs, read_compared_runs


def parse_options(arguments):
    parser = argparse.ArgumentParser(
        prog="dekoder-compare", description="Whether runs are a pair (seed, data, initial values, configuration), and "
        "what differs: losses at common steps, attention maps, head statistics. Runs may still be training.",
        epilog="Exit codes: 0 compared, 2 usage, 3 a file is missing, damaged or of another program, 130 interrupted "
        "(Ctrl-C). Initial values are drawn by the program dekoder: that of DEKODER_PROGRAM, of the PATH, or built in the checkout.")
    parser.add_argument("runs", nargs="*", metavar="RUN", type=path_name,
                        help="run directories; all are compared with the first")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output")
    parser.add_argument("--backend", choices=("auto", "openmp", "cuda"), help="where dekoder draws initial values")
    options = parser.parse_args(arguments)
    if len(options.runs) < 2:
        parser.error(f"compare got {len(options.runs)} run {'directory' if len(options.runs) == 1 else 'directories'}; "
                     "expected at least two, e.g. dekoder-compare runs/positions runs/no-positions")
    return options


def main(arguments=None) -> int:
    """The command; returns its exit code."""

    def work():
        options = parse_options(arguments)
        program = Program(options.backend)
        runs = read_compared_runs(options.runs, program)
        comparison = compare_runs(runs, program)
        print(comparison_json(comparison) if options.json else comparison_text(comparison), end="")
        for line in (line for run in runs if run.run.attention for line in run.run.attention.left_out):
            print(f"dekoder-compare: {line}", file=sys.stderr)

    return run_command("dekoder-compare", work)


if __name__ == "__main__":
    sys.exit(main())
