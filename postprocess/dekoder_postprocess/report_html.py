# SPDX-License-Identifier: Apache-2.0
"""The parts of a report that need no script: summary, samples, configuration, what is missing."""

import json
from pathlib import Path

import numpy as np

from .log_reader import SOURCE_COLUMNS
from .run_reader import changes_text
from .visible_text import escaped

RECENT = 100
"""The training loss named in the summary is the mean of that many last steps."""


def distinct_names(paths):
    """The last parts of each path, as few as tell the runs apart."""
    paths = [Path(path).resolve() for path in paths]
    names = [path.name for path in paths]
    for depth in range(2, max(len(path.parts) for path in paths) + 1):
        doubled = {name for i, name in enumerate(names) if paths[i] not in paths[:i] and
                   any(names[j] == name and paths[j] != paths[i] for j in range(len(paths)))}
        if not doubled:
            break
        names = ["/".join(path.parts[-depth:]) if name in doubled else name for path, name in zip(paths, names)]
    return names


def number(value, digits=4):
    return "\u2013" if value is None or not np.isfinite(value) else f"{value:,.{digits}f}"


def progress(run):
    """How far the run is: "step 5 of 40"."""
    last, planned = run.last_step, run.config["training"].get("steps")
    of = f" of {planned:,}" if isinstance(planned, int) else ""
    return f"step {last:,}{of}" if last is not None else "no step yet"


def state_of(run):
    """(short, sentence) of how the run stands."""
    status = run.status or {}
    state = status.get("state")
    if state == "finished":
        return "finished", f"finished at {progress(run)}"
    if state == "failed":
        message = status.get("message", "")
        return "failed", f"failed at {progress(run)}" + (f": {message}" if message else "")
    return "not finished", f"not finished: {progress(run)} when this page was made"


def facts(run):
    """[(term, value, remark)] of one run."""
    losses = np.asarray(run.steps["loss"], float)[-RECENT:]
    losses = losses[np.isfinite(losses)]
    rates = np.asarray(run.steps["tokens_per_second"], float)
    rates = rates[np.isfinite(rates)]
    validation = np.asarray(run.evaluations["validation_loss"], float)
    bits = np.asarray(run.evaluations["bits_per_byte"], float)
    best = run.best_evaluation()
    at = f"at step {int(run.evaluations['step'][best]):,}" if best is not None else "no evaluation yet"
    if len(run.validation_segments()) > 1:
        at += ", of those on the newest validation tokens"
    state, _ = state_of(run)
    if run.restarts:
        restarts = ("from steps " if len(run.restarts) > 1 else "from step ") + ", ".join(
            f"{int(step):,}" for step in run.restarts)
    else:
        restarts = "ran through" if state == "finished" else "none so far"
    return [
        ("State", state, progress(run)),
        ("Best validation loss", number(validation[best] if best is not None else None),
         f"nats per token, {at}" if best is not None else at),
        ("Bits per byte", number(bits[best] if best is not None else None), at),
        ("Training loss", number(losses.mean() if losses.size else None),
         ("nats per token, mean of the last " + (f"{losses.size:,} steps" if losses.size > 1 else "step"))
         if losses.size else "no step yet"),
        ("Tokens seen", f"{int(run.steps['tokens'][-1]):,}" if len(run.steps["tokens"]) else "\u2013",
         "in training"),
        ("Tokens per second", number(np.median(rates) if rates.size else None, 0), "median over steps"),
        ("Restarts", str(len(run.restarts)), restarts),
    ]


