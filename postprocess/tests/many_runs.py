# SPDX-License-Identifier: Apache-2.0
"""Small runs for tests of what is made of many: with a log of starts, settings in which they differ, and a last validation
loss that is not the best."""
from __future__ import annotations

import json
from pathlib import Path

from synthetic_run import write_run

NAMES = ("plain", "two words", "\u03b7 = \u00bd")  # of the first runs; the others are called run-3, run-4, ...
BEGINS = ("2026-11-24T21:40:03.250Z", "2026-11-24T22:40:03.250Z")  # the first start of every run, and one from step 20 on
BEGIN_SECONDS = (1795556403.25, 1795560003.25)  # the same since 1970
STATES = ("finished", "failed", "resumable")
NORMS = ("pre", "post")


def write_many(folder, count, **options) -> list:
    """`count` runs below `folder`; returns SyntheticRuns. Run i differs from the others in what learning_rate(i), NORMS[i % 2]
    and STATES[i % 3] say, in the seed, and each third one in the key training.schedule, which the others do not have."""
    runs = []
    for i in range(count):
        run = write_run(Path(folder) / (NAMES[i] if i < len(NAMES) else f"run-{i}"), seed=i,
                        **{"phases": True, "attention": False, "layers": 1, "heads": 1, **options})
        replace_in(run.path / "config.yaml", "learning_rate: 0.002", f"learning_rate: {learning_rate(i)}")
        replace_in(run.path / "config.yaml", "norm: pre", f"norm: {NORMS[i % 2]}")
        replace_in(run.path / "status", "finished", STATES[i % 3])
        if i % 3 == 0:
            replace_in(run.path / "config.yaml", "  batch: 4\n", "  batch: 4\n  schedule: wsd\n")
        for row in run.evaluations:
            row["validation_loss"] += 0.01 * i
        run.evaluations[-1]["validation_loss"] += 0.5
        log = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
        evaluations = iter(run.evaluations)
        write_rows(run.path / "metrics.jsonl", [next(evaluations) if "validation_loss" in row else row for row in log])
        write_starts(run.path)
        runs.append(run)
    return runs


def learning_rate(i) -> float:
    return 0.001 * (1 + i)


def replace_in(path, text, other):
    before = path.read_text()
    assert text in before, (path, text)
    path.write_text(before.replace(text, other))


def write_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_starts(path):
    """restarts.jsonl with two starts, on hosts n0 and n1 in jobs 4711 and 4712."""
    begins = [{"event": "begin", "time": time, "step": step, "ranks": 1, "host": f"n{number}", "job": str(4711 + number),
               "lost_steps": 0} for number, (time, step) in enumerate(zip(BEGINS, (0, 20)))]
    end = {"event": "end", "time": BEGINS[1], "step": 20, "reason": "signal 15", "steps": 20, "wall_seconds": 10.0,
           "step_seconds": 9.0, "save_seconds": 0.1, "effective_time": 0.9}
    write_rows(path / "restarts.jsonl", [begins[0], end, begins[1]])


def expected_metrics(path) -> dict:
    """metric -> [(step, number)] of a run directory whose losses are all of the same validation tokens, straight from its
    log."""
    metrics, best = {}, float("inf")

    def add(metric, row, value):
        metrics.setdefault(metric, []).append((row["step"], value))

    for row in map(json.loads, (Path(path) / "metrics.jsonl").read_text().splitlines()):
        for column in ("loss", "learning_rate", "gradient_norm", "tokens_per_second"):
            if column in row:
                add(f"training/{column}", row, row[column])
        for phase, seconds in row.get("seconds", {}).items():
            add(f"seconds/{phase}", row, seconds)
        if "validation_loss" in row:
            best = min(best, row["validation_loss"])
            add("validation/loss", row, row["validation_loss"])
            add("validation/bits_per_byte", row, row["bits_per_byte"])
            add("validation/best_loss", row, best)
    return metrics


def expected_time(step) -> float:
    """Seconds since 1970 of a step of such a run: the beginning of its start and the phases of the steps since then."""
    first, begin = (1, BEGIN_SECONDS[0]) if step <= 20 else (21, BEGIN_SECONDS[1])
    return begin + sum(0.045 + 1e-5 * s for s in range(first, step + 1))
