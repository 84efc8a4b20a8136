# SPDX-License-Identifier: Apache-2.0
"""Writes the reference values of tests/parity/fixtures: a decoder in PyTorch, in double precision, for variants that
cover every choice of the model's configuration.

    python3 -m venv venv && venv/bin/pip install torch==2.13.0 h5py numpy pyyaml
    venv/bin/python tests/parity/make_fixtures.py            # all; or name variants

A fixture holds, for one variant:
    attribute config                 the configuration as YAML text
    tokens, targets      (S,B,T)     one batch per optimizer step
    parameters/<name>                initial values, exact in single precision
    logits               (B,T,V)     of the first batch; gradients/<name> of its loss
    attention        (L,B,H,T,T)     softmax weights of the first batch, every layer and head
    losses, gradient_norms (S)       of every step, before its update
    final_parameters/<name>          after S steps
Results are rounded to 36 significant bits, so that the files compress. The PyTorch model is written from the formulas
and shares no code with dekoder; PyTorch's own layer_norm, gelu, cross_entropy, clip_grad_norm_ and AdamW serve it.
"""
import math
import pathlib
import sys

import h5py
import numpy
import torch
import yaml
from torch.nn import functional

FOLDER = pathlib.Path(__file__).parent / "fixtures"
STEPS = 10
TRAINING = {"batch": 3, "steps": STEPS, "learning_rate": 0.01, "final_learning_rate": 0.002, "schedule": "cosine",
            "warmup_steps": 3, "beta1": 0.9, "beta2": 0.95, "epsilon": 1e-8, "weight_decay": 0.1, "clip_norm": 1.0}
MODEL = {"layers": 2, "heads": 4, "channels": 20, "feed_forward": 28, "context": 17, "vocabulary": 37,
         "vocabulary_multiple": 8, "norm_epsilon": 1e-5, "dropout": 0.0}
# What the configurations of fixtures leave out where it is this.
DEFAULTS = {"key_value_heads": 0, "head_size": 0, "norm_kind": "layer", "gated": False, "qk_norm": False, "sliding_window": [],
            "rotary_base": 10000.0,
            "rotary_fraction": 1.0, "rotary_factor": 1.0, "rotary_low_frequency": 1.0, "rotary_high_frequency": 4.0,
            "rotary_original_context": 8192, "logit_soft_cap": 0.0}

