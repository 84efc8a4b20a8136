# SPDX-License-Identifier: Apache-2.0
"""The report of dekoder-compare: runs, pairing, losses, attention maps and their statistics, run by run, as text and as
JSON of the same contents. Runs are called A, B, C, ... in the order given."""
from __future__ import annotations

import json
import math
import re

import numpy as np

from .run_reader import changes_text
from .text_table import text_table
from .visible_text import visible_token


def letter(run) -> str:
    """Run 0 is A; runs after Z are R26, R27, ..."""
    return chr(ord("A") + run) if run < 26 else f"R{run}"


def comparison_text(comparison) -> str:
    """What a person reads."""
    pairings = [_pairing_text(pairing, letter(p)) for p, pairing in enumerate(comparison.pairings, 1)]
    return "".join([_runs_text(comparison), *pairings, _validation_text(comparison), _training_text(comparison),
                    _maps_text(comparison), _statistics_text(comparison)])


def _line(text):
    """Text of a file or a folder's name that stands in a line."""
    return visible_token(text, spaces=False) if text else ""


def _last_step(run):
    steps = run.run.steps["step"]
    return int(steps[-1]) if len(steps) else 0


def _state(run):
    if run.running:
        return "running"
    return run.run.status["state"] if run.run.status else "no status"


def _runs_text(comparison):
    text = "runs\n"
    for r, run in enumerate(comparison.runs):
        restarts = run.run.restarts
        text += (f"  {letter(r)}  {_line(run.name)}: step {_last_step(run)} of {run.setting('training', 'steps')}, "
                 f"{_state(run)}{f', restarts: {len(restarts)}' if restarts else ''}\n")
        for step, changes in zip(restarts, run.run.changes):
            if changes:
                text += f"     the restart from step {step} changed {_line(changes_text(changes))}\n"
        for line in run.run.validation_notes():
            text += f"     {line}\n"
        if run.running is None:
            text += f"     whether a process trains in it is not known: {_line(run.not_known)}\n"
    return text


