# SPDX-License-Identifier: Apache-2.0
"""Many small run directories for tests, whose best loss is a known function of a few settings."""
from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np

from dekoder_postprocess.run_reader import parse_config
from dekoder_postprocess.runs.run_summary import RunSummary
from synthetic_run import config_text

HASH = "c312fa7a" * 8
EVERY = 20  # steps between evaluations
BEGIN = 1764230400  # of the first run: 2025-11-27 08:00 UTC


def drawn_settings(random) -> dict:
    """section.key -> value of one run."""
    schedule = str(random.choice(["wsd", "cosine"]))
    return {"training.learning_rate": float(f"{10 ** random.uniform(-4, -2):.4g}"), "training.batch": int(random.choice([4, 8, 16, 32])),
            "model.layers": int(random.integers(2, 7)), "model.dropout": float(random.choice([0.0, 0.1, 0.2])),
            "model.norm": str(random.choice(["pre", "post"])), "model.positions": str(random.choice(["learned", "rope", "none"])),
            "training.schedule": schedule, "training.warmup_steps": int(random.choice([0, 20, 50, 100]))}


def final_loss(settings) -> float:
    """Most of it by the learning rate, whose best is 2e-3; a little by the others; none by the warm-up."""
    rate = np.log10(settings["training.learning_rate"] / 2e-3)
    return (1.9 + 0.55 * rate**2 - 0.04 * settings["model.layers"] + 0.9 * settings["model.dropout"]
            + 0.12 * (settings["model.norm"] == "post") + 0.2 * (settings["model.positions"] == "none"))


def write_runs(folder, count, **more) -> list:
    """Writes `count` run directories below `folder` and gives their summaries, as the files have them. One in 40 failed half
    way; one in 25 is still training."""
    return [write_one(folder, i, **more) for i in range(count)]


def write_one(folder, i, steps=200, every=EVERY, name=None, validation_hash=HASH, **more) -> RunSummary:
    """The i-th run, evaluated each `every` steps. more: settings that it has besides those drawn, section__key=value."""
    random = np.random.default_rng([1, i])
    settings = {**drawn_settings(random), **{key.replace("__", "."): value for key, value in more.items()}}
    name = name or f"trial-{i:04}"
    path = Path(folder) / name
    path.mkdir(parents=True)
    config = config_text(settings["model.layers"], 4, steps, settings["model.positions"], (), 1)
    for key, value in settings.items():
        section, of = key.split(".")
        if of not in ("layers", "positions"):
            config = re.sub(rf"(?m)^  {of}: .*\n", "", config)
            config = config.replace(f"{section}:\n", f"{section}:\n  {of}: {json.dumps(value)}\n", 1)
    (path / "config.yaml").write_text(config, encoding="utf-8")
    state = "failed" if i % 40 == 39 else "resumable" if i % 25 == 24 else "finished"
    done = steps if state == "finished" else steps // 2
    end, best_step = final_loss(settings) + 0.02 * random.normal(), int(random.uniform(0.6, 1) * steps)
    tokens, rows, evaluations, losses = settings["training.batch"] * 32, [], [], []
    for step in range(done + 1):
        level = end + 3.6 / (1 + 20 * step / steps)
        if step:
            losses.append(round(level + 0.08 * random.normal(), 6))
            rows.append({"step": step, "loss": losses[-1], "learning_rate": settings["training.learning_rate"], "gradient_norm": 0.5,
                         "tokens": tokens * step, "tokens_per_second": 4000.0 + step})
        if step % every == 0:
            loss = level + 0.4 * max(0.0, (step - best_step) / steps)
            evaluations.append((step, loss))
            rows.append({"step": step, "validation_loss": loss, "bits_per_byte": loss / np.log(2), "tokens": 65536,
                         "validation_hash": validation_hash})
    (path / "metrics.jsonl").write_text("".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows), encoding="utf-8")
    (path / "status").write_text(f"state: {state}\nstep: {done}\nsteps: {steps}\nmessage: \n")
    best_step, best = min(evaluations, key=lambda one: one[1])
    return RunSummary(path=path, name=name, state=state, created=float(BEGIN + 420 * i + int(random.uniform(0, 300))), step=done,
                      planned_steps=steps, best_loss=best, best_step=best_step, last_loss=evaluations[-1][1],
                      bits_per_byte=best / np.log(2), training_loss=float(np.mean(losses[-100:])), tokens=tokens * done,
                      tokens_per_second=4000.5 + done / 2, seconds=float(tokens * done / 4000),
                      effective_time=0.93, restarts=int(i % 10 == 0), validation_hash=validation_hash,
                      settings={f"{section}.{key}": value for section, keys in parse_config(config, path).items()
                                for key, value in keys.items()})
