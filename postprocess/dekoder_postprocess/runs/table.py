# SPDX-License-Identifier: Apache-2.0
"""The table of runs: as text for people, as CSV and JSON for programs."""
from __future__ import annotations

import csv
import difflib
import io
import json
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, Callable, Optional, Sequence

from ..errors import ANY_TEXT
from ..text_table import text_table
from ..visible_text import shortened, visible_token
from .collect import natural
from .run_summary import RunSummary, compared_hash

LONGEST = 40
"""Characters of a text in the table for people."""
LONGEST_NAME = 80
"""Characters of a run's name there."""
NOTHING = "-"


@dataclass(frozen=True)
class Column:
    """One thing of all runs."""

    name: str  # in CSV and JSON
    value: Callable[[RunSummary], Any]  # None where a run has none
    title: str = ""  # in the table for people; empty: it is not among those that stand there unasked
    text: Optional[Callable[[Any], str]] = None  # a value there
    of_loss: bool = False  # a validation loss

    def shown(self, summary) -> str:
        value = self.value(summary)
        return NOTHING if value is None else shortened((self.text or setting_text)(value), LONGEST_NAME if self.name == "run" else LONGEST)


def _of(attribute):
    return lambda summary: getattr(summary, attribute)


def setting_text(value) -> str:
    """Any value, as a configuration has it, on one line and not too long."""
    if isinstance(value, float):
        text = f"{value:.5g}"
    elif isinstance(value, str):
        text = visible_token(value, spaces=False)
    else:
        text = visible_token(json.dumps(value, ensure_ascii=False), spaces=False)
    return shortened(text, LONGEST)


def _name(value):
    """The name of a run: both of its ends tell it from others."""
    text, half = visible_token(value, spaces=False), LONGEST_NAME // 2
    return text if len(text) <= LONGEST_NAME else f"{text[:half - 1]}...{text[2 - half:]}"


def _loss(value):
    return f"{value:.4f}" if abs(value) < 1e6 else f"{value:.5g}"


def _time(value):
    try:
        return time.strftime("%Y-%m-%d %H:%M", time.gmtime(value))
    except (OverflowError, ValueError, OSError):
        return setting_text(value)


