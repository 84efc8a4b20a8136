# SPDX-License-Identifier: Apache-2.0
"""How far a trial came, by the files of its run."""
from __future__ import annotations

import math

from ..files import present
from ..log_reader import read_metrics
from ..run_reader import read_status


def validation_losses(run, rung_steps) -> dict:
    """What a claim's outcome says of the losses: at each rung that the run's saved state has reached the best validation loss up
    to there, nats per token, and the best of all. Those on the newest validation tokens alone. Raises RunError."""
    log, status = run / "metrics.jsonl", read_status(run / "status")
    reached = status["step"] if status else 0
    rows = read_metrics(log)["evaluations"] if present(log) else []
    points = [(row["validation_loss"], row["step"]) for row in rows
              if row.get("validation_hash") == rows[-1].get("validation_hash") and _finite(row["validation_loss"]) and row["step"] <= reached]
    losses = {rung: min((loss for loss, step in points if step <= rung), default=None) for rung in rung_steps if rung <= reached}
    best = min(points, default=(None, None))
    return {"losses": {rung: loss for rung, loss in losses.items() if loss is not None}, "best_loss": best[0], "best_step": best[1]}


def _finite(value):
    return value is not None and math.isfinite(value)