def summary(runs, names):
    """Cards for one run, a table for several."""
    if len(runs) == 1:
        cards = "".join(f"<div><dt>{escaped(term)}</dt><dd><b>{escaped(value)}</b> <span>{escaped(remark)}</span>"
                        "</dd></div>" for term, value, remark in facts(runs[0]))
        return f'<dl class="facts">{cards}</dl>'
    head = "".join(f'<th scope="col"><i class="swatch run-{i % 6}"></i>{escaped(name)}</th>'
                   for i, name in enumerate(names))
    rows = ""
    for columns in zip(*(facts(run) for run in runs)):
        cells = "".join(f"<td><b>{escaped(value)}</b> <span>{escaped(remark)}</span></td>"
                        for _, value, remark in columns)
        rows += f'<tr><th scope="row">{escaped(columns[0][0])}</th>{cells}</tr>'
    return ('<div class="wide" tabindex="0" role="region" aria-label="Summary"><table class="summary"><thead><tr>'
            f"<td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div>")


def missing(runs, names):
    """What the page cannot show, and what a curve alone would hide, one line each."""
    lines = []
    for run, name in zip(runs, names):
        name = name if len(runs) > 1 else "This run"
        state, sentence = state_of(run)
        if state != "finished":
            lines.append(f"{name}: {sentence}.")
        if not len(run.steps["step"]):
            lines.append(f"{name}: no training step in metrics.jsonl yet.")
        if run.skipped:
            lines.append(f"{name}: loss or gradients were not finite at step" + ("s " if len(run.skipped) > 1 else " ")
                         + ", ".join(f"{step:,}" for step in run.skipped) + ", which changed no parameter.")
        if not len(run.evaluations["step"]):
            lines.append(f"{name}: no evaluation in metrics.jsonl, so no validation loss and no bits per byte.")
        lines += [f"{name}: {note}; best is the best on the newest ones." for note in run.validation_notes()]
        if not run.samples:
            lines.append(f"{name}: no samples in samples.jsonl.")
        if run.attention is None:
            lines.append(f"{name}: no attention maps: the configuration asks for none, or the first ones are still to "
                         "come.")
        else:
            if not any(probe.steps for probe in run.attention.probes.values()):
                lines.append(f"{name}: no step of the attention maps is there yet.")
            lines += [f"{line}." for line in run.attention.left_out]
    if len({run.validation_hash for run in runs if len(run.evaluations["step"])}) > 1:
        lines.append("The runs were evaluated on different validation tokens: their validation losses cannot be "
                     "compared.")
    items = "".join(f"<li>{escaped(line)}</li>" for line in lines)
    return f'<ul class="notes" aria-label="What is missing">{items}</ul>' if items else ""


def restarts(runs, names):
    """What restarts changed, one line each."""
    lines = [(f"{name}: the" if len(runs) > 1 else "The") + f" restart from step {int(step):,} changed "
             f"{changes_text(changes)}." for run, name in zip(runs, names)
             for step, changes in zip(run.restarts, run.changes) if changes]
    items = "".join(f"<li>{escaped(line)}</li>" for line in lines)
    return f'<ul class="notes" aria-label="What restarts changed">{items}</ul>' if items else ""


