#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What no test pins: changes one token or statement of a source file at a time, builds, runs the tests that should
notice, and lists the changes that none of them did.

    jobs/toolbox nice -n 19 python3 tests/mutation/mutate.py kernels/adamw data/tokenizer   # units as in src/README.md
    jobs/toolbox nice -n 19 python3 tests/mutation/mutate.py --sample 20 --minutes 60       # 20 of each unit of PLAN

Works on a copy of the checkout in a build tree of its own (build/mutation, -O1) and goes on where an interrupted call
stopped. A mutant ends as
    killed      a test failed or ran out of its time
    survived    every test of the unit passed: a test is missing, or the change means nothing
    equal       the object file is the same, byte for byte: nothing to notice
    stillborn   does not compile
One JSON line each in results.jsonl below the work folder; exit code 0 whatever was found.
"""
import argparse
import hashlib
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

from operators import mutants_of

ROOT = Path(__file__).resolve().parents[2]

# The tests that should notice a change of a unit, quickest first, by their names in ctest; "f" and "d" stand for the
# cores in float and double, "ft" and "dt" for those whose kernels have their form for GPUs.
KERNELS = ["gradient.test_kernels_gradient.d"]
ATTENTION = ["unit.test_attention.f", "gradient.test_attention_gradient.d"]
MODEL = ["unit.test_training_step.f", "unit.test_decoder.f", "gradient.test_decoder_gradient.d", "parity.test_parity.f"]
PLAN = {
    "data/batch_loader": ["unit.test_batch_loader.f"],
    "data/token_dataset": ["unit.test_token_dataset.f", "unit.test_batch_loader.f"],
    "data/prepare_tokens": ["unit.test_token_dataset.f", "unit.test_batch_loader.f", "fault.test_token_files.py",
                            "regression.test_prepare.py"],
    "data/corpus": ["unit.test_token_dataset.f", "regression.test_prepare.py"],
    "data/text_encoder": ["unit.test_token_dataset.f", "regression.test_prepare.py"],
    "data/tokenizer_choice": ["regression.test_prepare.py"],
    "io/files/packed_file": ["regression.test_prepare.py"],
    "tokenizer/tokenizer": ["tokenizer.test_tokenizer.once", "unit.test_token_dataset.f", "fault.test_token_files.py"],
    "base/utf8": ["tokenizer.test_tokenizer.once", "unit.test_token_dataset.f"],
    "kernels/adamw": ["unit.test_adamw.f", "unit.test_adamw.ft", "unit.test_training_step.f"],
    "kernels/muon": ["unit.test_muon.f", "unit.test_muon.ft", "parity.test_parity.d"],
    "kernels/reduction": ["unit.test_reduction.f", "unit.test_training_step.f"],
    "kernels/column_sum": ["unit.test_column_sum.f", "unit.test_column_sum.ft", "unit.test_normalization.f",
                           "unit.test_elementwise.f", *KERNELS],
    "kernels/embedding": ["unit.test_embedding.f", "unit.test_embedding.ft", *KERNELS],
    "kernels/normalization": ["unit.test_normalization.f", *KERNELS],
    "kernels/elementwise": ["unit.test_elementwise.f", *KERNELS],
    "kernels/cross_entropy": ["unit.test_cross_entropy.f", *KERNELS],
    "kernels/gemm": ["unit.test_gemm.f", "unit.test_training_step.f"],
    "kernels/attention/attention": [*ATTENTION, "unit.test_training_step.f"],
    "kernels/attention/batched": ["unit.test_attention.ft", "gradient.test_attention_gradient.dt"],
    "kernels/attention/forward_host": ATTENTION,
    "kernels/attention/backward_host": ATTENTION,
    "kernels/attention/weights": ["unit.test_attention_weights.f"],
    "kernels/attention/statistics": ["unit.test_attention_statistics.f"],
    "layers/linear": MODEL,
    "layers/normalization_layer": MODEL,
    "layers/self_attention": [*MODEL, "unit.test_generator.f"],
    "layers/feed_forward": MODEL,
    "layers/decoder_block": [*MODEL, "unit.test_generator.f"],
    "model/decoder": [*MODEL, "unit.test_generator.f"],
    "train/optimizer": ["unit.test_learning_rate.f", "unit.test_training_step.f", "parity.test_parity.f", "regression.test_resume.py"],
    "train/evaluator": ["unit.test_evaluator.f"],
    "io/run/checkpoint": ["unit.test_checkpoint.f", "unit.test_checkpoint_format.f", "fault.test_checkpoint_faults.py"],
    "io/run/checkpoint_folder": ["unit.test_checkpoint.f", "fault.test_checkpoint_faults.py",
                                 "fault.test_run_directory.py"],
    "io/run/step_files": ["unit.test_step_files.f"],
    "io/run/attention_folder": ["unit.test_attention_folder.f"],
}
CORES = {"f": "openmp_float", "d": "openmp_double", "ft": "openmp_float.teams", "dt": "openmp_double.teams"}


def full_name(test):
    """ctest's name: unit.test_adamw.f -> unit.test_adamw.openmp_float."""
    kind, name, last = test.split(".")
    return f"{kind}.{name}.{CORES.get(last, last)}"


