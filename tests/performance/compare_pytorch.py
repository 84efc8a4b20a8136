# SPDX-License-Identifier: Apache-2.0
"""Trains the same shapes with dekoder and with PyTorch, in turns, in one sitting, and prints the ratio of their speeds.

    python3 tests/performance/compare_pytorch.py --install
    python3 tests/performance/compare_pytorch.py gpt2-124m --pytorch-python venv/bin/python
    python3 tests/performance/compare_pytorch.py --dekoder "jobs/toolbox build/openmp/dekoder" talk-multihead --set training.precision=bf16

Method. PyTorch first runs each of its variants (eager or compiled, fused or foreach AdamW, fp32 or bf16 autocast) and goes
on with the fastest, whatever dekoder's precision: the peer is the best of them.
Then `dekoder bench` and PyTorch take turns, `--rounds` times each, with the same number of threads: the same shapes,
random tokens, forward, backward, clipping, AdamW; PyTorch with causal scaled_dot_product_attention, GPT-2's initial
values and flushed denormals (without them its steps take longer). FLOPs per token are those of `dekoder bench` (causal
count) for both; the GEMM rate is dekoder's at 2048^3, in its precision, in the same sitting. The ratio is the median over the rounds of
(PyTorch's median step / dekoder's median step); the second one compares the least step of each. Setting up and
compiling are not timed. This reports and never fails on time.
"""
import argparse
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import sys
import tempfile

FOLDER = pathlib.Path(__file__).resolve().parent
ROOT = FOLDER.parents[1]
WORKER = FOLDER / "pytorch_worker.py"
PYTORCH = "torch==2.13.0"

# Case -> settings on top of its input; one micro-batch per step on both sides. 82: characters of the corpus.
CASES = {
    "gpt2-124m": ["training.batch=4", "training.micro_batch=4"],
    "char-10m": ["training.batch=16", "training.micro_batch=16", "model.vocabulary=82"],
    "talk-multihead": ["training.batch=12", "training.micro_batch=12", "model.vocabulary=82"],
    "talk-wide": ["training.batch=12", "training.micro_batch=12", "model.vocabulary=82", "model.feed_forward=512"],
}
INPUTS = {"talk-wide": "talk-multihead"}  # others have the name of their case
VARIANTS = ["eager-fused", "eager-foreach", "compile-fused", "eager-fused-bf16", "compile-fused-bf16"]


