# SPDX-License-Identifier: Apache-2.0
"""Any text, made visible and safe: in pages, in figures, for BertViz and CircuitsVis."""

import html
import unicodedata

SIGNS = {" ": "\u00b7", "\n": "\u21b5", "\t": "\u21e5"}
# Characters that reorder or break the lines around them.
_UNRULY = set("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")


def escape(character):
    """A character by its number, as in Python: \\xC3, \\u4E2D, \\U0001F600."""
    code = ord(character)
    return f"\\x{code:02X}" if code < 256 else f"\\u{code:04X}" if code < 65536 else f"\\U{code:08X}"


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


def visible_token(text, spaces=True):
    """A token or one line, every character of which is seen: SIGNS for white space (spaces=False: spaces stay), escapes
    for what else has no ink."""
    return "".join(c if c == " " and not spaces else
                   SIGNS.get(c) or (escape(c) if unicodedata.category(c)[0] in "CZ" else c) for c in text) or "\u2205"


def escaped(text):
    """Visible text for HTML content and for attributes in double quotes."""
    return html.escape(visible(text), quote=True)
