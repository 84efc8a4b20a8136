# SPDX-License-Identifier: Apache-2.0
"""Attention maps as text inside a page: the file's own float16 bits, packed, and thinned to a budget."""

import base64
import zlib
from dataclasses import dataclass

import numpy as np

PLAIN_LIMIT = 1_000_000
"""Bytes of text up to which the maps of a page stay uncompressed: such a page unpacks in any browser."""


def lower_triangles(weights):
    """The float16 bits of (layer, head, query, key) at and below the diagonal: uint16, map after map, row after row."""
    queries, keys = np.tril_indices(weights.shape[2])
    return np.ascontiguousarray(weights, dtype=np.float16).view(np.uint16)[..., queries, keys].reshape(-1)


def planes(values):
    """The first byte of each value, then the second of each, ...: those of a kind stand together because sign and exponent
    repeat and the last bits do not."""
    return np.ascontiguousarray(values).view(np.uint8).reshape(-1, values.dtype.itemsize).T.tobytes()


def encoded(content, compress):
    """Base64 of bytes; deflated (zlib's format) where asked for."""
    return base64.b64encode(zlib.compress(content, 6) if compress else content).decode("ascii")


def pack(bits, compress):
    """A map's float16 bits as text."""
    return encoded(planes(bits.astype("<u2")), compress)


@dataclass(frozen=True)
class Source:
    """One probe of one run: numbers of both, the probe's name, maps per step, attention_reader.Probe."""

    run: int
    probe: int
    name: str
    maps: int
    reader: object

    def bits(self, step):
        return lower_triangles(self.reader.weights(step))

    def plain_bytes(self):
        """Bytes of text that one step takes uncompressed."""
        tokens = len(self.reader.tokens)
        return self.maps * tokens * (tokens + 1) * 4 // 3 + 4


@dataclass
class EmbeddedMaps:
    """What went into the page: `texts[(run, probe, step)]`, and what did not fit."""

    texts: dict
    encoding: str
    steps: list
    left_out_steps: list
    left_out_probes: list


class _Packer:
    """Packs each map once, however often it is asked for."""

    def __init__(self, compress):
        self._compress = compress
        self._texts = {}

    def text(self, source, step):
        key = (source.run, source.probe, step)
        if key not in self._texts:
            self._texts[key] = pack(source.bits(step), self._compress)
        return self._texts[key]

    def fitting(self, sources, steps, budget):
        """The texts of those steps, or None as soon as they pass the budget."""
        texts, size = {}, 0
        for source in sources:
            for step in source.reader.steps:
                if step in steps:
                    text = self.text(source, step)
                    texts[source.run, source.probe, step] = text
                    size += len(text)
                    if size > budget:
                        return None
        return texts


def spread(steps, count, always):
    """`count` of the sorted steps, evenly by their order, first and last among them, and those of `always`."""
    if count >= len(steps):
        return set(steps)
    return {steps[i] for i in np.linspace(0, len(steps) - 1, count).round().astype(int)} | set(always)


def embed(sources, budget):
    """Packs the maps of all sources into at most `budget` bytes of text.

    Steps are thinned first, down to the first and the last of each source; then whole probes, from the last, are left
    out. Both are named in what is returned.
    """
    sources = [source for source in sources if source.reader.steps]
    steps = sorted({step for source in sources for step in source.reader.steps})
    ends = {step for source in sources for step in (source.reader.steps[0], source.reader.steps[-1])}
    plain = sum(source.plain_bytes() * len(source.reader.steps) for source in sources)
    compress = plain > min(PLAIN_LIMIT, budget)
    packer = _Packer(compress)
    probes = sorted({source.probe for source in sources})
    for kept_probes in range(len(probes), 0, -1):
        kept = [source for source in sources if source.probe in probes[:kept_probes]]
        for count in range(len(steps), min(1, len(steps) - 1), -1):
            kept_steps = spread(steps, count, ends)
            texts = packer.fitting(kept, kept_steps, budget)
            if texts is not None:
                left = sorted({s.name for s in sources} - {s.name for s in kept})
                return EmbeddedMaps(texts, "deflate" if compress else "plain", sorted(kept_steps),
                                    [step for step in steps if step not in kept_steps], left)
    return EmbeddedMaps({}, "plain", [], steps, sorted({source.name for source in sources}))
