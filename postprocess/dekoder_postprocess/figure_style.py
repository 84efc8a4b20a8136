# SPDX-License-Identifier: Apache-2.0
"""What the figures share: colours, token labels, one attention map, the colour bar, files of bounded size."""
from __future__ import annotations

import functools
import io
import itertools

import numpy as np
from matplotlib import colormaps, font_manager
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.textpath import text_to_path
from PIL import Image

from .files import write_file
from .right_to_left import in_drawing_order
from .visible_text import CIRCLE, escape, token_signs

# Attention weights of long texts are small and of patterns near 1: the square root shows both. One scale everywhere.
NORM = PowerNorm(0.5, vmin=0.0, vmax=1.0)
COLOURS = colormaps["viridis"].with_extremes(bad="white")
COLOUR_TICKS = (0.0, 0.02, 0.1, 0.25, 0.5, 1.0)

FONT = "DejaVu Sans"  # comes with matplotlib
MONOSPACE = "DejaVu Sans Mono"
# Of those that this machine has the first ones are taken for characters that the two lack.
OTHERS = ("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei",
          "Droid Sans Fallback", "Noto Sans Devanagari", "Noto Sans Thai", "Noto Sans Bengali", "Noto Sans Tamil", "Noto Sans Symbols2",
          "Noto Sans", "FreeSans", "Unifont")
INSTALLED = [name for name in OTHERS if name in set(font_manager.get_font_names())]
STYLE = {
    "font.family": [FONT, MONOSPACE, *INSTALLED],
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "text.parse_math": False,  # a $ in a token or a name is a $
    "pdf.fonttype": 42,  # letters stay letters in the PDF
    "savefig.facecolor": "white",
}

POINTS = 72.0  # per inch
SMALLEST_FONT = 4.5  # points: smaller labels are not read
LARGEST_LABEL = 10  # characters of a token's label


@functools.lru_cache(maxsize=None)
def has_glyph(character) -> bool:
    """Whether one of the fonts has the character."""
    fonts = (font_manager.get_font(font_manager.findfont(name)) for name in (MONOSPACE, FONT, *INSTALLED))
    return any(font.get_char_index(ord(character)) for font in fonts)


def drawable_signs(text, spaces=True, most=None) -> list:
    """token_signs in the order in which they are drawn, escapes for what no font has a glyph for; `most`: cut to so many
    characters."""
    signs = []
    for sign in token_signs(text, spaces) or ["\u2205"]:
        lacking = not all(map(has_glyph, sign))
        signs += [c if has_glyph(c) else escape(c) for c in sign.removeprefix(CIRCLE)] if lacking else [sign]
    if most is not None and sum(map(len, signs)) > most:
        ends = itertools.accumulate(map(len, signs))
        signs = [sign for place, (sign, end) in enumerate(zip(signs, ends)) if end < most or place == 0] + ["\u2026"]
    return in_drawing_order(signs)


def drawable(text, spaces=True) -> str:
    """visible_token as it is drawn from left to right, escapes for what no font has a glyph for."""
    return "".join(drawable_signs(text, spaces))


def token_labels(texts) -> list:
    """One label per token: drawable, cut to LARGEST_LABEL characters."""
    return ["".join(drawable_signs(text, most=LARGEST_LABEL)) for text in texts]


def label_size(panel, count) -> float:
    """Font size in points with which `count` labels fit along `panel` inches; 0 where they would not be read."""
    size = min(8.0, 0.92 * panel * POINTS / max(count, 1))
    return size if size >= SMALLEST_FONT else 0.0


def label_width(labels, size) -> float:
    """Inches that the longest label takes in MONOSPACE."""
    return max((text_width(label, size, family=MONOSPACE) for label in labels), default=0.62 * size / POINTS)


def text_width(text, size, weight="normal", family=FONT) -> float:
    """Inches that a line of text takes."""
    style = font_manager.FontProperties(family=[family, FONT, *INSTALLED], size=size, weight=weight)
    return text_to_path.get_text_width_height_descent(text, style, ismath=False)[0] / POINTS


