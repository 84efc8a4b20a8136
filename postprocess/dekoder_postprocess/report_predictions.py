# SPDX-License-Identifier: Apache-2.0
"""Predictions in a report: the table of all files, and the windows of them that fit into the page."""
from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .report_data import json_for_html
from .report_html import number
from .report_maps import encoded, planes, spread
from .visible_text import escaped, visible, visible_token

PLAIN_LIMIT = 200_000
"""Bytes of text up to which predictions stay uncompressed: such a page unpacks in any browser."""


@dataclass(frozen=True)
class Source:
    """Predictions of a run at one step: the number of the run, of the held-out text, and predictions_reader.Predictions."""

    run: int
    text: int
    table: object


@dataclass
class EmbeddedPredictions:
    """What goes into the page: data for its JSON, texts[place of the file in the data] with their encoding, notes on what is
    left out."""

    data: dict
    texts: list
    encoding: str
    notes: list


def sources_of(tables_of_runs):
    """A Source for each file of each run; equal held-out texts have equal numbers."""
    keys = list(dict.fromkeys(table.text_key() for tables in tables_of_runs for table in tables))
    return [Source(run, keys.index(table.text_key()), table) for run, tables in enumerate(tables_of_runs) for table in tables]


def _rows(table, firsts):
    """Rows of the table in windows that begin at one of `firsts`, and these windows."""
    windows = [window for window in table.windows if window.first in firsts]
    rows = [np.arange(window.begin, window.end) for window in windows]
    return np.concatenate(rows) if rows else np.zeros(0, int), windows


def packed(table, rows, compress):
    """Truth, rank, surprise, best tokens and their log-probabilities of those rows, column after column: 32-bit words, as the
    planes of their bytes."""
    columns = table.columns
    parts = [columns["truth"], columns["rank"], columns["surprise"], columns["top_tokens"], columns["top_log_probabilities"]]
    return encoded(b"".join(planes(part[rows].astype("<i4" if part.dtype.kind == "i" else "<f4")) for part in parts), compress)


def embed(sources, budget):
    """Packs what fits into `budget` bytes of text: all windows of all files; else fewer windows, the same in each file and
    evenly spread; else the newest file of each run alone; else nothing."""
    newest = {source.run: source for source in sources}
    for kept in (sources, list(newest.values())):
        firsts = sorted({window.first for source in kept for window in source.table.windows})
        count = len(firsts)
        while count > 0:
            embedded = _embedded(kept, spread(firsts, count, {firsts[0]}))
            size = len(elements(embedded)) + len(json_for_html(embedded.data))
            if size <= budget:
                embedded.notes = _notes(sources, kept, count, len(firsts))
                return embedded
            count = min(count - 1, max(1, int(count * budget / size)))
    return EmbeddedPredictions({"files": [], "texts": []}, [], "plain",
                               ["all windows of predictions are left out"] if sources else [])


def _embedded(sources, firsts):
    files, texts, used = [], [], {}
    chosen = [(source, *_rows(source.table, firsts)) for source in sources]
    chosen = [(source, rows, windows) for source, rows, windows in chosen if windows]
    compress = sum(4 * len(rows) * (3 + 2 * source.table.top) for source, rows, _ in chosen) * 4 // 3 > PLAIN_LIMIT
    for source, rows, windows in chosen:
        table = source.table
        files.append({"run": source.run, "step": table.step, "text": source.text, "top": table.top,
                      "vocabulary": table.vocabulary, "windows": [[window.first, window.end - window.begin] for window in windows]})
        texts.append(packed(table, rows, compress))
        tokens = used.setdefault(source.text, (set(), table.token_text))[0]
        tokens.update(np.unique(table.columns["truth"][rows]).tolist())
        tokens.update(np.unique(table.columns["top_tokens"][rows]).tolist())
    names = [{}] * (max(used, default=-1) + 1)
    for text, (tokens, token_text) in used.items():
        names[text] = {str(token): [visible(token_text[token]), visible_token(token_text[token])] for token in sorted(tokens)}
    return EmbeddedPredictions({"files": files, "texts": names}, texts, "deflate" if compress else "plain", [])


def _notes(sources, kept, count, windows):
    notes = [f"{windows - count} of {windows} windows of predictions are left out"] if count < windows else []
    steps = sorted({source.table.step for source in sources if source not in kept})
    return notes + ([f"predictions of these steps are left out: {', '.join(f'{step:,}' for step in steps)}"] if steps else [])


def elements(embedded):
    return "\n".join(f'<script type="text/plain" class="prediction-data" id="predictions-{place}" '
                     f'data-encoding="{embedded.encoding}">{text}</script>' for place, text in enumerate(embedded.texts))


def summary(sources, names):
    """The table of all files, over all their windows."""
    if not sources:
        return ('<p class="notes">No predictions: <code>dekoder predictions RUN</code> makes them, of the newest checkpoint or that of '
                "<code>--step N</code>.</p>")
    many, texts = len(names) > 1, len({source.text for source in sources}) > 1
    heads = [*(["Run"] if many else []), "Step", "Windows", "Tokens", "Surprise, nats per token", "Truth guessed",
             "Truth among the best", *(["Held-out text"] if texts else [])]
    rows = ""
    for source in sources:
        table = source.table
        cells = [f"{table.step:,}", f"{len(table.windows):,}", f"{len(table.columns['truth']):,}", number(table.mean_surprise()),
                 f"{100 * table.share_within(1):.1f} %", f"{100 * table.share_within(table.top):.1f} % (best {table.top})",
                 *([f"{table.source} {table.validation_hash[:8]}"] if texts else [])]
        swatch = f'<td><i class="swatch run-{source.run % 6}"></i>{escaped(names[source.run])}</td>' if many else ""
        rows += f"<tr>{swatch}" + "".join(f"<td>{escaped(cell)}</td>" for cell in cells) + "</tr>"
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    note = ('<p class="notes">The predictions are of different held-out tokens: only those of the same text are compared.</p>'
            if texts else "")
    return (f'{note}<div class="wide" tabindex="0" role="region" aria-label="Predictions by checkpoint"><table class="predictions">'
            f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>")


def note(embedded, megabytes):
    """What the page leaves out."""
    if not embedded.notes:
        return ""
    return f'<p class="notes">To keep this page below {megabytes:g} MB, {escaped("; ".join(embedded.notes))}.</p>'