def _shown(value):
    """Digests by their first digits."""
    return _line(re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1...", value)) if value else "(none)"


def _fact_text(fact, other):
    verdict = "not known" if not fact.known else "equal" if fact.equal() else "DIFFERENT"
    values = _shown(fact.first) if fact.equal() else f"A: {_shown(fact.first)}, {other}: {_shown(fact.other)}"
    return f"  {fact.what:<18} {verdict:<10} {values}\n"


def _initial_values_text(values, other):
    if values.not_known:
        return f"  {'initial values':<18} {'not known':<10} {_line(values.not_known)}\n"
    shared = values.equal + len(values.different) + len(values.other_shape)
    text = (f"  {'initial values':<18} {'equal' if values.paired() else 'DIFFERENT':<10} {values.equal} of {shared} shared "
            "tensors bit for bit\n")
    for what, names in (("other values", values.different), ("other shape", values.other_shape),
                        ("only in A", values.only_first), (f"only in {other}", values.only_other)):
        if names:
            text += f"    {what}: {', '.join(names)}\n"
    return text


def _pairing_text(pairing, other):
    text = f"\npairing of {other} with A\n"
    text += "".join(_fact_text(fact, other) for fact in pairing.facts)
    text += _initial_values_text(pairing.initial_values, other)
    count = len(pairing.differences)
    text += f"  {'configuration':<18} {f'differs in {count}:' if count else 'equal'}\n"
    for key, first, now in pairing.differences:
        text += f"    {_line(key)}: {_line(first)} in A, {_line(now)} in {other}\n"
    unpaired = pairing.unpaired()
    if unpaired:
        return text + f"  {other} is NOT paired with A: {', '.join(unpaired)}; read its differences with care\n"
    return text + f"  {other} is paired with A: same data in the same order, same initial values\n"


def incomparable(losses, run) -> str:
    """Why validation losses of that run have no gap to A's; empty where all have one."""
    others = [i for i, same in enumerate(losses.same_tokens[run]) if not same]
    if not others:
        return ""
    last = others[-1]
    total = len(losses.validation_steps)
    at = "" if len(others) == total else f" at {len(others)} of {total} common steps"
    return (f"evaluated on other tokens than A{at} (hash {losses.hashes[run][last][:12]}, A's is "
            f"{losses.hashes[0][last][:12]})")


def _gap_head(first, runs, last):
    letters = [letter(r) for r in range(runs)]
    return [first, *letters, *(cell for other in letters[1:] for cell in (f"{other} - A", last))]


def _validation_text(comparison):
    losses, runs = comparison.losses, len(comparison.runs)
    text = "\nvalidation loss at common steps (nats per token; gaps also in bits per byte)\n"
    if not len(losses.validation_steps):
        return text + "  no step at which all runs were evaluated\n"
    for r in range(1, runs):
        reason = incomparable(losses, r)
        if reason:
            text += f"  losses of {letter(r)} are NOT comparable: {reason}\n"
    gaps, bits = losses.validation - losses.validation[0], losses.bits_per_byte - losses.bits_per_byte[0]
    rows = [_gap_head("step", runs, "bits/byte")]
    for i, step in enumerate(losses.validation_steps):
        rows.append([str(step), *(f"{loss:.4f}" for loss in losses.validation[:, i])])
        for r in range(1, runs):
            rows[-1] += ([f"{gaps[r, i]:+.4f}", f"{bits[r, i]:+.4f}"] if losses.same_tokens[r, i] else ["-", "-"])
    text += text_table(rows)
    last = int(losses.validation_steps[-1])
    final = all(run.setting("training", "steps") == last for run in comparison.runs)
    for r in range(1, runs):
        if losses.same_tokens[r, -1]:
            text += (f"  {'final gap' if final else 'gap so far'} {letter(r)} - A at step {last}: {gaps[r, -1]:+.4f} nats "
                     f"per token, {bits[r, -1]:+.4f} bits per byte\n")
    return text


def _training_text(comparison):
    losses, runs = comparison.losses, len(comparison.runs)
    text = "\ntraining loss, means over steps (nats per token; +- standard error of the mean gap)\n"
    if not losses.windows:
        return text + "  no step that all runs have made\n"
    for p, pairing in enumerate(comparison.pairings, 1):
        other = pairing.other_training()
        if other:
            text += f"  training losses of {letter(p)} are NOT comparable: another {', another '.join(other)} than A's\n"
    comparable = _training_comparable(comparison)
    gaps = losses.training - losses.training[0]
    rows = [_gap_head("steps", runs, "+-")]
    for w, (first, last) in enumerate(losses.windows):
        rows.append([f"{first} to {last}", *(f"{loss:.4f}" for loss in losses.training[:, w])])
        for r in range(1, runs):
            rows[-1] += [f"{gaps[r, w]:+.4f}", f"{losses.gap_error[r, w]:.4f}"] if comparable[r] else ["-", "-"]
    return text + text_table(rows)


def _training_comparable(comparison):
    return [True, *(not pairing.other_training() for pairing in comparison.pairings)]


def _head_table(distance):
    rows = [["", *(f"head {head}" for head in distance.heads)]]
    for layer, values in zip(distance.layers, distance.distance):
        rows.append([f"layer {layer}", *(f"{value:.4f}" for value in values)])
    return text_table(rows)


def _maps_text(comparison):
    attention = comparison.attention
    text = ("\nattention maps: total variation distance, 0 (equal) to 1 (no key in common), mean over queries and "
            "probes\n")
    for r, (has_maps, change) in enumerate(zip(attention.has_maps, attention.changes)):
        if not has_maps:
            text += f"  {letter(r)} has no attention maps; train with a section `attention:` to have them\n"
        elif change is not None:
            text += (f"  {letter(r)}, step {change.last_step} against step {change.first_step} "
                     f"({', '.join(change.probes)})\n{_head_table(change)}")
    for r, difference in enumerate(attention.differences[1:], 1):
        if difference is not None:
            text += (f"  {letter(r)} against A, both at step {difference.last_step} ({', '.join(difference.probes)})\n"
                     f"{_head_table(difference)}")
        elif attention.has_maps[0] and attention.has_maps[r]:
            text += f"  {letter(r)} against A: no probe, head or captured step in common\n"
    return text


def _statistics_text(comparison):
    statistics = comparison.attention.statistics
    if not any(comparison.attention.has_maps):
        return "\nhead statistics\n  no run has attention maps\n"
    if statistics is None:
        return "\nhead statistics\n  no probe, head or captured step in common\n"
    rows = [["layer.head", "run", *statistics.names]]
    for i, layer in enumerate(statistics.layers):
        for j, head in enumerate(statistics.heads):
            name = f"{layer}.{head}"
            for r, values in enumerate(statistics.values):
                if values is not None:
                    rows.append([name, letter(r), *(f"{value:.4f}" for value in values[i, j])])
                    name = ""
    return (f"\nhead statistics at step {statistics.step} (means over {', '.join(statistics.probes)}; entropy in nats, "
            f"distance in tokens, else mass from 0 to 1)\n{text_table(rows)}")


def comparison_json(comparison) -> str:
    """The same as one JSON object on one line; losses and statistics with all their digits, what there is not as null."""
    report = {"runs": [_run_json(run) for run in comparison.runs],
              "pairings": [_pairing_json(pairing) for pairing in comparison.pairings],
              "losses": _losses_json(comparison), "attention": _attention_json(comparison.attention)}
    text = json.dumps(_plain(report), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace") + "\n"  # a name that is no text


def _plain(value):
    """Arrays as lists, numbers of numpy as Python's, NaN and infinities as None."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _run_json(run):
    status, log = run.run.status, run.run
    return {"name": run.name, "step": _last_step(run), "steps": run.setting("training", "steps"),
            "state": status["state"] if status else None, "running": run.running, "restarts": len(log.restarts),
            "changes": [{"step": step, "changed": changes} for step, changes in zip(log.restarts, log.changes) if changes],
            "validation_sets": [{"first_step": log.evaluations["step"][first], "hash": log.validation_hashes[first]}
                                for first, _ in log.validation_segments()]}


def _pairing_json(pairing):
    values = pairing.initial_values
    return {"paired": not pairing.unpaired(), "unpaired": pairing.unpaired(),
            "facts": [{"what": fact.what, "equal": fact.equal() if fact.known else None, "first": fact.first,
                       "other": fact.other} for fact in pairing.facts],
            "initial_values": None if values.not_known else {
                "equal": values.equal, "different": values.different, "other_shape": values.other_shape,
                "only_first": values.only_first, "only_other": values.only_other},
            "differences": [{"key": key, "first": first, "other": other} for key, first, other in pairing.differences]}


def _losses_json(comparison):
    losses, comparable = comparison.losses, _training_comparable(comparison)

    def known(values, where):
        """One value per run, None where there is nothing to compare it with."""
        return [value if there else None for value, there in zip(values, where)]

    validation = [{"step": step, "loss": losses.validation[:, i], "bits_per_byte": losses.bits_per_byte[:, i],
                   "gap": known(losses.validation[:, i] - losses.validation[0, i], losses.same_tokens[:, i]),
                   "gap_bits_per_byte": known(losses.bits_per_byte[:, i] - losses.bits_per_byte[0, i],
                                              losses.same_tokens[:, i])}
                  for i, step in enumerate(losses.validation_steps)]
    training = [{"first_step": first, "last_step": last, "loss": losses.training[:, w],
                 "gap": known(losses.training[:, w] - losses.training[0, w], comparable),
                 "gap_error": known(losses.gap_error[:, w], comparable)}
                for w, (first, last) in enumerate(losses.windows)]
    return {"comparable": [bool(same.all()) for same in losses.same_tokens], "training_comparable": comparable,
            "validation": validation, "training": training}


def _attention_json(attention):
    def distance(found):
        if found is None:
            return None
        return {"first_step": found.first_step, "last_step": found.last_step, "probes": found.probes,
                "layers": found.layers, "heads": found.heads, "distance": found.distance.ravel()}

    found = attention.statistics
    statistics = found and {
        "step": found.step, "names": found.names, "probes": found.probes, "layers": found.layers, "heads": found.heads,
        "values": [None if values is None else values.ravel() for values in found.values]}
    return {"has_maps": attention.has_maps, "changes": [distance(change) for change in attention.changes],
            "differences": [distance(difference) for difference in attention.differences], "statistics": statistics}
