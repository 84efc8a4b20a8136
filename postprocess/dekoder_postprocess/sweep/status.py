# SPDX-License-Identifier: Apache-2.0
"""Where a sweep stands, as text and as JSON."""
from __future__ import annotations

import json
import math
import os

from ..text_table import text_table
from ..visible_text import visible_token
from .claims import FAILED, FINISHED, GIVEN_BACK, PAUSED, STOPPED
from .parameters import settings_text
from .trial_folder import RUNNING, WAITING

STATES = {RUNNING: "running", GIVEN_BACK: "to be taken up again", WAITING: "not begun", PAUSED: "not promoted so far",
          FINISHED: "trained to the end", FAILED: "failed", STOPPED: "stopped by the file stop in its run directory"}


def sweep_status(folder) -> dict:
    """Of a SweepFolder. Losses are nats per token."""
    definition, trials = folder.definition, folder.look()
    ranking = sorted((trial for trial in trials if trial.best_loss is not None), key=lambda trial: (trial.best_loss, trial.index))
    return {
        "sweep": os.fspath(folder.path), "method": definition.method, "trials": len(trials), "steps": definition.steps, "seed": definition.seed,
        "states": {state: sum(trial.state == state for trial in trials) for state in STATES},
        "rungs": [{"step": rung, "results": sum(rung in trial.losses for trial in trials),
                   "promoted": sum(rung in trial.losses and trial.target > rung for trial in trials),
                   "best_loss": min((trial.losses[rung] for trial in trials if math.isfinite(trial.losses.get(rung, math.inf))), default=None)}
                  for rung in definition.rungs],
        "best": [{"trial": trial.index, "run": os.fspath(folder.run(trial.index)), "state": trial.state, "step": trial.step,
                  "best_loss": trial.best_loss, "best_step": trial.best_step, "settings": trial.settings} for trial in ranking[:5]],
        "failed": [{"trial": trial.index, "message": trial.message} for trial in trials if trial.state == FAILED],
    }


def status_json(folder) -> str:
    return json.dumps(sweep_status(folder), ensure_ascii=False) + "\n"


def status_text(folder) -> str:
    status = sweep_status(folder)
    trials = f"{status['trials']} trials" if status["trials"] > 1 else "1 trial"
    lines = [f"{status['sweep']}: {trials} of {status['steps']} steps, {status['method']}, seed {status['seed']}\n"]
    lines.append(text_table([[text, str(status["states"][state])] for state, text in STATES.items() if status["states"][state]]))
    if len(status["rungs"]) > 1:
        last = len(status["rungs"]) - 1
        lines.append("\n" + text_table([["rung", "results", "promoted", "best loss"]] + [
            [f"step {rung['step']}", str(rung["results"]), "" if i == last else str(rung["promoted"]), _loss(rung["best_loss"])]
            for i, rung in enumerate(status["rungs"])]))
    if status["best"]:
        lines.append("\nbest validation losses, nats per token\n")
        lines.append(text_table([["trial", "loss", "at step", "state"]] + [
            [f"{best['trial']:04d}", _loss(best["best_loss"]), str(best["best_step"]), best["state"]] for best in status["best"]]))
        best = status["best"][0]
        lines.append(f"best: {best['run']}: {settings_text(best['settings'])}\n")
    for failed in status["failed"]:
        lines.append(f"failed: trial {failed['trial']:04d}: {failed['message']}\n")
    return "".join("\n".join(visible_token(line, spaces=False) for line in text.split("\n")).replace("\u2205", "") for text in lines)


def _loss(value):
    return "" if value is None else f"{value:.4f}"