class PyTorchWorker:
    """A running pytorch_worker.py."""

    def __init__(self, python, job, environment):
        self.messages = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([python, str(WORKER)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=self.messages, text=True, env=environment)
        self.ready = self.ask(json.dumps(job))

    def ask(self, line):
        """One request, one answer. RuntimeError with the worker's last words where it has ended."""
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        answer = self.process.stdout.readline()
        if not answer:
            code = self.process.wait()
            self.messages.seek(0)
            words = self.messages.read().strip().splitlines() or ["no message"]
            raise RuntimeError(f"{words[-1]} (exit code {code})")
        return json.loads(answer)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def run_dekoder(command, case, sets, steps, environment):
    """The JSON object of `dekoder bench`."""
    arguments = command + ["bench", f"input/{INPUTS.get(case, case)}.yaml", "--json", "--steps", str(steps)]
    for text in sets:
        arguments += ["--set", text]
    done = subprocess.run(arguments, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{shlex.join(arguments)}: exit code {done.returncode}\n{done.stderr.strip()}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def pytorch_job(bench, threads):
    """What pytorch_worker.py needs to train the model of a benchmark."""
    config = {"model": {}, "training": {}}
    for key, value in bench["config"].items():
        section, name = key.split(".")
        config[section][name] = value
    model = config["model"]
    if model["dropout"] != 0:
        raise SystemExit("compare_pytorch.py compares models without dropout: add --set model.dropout=0")
    multiple = model["vocabulary_multiple"]
    model["padded_vocabulary"] = -(-model["vocabulary"] // multiple) * multiple
    return {**config, "micro_batch": bench["micro_batch"], "threads": threads}


def steps_within(seconds, step_seconds):
    return max(3, round(seconds / step_seconds))


def fastest_variant(python, job, variants, seconds, environment):
    """Tries the variants one after the other (one model in memory at a time): (name, seconds of its least step)."""
    best, best_seconds = None, float("inf")
    for variant in variants:
        try:
            worker = PyTorchWorker(python, {**job, "variant": variant}, environment)
            first = worker.ask("run 1")["seconds"][0]
            times = worker.ask(f"run {max(2, round(seconds / 2 / first))}")["seconds"]
            worker.close()
        except RuntimeError as error:
            print(f"  PyTorch {variant}: does not run here: {error}")
            continue
        least = min(times)
        print(f"  PyTorch {variant}: {least:.4f} s per step at best, set up in {worker.ready['set_up_seconds']:.0f} s",
              flush=True)
        if least < best_seconds:
            best, best_seconds = variant, least
    if best is None:
        raise SystemExit("no variant of PyTorch runs")
    return best, best_seconds


def compare(case, options, environment):
    """One case: prints its table."""
    command, sets = shlex.split(options.dekoder), CASES[case] + options.set
    first = run_dekoder(command, case, sets, 3, environment)
    job = pytorch_job(first, first["threads"])
    model = job["model"]
    tokens, flops = first["batch"] * first["context"], first["flops_per_token"]
    print(f"{case}: {model['layers']} layers, {model['heads']} heads, {model['channels']} channels, feed-forward "
          f"{model['feed_forward']}, T {first['context']}, B {first['micro_batch']}, {flops / 1e6:.4g} MFLOP per token, "
          f"{first['threads']} threads", flush=True)
    variant, least = fastest_variant(options.pytorch_python, job, options.variants, options.seconds, environment)
    worker = PyTorchWorker(options.pytorch_python, {**job, "variant": variant}, environment)
    mine, theirs = [], []
    for turn in range(options.rounds):
        mine.append(run_dekoder(command, case, sets, steps_within(options.seconds, first["step_seconds_median"]),
                                environment))
        theirs.append(worker.ask(f"run {steps_within(options.seconds, least)}")["seconds"])
        print(f"  round {turn + 1}: dekoder {mine[-1]['step_seconds_median']:.4f} s, PyTorch "
              f"{statistics.median(theirs[-1]):.4f} s per step", flush=True)
    their_gemm = worker.ask("gemm 2048 2048 2048")["gflops"]
    worker.close()

    gemm = max(run["gemm_gflops"] for run in mine)
    my_medians, their_medians = [run["step_seconds_median"] for run in mine], [statistics.median(s) for s in theirs]
    my_least, their_least = min(run["step_seconds_least"] for run in mine), min(min(s) for s in theirs)
    print(f"  GEMM 2048^3: dekoder {gemm:.0f} GFLOP/s, PyTorch {their_gemm:.0f} GFLOP/s")
    print(f"  {'':24}{'tokens/s':>12}{'best':>12}{'GFLOP/s':>10}{'of GEMM':>10}")
    for name, medians, least_step in (("dekoder", my_medians, my_least),
                                      (f"PyTorch {variant}", their_medians, their_least)):
        rate = tokens / statistics.median(medians)
        print(f"  {name:24}{rate:12.0f}{tokens / least_step:12.0f}{rate * flops / 1e9:10.1f}"
              f"{100 * rate * flops / 1e9 / gemm:8.1f} %")
    ratios = sorted(b / a for a, b in zip(my_medians, their_medians))
    print(f"  dekoder / PyTorch {worker.ready['version']}: {statistics.median(ratios):.2f} "
          f"({ratios[0]:.2f} to {ratios[-1]:.2f} over the rounds), least steps {their_least / my_least:.2f}", flush=True)


def install(folder):
    """A virtual environment with PyTorch; its python."""
    python = folder / "bin/python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    if subprocess.run([str(python), "-c", "import torch"], capture_output=True).returncode != 0:
        subprocess.run([str(python), "-m", "pip", "install", PYTORCH, "numpy"], check=True)
    return str(python)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; default: all")
    parser.add_argument("--dekoder", default="build/openmp/dekoder", help="the command, run in the checkout")
    parser.add_argument("--pytorch-python", default=sys.executable, help="a python that has PyTorch")
    parser.add_argument("--install", action="store_true", help=f"make build/venv-pytorch with {PYTORCH} and use it")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side (default: 3)")
    parser.add_argument("--seconds", type=float, default=10, help="of timed steps per turn, at least 3 steps")
    parser.add_argument("--threads", type=int, help="default: all processors")
    parser.add_argument("--variants", nargs="+", default=VARIANTS, help=f"default: {' '.join(VARIANTS)}")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="passed on to dekoder bench")
    options = parser.parse_args()
    for case in options.cases:
        if case not in CASES:
            parser.error(f"no case '{case}'; there are {', '.join(CASES)}")
    if options.install:
        options.pytorch_python = install(ROOT / "build/venv-pytorch")
    elif subprocess.run([options.pytorch_python, "-c", "import torch"], capture_output=True).returncode != 0:
        parser.error(f"{options.pytorch_python} has no PyTorch; name another with --pytorch-python, or --install it")
    threads = options.threads or len(os.sched_getaffinity(0))
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    for case in options.cases or CASES:
        compare(case, options, environment)


if __name__ == "__main__":
    main()