def shortened(text, inches, size, weight="normal") -> str:
    """Text cut to what fits into `inches` at `size` points, with an ellipsis."""
    if text_width(text, size, weight) <= inches:
        return text
    fits, too_long = 0, len(text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if text_width(text[:middle] + "\u2026", size, weight) <= inches:
            fits = middle
        else:
            too_long = middle
    return text[:fits].rstrip() + "\u2026"


class Sheet:
    """A figure laid out in inches from its upper left corner, so that nothing overlaps by chance."""

    def __init__(self, width, height):
        self.width, self.height = width, height
        self.figure = Figure(figsize=(width, height))

    def axes(self, left, top, width, height):
        """Axes in the rectangle."""
        return self.figure.add_axes((left / self.width, 1 - (top + height) / self.height, width / self.width,
                                     height / self.height))

    def text(self, left, top, text, **style):
        """Text whose upper left corner (or as `ha`, `va` say) is there."""
        return self.figure.text(left / self.width, 1 - top / self.height, text,
                                **{"ha": "left", "va": "top", **style})

    def colour_bar(self, image, left, top, height):
        """The weights' colour bar with its label, about 0.75 inches wide."""
        bar = self.figure.colorbar(image, cax=self.axes(left, top, 0.12, height), ticks=COLOUR_TICKS)
        bar.ax.set_yticklabels([f"{tick:g}" for tick in COLOUR_TICKS])
        bar.ax.tick_params(labelsize=7, length=2)
        bar.set_label("attention weight", fontsize=8)
        bar.outline.set_linewidth(0.4)


def draw_map(axes, weights):
    """One map (query, key), keys behind the query left white. Returns matplotlib's image."""
    weights = np.asarray(weights, dtype=np.float32)
    above = np.triu(np.ones(weights.shape, dtype=bool), k=1)
    image = axes.imshow(np.ma.masked_array(weights, above), cmap=COLOURS, norm=NORM, interpolation="nearest",
                        aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("0.75")
        spine.set_linewidth(0.5)
    return image


def label_tokens(axes, labels, panel, rows=True):
    """Token labels along both axes (rows=False: keys alone), or positions where the labels do not fit."""
    size = label_size(panel, len(labels))
    if size:
        ticks, names, style = range(len(labels)), labels, {"fontsize": size, "family": [MONOSPACE, FONT, *INSTALLED]}
        turned = 90 if any(len(label) > 1 for label in labels) else 0
        length = 0
    else:
        step = next(s for s in (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096) if len(labels) / s <= 10)
        ticks = range(0, len(labels), step)
        names, style, turned, length = [str(tick) for tick in ticks], {"fontsize": 7}, 0, 2
    axes.set_xticks(list(ticks), names, rotation=turned, **style)
    axes.tick_params(length=length, pad=2)
    if rows:
        axes.set_yticks(list(ticks), names, va="center", **style)


def save(figure, folder, name, formats, most_bytes=150_000) -> list:
    """Writes folder/name.png, .pdf or .svg and returns the paths. A PNG that would be larger than `most_bytes` gets a
    palette of 256 colours and then fewer dots per inch. Raises RunError where a file cannot be written."""
    paths = []
    for kind in formats:
        path = folder / f"{name}.{kind}"
        if kind == "png":
            content = _small_png(figure, most_bytes)
        else:
            buffer = io.BytesIO()
            # No date: the same run makes the same file.
            figure.savefig(buffer, format=kind, metadata={"Date" if kind == "svg" else "CreationDate": None})
            content = buffer.getvalue()
        write_file(path, content)
        paths.append(path)
    return paths


def with_palette(picture, most=256, frequent=48):
    """The RGB picture with a palette of at most `most` of its own colours: first its `frequent` ones, then again and
    again the one farthest from those chosen so far (T. Gonzalez, 1985), so that no pixel, be its colour ever so rare,
    becomes a quite different one: in maps no channel changes by more than 4 of 255."""
    pixels = np.asarray(picture).astype(np.uint32)
    codes, where, counts = np.unique(pixels[..., 0] << 16 | pixels[..., 1] << 8 | pixels[..., 2], return_inverse=True,
                                     return_counts=True)
    colours = np.stack([codes >> 16, codes >> 8 & 255, codes & 255], axis=1).astype(np.int16)
    chosen = list(np.argsort(-counts, kind="stable")[:frequent])
    nearest, distance = np.zeros(len(codes), np.uint8), np.full(len(codes), 256, np.int16)
    for place in range(most):
        if place == len(chosen):
            chosen.append(distance.argmax())
        away = np.abs(colours - colours[chosen[place]]).max(axis=1)
        closer = away < distance
        nearest[closer], distance[closer] = place, away[closer]
        if not distance.any():
            break
    image = Image.fromarray(nearest[where].reshape(pixels.shape[:2]))
    image.putpalette(colours[chosen].astype(np.uint8).tobytes())
    return image


def _small_png(figure, most_bytes):
    content = b""
    for dots in (160, 130, 110, 90, 70):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=dots)
        whole = Image.open(buffer).convert("RGB")
        for image in (whole, with_palette(whole)):
            packed = io.BytesIO()
            image.save(packed, "PNG", optimize=True, dpi=(dots, dots))
            content = packed.getvalue()
            if len(content) <= most_bytes:
                return content
    return content