def digest_of(files):
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def targets_of(test):
    if test.endswith((".py", ".sh")):
        return ["dekoder", "dekoder_openmp_float"]
    return [full_name(test).replace(".", "_")]


class Workplace:
    """The copy of the checkout, its build tree and what is known of the tests."""

    def __init__(self, folder, jobs):
        self.source, self.build, self.jobs = folder / "source", folder / "build", jobs
        self.seconds = {}  # of each test, without a change
        self.environment = dict(os.environ, CCACHE_DISABLE="1", OMP_PROC_BIND="false", OMP_NUM_THREADS="2",
                                OMP_WAIT_POLICY="passive")

    def prepare(self):
        listed = subprocess.run(["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                                check=True, capture_output=True, text=True).stdout.split("\0")
        wanted = {name for name in listed if name and (ROOT / name).is_file()}
        for there in [p for p in self.source.rglob("*") if p.is_file()] if self.source.exists() else []:
            if str(there.relative_to(self.source)) not in wanted:
                there.unlink()
        for name in wanted:
            target = self.source / name
            if not target.exists() or target.read_bytes() != (ROOT / name).read_bytes():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, target)
        # A build type without the project's -O3: a mutant is built once and run once.
        options = ["CMAKE_BUILD_TYPE=Mutation", "CMAKE_CXX_FLAGS=-O1", "DEKODER_TESTS=ON", "DEKODER_WERROR=OFF",
                   "DEKODER_CUDA_COMPILE_CHECK=OFF"]
        subprocess.run(["cmake", "-S", self.source, "-B", self.build, "-G", "Ninja", *(f"-D{o}" for o in options)],
                       check=True, stdout=subprocess.DEVNULL, env=self.environment)

    def compile(self, targets):
        """Whether the targets could be built."""
        done = subprocess.run(["ninja", "-C", self.build, f"-j{self.jobs}", *targets], env=self.environment,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.last_output = done.stdout
        return done.returncode == 0

    def passes(self, test, limit):
        """Whether the test passes within `limit` seconds and 24 GB of address space (a test of large sums maps 9 GB)."""
        def bounded():
            if not test.endswith((".py", ".sh")):
                resource.setrlimit(resource.RLIMIT_AS, (24 << 30, 24 << 30))
        done = subprocess.run(["ctest", "--test-dir", self.build, "-R", "^" + re.escape(full_name(test)) + "$",
                               "--timeout", str(limit), "--no-tests=error"], env=self.environment, preexec_fn=bounded,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.last_output = done.stdout
        return done.returncode == 0

    def know(self, test):
        """Builds and runs the test on the unchanged code: it must pass, and its time bounds that of mutants."""
        if test not in self.seconds:
            if not self.compile(targets_of(test)):
                sys.exit(f"{full_name(test)}: cannot be built\n{self.last_output[-3000:]}")
            start = time.monotonic()
            if not self.passes(test, 900):
                sys.exit(f"{full_name(test)}: fails without a change\n{self.last_output[-3000:]}")
            self.seconds[test] = time.monotonic() - start
        return self.seconds[test]

    def text_of(self, test):
        kind, name, last = test.split(".")
        return (self.source / "tests" / kind / f"{name}.{'cpp' if last in CORES else last}").read_bytes()

    def objects(self, unit, tests):
        """The unit's object files that the tests are linked from, by library; the tests have been built."""
        libraries = {f"dekoder_core_{CORES.get(test.split('.')[-1], 'openmp_float')}" for test in tests}
        if unit.startswith(("base/", "config/")):
            libraries = {"dekoder_config"}
        found = {library: [path for path in self.build.glob(f"src/**/{library}.dir/**/{unit.split('/')[-1]}.cpp.o")
                           if str(path).endswith(f"/{unit}.cpp.o")] for library in sorted(libraries)}
        if wrong := [library for library, paths in found.items() if len(paths) != 1]:
            sys.exit(f"{unit}: not one object file below {self.build} of {wrong}: {found}")
        return [paths[0] for paths in found.values()]

    def judge(self, objects, tests, unchanged):
        """('killed', test) and so on, for the source as it lies in the copy."""
        if not self.compile([str(path.relative_to(self.build)) for path in objects]):
            return "stillborn", ""
        if digest_of(objects) == unchanged:
            return "equal", ""
        for test in tests:
            if not self.compile(targets_of(test)):
                return "stillborn", ""
            if not self.passes(test, int(15 + 6 * self.seconds[test])):
                return "killed", full_name(test)
        return "survived", ""


def mutate_unit(place, unit, tests, arguments, log, deadline):
    path = place.source / "src" / f"{unit}.cpp"
    text = path.read_text()
    tests = sorted(tests, key=place.know) if len(tests) > 1 else tests
    for test in tests:
        place.know(test)
    objects = place.objects(unit, tests)
    unchanged = digest_of(objects)
    written = hashlib.sha256(b"".join(place.text_of(test) for test in tests)).hexdigest()[:16]
    known = {entry["id"]: entry for entry in log.entries if entry["unit"] == unit}
    counts = {}
    for mutant in sample(mutants_of(text), arguments.sample, f"{arguments.seed} {unit}"):
        # By contents: an edit elsewhere in the file, or another list of tests, judges anew; a survivor also where the
        # tests' own text has changed.
        identity = hashlib.sha256(f"{text}\0{mutant.apply(text)}\0{tests}".encode()).hexdigest()[:16]
        entry = known.get(identity)
        if entry is None or entry["result"] == "survived" and entry["tests"] != written:
            if time.monotonic() > deadline:
                break
            start = time.monotonic()
            path.write_text(mutant.apply(text))
            try:
                result, test = place.judge(objects, tests, unchanged)
            finally:
                path.write_text(text)
            entry = {"id": identity, "unit": unit, "line": mutant.line, "operator": mutant.operator, "result": result,
                     "killed_by": test, "tests": written, "seconds": round(time.monotonic() - start, 1),
                     "change": mutant.describe(text)}
            log.add(entry)
        counts[entry["result"]] = counts.get(entry["result"], 0) + 1
        if entry["result"] == "survived":
            print(f"  {unit}.cpp:{entry['line']}: {entry['operator']}\n    {entry['change']}", flush=True)
    print(f"{unit}: " + ", ".join(f"{count} {result}" for result, count in sorted(counts.items())), flush=True)
    return counts


def sample(mutants, count, seed):
    """At most `count` mutants at random, the operators in turn: the many constants shall not crowd out the rest."""
    draw = random.Random(seed)
    by_operator = {}
    for mutant in mutants:
        by_operator.setdefault(mutant.operator, []).append(mutant)
    queues = [draw.sample(of_one, len(of_one)) for _, of_one in sorted(by_operator.items())]
    chosen = []
    while queues and len(chosen) < count:
        for queue in draw.sample(queues, len(queues)):
            if len(chosen) < count:
                chosen.append(queue.pop())
        queues = [queue for queue in queues if queue]
    return chosen


class Log:
    def __init__(self, path):
        self.path = path
        self.entries = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def add(self, entry):
        self.entries.append(entry)
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("units", nargs="*", help="units of src, e.g. kernels/adamw; default: all of PLAN")
    parser.add_argument("--tests", nargs="+", help="instead of PLAN's, e.g. unit.test_adamw.f")
    parser.add_argument("--sample", type=int, default=40, help="mutants of each unit at most (default %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=float, default=60, help="begin no mutant after this time (default %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="compilations at once (default %(default)s)")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "mutation")
    arguments = parser.parse_args()
    unknown = [unit for unit in arguments.units if not arguments.tests and unit not in PLAN]
    missing = [unit for unit in arguments.units or PLAN if not (ROOT / "src" / f"{unit}.cpp").is_file()]
    if unknown or missing:
        parser.error(f"units without tests in PLAN: {unknown}, units that are not on disk: {missing}")
    arguments.work.mkdir(parents=True, exist_ok=True)
    place = Workplace(arguments.work, arguments.jobs)
    place.prepare()
    log = Log(arguments.work / "results.jsonl")
    deadline = time.monotonic() + 60 * arguments.minutes
    total = {}
    for unit in arguments.units or PLAN:
        for result, count in mutate_unit(place, unit, arguments.tests or PLAN[unit], arguments, log, deadline).items():
            total[result] = total.get(result, 0) + count
    print("all: " + ", ".join(f"{count} {result}" for result, count in sorted(total.items())))


if __name__ == "__main__":
    main()
