# SPDX-License-Identifier: Apache-2.0
"""PyTorch on the shapes of a benchmark: trains the model of a `dekoder bench --json` on the same device and prints a line of
JSON for each variant: eager and compiled, in fp32, in TF32 and, under autocast, in bf16.

    python3 tests/gpu/torch_peer.py bench.json --device cuda

Forward, backward, clipping and fused AdamW on random tokens, the whole batch at once, causal scaled_dot_product_attention; the
model is that of tests/performance/pytorch_worker.py. Setting up, compiling and the first steps are not timed. Needs PyTorch alone.
A variant that fails is a line with "error", and the exit code is 1. Exit code 2: the command line, the file, or no PyTorch or
device here.
"""
import argparse
import json
import math
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "performance"))


# What is read of a benchmark, by kind; names with a dot are settings.
COUNTS = ("batch context threads model.layers model.heads model.channels model.feed_forward model.context model.vocabulary "
          "model.vocabulary_multiple").split()
REALS = ("model.norm_epsilon model.dropout training.weight_decay training.learning_rate training.beta1 training.beta2 "
         "training.epsilon training.clip_norm").split()
WORDS = "model.positions model.norm model.activation".split()
SWITCHES = "model.bias model.tied_head".split()


def read_bench(path):
    """The object of a `dekoder bench --json`; a ValueError says what is wrong with the file."""
    try:
        bench = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}; expected the output of dekoder bench --json") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is not JSON ({error}); expected the output of dekoder bench --json") from None
    config = bench.get("config") if isinstance(bench, dict) else None
    if not isinstance(config, dict):
        raise ValueError(f'{path}: has no object "config"; expected the output of dekoder bench --json')

    def require(names, expected, accepts):
        for name in names:
            value = (config if "." in name else bench).get(name)
            if not accepts(value):
                raise ValueError(f"{path}: {name} is {json.dumps(value)}; expected {expected}, as dekoder bench --json has it")

    require(COUNTS, "a whole number from 1", lambda value: type(value) is int and value >= 1)
    require(REALS, "a number from 0", lambda value: type(value) in (int, float) and 0 <= value < math.inf)
    require(WORDS, "a word", lambda value: type(value) is str)
    require(SWITCHES, "true or false", lambda value: type(value) is bool)
    if config["model.dropout"] != 0:
        raise ValueError(f"{path}: the model has dropout, which the peer has not; expected a benchmark with model.dropout=0")
    return bench


def job_of(bench):
    """What pytorch_worker.py's Training needs for the model of a benchmark."""
    config = {"model": {}, "training": {}}
    for key in COUNTS + REALS + WORDS + SWITCHES:
        if "." in key:
            section, name = key.split(".")
            config[section][name] = bench["config"][key]
    multiple = config["model"]["vocabulary_multiple"]
    config["model"]["padded_vocabulary"] = -(-config["model"]["vocabulary"] // multiple) * multiple
    return {**config, "micro_batch": bench["batch"]}


class Parser(argparse.ArgumentParser):
    def error(self, message):
        self.exit(2, f"torch_peer: {message}\n")


def from_zero(kind):
    """An argparse type: a finite number of this kind that is not negative."""
    def convert(text):
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not 0 <= value < math.inf:
            raise argparse.ArgumentTypeError(f"{text}: expected a {'whole ' if kind is int else ''}number from 0")
        return value
    return convert


def measure(job, variant, steps, seconds):
    """Seconds of each timed step: `steps`, or as many as fill `seconds`, at least three. A step ends with its loss on the
    host, so that the clock sees the device's work."""
    import pytorch_worker
    training = pytorch_worker.Training({**job, "variant": variant})
    training.run(3)
    times = training.run(steps or 1)["seconds"]
    if not steps:
        times = training.run(max(3, min(2000, round(seconds / times[0]))))["seconds"]
    return times


def main():
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", help="a file with the JSON object of dekoder bench --json")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="(default: cuda)")
    parser.add_argument("--steps", type=from_zero(int), default=0, help="timed steps; 0: as many as fill --seconds")
    parser.add_argument("--seconds", type=from_zero(float), default=10)
    options = parser.parse_args()
    try:
        bench = read_bench(options.bench)
    except ValueError as error:
        parser.error(str(error))
    try:
        import torch
    except Exception as error:  # not there, or one of its libraries
        parser.error(f"{sys.executable} cannot import torch: {error}; expected a Python that has PyTorch")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error(f"--device cuda: PyTorch {torch.__version__} finds no CUDA device here; "
                     "expected a card, its driver and a PyTorch for CUDA")
    job = job_of(bench)
    torch.set_default_device(options.device)
    if options.device == "cpu":
        torch.set_num_threads(bench["threads"])
        torch.set_flush_denormal(True)
    name = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    failed = False
    for execution in ("eager", "compile"):
        for precision in ("fp32", "tf32", "bf16"):
            torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
            line = {"variant": f"{execution}-{precision}", "torch": torch.__version__, "device": name, "batch": bench["batch"]}
            try:
                start = time.perf_counter()
                times = measure(job, f"{execution}-fused" + "-bf16" * (precision == "bf16"), options.steps, options.seconds)
                median = statistics.median(times)
                line |= {"step_seconds_median": median, "step_seconds_least": min(times), "steps": len(times),
                         "set_up_seconds": time.perf_counter() - start - sum(times),
                         "tokens_per_second": bench["batch"] * bench["context"] / median}
            except Exception as error:  # no memory for it, no compiler: the other variants still run
                line["error"] = (str(error).strip().splitlines() or [type(error).__name__])[0]
                failed = True
            print(json.dumps(line), flush=True)
            torch.compiler.reset()
            if options.device == "cuda":
                torch.cuda.empty_cache()
    return int(failed)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
