# SPDX-License-Identifier: Apache-2.0
"""Trains one configuration with dekoder in fp32 and in bf16, with either residual stream, and with PyTorch under bf16
autocast, from the same initial values on the same windows in the same order, and prints the training losses side by side.

    python3 -m venv venv && venv/bin/pip install torch==2.13.0 h5py numpy pyyaml
    venv/bin/python tests/performance/compare_curves.py input/char-10m.yaml --steps 500 --tokens data/austen-char.h5 \\
        --dekoder "jobs/toolbox build/tests/dekoder" --window-order "jobs/toolbox build/tests/tests/support/window_order" \\
        --work curves --set training.batch=16

The learning rates are those that dekoder logged. PyTorch's decoder is that of pytorch_worker.py. The losses of the first
step, before any update, must agree to 0.005, or the data are not the same. Reports alone; a folder that is there goes on.
"""
import argparse
import json
import pathlib
import shlex
import statistics
import subprocess

import h5py
import numpy
import torch
import yaml
from pytorch_worker import Decoder
from torch.nn import functional


def losses_and_rates(run):
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if "loss" in row]
    return [row["loss"] for row in rows], [row["learning_rate"] for row in rows]


def torch_name(name):
    """Of dekoder's parameter."""
    for mine, theirs in ((".attention.", "."), (".feed_forward.", "."), (".gain", ".weight")):
        name = name.replace(mine, theirs)
    words = name.split(".")
    if words[0] == "blocks":
        words[1] = str(int(words[1]))
    return "positions" if name == "position_embedding.weight" else ".".join(words)


def load_values(model, checkpoint):
    with h5py.File(checkpoint) as file:
        values = {torch_name(name): torch.tensor(data[()]) for name, data in file["parameters"].items()}
    wanted = dict(model.named_parameters())
    assert values.keys() == wanted.keys(), values.keys() ^ wanted.keys()
    with torch.no_grad():
        for name, value in values.items():
            wanted[name].copy_(value)


def train_pytorch(config, checkpoint, tokens, windows, rates, autocast):
    """The loss of every step."""
    model_config, training = config["model"], config["training"]
    multiple, vocabulary, context = model_config["vocabulary_multiple"], model_config["vocabulary"], model_config["context"]
    model = Decoder({**model_config, "padded_vocabulary": -(-vocabulary // multiple) * multiple})
    load_values(model, checkpoint)
    matrices = [p for p in model.parameters() if p.dim() == 2]
    others = [p for p in model.parameters() if p.dim() != 2]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": training["weight_decay"]}, {"params": others, "weight_decay": 0.0}],
                                  betas=(training["beta1"], training["beta2"]), eps=training["epsilon"], fused=True)
    batch, losses = training["batch"], []
    for step, rate in enumerate(rates):
        chosen = windows[step * batch:(step + 1) * batch]
        rows = torch.from_numpy(numpy.stack([tokens[w * context:w * context + context + 1] for w in chosen]).astype(numpy.int64))
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = model.logits(rows[:, :-1])[..., :vocabulary]
            loss = functional.cross_entropy(logits.float().flatten(0, 1), rows[:, 1:].flatten())
        loss.backward()
        if training["clip_norm"] > 0:
            torch.nn.utils.clip_grad_norm_(model.parameters(), training["clip_norm"])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
    return losses


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=pathlib.Path)
    parser.add_argument("--tokens", type=pathlib.Path, required=True)
    parser.add_argument("--dekoder", default="build/tests/dekoder", help="the command")
    parser.add_argument("--window-order", default="build/tests/tests/support/window_order", help="the command")
    parser.add_argument("--work", type=pathlib.Path, required=True, help="folder for the runs")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="passed on to dekoder train")
    options = parser.parse_args()
    work = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)

    def train(name, *sets):
        run = work / name
        words = [w for s in (f"data.tokens={options.tokens.resolve()}", f"training.steps={options.steps}", *options.set, *sets)
                 for w in ("--set", s)]
        subprocess.run([*shlex.split(options.dekoder), "train", options.config, "--run", run, *words], check=True,
                       stderr=subprocess.DEVNULL)
        return run

    # A step too short to change any value: its checkpoint holds the initial ones.
    still = train("initial", "training.steps=1", "training.learning_rate=1e-30", "training.final_learning_rate=0",
                  "training.weight_decay=0", "training.warmup_steps=0")
    runs = {name: train(name.replace(" ", "-"), *sets) for name, sets in (
        ("dekoder float", ("training.precision=float",)), ("dekoder bf16", ("training.precision=bf16",)),
        ("dekoder bf16 residual stored", ("training.precision=bf16", "training.residual=stored")))}
    config = yaml.safe_load((runs["dekoder float"] / "config.yaml").read_text())
    curves = {name: losses_and_rates(run)[0] for name, run in runs.items()}
    rates = losses_and_rates(runs["dekoder float"])[1]
    with h5py.File(options.tokens) as file:
        tokens = file["tokens"][: int(file.attrs["training_tokens"])]
    windows = subprocess.run([*shlex.split(options.window_order), str(config["training"]["seed"]),
                              str((len(tokens) - 1) // config["model"]["context"]), str(config["training"]["batch"] * options.steps)],
                             check=True, capture_output=True, text=True).stdout.split()
    checkpoint = max((still / "checkpoints").glob("*.h5"))
    curves["PyTorch bf16 autocast"] = train_pytorch(config, checkpoint, tokens, [int(w) for w in windows], rates, True)
    first = [losses[0] for losses in curves.values()]
    if max(first) - min(first) > 0.005:
        raise SystemExit(f"the losses of the first step differ: {first}; not the same data or initial values")
    print(f"{'steps':>12}" + "".join(f"{name:>30}" for name in curves))
    for begin in range(0, options.steps, max(1, options.steps // 10)):
        end = min(options.steps, begin + max(1, options.steps // 10))
        print(f"{f'{begin + 1} to {end}':>12}" + "".join(f"{statistics.mean(losses[begin:end]):>30.4f}" for losses in curves.values()))


if __name__ == "__main__":
    main()
