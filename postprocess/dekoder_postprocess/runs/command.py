# SPDX-License-Identifier: Apache-2.0
"""dekoder-runs DIR ...: the table of all runs below folders, their page, and which settings mattered."""
from __future__ import annotations

import argparse
import contextlib
import sys
from pathlib import Path

from ..errors import run_command
from ..files import OutputFile, path_name
from ..visible_text import shortened
from .collect import collect
from .condition import ConditionError, compile_condition
from .sweep_scales import first_rung, scales
from .table import COLUMNS, RunTable

MEGABYTE = 1_000_000


def parse_options(arguments):
    parser = argparse.ArgumentParser(
        prog="dekoder-runs", description="A table of all runs at or below folders, also of those that train. Runs are not "
        "registered anywhere: a folder that dekoder trained in is one. Without other words the least validation loss stands first, "
        "and columns in which the runs do not differ are left out.",
        epilog="Exit codes: 0 made, 2 usage or a missing Python package, 3 no run, or something cannot be written, 130 interrupted "
        "(Ctrl-C). A run that is damaged is a row, with the reason below. KEY: a column of --csv, such as state, created, step, validation_loss (the best "
        "one) or a setting, such as training.batch, or batch. EXPR: comparisons == != < <= > >= and in [a, b] of a KEY with a number, "
        "a word, a \"text\", true, false or none (not known), with and, or, not and parentheses.")
    parser.add_argument("folders", nargs="+", metavar="DIR", type=path_name, help="folders with runs at any depth, or runs")
    parser.add_argument("--where", metavar="EXPR", help="runs that meet a condition: 'training.batch>16 and model.norm==pre'")
    parser.add_argument("--sort", metavar="KEY[,-KEY]", default="validation_loss",
                        help="smallest first; behind a minus greatest first (default: validation_loss)")
    parser.add_argument("--columns", metavar="KEY[,KEY]", help="these, in this order")
    parser.add_argument("--csv", action="store_true", help="every column, numbers with all their digits, a line for each run: "
                        "lists, and texts with line breaks, are JSON")
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")
    parser.add_argument("--importance", action="store_true", help="which settings mattered, and how far that can be trusted; with "
                        "--json beside the runs")
    parser.add_argument("--at-step", metavar="N", type=_step, help="importance for the best loss up to that step, of all runs that came "
                        "so far: fair where runs were stopped early (default: the first rung of their sweep, where they were)")
    parser.add_argument("-o", "--output", metavar="FILE", type=path_name, help="a page of all of it that needs no network: runs.html")
    options = parser.parse_args(_with_values(sys.argv[1:] if arguments is None else arguments))
    if options.at_step is not None and not (options.importance or options.output):
        parser.error("--at-step without --importance or -o; expected one of them")
    if options.csv and (options.json or options.importance):
        parser.error(f"--csv and --{'json' if options.json else 'importance'} are two outputs; expected one of them")
    return parser, options


def _step(text):
    if not (text.isascii() and text.isdigit() and len(text) < 19 and int(text) > 0):
        raise argparse.ArgumentTypeError(f"'{shortened(text)}' is no step; expected a whole number from 1")
    return int(text)


def _with_values(arguments):
    """--sort -created as --sort=-created: argparse takes a word that begins with a minus for an option."""
    joined = []
    for word in arguments:
        if joined[-1:] == ["--sort"] and word.startswith("-") and not word.startswith("--"):
            joined[-1] = f"--sort={word}"
        else:
            joined.append(word)
    return joined


def chosen(options, parser):
    """(table of the chosen runs in their order, columns for programs, columns for people or None, count of all runs)."""
    every = RunTable(collect(options.folders))
    what = "--sort"
    try:
        keys = [(every.column(key.lstrip("-")), key.startswith("-")) for key in _words(options.sort)]
        what = "--columns"
        columns = [every.column(key) for key in _words(options.columns)] if options.columns is not None else None
        what = "--where"
        runs = every.summaries
        if options.where is not None:
            condition = compile_condition(options.where, lambda key: every.column(key).value)
            runs = [run for run in runs if condition(run)]
    except (ValueError, ConditionError) as error:
        parser.error(f"{what}: {error}")
    return RunTable(runs).sorted(keys), columns or [*COLUMNS, *every.settings], columns, len(every.summaries)


def _words(text):
    return [word.strip() for word in text.split(",")]


def write_page(output, options, table):
    """The page, into an OutputFile."""
    from .page import build_page

    runs = table.summaries
    page = build_page(runs, scales(runs), Path(options.output).parent, options.at_step, first_rung(runs)).encode("utf-8", "replace")
    output.write(page)
    quiet = options.csv or options.json
    print(f"{options.output}: {len(page) / MEGABYTE:.2f} MB", file=sys.stderr if quiet else sys.stdout)


def importance_of(table, at_step):
    """Which settings mattered for the losses of the table's runs, up to a step if there is one (importance.Importance)."""
    from .importance import importance

    runs, of = table.summaries, scales(table.summaries)
    logarithmic = {name for name, scale in of.items() if scale == "log"}
    return importance(runs, logarithmic=logarithmic, linear=of.keys() - logarithmic, at_step=at_step, first_rung=first_rung(runs))


def main(arguments=None) -> int:
    """The command; returns its exit code."""

    def work():
        parser, options = parse_options(arguments)
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(OutputFile(options.output)) if options.output is not None else None  # before the work
            table, columns, shown, count = chosen(options, parser)
            if output:
                write_page(output, options, table)
        if options.csv:
            print(table.csv(columns), end="")
        elif options.json:
            more = {"importance": importance_of(table, options.at_step).as_json()} if options.importance else {}
            print(table.json(columns, **more), end="")
        elif options.importance:
            from .importance_text import importance_text
            print(importance_text(importance_of(table, options.at_step)), end="")
        elif not output:
            print(table.text(shown), end="")
            if options.where is not None:
                print(f"{len(table.summaries)} of {count} runs")

    return run_command("dekoder-runs", work)


if __name__ == "__main__":
    sys.exit(main())