def sources(runs, names):
    """The table of the token files of mixtures, at the best evaluation of each run; nothing where no run has several."""
    rows = ""
    for i, (run, name) in enumerate(zip(runs, names)):
        best = run.best_evaluation()
        if best is None or not run.sources[best]:
            continue
        lines = [(path, *(row[key] for key in SOURCE_COLUMNS)) for path, row in run.sources[best].items()]
        lines.append((f"together, step {int(run.evaluations['step'][best]):,}", None,
                      *(run.evaluations[key][best] for key in ("validation_loss", "bits_per_byte", "tokens"))))
        for path, weight, loss, bits, tokens in lines:
            swatch = f'<td><i class="swatch run-{i % 6}"></i>{escaped(name)}</td>' if len(runs) > 1 else ""
            cells = ("" if weight is None else f"{weight:.4g}", number(loss), number(bits), "\u2013" if tokens is None else f"{int(tokens):,}")
            rows += (f'<tr{"" if weight is not None else " class=together"}>{swatch}<th scope="row">{escaped(path)}</th>'
                     + "".join(f"<td>{escaped(cell)}</td>" for cell in cells) + "</tr>")
    if not rows:
        return ""
    heads = ("Token file", "Weight", "Validation loss, nats per token", "Bits per byte", "Validation tokens")
    head = "".join(f'<th scope="col">{term}</th>' for term in (("Run",) if len(runs) > 1 else ()) + heads)
    return ('<h3>Sources <span class="unit">where the validation loss is best; together: the mean loss by weights, and its bits per byte</span></h3>'
            '<div class="wide" tabindex="0" role="region" aria-label="Sources"><table class="sources">'
            f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>")


def duration(seconds):
    """59:59 or 1:00:00."""
    if seconds is None or not np.isfinite(seconds):
        return "\u2013"
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}" if whole >= 3600 else f"{whole // 60}:{whole % 60:02}"


def start_cells(run):
    """The cells of each start of a run: when, steps from and to, how many of them the next one computed once more, wall
    time, share of the wall time of all starts so far that went to steps which counted, why it ended."""
    lost = [begin.get("lost_steps", 0) for begin, _ in run.starts[1:]] + [0]
    rows = []
    for (begin, end), twice in zip(run.starts, lost):
        end = end or {"reason": "no word of its end yet"}
        share, step = end.get("effective_time"), end.get("step")
        rows.append(((begin.get("time") or "")[:19].replace("T", " "), f"{begin['step']:,}",
                     "\u2013" if step is None else f"{step:,}", f"{twice:,}", duration(end.get("wall_seconds")),
                     "\u2013" if share is None else f"{100 * share:.1f} %", end.get("reason") or ""))
    return rows


def starts(runs, names):
    """The table of the starts; nothing where no run has a log of them."""
    if not any(run.starts for run in runs):
        return ""
    heads = ("Start (UTC)", "From step", "To step", "Steps lost", "Wall time", "Effective time", "Ended by")
    head = "".join(f'<th scope="col">{term}</th>' for term in (("Run",) if len(runs) > 1 else ()) + heads)
    rows = ""
    for i, (run, name) in enumerate(zip(runs, names)):
        swatch = f'<td><i class="swatch run-{i % 6}"></i>{escaped(name)}</td>' if len(runs) > 1 else ""
        rows += "".join(f"<tr>{swatch}" + "".join(f"<td>{escaped(cell)}</td>" for cell in cells) + "</tr>"
                        for cells in start_cells(run))
    return ('<h3>Starts <span class="unit">effective: the share of the wall time so far, without queues, that went to steps '
            'which counted</span></h3><div class="wide" tabindex="0" role="region" aria-label="Starts"><table class="starts">'
            f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>")


def phase_means(run):
    """{phase: mean seconds per step} over the last RECENT steps whose row of the log has phases; one that a row lacks, as evaluations do
    in most, took no time of its step."""
    recent = [seconds for seconds in run.seconds[-RECENT:] if seconds]
    means = {}
    for phase in dict.fromkeys(phase for seconds in recent for phase in seconds):
        values = [seconds[phase] for seconds in recent if seconds.get(phase) is not None]
        means[phase] = sum(values) / len(recent) if values else float("nan")
    return means


def phases(runs, names):
    """The table of where the time of a step goes; nothing where no log says it."""
    means = [phase_means(run) for run in runs]
    rows = ""
    for phase in dict.fromkeys(phase for of in means for phase in of):
        cells = ""
        for of in means:
            value, total = of.get(phase), np.nansum(list(of.values()))
            share = f"{100 * value / total:.1f} %" if value is not None and np.isfinite(value) and total > 0 else ""
            cells += f"<td><b>{number(value, 5)}</b> <span>{share}</span></td>"
        rows += f'<tr><th scope="row">{escaped(phase)}</th>{cells}</tr>'
    if not rows:
        return ""
    head = "".join(f'<th scope="col"><i class="swatch run-{i % 6}"></i>{escaped(name)}</th>'
                   for i, name in enumerate(names))
    return (f'<h3>Time of a step by phase <span class="unit">seconds, mean over the last steps, {RECENT} at most</span></h3>'
            '<div class="wide" tabindex="0" role="region" aria-label="Time of a step by phase"><table class="phases">'
            f"<thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table></div>")


def attention_note(maps, megabytes):
    """Which maps the page leaves out."""
    lines = []
    if maps.left_out_steps:
        lines.append(f"To keep this page below {megabytes:g} MB, maps of these steps are left out: "
                     + ", ".join(f"{step:,}" for step in maps.left_out_steps)
                     + ". The statistics below hold every step.")
    if maps.left_out_probes:
        lines.append("For the same reason, maps of these probes are left out: " + ", ".join(maps.left_out_probes)
                     + ".")
    if lines:
        lines.append("A greater --max-megabytes takes them in.")
    return f'<p class="notes">{escaped(" ".join(lines))}</p>' if lines else ""


def samples(runs, names):
    """Every sample, the last of each run open; a column for each run."""
    columns = ""
    for i, (run, name) in enumerate(zip(runs, names)):
        if not run.samples:
            continue
        title = f'<h3><i class="swatch run-{i % 6}"></i>{escaped(name)}</h3>' if len(runs) > 1 else ""
        items = "".join(f"<details{' open' if n == len(run.samples) - 1 else ''}><summary>Step {int(step):,}"
                        f"</summary><pre>{escaped(text)}</pre></details>"
                        for n, (step, text) in enumerate(run.samples))
        columns += f"<div>{title}{items}</div>"
    cut = any("\ufffd" in text for run in runs for _, text in run.samples)
    note = ('<p class="hint">A \ufffd stands for bytes that are no whole character: a token can be a piece of one, and what the model puts '
            "together need not fit.</p>" if cut else "")
    return f'<div class="columns">{columns}</div>{note}' if columns else '<p class="notes">No samples yet.</p>'


def flat(config, prefix=""):
    """{section.key: text} of a nested configuration."""
    keys = {}
    for key, value in (config or {}).items():
        if isinstance(value, dict):
            keys.update(flat(value, f"{prefix}{key}."))
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
            keys[f"{prefix}{key}"] = text
    return keys


def key_table(keys, flats, names, label):
    head = "".join(f'<th scope="col">{escaped(name)}</th>' for name in names)
    rows = ""
    for key in keys:
        cells = "".join(f"<td><code>{escaped(f[key])}</code></td>" if key in f else '<td class="absent">\u2013</td>'
                        for f in flats)
        rows += f'<tr><th scope="row"><code>{escaped(key)}</code></th>{cells}</tr>'
    return (f'<div class="wide" tabindex="0" role="region" aria-label="{escaped(label)}"><table class="keys"><thead>'
            f'<tr><th scope="col">Key</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>')


def configuration(runs, names):
    """The differences between runs key by key, then everything."""
    flats = [flat(run.config) for run in runs]
    keys = list(dict.fromkeys(key for f in flats for key in f))
    if not keys:
        return '<p class="notes">No configuration in these runs.</p>'
    everything = key_table(keys, flats, names if len(runs) > 1 else ["Value"], "All keys")
    if len(runs) == 1:
        return f'<details class="print-open"><summary>All {len(keys)} keys</summary>{everything}</details>'
    differing = [key for key in keys if len({f.get(key) for f in flats}) > 1]
    if differing:
        count = f"{len(differing)} of {len(keys)} keys " + ("differ" if len(differing) > 1 else "differs")
        differences = f"<h3>{count}</h3>" + key_table(differing, flats, names, "Keys that differ")
    else:
        differences = f"<p>All {len(keys)} keys are equal.</p>"
    return f'{differences}<details class="print-open"><summary>All {len(keys)} keys</summary>{everything}</details>'
