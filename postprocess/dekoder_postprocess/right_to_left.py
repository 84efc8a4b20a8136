# SPDX-License-Identifier: Apache-2.0
"""Arabic, Hebrew and their like for a drawing library that sets characters from left to right in the order they come: a
label of one line in the order of the eye, Arabic letters in the forms that they have beside each other."""
from __future__ import annotations

import itertools
import unicodedata


def _arabic_forms():
    """letter -> (alone, final, initial, medial), by Unicode's presentation forms; the last two missing where a letter does not
    join the next one."""
    forms = {}
    for code in range(0xFE80, 0xFEF5):
        kind, *letters = unicodedata.decomposition(chr(code)).split()
        if len(letters) == 1:
            forms.setdefault(chr(int(letters[0], 16)), {})[kind] = chr(code)
    return {letter: [of[kind] for kind in ("<isolated>", "<final>", "<initial>", "<medial>") if kind in of]
            for letter, of in forms.items() if "<isolated>" in of}


_FORMS = _arabic_forms()


def _direction(sign):
    """"R", "L", or "" for one that has none."""
    kind = unicodedata.bidirectional(sign[0])
    return "R" if kind in ("R", "AL") else "L" if kind in ("L", "EN", "AN") or sign[0] == "\\" else ""


def _joined(signs):
    """Arabic letters, marks behind them, in the forms of their places."""
    forms = [_FORMS.get(sign[0], ()) for sign in signs]
    shown = []
    for at, (sign, own) in enumerate(zip(signs, forms)):
        after_joining = at > 0 and len(forms[at - 1]) == 4 and len(own) > 1
        before_joining = len(own) == 4 and at + 1 < len(signs) and len(forms[at + 1]) > 1
        place = after_joining + 2 * before_joining
        shown.append(own[place] + sign[1:] if own else sign)
    return shown


def in_drawing_order(signs) -> list:
    """Parts of a label (visible_text.token_signs) as they stand from left to right: the first that has a direction says which
    end of the label is its beginning; runs of the other direction are turned (Unicode Standard Annex 9, without its levels for
    numbers and brackets)."""
    directions = [_direction(sign) for sign in signs]
    if "R" not in directions:
        return signs
    base = next(filter(None, directions))
    for at, direction in enumerate(directions):
        if not direction:  # white space and punctuation go with what is on both sides, else with the label
            before = next(filter(None, reversed(directions[:at])), base)
            after = next(filter(None, directions[at:]), base)
            directions[at] = before if before == after else base
    runs = []
    for direction, run in itertools.groupby(zip(directions, _joined(signs)), key=lambda pair: pair[0]):
        run = [sign for _, sign in run]
        runs.append(run[::-1] if direction == "R" else run)
    return list(itertools.chain.from_iterable(runs[::-1] if base == "R" else runs))
