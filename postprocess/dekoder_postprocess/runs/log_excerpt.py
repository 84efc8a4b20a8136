# SPDX-License-Identifier: Apache-2.0
"""What a table needs of a log: all evaluations and restarts, and the last steps. A log in the trainer's own form is searched
by its bytes, as to read each of its rows takes some thirty times as long."""
from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

import numpy as np

from ..errors import RunError
from ..log_reader import MetricsReader

LAST = 100
"""Steps at the end of a log that are read."""
_BLOCK = 1 << 19  # bytes searched at once: they stay in the processor's cache
_BEGIN, _STEP, _EVALUATION, _RESTART, _PROBE = (
    np.uint64(int.from_bytes(text, "little")) for text in (b'{"step":', b',"loss":', b',"valida', b',"resume', b',"probe"'))
"""Eight bytes: the first ones of a row, and those behind the step."""


@dataclass
class LogExcerpt:
    """Rows as they stand in metrics.jsonl, in its order."""

    steps: list  # the last LAST ones
    evaluations: list  # all
    restarts: list  # all


def read_excerpt(path, data) -> LogExcerpt:
    """`data`: the bytes of metrics.jsonl, whose name is `path`. Of a log in the trainer's own form the rows that are read
    are checked whole, of the others the beginning, the end and the order of their steps; of any other log all. Raises
    RunError."""
    lines = _lines_of_interest(data)
    if lines is not None:
        try:
            return _excerpt(path, lines)
        except RunError:
            pass  # it comes again, with the number of its line
    return _excerpt(path, data)


def _excerpt(path, lines) -> LogExcerpt:
    rows = {"steps": [], "evaluations": [], "restarts": [], None: []}
    for kind, row in MetricsReader(path).rows(lines):
        rows[kind].append(row)
    return LogExcerpt(rows["steps"][-LAST:], rows["evaluations"], rows["restarts"])


def _lines_of_interest(data) -> Optional[bytes]:
    """Those of an excerpt; None where a row begins or ends in another way than the trainer's do, or steps are not in
    order."""
    text = np.frombuffer(data, np.uint8)
    ends = [np.flatnonzero(text[i:i + _BLOCK] == ord("\n")) + i for i in range(0, len(text), _BLOCK)]
    ends = np.concatenate(ends) if ends else np.zeros(0, np.int64)
    if not len(ends):
        return b""
    starts = np.concatenate([[0], ends[:-1] + 1])
    words = np.ndarray(max(0, len(data) - 7), np.dtype("<u8"), data, strides=1)  # eight bytes from every one on
    if (ends - starts).min() < 16 or (words[starts] != _BEGIN).any() or (text[ends - 1] != ord("}")).any():
        return None
    at, steps = starts + 8, np.zeros(len(starts), np.int64)
    for _ in range(18):  # digits: 10^18 is below 2^63
        digits = text[at] - ord("0")  # what is below 0 wraps around
        is_digit = digits < 10
        if not is_digit.any():
            break
        steps = np.where(is_digit, 10 * steps + digits, steps)
        at += is_digit
    if (steps[1:] < steps[:-1]).any() or at.max() + 8 > len(data):
        return None
    kinds = words[at]
    of_step, rare = kinds == _STEP, (kinds == _EVALUATION) | (kinds == _RESTART)
    if not (of_step | rare | (kinds == _PROBE)).all():
        return None
    lines = np.union1d(np.flatnonzero(of_step)[-LAST:], np.flatnonzero(rare))
    return b"".join(data[starts[i]:ends[i] + 1] for i in lines.tolist())
