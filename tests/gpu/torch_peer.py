# SPDX-License-Identifier: Apache-2.0
"""PyTorch on the shapes of a benchmark: trains the model of a `dekoder bench --json` on the same device and prints a line of
JSON for each variant: eager and compiled, in fp32 and in TF32.

    python3 tests/gpu/torch_peer.py bench.json --device cuda

Forward, backward, clipping and fused AdamW on random tokens, the whole batch at once, causal scaled_dot_product_attention; the
model is that of tests/performance/pytorch_worker.py. Setting up, compiling and the first steps are not timed. Needs PyTorch alone.
A variant that fails is a line with "error", and the exit code is 1.
"""
import argparse
import json
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "performance"))


def job_of(bench):
    """What pytorch_worker.py's Training needs for the model of a benchmark."""
    config = {"model": {}, "training": {}}
    for key, value in bench["config"].items():
        section, name = key.split(".")
        config[section][name] = value
    multiple = config["model"]["vocabulary_multiple"]
    config["model"]["padded_vocabulary"] = -(-config["model"]["vocabulary"] // multiple) * multiple
    return {**config, "micro_batch": bench["batch"]}


def measure(job, execution, steps, seconds):
    """Seconds of each timed step: `steps`, or as many as fill `seconds`, at least three. A step ends with its loss on the
    host, so that the clock sees the device's work."""
    import pytorch_worker
    training = pytorch_worker.Training({**job, "variant": f"{execution}-fused"})
    training.run(3)
    times = training.run(steps or 1)["seconds"]
    if not steps:
        times = training.run(max(3, min(2000, round(seconds / times[0]))))["seconds"]
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bench", help="a file with the JSON object of dekoder bench --json")
    parser.add_argument("--device", default="cuda", help="cuda or cpu (default: cuda)")
    parser.add_argument("--steps", type=int, default=0, help="timed steps; 0: as many as fill --seconds")
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    import torch

    bench = json.loads(Path(options.bench).read_text())
    job = job_of(bench)
    if job["model"]["dropout"] != 0:
        parser.error("the model has dropout, which the peer has not; expected a benchmark with model.dropout=0")
    torch.set_default_device(options.device)
    if options.device == "cpu":
        torch.set_num_threads(bench["threads"])
        torch.set_flush_denormal(True)
    name = torch.cuda.get_device_name() if options.device == "cuda" else "cpu"
    failed = False
    for execution in ("eager", "compile"):
        for precision in ("fp32", "tf32"):
            torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
            line = {"variant": f"{execution}-{precision}", "torch": torch.__version__, "device": name, "batch": bench["batch"]}
            try:
                start = time.perf_counter()
                times = measure(job, execution, options.steps, options.seconds)
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
    sys.exit(main())
