# SPDX-License-Identifier: Apache-2.0
"""`describe` against what a run really takes from Kokkos, and what inference does without; `describe` and `bench` name the
same product libraries."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(os.environ["DEKODER_SOURCE_DIR"]) / "tests" / "support"))
from dekoder_runs import PROGRAM, Workshop, check
from kokkos_events import SCRATCH, most_bytes, record


def largest_arena(events):
    """Bytes of the largest allocation for activations."""
    return max(int(event[2]) for event in events if event[0] == "allocate" and event[3] == "activations")


def described(config, sets):
    """The memory terms of `describe`, in bytes."""
    text = subprocess.run([PROGRAM, "describe", config, *sets], capture_output=True, text=True, check=True).stdout
    section = text[text.index("memory by term"):]
    terms = {name.strip(): int(count) for name, count in re.findall(r"^  (.*?) +(\d+) B ", section, re.M)}
    together = terms.pop("together")
    check(sum(terms.values()) == together, f"the terms of describe add up to {sum(terms.values())}, not {together}")
    return terms


CASES = {
    "plain": [],
    "post": ["model.norm=post", "model.positions=sinusoidal", "training.micro_batch=4"],
    "untied": ["model.tied_head=false", "model.context=37", "model.layers=3", "model.heads=4", "evaluation.every=0"],
    "muon": ["training.optimizer=muon", "model.heads=4", "model.key_value_heads=2", "model.gated=true", "training.average=0.99"],
    "prompt": ["sampling.prompt=alpha beta"],  # read in one pass, all but the last token
    "maps": ['attention.texts=["alpha beta gamma"]', "attention.windows=1", "attention.window_tokens=9"],
}

with tempfile.TemporaryDirectory() as folder:
    workshop = Workshop(folder)
    config = workshop.config(12, 6)
    bench = json.loads(subprocess.run([PROGRAM, "bench", config, "--steps", "1", "--json"], capture_output=True, text=True,
                                      check=True).stdout)
    text = subprocess.run([PROGRAM, "describe", config], capture_output=True, text=True, check=True).stdout
    check(f"\nmatrix products   {bench['product_library']}\n" in text, f"bench says {bench['product_library']}, describe {text}")
    for name, settings in CASES.items():
        sets = [word for setting in settings for word in ("--set", setting)]
        run = workshop.folder / name
        events = record([PROGRAM, "train", config, "--run", run, *sets], workshop.folder / "events.txt")
        terms = described(config, sets)
        of_threads = [term for term in terms if term.startswith("scratch of ")]
        scratch = sum(terms.pop(term) for term in of_threads)
        taken = most_bytes(events, lambda label: label != SCRATCH)
        prompt = terms.pop("prompt of the generator, at most")
        spare = sum(terms.values()) - taken
        words = 4 * 8 if "attention maps, at most" in terms else 0  # whole words for its four buffers
        least = -prompt if name == "prompt" else 0
        check(least <= spare <= least + words, f"{name}: the run took {taken} bytes, describe says {spare} more: {terms}")
        taken = most_bytes(events, lambda label: label == SCRATCH)
        check(0 < taken <= scratch, f"{name}: the run took {taken} bytes of scratch, describe says at most {scratch}")

        training = largest_arena(events)
        for command in (["eval", run], ["generate", run, "--prompt", "a", "--tokens", "3"],
                        ["attention", run, "--text", "alpha"]):
            events = record([PROGRAM, *command], workshop.folder / "events.txt")
            labels = {event[3] for event in events if event[0] == "allocate"}
            wrong = [label for label in labels if "gradient" in label or "moment" in label]
            check(not wrong and "parameters.values" in labels, f"{command[0]} takes {sorted(labels)}")
            inference = largest_arena(events)
            check(0 < inference < training, f"{name} {command[0]}: {inference} bytes of activations, training {training}")