# Differences from MODEL and TRAINING, and the seed of values and tokens. The talk's decoder: q, k and v from one linear
# layer, one head, add and norm after each sublayer, ReLU, a hidden layer as wide as the stream, a head of its own.
VARIANTS = {
    "talk": dict(seed=1, layers=1, heads=1, channels=24, feed_forward=24, positions="sinusoidal", norm="post",
                 activation="relu", bias=True, tied_head=False),
    "gpt2": dict(seed=2, positions="learned", norm="pre", activation="gelu_tanh", bias=True, tied_head=True),
    "pre_no_bias": dict(seed=3, heads=3, channels=21, positions="none", norm="pre", activation="gelu_erf", bias=False,
                        tied_head=False),
    "pre_sinusoidal_relu": dict(seed=4, heads=1, positions="sinusoidal", norm="pre", activation="relu", bias=True,
                                tied_head=False),
    "post_learned_erf": dict(seed=5, heads=2, positions="learned", norm="post", activation="gelu_erf", bias=True,
                             tied_head=True),
    "post_no_bias": dict(seed=6, heads=5, channels=15, feed_forward=29, positions="none", norm="post",
                         activation="gelu_tanh", bias=False, tied_head=False, norm_epsilon=1e-3),
    "post_multihead_relu": dict(seed=7, heads=5, positions="none", norm="post", activation="relu", bias=False,
                                tied_head=True, clip_norm=0.0, schedule="linear"),
    "wide_head": dict(seed=8, layers=1, heads=1, channels=33, feed_forward=21, positions="none", norm="pre",
                      activation="gelu_tanh", bias=True, tied_head=False, schedule="constant", warmup_steps=0),
    "long_context": dict(seed=9, layers=1, heads=2, channels=16, feed_forward=56, context=150, batch=1,
                         vocabulary=19, positions="learned", norm="pre", activation="gelu_erf", bias=True,
                         tied_head=True),
    # Llama 3: grouped keys, rotary positions with stretched wavelengths, RMS norm, SwiGLU.
    "llama": dict(seed=10, heads=4, key_value_heads=2, positions="rotary", rotary_base=500.0, rotary_factor=8.0,
                  rotary_original_context=64, head_size=8, norm="pre", norm_kind="rms", activation="silu", gated=True, bias=False,
                  tied_head=False),
    "multi_query_partly_rotary": dict(seed=6, heads=3, key_value_heads=1, head_size=10, positions="rotary",
                                      rotary_fraction=0.4, norm="pre", activation="gelu_tanh", gated=True, bias=True, tied_head=True),
    "rms_relu_squared": dict(seed=12, heads=5, positions="learned", norm="post", norm_kind="rms",
                             activation="relu_squared", bias=True, tied_head=True),
    # Qwen 3: norms of queries and keys before rotary positions.
    # The gradients of the norms' gains are sums over all tokens and heads; with some seeds next to nothing is left of one.
    "qwen3": dict(seed=2, heads=4, key_value_heads=2, head_size=6, positions="rotary", norm="pre", norm_kind="rms",
                  activation="silu", gated=True, bias=False, tied_head=True, qk_norm=True),
    # These norms before positions that turn a part of a head, and layer norms.
    "qk_norm": dict(seed=14, heads=2, positions="rotary", rotary_fraction=0.4, norm="post", activation="gelu_tanh", bias=True,
                    tied_head=False, qk_norm=True, norm_epsilon=1e-2),
    # Final logits as Gemma 2's, with PaLM's z-loss.
    "soft_cap_z_loss": dict(seed=13, positions="learned", norm="pre", activation="gelu_tanh", bias=False, tied_head=True,
                            logit_soft_cap=3.0, z_loss=0.01),
    # Queries, keys and values, gate and up, are matrices of their own; wide and tall ones.
    "muon": dict(seed=16, heads=4, key_value_heads=2, positions="rotary", head_size=8, norm="pre", norm_kind="rms",
                 activation="silu", gated=True, bias=False, tied_head=False, optimizer="muon", momentum=0.9),
    # Mistral: Llama with a window (of other seeds some have logits that cancel, which bf16 misses by a twentieth of the largest); and
    # a window of every second layer, over several tiles.
    "mistral": dict(seed=33, heads=4, key_value_heads=2, positions="rotary", head_size=6, norm="pre", norm_kind="rms", activation="silu",
                    gated=True, bias=False, tied_head=False, sliding_window=[5]),
    "window_by_layer": dict(seed=16, heads=2, channels=16, feed_forward=24, context=150, batch=1, vocabulary=19, positions="learned",
                            norm="pre", activation="gelu_tanh", bias=True, tied_head=True, sliding_window=[40, 0]),
}


def configuration(variant):
    """{"model": ..., "training": ...} with the keys of dekoder's configuration."""
    changes = {key: value for key, value in variant.items() if key != "seed"}
    model, training = dict(MODEL), dict(TRAINING)
    for key, value in changes.items():
        (training if key in training or key in ("z_loss", "optimizer", "momentum") else model)[key] = value
    return {"model": model, "training": training}


