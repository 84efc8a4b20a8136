# SPDX-License-Identifier: Apache-2.0
"""What a profiler sees of a run through Kokkos Tools: regions by the names of the map, and every matrix product as a kernel
of its own name, so that a kernel timer counts its time."""

import collections
import os
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(os.environ["DEKODER_SOURCE_DIR"]) / "tests" / "support"))
from dekoder_runs import PROGRAM, Workshop, check
from kokkos_events import kernels_of, record

LAYERS, MICRO_BATCHES, STEPS = 2, 2, 12  # of the Workshop's configuration
BLOCKS = [f"blocks.{layer:02}" for layer in range(LAYERS)]
PARTS = ("attention", "feed_forward")


def below(paths, name):
    """Paths inside of regions `name`, from there on; without those that the product library opens itself."""
    inside = [path[path.index(name) + 1:] for path in paths if name in path]
    return {path for path in inside if path and not any(region.startswith("KokkosBlas") for region in path)}


def check_regions(paths):
    of_blocks = {(block,) for block in BLOCKS} | {(block, part) for block in BLOCKS for part in PARTS}
    of_pass = of_blocks | {("embedding",)}
    forward = {("forward",)} | {("forward", *path) for path in of_pass}
    backward = {("backward",)} | {("backward", *path) for path in of_pass}
    expected = {"step": forward | backward | {("load",), ("head",), ("gradients",), ("optimizer",)}, "save": set(), "forward": of_pass,
                "backward": of_pass, "head": set(), "optimizer": set(), "load": set(), "gradients": set(),
                "evaluate": forward | {("head",)}, "generate": forward | {("head",)}}
    for name, inside in expected.items():
        check(any(path[-1] == name for path in paths), f"no region {name}")
        got = below(paths, name)
        check(got == inside, f"regions inside of {name}: {sorted(got)}, expected {sorted(inside)}")


def check_products(step):
    """The products of one optimizer step, by region: forward a layer's is nt, backward nn and tn."""
    products = collections.Counter()
    for kernel in step:
        if kernel.name.startswith("dekoder::gemm::n") or kernel.name.startswith("dekoder::gemm::t"):
            place = [name for name in kernel.regions if name in ("forward", "backward", "head", *BLOCKS, *PARTS)]
            products["/".join(place), kernel.name] += 1
    expected = {("head", f"dekoder::gemm::{kind}"): MICRO_BATCHES for kind in ("nt", "nn", "tn")}
    for block in BLOCKS:
        for part in PARTS:
            expected[f"forward/{block}/{part}", "dekoder::gemm::nt"] = 2 * MICRO_BATCHES
            expected[f"backward/{block}/{part}", "dekoder::gemm::nn"] = 2 * MICRO_BATCHES
            expected[f"backward/{block}/{part}", "dekoder::gemm::tn"] = 2 * MICRO_BATCHES
    check(dict(products) == expected, f"products of a step: {dict(products)}, expected {expected}")


def steps_of(kernels):
    """The kernels of each optimizer step, from the first forward pass after the last step to the optimizer."""
    steps, step = [], []
    for kernel in kernels:
        if "evaluate" in kernel.regions or "generate" in kernel.regions:
            continue
        if any(name in kernel.regions for name in ("forward", "head", "backward", "optimizer")):
            if "optimizer" not in kernel.regions and step and "optimizer" in step[-1].regions:
                steps.append(step)
                step = []
            step.append(kernel)
    return steps + [step]


with tempfile.TemporaryDirectory() as folder:
    workshop = Workshop(folder)
    config = workshop.config(STEPS, 6)
    events = record([PROGRAM, "train", config, "--run", workshop.folder / "run"], workshop.folder / "events.txt")
    all_kernels, all_paths = kernels_of(events)
    check_regions(all_paths)
    for kernel in all_kernels:
        check(kernel.name.startswith(("dekoder::", "Kokkos::")), f"a kernel named {kernel.name}")
    steps = steps_of(all_kernels)
    check(len(steps) == STEPS, f"{len(steps)} optimizer steps, expected {STEPS}")
    counts = [collections.Counter(kernel.name for kernel in step) for step in steps]
    for step, count in zip(steps, counts):
        check_products(step)
        check(count == counts[0], f"launches of a step: {count}, of the first one: {counts[0]}")
    print(f"{len(all_kernels)} kernels, {sum(counts[0].values())} a step, {len(all_paths)} region paths")
