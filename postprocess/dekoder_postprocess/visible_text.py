# SPDX-License-Identifier: Apache-2.0
"""Any text, made visible and safe: in pages, in figures, for BertViz and CircuitsVis."""

import html
import re
import unicodedata

SIGNS = {" ": "\u00b7", "\n": "\u21b5", "\t": "\u21e5"}
# Characters that reorder or break the lines around them.
_UNRULY = set("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
# Characters without ink that are neither controls nor spaces: fillers, and selectors of the form of the character before.
_INKLESS = re.compile("[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]")
_JOINERS = "\u200c\u200d"  # they change how the characters beside them look
CIRCLE = "\u25cc"  # under a mark that has no letter
_UNITS = re.compile(r"\\x[0-9A-F]{2}|.", re.DOTALL)  # a byte that is no character reads \xC3 in the files


def escape(character):
    """A character by its number, as in Python: \\x0D, \\u4E2D, \\U0001F600; from 128 on never \\xC3, which is a byte."""
    code = ord(character)
    return f"\\x{code:02X}" if code < 128 else f"\\u{code:04X}" if code < 65536 else f"\\U{code:08X}"


def is_utf8(text) -> bool:
    """Whether a text can be written: JSON and YAML can spell halves of characters, "\\ud800"."""
    return text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def shortened(text, most=40):
    """The beginning of a text that is longer than `most` characters, and dots."""
    return text if len(text) <= most else text[:most - 3] + "..."


def visible(text):
    """Text of many lines: controls, surrogates and reordering marks are escaped; line ends and tabs stay."""
    return "".join(escape(c) if c not in "\n\t" and (unicodedata.category(c) in ("Cc", "Cs") or c in _UNRULY) else c
                   for c in str(text))


def token_signs(text, spaces=True) -> list:
    """What visible_token shows, in parts that belong together: a letter with its marks, an emoji of several characters, an escape."""
    signs, inked = [], False  # whether the last one ends with a character as it is
    units = _UNITS.findall(text)
    for unit, after in zip(units, [*units[1:], " "]):
        kind = unicodedata.category(unit[0])[0]
        joins = unit in _JOINERS and unicodedata.category(after[0])[0] not in "CZ" and len(after) == 1
        joined = inked and len(unit) == 1 and kind not in "CZ" and signs[-1][-1] == _JOINERS[1]
        if inked and (kind == "M" or joins) or joined:
            signs[-1] += unit
            continue
        if unit in SIGNS:
            signs.append(SIGNS[unit] if unit != " " or spaces else unit)
        elif kind in "CZ" or _INKLESS.match(unit):
            signs.append(escape(unit))
        else:
            signs.append(CIRCLE + unit if kind == "M" else unit)
        inked = len(unit) == 1 and kind not in "CZ" and not _INKLESS.match(unit)
    return signs


def visible_token(text, spaces=True):
    """A token or one line, every character of which is seen: SIGNS for white space (spaces=False: spaces stay), escapes
    for what else has no ink, a circle under a mark without a letter. A byte that is no character alone stays \\xC3."""
    return "".join(token_signs(text, spaces)) or "\u2205"


def escaped(text):
    """Visible text for HTML content and for attributes in double quotes."""
    return html.escape(visible(text), quote=True)
