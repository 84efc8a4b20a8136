# SPDX-License-Identifier: Apache-2.0
"""Any text, made safe and visible on a page."""

import html
import unicodedata

# Characters that reorder or break the lines around them.
_UNRULY = set("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufeff")
_SIGNS = {"\n": "\u23ce", "\t": "\u21e5", " ": "\u2423"}


def _escape(character):
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" if code < 65536 else f"\\U{code:08x}"


def visible(text):
    """The text with control characters, surrogates and reordering marks as escapes; line ends and tabs stay."""
    return "".join(c if c in "\n\t" or (unicodedata.category(c) not in ("Cc", "Cs") and c not in _UNRULY)
                   else _escape(c) for c in str(text))


def visible_token(text):
    """One token for a label: spaces, tabs and line ends have signs as well."""
    return "".join(_SIGNS.get(c, c) for c in visible(text)) or "\u2205"


def escaped(text):
    """Visible text for HTML content and for attributes in double quotes."""
    return html.escape(visible(text), quote=True)