def _duration(value):
    """Hours, minutes and seconds."""
    seconds = round(value)
    if seconds >= 1e10:  # 300 years
        return f"{value:.5g} s"
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _count(value):
    """A great number in three or four digits: 4.51 M."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.4g} {unit}"
    return f"{value:,}"


COLUMNS = (
    Column("run", _of("name"), "run", _name),
    Column("path", lambda summary: str(summary.path)),
    Column("state", _of("state"), "state"),
    Column("problem", _of("problem")),
    Column("message", _of("message")),
    Column("created", _of("created"), "created (UTC)", _time),
    Column("step", _of("step"), "step", "{:,}".format),
    Column("planned_steps", _of("planned_steps"), "planned", "{:,}".format),
    Column("validation_loss", _of("best_loss"), "best loss", _loss, of_loss=True),
    Column("best_step", _of("best_step"), "at step", "{:,}".format),
    Column("last_validation_loss", _of("last_loss"), "last loss", _loss, of_loss=True),
    Column("bits_per_byte", _of("bits_per_byte"), text=_loss, of_loss=True),
    Column("training_loss", _of("training_loss"), text=_loss),
    Column("tokens", _of("tokens"), "tokens", _count),
    Column("tokens_per_second", _of("tokens_per_second"), text=_count),
    Column("seconds", _of("seconds"), "time", _duration),
    Column("effective_time", _of("effective_time"), "effective", lambda share: f"{100 * share:.1f} %"),
    Column("restarts", _of("restarts"), "restarts"),
    Column("validation_hash", _of("validation_hash")),
)


class RunTable:
    """Runs and their columns."""

    def __init__(self, summaries: Sequence[RunSummary]):
        self.summaries = list(summaries)
        names = dict.fromkeys(name for summary in summaries for name in summary.settings)
        self.settings = [Column(name, lambda summary, name=name: summary.settings.get(name)) for name in names]
        self._hash = compared_hash(summaries)

    def column(self, key) -> Column:
        """By its name; a setting also without its section, where no other one is called so. Raises ValueError."""
        columns = [*COLUMNS, *self.settings]
        found = [column for column in columns if column.name == key] or \
            [column for column in self.settings if column.name.partition(".")[2] == key]
        if len(found) == 1:
            return found[0]
        if found:
            raise ValueError(f"{shortened(key)!r} is a setting of several sections; expected one of "
                             f"{', '.join(column.name for column in found)}")
        names = {name: column.name for column in columns for name in (column.name.partition(".")[2], column.name) if name}
        nearest = difflib.get_close_matches(shortened(key, 100), names, 1)
        raise ValueError(f"no run has {shortened(key)!r}; " + (f"did you mean {names[nearest[0]]}?" if nearest else
                                                    "expected a setting, such as training.batch, or a column of --csv"))

    def sorted(self, keys) -> "RunTable":
        """The same runs by (column, whether descending), the first key before the others. What a run does not have stands
        last, and losses on other validation tokens than those of most runs behind all others."""
        summaries = self.summaries
        for column, descending in reversed(keys):
            known = [summary for summary in summaries if column.value(summary) is not None]
            known.sort(key=lambda summary: _order(column.value(summary)), reverse=descending)
            if column.of_loss:
                known.sort(key=self._on_other_tokens)
            summaries = known + [summary for summary in summaries if column.value(summary) is None]
        return RunTable(summaries)

    def _on_other_tokens(self, summary) -> bool:
        return summary.validation_hash != self._hash

    def text(self, columns=None) -> str:
        """For people. `columns`: those to show; None: the usual ones without what is the same in all runs, which is told below,
        and the settings in which runs differ."""
        same = []
        if columns is None:
            columns = [column for column in COLUMNS if column.title]
            if len(self.summaries) > 1:
                same = [column for column in columns if column.name not in ("run", "validation_loss") and not self._differs(column)]
            columns = [column for column in columns if column not in same] + \
                [of for of in self.settings if of.name != "training.steps" and self._differs(of)]  # those are the planned ones
        rows = [self._titles(columns)] + [[self._cell(column, summary) for column in columns] for summary in self.summaries]
        return text_table(rows) + "".join(line + "\n" for line in self._notes(same, columns))

    def _differs(self, column) -> bool:
        values = [column.value(summary) for summary in self.summaries if summary.problem is None or column.name == "state"]
        return any(type(value) is not type(values[0]) and bool in (type(value), type(values[0])) or value != values[0]
                   for value in values)

    def _titles(self, columns):
        short = Counter(column.name.partition(".")[2] for column in columns)
        titles = [column.title or (of if short[of := column.name.partition(".")[2]] == 1 else column.name) for column in columns]
        return [shortened(visible_token(title, spaces=False), LONGEST) for title in titles]

    def _cell(self, column, summary):
        text = column.shown(summary)
        if column.of_loss and text != NOTHING:
            text += "*" if self._on_other_tokens(summary) else " "
        return text

    def _notes(self, same, columns):
        known = next((summary for summary in self.summaries if summary.problem is None), None)
        told = [f"{column.title} {column.shown(known)}" for column in same if known and column.value(known) is not None]
        if told:
            yield "The same in all: " + ", ".join(told)
        if any(self._cell(column, summary).endswith("*") for column in columns if column.of_loss for summary in self.summaries):
            yield "* on other validation tokens than those of most runs: not to be compared with theirs"
        for summary in self.summaries:
            reason = summary.problem or (summary.message if summary.state != "running" else None)
            if reason:
                yield visible_token(f"{summary.name}: {summary.state}: {reason}", spaces=False)

    def csv(self, columns) -> str:
        """One line for each run: numbers with all their digits, what there is not as nothing, lists as JSON, and so are texts with a
        line break or another control character, which would make several lines of a row."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([column.name for column in columns])
        for summary in self.summaries:
            writer.writerow([_csv_cell(column.value(summary)) for column in columns])
        return file.getvalue()

    def json(self, columns, **more) -> str:
        """One object on one line: {"runs": [{"run": ..., "training.batch": 16}], **more}; what there is not is null."""
        rows = [{column.name: column.value(summary) for column in columns} for summary in self.summaries]
        text = json.dumps({"runs": rows, **more}, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", ANY_TEXT).decode("utf-8", "replace") + "\n"  # a name that is no text


def _csv_cell(value):
    plain = value is None or isinstance(value, float) or isinstance(value, str) and not any(c < " " for c in value)
    return value if plain else json.dumps(value, ensure_ascii=False)


def _order(value):
    """Numbers before texts."""
    if isinstance(value, (int, float)):
        return 0, value, []
    return 1, 0, natural(value if isinstance(value, str) else json.dumps(value))
