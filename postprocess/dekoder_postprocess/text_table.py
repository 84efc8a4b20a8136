# SPDX-License-Identifier: Apache-2.0
"""Tables of text."""
import unicodedata


def text_table(rows) -> str:
    """One line per row (a list of texts), indented; columns as wide as their cells: the first to the left, the others to
    the right."""
    widths = [max(_columns(row[c]) for row in rows if c < len(row)) for c in range(max(map(len, rows)))]
    lines = []
    for row in rows:
        spaces = [" " * (widths[c] - _columns(cell)) for c, cell in enumerate(row)]
        cells = [cell + space if c == 0 else space + cell for c, (cell, space) in enumerate(zip(row, spaces))]
        lines.append(("  " + "  ".join(cells)).rstrip(" ") + "\n")
    return "".join(lines)


def _columns(text) -> int:
    """Columns that a terminal takes for it: two for a wide character, none for a mark on another one."""
    return len(text) if text.isascii() else sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
