# SPDX-License-Identifier: Apache-2.0
"""The PyTorch side of compare_pytorch.py: training steps of a decoder, on request.

Reads one JSON line {"model": ..., "training": ..., "micro_batch": B, "threads": n, "variant": ...} from standard input,
builds the model, warms up and answers {"ready": ...}; then, for every line "run <steps>", it trains that many steps on
random tokens and answers {"seconds": [per step], "loss": last}. "gemm M N K" answers the rate of that product. It stays
alive between the runs, so that a comparison can interleave them with those of another program. Needs PyTorch alone.

Variants: eager or compile, each with the optimizer's fused or foreach implementation: "eager-fused", "compile-foreach"; with
"-bf16" behind them forward passes run under torch.autocast, with bfloat16 where it takes it.
"""
import json
import math
import sys
import time

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """x + attention(norm x), then x + feed_forward(norm x); or the norms after the residual adds."""

    def __init__(self, config):
        super().__init__()
        channels, hidden, bias = config["channels"], config["feed_forward"], config["bias"]
        self.heads, self.pre = config["heads"], config["norm"] == "pre"
        self.activation = config["activation"]
        self.attention_norm = nn.LayerNorm(channels, eps=config["norm_epsilon"], bias=bias)
        self.qkv = nn.Linear(channels, 3 * channels, bias=bias)
        self.output = nn.Linear(channels, channels, bias=bias)
        self.feed_forward_norm = nn.LayerNorm(channels, eps=config["norm_epsilon"], bias=bias)
        self.up = nn.Linear(channels, hidden, bias=bias)
        self.down = nn.Linear(hidden, channels, bias=bias)

    def attention(self, x):
        batch, tokens, channels = x.shape
        q, k, v = (part.view(batch, tokens, self.heads, -1).transpose(1, 2) for part in self.qkv(x).split(channels, 2))
        y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.output(y.transpose(1, 2).reshape(batch, tokens, channels))

    def feed_forward(self, x):
        x = self.up(x)
        if self.activation == "relu":
            return self.down(functional.relu(x))
        return self.down(functional.gelu(x, approximate="tanh" if self.activation == "gelu_tanh" else "none"))

    def forward(self, x):
        if self.pre:
            x = x + self.attention(self.attention_norm(x))
            return x + self.feed_forward(self.feed_forward_norm(x))
        x = self.attention_norm(x + self.attention(x))
        return self.feed_forward_norm(x + self.feed_forward(x))


class Decoder(nn.Module):
    """A decoder-only transformer with GPT-2's initialisation; forward gives the mean cross-entropy."""

    def __init__(self, config):
        super().__init__()
        channels, rows, context = config["channels"], config["padded_vocabulary"], config["context"]
        self.token_embedding = nn.Embedding(rows, channels)
        if config["positions"] == "learned":
            self.positions = nn.Parameter(torch.zeros(context, channels))
        elif config["positions"] == "sinusoidal":
            angle = torch.arange(context)[:, None] / 10000 ** (torch.arange(0, channels, 2) / channels)
            table = torch.zeros(context, channels)
            table[:, 0::2], table[:, 1::2] = angle.sin(), angle.cos()[:, : channels // 2]
            self.register_buffer("positions", table)
        else:
            self.positions = None
        self.blocks = nn.ModuleList(Block(config) for _ in range(config["layers"]))
        self.final_norm = nn.LayerNorm(channels, eps=config["norm_epsilon"], bias=config["bias"])
        self.pre = config["norm"] == "pre"
        self.head = nn.Linear(channels, rows, bias=config["bias"] and not config["tied_head"])
        if config["tied_head"]:
            self.head.weight = self.token_embedding.weight
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                residual = name.endswith(("output.weight", "down.weight"))
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * config["layers"]) if residual else 0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def logits(self, tokens):
        x = self.token_embedding(tokens)
        if self.positions is not None:
            x = x + self.positions[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.final_norm(x) if self.pre else x)

    def forward(self, tokens, targets):
        return functional.cross_entropy(self.logits(tokens).flatten(0, 1), targets.flatten())


class Training:
    """Forward, backward, clipping and AdamW on one micro-batch of random tokens."""

    def __init__(self, job):
        torch.manual_seed(1)
        self.model = Decoder(job["model"])
        self.training = job["training"]
        execution, implementation, *precision = job["variant"].split("-")
        self.autocast = torch.autocast(torch.get_default_device().type, torch.bfloat16, enabled=precision == ["bf16"])
        self.loss = torch.compile(self.model) if execution == "compile" else self.model
        matrices = [p for p in self.model.parameters() if p.dim() == 2]
        others = [p for p in self.model.parameters() if p.dim() != 2]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices, "weight_decay": self.training["weight_decay"]},
             {"params": others, "weight_decay": 0.0}],
            lr=self.training["learning_rate"], betas=(self.training["beta1"], self.training["beta2"]),
            eps=self.training["epsilon"], fused=implementation == "fused", foreach=implementation == "foreach")
        shape = (job["micro_batch"], job["model"]["context"] + 1)
        self.tokens = torch.randint(job["model"]["vocabulary"], shape)

    def step(self):
        with self.autocast:
            loss = self.loss(self.tokens[:, :-1].contiguous(), self.tokens[:, 1:].contiguous())
        loss.backward()
        if self.training["clip_norm"] > 0:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.training["clip_norm"])
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def run(self, steps):
        seconds = []
        for _ in range(steps):
            start = time.perf_counter()
            loss = self.step()
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds, "loss": loss}


def gemm_rate(m, n, k, precision):
    """GFLOP/s of a product, the best of five."""
    a, b = torch.randn(m, k).to(precision), torch.randn(k, n).to(precision)
    out = torch.empty(m, n, dtype=precision)
    torch.mm(a, b, out=out)
    best = math.inf
    for _ in range(5):
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        best = min(best, time.perf_counter() - start)
    return 2e-9 * m * n * k / best


def main():
    job = json.loads(sys.stdin.readline())
    torch.set_num_threads(job["threads"])
    torch.set_flush_denormal(True)
    start = time.perf_counter()
    training = Training(job)
    first = training.run(job.get("warm_up", 2))
    answer = {"ready": job["variant"], "version": torch.__version__, "set_up_seconds": time.perf_counter() - start,
              "parameters": sum(p.numel() for p in training.model.parameters()), "loss": first["loss"]}
    print(json.dumps(answer), flush=True)
    for line in sys.stdin:
        command, *numbers = line.split()
        numbers = [int(number) for number in numbers]
        if command == "gemm":
            answer = {"gflops": gemm_rate(*numbers, torch.bfloat16 if job["variant"].endswith("-bf16") else torch.float32)}
        else:
            answer = training.run(*numbers)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
