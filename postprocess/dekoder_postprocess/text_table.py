# SPDX-License-Identifier: Apache-2.0
"""Tables of text."""


def text_table(rows) -> str:
    """One line per row (a list of texts), indented; columns as wide as their cells: the first to the left, the others to
    the right."""
    widths = [max(len(row[c]) for row in rows if c < len(row)) for c in range(max(map(len, rows)))]
    lines = []
    for row in rows:
        cells = [cell.ljust(widths[c]) if c == 0 else cell.rjust(widths[c]) for c, cell in enumerate(row)]
        lines.append(("  " + "  ".join(cells)).rstrip(" ") + "\n")
    return "".join(lines)