def parameter_shapes(model):
    """Name -> shape, in the order of the layers."""
    model = DEFAULTS | model
    channels, hidden, heads = model["channels"], model["feed_forward"], model["heads"]
    head = model["head_size"] or channels // heads
    rows = -(-model["vocabulary"] // model["vocabulary_multiple"]) * model["vocabulary_multiple"]
    shapes = {"token_embedding.weight": (rows, channels)}
    if model["positions"] == "learned":
        shapes["position_embedding.weight"] = (model["context"], channels)

    def norm(name):
        shapes[f"{name}.gain"] = (channels,)
        if model["bias"] and model["norm_kind"] == "layer":
            shapes[f"{name}.bias"] = (channels,)

    def linear(name, outputs, inputs):
        shapes[f"{name}.weight"] = (outputs, inputs)
        if model["bias"]:
            shapes[f"{name}.bias"] = (outputs,)

    for layer in range(model["layers"]):
        block = f"blocks.{layer:02d}"
        norm(f"{block}.attention_norm")
        linear(f"{block}.attention.qkv", (heads + 2 * (model["key_value_heads"] or heads)) * head, channels)
        if model["qk_norm"]:
            shapes[f"{block}.attention.query_norm.gain"] = shapes[f"{block}.attention.key_norm.gain"] = (head,)
        linear(f"{block}.attention.output", channels, heads * head)
        norm(f"{block}.feed_forward_norm")
        if model["gated"]:
            linear(f"{block}.feed_forward.gate_up", 2 * hidden, channels)
        else:
            linear(f"{block}.feed_forward.up", hidden, channels)
        linear(f"{block}.feed_forward.down", channels, hidden)
    if model["norm"] == "pre":
        norm("final_norm")
    if not model["tied_head"]:
        linear("head", rows, channels)
    return shapes


def initial_values(shapes, random):
    """Values with a spread that makes softmax, norms and activations bend; multiples of 2^-12, exact in fp32."""
    values = {}
    for name, shape in shapes.items():
        value = random.standard_normal(shape)
        if name.endswith(".gain"):
            value = 1 + 0.3 * value
        elif name.endswith(".bias"):
            value = 0.3 * value
        elif "embedding" in name:
            value = 0.6 * value
        else:
            value = 1.4 / math.sqrt(shape[1]) * value
        values[name] = torch.tensor(numpy.round(value * 4096) / 4096, dtype=torch.float64, requires_grad=True)
    return values


def sinusoidal_positions(context, channels):
    """sin(t / 10000^(2i/C)) in channel 2i, cos of the same in channel 2i+1 (Vaswani et al. 2017, section 3.5)."""
    table = torch.zeros(context, channels, dtype=torch.float64)
    for t in range(context):
        for channel in range(channels):
            angle = t / 10000.0 ** (2 * (channel // 2) / channels)
            table[t, channel] = math.cos(angle) if channel % 2 else math.sin(angle)
    return table


def rotary_frequencies(model, turned):
    """Of the pairs of `turned` channels, radians per token; Llama 3.1's stretching by wavelength."""
    frequencies = []
    for i in range(turned // 2):
        frequency = model["rotary_base"] ** (-2 * i / turned)
        wavelength = 2 * math.pi / frequency
        low, high = model["rotary_low_frequency"], model["rotary_high_frequency"]
        original, factor = model["rotary_original_context"], model["rotary_factor"]
        if factor != 1 and wavelength > original / low:
            frequency /= factor
        elif factor != 1 and wavelength >= original / high:
            smooth = (original / wavelength - low) / (high - low)
            frequency = (1 - smooth) * frequency / factor + smooth * frequency
        frequencies.append(frequency)
    return torch.tensor(frequencies, dtype=torch.float64)


def turned(x, model):
    """Rotary positions (Su et al. 2021) of x(B,T,H,D): channel i with channel i + R/2, as complex numbers."""
    width = 2 * int(model["rotary_fraction"] * x.shape[-1] / 2 + 0.5)
    angles = torch.arange(x.shape[1], dtype=torch.float64)[:, None] * rotary_frequencies(model, width)
    pairs = torch.complex(x[..., : width // 2], x[..., width // 2:width])
    pairs = pairs * torch.polar(torch.ones_like(angles), angles)[:, None]
    return torch.cat([pairs.real, pairs.imag, x[..., width:]], dim=-1)


class Decoder:
    """The forward pass; `kink` is the smallest |input| of a ReLU seen, `weights` are the attention weights (B,H,T,T)
    of each layer in the last pass."""

    def __init__(self, model, values):
        self.model, self.values, self.kink, self.weights = DEFAULTS | model, values, math.inf, []

    def linear(self, name, x):
        return functional.linear(x, self.values[f"{name}.weight"], self.values.get(f"{name}.bias"))

    def norm(self, name, x):
        if self.model["norm_kind"] == "rms":
            return functional.rms_norm(x, x.shape[-1:], self.values[f"{name}.gain"], self.model["norm_epsilon"])
        return functional.layer_norm(x, x.shape[-1:], self.values[f"{name}.gain"], self.values.get(f"{name}.bias"),
                                     self.model["norm_epsilon"])

    def attention(self, name, x, window):
        batch, tokens, channels = x.shape
        heads = self.model["heads"]
        groups, head = self.model["key_value_heads"] or heads, self.model["head_size"] or channels // heads
        qkv = self.linear(f"{name}.qkv", x).reshape(batch, tokens, heads + 2 * groups, head)
        q, k, v = qkv.split([heads, groups, groups], dim=2)
        if self.model["qk_norm"]:
            q, k = (functional.rms_norm(part, (head,), self.values[f"{name}.{side}_norm.gain"], self.model["norm_epsilon"])
                    for part, side in ((q, "query"), (k, "key")))
        if self.model["positions"] == "rotary":
            q, k = turned(q, self.model), turned(k, self.model)
        k, v = (part.repeat_interleave(heads // groups, dim=2) for part in (k, v))
        scores = torch.einsum("bthd,bshd->bhts", q, k) / math.sqrt(head)
        future = torch.ones(tokens, tokens, dtype=torch.bool).triu(1)
        hidden = future | ~torch.ones(tokens, tokens, dtype=torch.bool).triu(1 - (window or tokens))
        weights = functional.softmax(scores.masked_fill(hidden, -math.inf), dim=-1)
        self.weights.append(weights.detach())
        y = torch.einsum("bhts,bshd->bthd", weights, v).reshape(batch, tokens, heads * head)
        return self.linear(f"{name}.output", y)

    def feed_forward(self, name, x):
        kind, gated = self.model["activation"], self.model["gated"]
        hidden, up = self.linear(f"{name}.gate_up", x).chunk(2, dim=-1) if gated else (self.linear(f"{name}.up", x), 1)
        if kind == "relu":
            self.kink = min(self.kink, hidden.abs().min().item())
        functions = {"relu": functional.relu, "silu": functional.silu, "relu_squared": lambda x: functional.relu(x) ** 2,
                     "gelu_tanh": lambda x: functional.gelu(x, approximate="tanh"), "gelu_erf": functional.gelu}
        return self.linear(f"{name}.down", functions[kind](hidden) * up)

    def logits(self, tokens):
        model, values = self.model, self.values
        self.weights = []
        x = values["token_embedding.weight"][tokens]
        if model["positions"] == "learned":
            x = x + values["position_embedding.weight"]
        elif model["positions"] == "sinusoidal":
            x = x + sinusoidal_positions(model["context"], model["channels"])
        for layer in range(model["layers"]):
            block = f"blocks.{layer:02d}"
            windows = model["sliding_window"] or [0]
            window = windows[layer % len(windows)]
            if model["norm"] == "pre":
                x = x + self.attention(f"{block}.attention", self.norm(f"{block}.attention_norm", x), window)
                x = x + self.feed_forward(f"{block}.feed_forward", self.norm(f"{block}.feed_forward_norm", x))
            else:
                x = self.norm(f"{block}.attention_norm", x + self.attention(f"{block}.attention", x, window))
                x = self.norm(f"{block}.feed_forward_norm", x + self.feed_forward(f"{block}.feed_forward", x))
        if model["norm"] == "pre":
            x = self.norm("final_norm", x)
        if model["tied_head"]:
            x = functional.linear(x, values["token_embedding.weight"])
        else:
            x = self.linear("head", x)
        if model["logit_soft_cap"] > 0:
            x = model["logit_soft_cap"] * torch.tanh(x / model["logit_soft_cap"])
        return x[..., : model["vocabulary"]]

    def loss(self, logits, targets):
        return functional.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def z_loss(self, logits):
        return logits.logsumexp(-1).square().mean()


def orthogonalised(update):
    """Jordan et al. 2024: five iterations of Newton and Schulz, on the shorter side."""
    tall = update.shape[0] > update.shape[1]
    x = (update.T if tall else update) / update.norm()
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.T if tall else x


class Muon:
    """Jordan et al. 2024 with the scale and the decay of Liu et al. 2025. A stack of matrices is updated one by one."""

    def __init__(self, model, values, training):
        model = DEFAULTS | model
        head = model["head_size"] or model["channels"] // model["heads"]
        keys = (model["key_value_heads"] or model["heads"]) * head
        self.values, self.training, self.moments = values, training, {}
        self.parts = {"qkv": [model["heads"] * head, keys, keys], "gate_up": [model["feed_forward"]] * 2}

    def step(self, rate):
        for name, value in self.values.items():
            moment = self.moments.setdefault(name, torch.zeros_like(value))
            moment.mul_(self.training["momentum"]).add_(value.grad)
            update = value.grad + self.training["momentum"] * moment
            with torch.no_grad():
                value.mul_(1 - rate * self.training["weight_decay"])
                parts = self.parts.get(name.split(".")[-2], [value.shape[0]])
                for part, change in zip(value.split(parts), update.split(parts)):
                    part.sub_(rate * 0.2 * math.sqrt(max(part.shape)) * orthogonalised(change))


def learning_rate(training, step):
    """Of step 0, 1, ...: linear warm-up, then constant, or from the peak to the final rate at the last step."""
    peak, last, warmup = training["learning_rate"], training["final_learning_rate"], training["warmup_steps"]
    if step < warmup:
        return peak * (step + 1) / warmup
    progress = (step - warmup) / (training["steps"] - 1 - warmup)
    share = {"constant": 1, "linear": 1 - progress, "cosine": (1 + math.cos(math.pi * progress)) / 2}
    return last + (peak - last) * share[training["schedule"]]


def rounded(values):
    """To 36 significant bits."""
    mantissa, exponent = numpy.frexp(numpy.asarray(values, dtype=numpy.float64))
    return numpy.ldexp(numpy.round(mantissa * 2.0**36), exponent - 36)


class Fixture:
    """One file; every dataset is compressed and checksummed."""

    def __init__(self, path, config):
        self.file = h5py.File(path, "w", libver="v110")
        self.file.attrs["config"] = numpy.bytes_(yaml.safe_dump(config, sort_keys=False))
        self.file.attrs["made_by"] = numpy.bytes_(f"tests/parity/make_fixtures.py, PyTorch {torch.__version__}")

    def write(self, name, values):
        self.file.create_dataset(name, data=values, shuffle=True, compression=9, fletcher32=True)

    def write_all(self, group, tensors):
        for name, tensor in tensors.items():
            self.write(f"{group}/{name}", rounded(tensor.detach().numpy()))


def make(name, variant):
    config = configuration(variant)
    model, training = config["model"], config["training"]
    random = numpy.random.default_rng(variant["seed"])
    shape = (STEPS, training["batch"], model["context"])
    tokens = random.integers(0, model["vocabulary"], shape, dtype=numpy.int32)
    targets = random.integers(0, model["vocabulary"], shape, dtype=numpy.int32)
    values = initial_values(parameter_shapes(model), random)
    decoder = Decoder(model, values)
    hidden = {name: v for name, v in values.items()
              if training.get("optimizer") == "muon" and name.startswith("blocks.") and v.dim() == 2}
    muon = Muon(model, hidden, training)
    others = [v for name, v in values.items() if name not in hidden]
    optimizer = torch.optim.AdamW(
        [{"params": [v for v in others if v.dim() == 2], "weight_decay": training["weight_decay"]},
         {"params": [v for v in others if v.dim() == 1], "weight_decay": 0.0}],
        betas=(training["beta1"], training["beta2"]), eps=training["epsilon"], foreach=False)

    fixture = Fixture(FOLDER / f"{name}.h5", config)
    fixture.write("tokens", tokens)
    fixture.write("targets", targets)
    fixture.write_all("parameters", values)
    losses, norms = [], []
    for step in range(STEPS):
        logits = decoder.logits(torch.tensor(tokens[step], dtype=torch.int64))
        loss = decoder.loss(logits, torch.tensor(targets[step], dtype=torch.int64))
        for value in values.values():
            value.grad = None
        (loss + training.get("z_loss", 0) * decoder.z_loss(logits)).backward()
        if step == 0:
            fixture.write("logits", rounded(logits.detach().numpy()))
            fixture.write("attention", rounded(torch.stack(decoder.weights).numpy()))
            fixture.write_all("gradients", {key: value.grad for key, value in values.items()})
        losses.append(loss.item())
        limit = training["clip_norm"] if training["clip_norm"] > 0 else math.inf
        norms.append(torch.nn.utils.clip_grad_norm_(values.values(), limit).item())
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(training, step)
        optimizer.step()
        muon.step(learning_rate(training, step))
    fixture.write("losses", rounded(losses))
    fixture.write("gradient_norms", rounded(norms))
    fixture.write_all("final_parameters", values)
    fixture.file.close()
    # A unit that close to the kink may fall on its other side in single precision: take another seed.
    if decoder.kink < 2e-5:
        raise SystemExit(f"{name}: a ReLU reads {decoder.kink:.1e}; change the seed")
    print(f"{name}: loss {losses[0]:.4f} -> {losses[-1]:.4f}, norms {norms[0]:.3f} -> {norms[-1]:.3f}, "
          f"{sum(v.numel() for v in values.values())} parameters, {(FOLDER / f'{name}.h5').stat().st_size} bytes")


def main():
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or VARIANTS:
        make(name, VARIANTS[name])


if __name__ == "__main__":
    main()
