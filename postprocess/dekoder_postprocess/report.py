# SPDX-License-Identifier: Apache-2.0
"""dekoder-report RUN [RUN2 ...] -o report.html: one self-contained page of one or more runs.

The page opens from disk and loads nothing. Its numbers are those of metrics.jsonl, the attention files and the prediction
files: attention maps are embedded as the float16 bits of the file, predictions as its 32-bit words. A run may still be training.
"""

import argparse
import sys

from . import report_html, report_predictions
from .errors import RunError, run_command
from .files import OutputFile, path_name
from .page_template import fill, resource
from .predictions_reader import read_run_predictions
from .report_data import json_for_html, run_data
from .report_maps import Source, embed
from .run_reader import read_run
from .visible_text import escaped

MEGABYTE = 1_000_000
_SCRIPTS = ("report_charts.js", "report_tokens.js", "report_maps.js", "report_panel.js", "report_attention.js",
            "report_predictions.js", "report_page.js")
_MAP_TAG = 120  # bytes of a map's element around its text, at most


def map_elements(maps):
    return "\n".join(f'<script type="text/plain" class="map-data" id="map-{run}-{probe}-{step}" '
                     f'data-encoding="{maps.encoding}">{text}</script>'
                     for (run, probe, step), text in sorted(maps.texts.items()))


def sources_of(runs):
    """The probes of all runs; a probe's number is its place among all probe names, in the order they come."""
    sources = []
    names = list(dict.fromkeys(name for run in runs if run.attention for name in run.attention.probes))
    for i, run in enumerate(runs):
        for probe in run.attention.probes.values() if run.attention else ():
            maps = len(run.attention.layers) * len(run.attention.heads)
            sources.append(Source(i, names.index(probe.name), probe.name, maps, probe))
    return names, sources


def build_page(runs, megabytes=10):
    """The page as text. Raises RunError where a file is damaged or the page cannot be that small."""
    tables = report_predictions.sources_of([read_run_predictions(run.path) for run in runs])
    names = report_html.distinct_names([run.path for run in runs])
    probe_names, sources = sources_of(runs)
    data = {"runs": [run_data(run, name) for run, name in zip(runs, names)], "probes": probe_names}
    parts = {
        "title": escaped(", ".join(names)),
        "style": resource("report_page.css"),
        "script": resource(*_SCRIPTS),
        "runs": " <span>and</span> ".join(f"<bdi>{escaped(name)}</bdi>" for name in names),
        "missing": report_html.missing(runs, names),
        "summary": report_html.summary(runs, names),
        "restarts": report_html.restarts(runs, names),
        "sources": report_html.sources(runs, names),
        "starts": report_html.starts(runs, names),
        "phases": report_html.phases(runs, names),
        "samples": report_html.samples(runs, names),
        "configuration": report_html.configuration(runs, names),
        "predictions": report_predictions.summary(tables, names),
        "data": json_for_html(data), "maps": "", "attention_note": "", "prediction_data": "", "prediction_note": "",
    }
    template = resource("report_page.html")
    count = sum(len(source.reader.steps) for source in sources)
    # Bytes of everything else; the notes on what is left out name each step at most once.
    rest = len(fill(template, parts).encode("utf-8", "replace")) + count * (_MAP_TAG + 16) + len(tables) * 16 + 1000
    budget = int(megabytes * MEGABYTE) - rest
    if budget < 0:
        raise RunError(f"the page without attention maps and predictions takes {rest / MEGABYTE:.2f} MB, more than --max-megabytes "
                       f"{megabytes:g}; give a greater number or fewer runs")
    predicted = report_predictions.embed(tables, budget // 2 if sources else budget)
    budget += len(parts["data"])
    parts["data"] = json_for_html({**data, "predictions": predicted.data})
    parts["prediction_data"] = report_predictions.elements(predicted)
    budget -= len(parts["data"]) + len(parts["prediction_data"])
    parts["prediction_note"] = report_predictions.note(predicted, megabytes)
    maps = embed(sources, budget)
    parts["maps"] = map_elements(maps)
    parts["attention_note"] = report_html.attention_note(maps, megabytes)
    return fill(template, parts)


def _megabytes(text):
    value = float(text)
    if not 0.1 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{text}: expected 0.1 to 1000 megabytes")
    return value


def parse_options(arguments):
    parser = argparse.ArgumentParser(
        prog="dekoder-report", description="One self-contained HTML page of one or more runs: losses, rates, "
        "samples, attention maps, head statistics, configuration. A run may still be training.",
        epilog="Exit codes: 0 made, 2 usage, 3 a file is missing, damaged or of another program, 130 interrupted (Ctrl-C).")
    parser.add_argument("runs", metavar="RUN", nargs="+", type=path_name,
                        help="run directory; with two, maps are shown side by side")
    parser.add_argument("-o", "--output", metavar="FILE", type=path_name, default="report.html",
                        help="default: report.html")
    parser.add_argument("--max-megabytes", type=_megabytes, default=10, metavar="MB",
                        help="greatest size of the page, 10^6 bytes each; to keep it, attention maps of steps in "
                        "between are left out (default: 10)")
    return parser.parse_args(arguments)


def main(arguments=None) -> int:
    """The command; returns its exit code."""

    def work():
        options = parse_options(arguments)
        with OutputFile(options.output) as output:  # before the work is done
            page = build_page([read_run(path) for path in options.runs], options.max_megabytes)
            page = page.encode("utf-8", "replace")
            output.write(page)
        print(f"{options.output}: {len(page) / MEGABYTE:.2f} MB")

    return run_command("dekoder-report", work)


if __name__ == "__main__":
    sys.exit(main())
