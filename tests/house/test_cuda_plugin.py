# SPDX-License-Identifier: Apache-2.0
"""A build with the cuda plug-ins, looked at without a GPU: every symbol is found at load, one function is exported, the
launcher and the openmp plug-ins need nothing of CUDA, the test programs for a card hold the tests that they should, and no
kernel spills. Builds without them skip all (tests/run.sh says how
to make one). The driver, libcuda.so.1, comes with GPUs: where it is missing, the stub of the CUDA tool kit stands in for it,
which has the functions but no device."""
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(os.environ.get("DEKODER_SOURCE_DIR", Path(__file__).resolve().parents[2]))
BUILD = Path(os.environ.get("DEKODER_BINARY_DIR", ROOT / "build/cuda"))
PRECISIONS = ("float", "bf16")
PLUGINS = [BUILD / f"libdekoder_cuda_{precision}.so" for precision in PRECISIONS]
CUDA = [Path(folder) for folder in (os.environ.get("CUDA_HOME"), "/usr/local/cuda") if folder]

# Kernels that may have a stack frame, and why.
MAY_HAVE_STACK = {
    "ParameterStore::initialise": "once per run; log and cos keep a table for arguments that never come",
    "sinusoidal_positions": "once per run; sin and cos keep a table for the reduction of large arguments",
}

# Tests of the openmp core that the same program for a card leaves out, and why.
ON_CPUS_ALONE = {
    "AnyNumber.*GiveTheSameBits|AnyNumber.*GivesTheSameBits|ResultsDoNotDependOnThreads": "compare numbers of threads",
    "VectorDrawsAreTheScalarDrawsBitForBit": "SIMD lanes of CPUs",
    "CountsBeyond32Bits": "needs pages that take no memory",
    "GemmLibrary.IsNamedWithItsVersion": "names BLAS and oneDNN",
    "ColumnSum.AddsBlocksInAscendingOrder": "the order of CPUs; TeamsAddLanesByHalves is that of GPUs",
}


def output(*command, **environment):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120,
                          env=dict(os.environ, **environment))
    if done.returncode != 0:
        raise AssertionError(f"{command}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def libraries(file, **environment):
    """Name -> path of all that `file` needs, directly or not; None: not found."""
    found = re.findall(r"^\s+(\S+) (?:=> (?:(/\S+)|not found)|\(0x)", output("ldd", file, **environment), re.M)
    return {name: path or None for name, path in found if name.startswith("lib")}


def devices():
    """The number of GPUs that the driver reports; None without a driver."""
    ask = ("import ctypes; d = ctypes.CDLL('libcuda.so.1'); n = ctypes.c_int(0); "
           "print(n.value if d.cuInit(0) or d.cuDeviceGetCount(ctypes.byref(n)) else n.value)")
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True)
    return int(done.stdout) if done.returncode == 0 else None


def find_tool(name):
    """Its path, from DEKODER_<NAME>, the PATH or the tool kit."""
    known = (os.environ.get("DEKODER_" + name.upper()), shutil.which(name), *(str(c / "bin" / name) for c in CUDA))
    return next((path for path in known if path and os.access(path, os.X_OK)), None)


def kernel_name(demangled):
    """dekoder's function that launches it, and which of its lambdas; None for a kernel of Kokkos' own. Views are named by what
    they hold."""
    short = re.sub(r"Kokkos::View<(?:\w+::)*(\w+)[^<>]*>", r"\1", demangled)
    found = re.search(r"dekoder::(?:\(anonymous namespace\)::)?(?!for_each_row)([\w:]+?)(?:<([^<>]*)>)?\(.*?#(\d+)\}", short)
    if found is None:
        return None
    name, arguments, number = found.groups()
    words = ",".join(re.findall(r"(\w+) *(?:,|$)", arguments or ""))
    return name, f"{name}{f'<{words}>' if words else ''} #{number}"


@unittest.skipUnless(PLUGINS[0].exists(), f"the build {BUILD} has no cuda plug-in: nothing to look at")
class CudaPlugin(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.devices = devices()
        cls.folder = tempfile.TemporaryDirectory()
        cls.environment = {}
        if cls.devices is None:
            stub = next((c / "lib64/stubs/libcuda.so" for c in CUDA if (c / "lib64/stubs/libcuda.so").exists()), None)
            if stub is None:
                raise unittest.SkipTest("neither a driver nor the stub of the CUDA tool kit (set CUDA_HOME)")
            (Path(cls.folder.name) / "libcuda.so.1").symlink_to(stub)
            path = os.environ.get("LD_LIBRARY_PATH")
            cls.environment = {"LD_LIBRARY_PATH": cls.folder.name + (":" + path if path else "")}

    @classmethod
    def tearDownClass(cls):
        cls.folder.cleanup()

    def test_the_driver_alone_is_missing_without_a_gpu(self):
        for plugin in PLUGINS:
            needed = libraries(plugin)
            self.assertIn("libcuda.so.1", needed)
            self.assertEqual([n for n, path in needed.items() if path is None], ["libcuda.so.1"] if self.devices is None else [])
            self.assertTrue(any(n.startswith("libcublasLt") for n in needed), "products are not cublasLt's")

    def test_every_symbol_is_found(self):
        load = "import ctypes, os, sys; ctypes.CDLL(sys.argv[1], mode=os.RTLD_NOW).dekoder_backend_entry; print('loaded')"
        for plugin in PLUGINS:
            done = subprocess.run(["ldd", "-r", plugin], capture_output=True, text=True, env=dict(os.environ, **self.environment))
            self.assertEqual([line for line in (done.stdout + done.stderr).splitlines() if "undefined" in line or "not found" in line],
                             [])
            self.assertEqual(output(sys.executable, "-c", load, plugin, **self.environment), "loaded\n")

    def test_one_exported_function(self):
        for plugin in PLUGINS:
            defined = [line.split() for line in output("nm", "-D", "--defined-only", plugin).splitlines()]
            self.assertEqual([(kind, name) for _, kind, name in defined], [("T", "dekoder_backend_entry")], plugin)

    def test_the_rest_needs_nothing_of_cuda(self):
        for file in (BUILD / "dekoder", *(BUILD / f"libdekoder_openmp_{precision}.so" for precision in PRECISIONS)):
            names = list(libraries(file))
            self.assertGreater(len(names), 3)
            self.assertEqual([name for name in names if re.match("lib(cuda|cublas|nv)", name)], [], file)

    def describe(self, backend, precision, **environment):
        """Exit code, standard error, and the plug-ins that were opened."""
        done = subprocess.run([BUILD / "dekoder", "describe", ROOT / "input/talk.yaml", "--set", "model.vocabulary=65", "--set",
                               f"training.precision={precision}", "--backend", backend], capture_output=True, text=True, timeout=120,
                              env=dict(os.environ, LD_DEBUG="files", **environment))
        opened = set(re.findall(r"libdekoder_([a-z]+_[a-z0-9]+)\.so", done.stderr))
        said = "\n".join(line for line in done.stderr.splitlines() if not re.match(r"\s+\d+:", line))
        return done.returncode, said, opened

    def test_launcher_without_a_gpu(self):
        """Without a driver, and with one that has no device."""
        if self.devices:
            self.skipTest(f"this machine has {self.devices} GPUs")
        for environment, precision in itertools.product(({}, self.environment), PRECISIONS):
            code, said, opened = self.describe("auto", precision, **environment)
            self.assertEqual((code, opened), (0, {f"openmp_{precision}"}), said)
            code, said, opened = self.describe("cuda", precision, **environment)
            self.assertEqual((code, opened), (2, set()), said)
            self.assertIn("--backend cuda: the CUDA driver (libcuda.so.1) reports no device here; use --backend openmp", said)
            self.assertEqual(len(said.strip().splitlines()), 1, said)

    def driver(self, *majors):
        """An environment with a driver of devices of these compute capabilities, which no program can use."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        source = Path(folder.name) / "driver.c"
        source.write_text(f"""
            int cuInit(unsigned flags) {{ return 0; }}
            int cuDeviceGetCount(int* count) {{ *count = {len(majors)}; return 0; }}
            int cuDeviceGetName(char* name, int length, int device) {{ name[0] = 'X'; name[length > 1] = 0; return 0; }}
            int cuDeviceGet(int* device, int ordinal) {{ *device = ordinal; return 0; }}
            int cuDeviceGetAttribute(int* value, int attribute, int device) {{
              const int majors[] = {{{", ".join(map(str, majors))}}};
              *value = attribute == 75 ? majors[device] : 0; /* 75 and 76: the capability, major and minor */
              return 0;
            }}
            int cuCtxGetDevice(int* device) {{ return 999; }}
            int cuCtxPushCurrent_v2(void* context) {{ return 999; }}
            int cuStreamGetCtx(void* stream, void** context) {{ return 999; }}
            """)
        output("cc", "-shared", "-fPIC", source, "-o", source.with_name("libcuda.so.1"))
        path = os.environ.get("LD_LIBRARY_PATH")
        return {"LD_LIBRARY_PATH": folder.name + (":" + path if path else "")}

    def test_a_gpu_that_cannot_be_used(self):
        """One that is older than the code, also where it is not the first, and one that CUDA does not start on: a message, no abort."""
        old, unusable = "has compute capability 5.0; this plug-in was compiled for ", "--backend cuda: the GPU cannot be used: cudaGetDeviceCount"
        for (majors, variables, expected), precision in itertools.product((
                ([5], {}, f"--backend cuda: GPU 0 {old}"),
                ([99], {}, unusable),
                ([99, 5], {}, unusable),  # the first is taken
                ([99, 5], {"KOKKOS_DEVICE_ID": "1"}, f"--backend cuda: GPU 1 {old}"),
                ([5, 99], {"KOKKOS_VISIBLE_DEVICES": "1"}, unusable),
                ([99, 5], {"KOKKOS_MAP_DEVICE_ID_BY": "random"}, f"--backend cuda: GPU 1 {old}")), PRECISIONS):
            code, said, opened = self.describe("cuda", precision, **self.driver(*majors), **variables)
            self.assertEqual((code, opened), (2, {f"cuda_{precision}"}), said)
            self.assertIn(expected, said)
            self.assertIn("or use --backend openmp", said)
            self.assertEqual(len(said.strip().splitlines()), 1, said)

    def names_in(self, program):
        """{suite.test} of a program of the tests; it starts as far as a card is not asked for."""
        names, suite = set(), ""
        for line in output(program, "--gtest_list_tests", **self.environment).splitlines():
            word = line.split("#")[0].rstrip()
            if not word.startswith(" "):
                suite = word
            else:
                names.add(suite + word.strip())
        return names

    def test_programs_for_a_card(self):
        """Every test of a kernel and of parity is there for the card as for CPUs, and its program finds all that it needs."""
        programs = sorted(BUILD.glob("tests/*/*_test_*_cuda_*"))
        self.assertEqual({file.parent.name for file in programs}, {"unit", "gradient", "parity"})
        on_cpus = [*BUILD.glob("tests/*/*_teams"), *BUILD.glob("tests/parity/*_test_*_openmp_*")]
        expected = {file.name.replace("_teams", "").replace("openmp", "cuda") for file in on_cpus}
        self.assertGreater(len(expected), 10)
        self.assertEqual(expected - {file.name for file in programs}, set(), "runs on CPUs, and not on a card")
        for file in programs:
            done = subprocess.run(["ldd", "-r", file], capture_output=True, text=True, env=dict(os.environ, **self.environment))
            self.assertNotRegex(done.stdout + done.stderr, "undefined|not found", file)
            of_cpus = self.names_in(file.with_name(file.name.replace("cuda", "openmp")))
            of_card = self.names_in(file)
            teams = file.with_name(file.name.replace("cuda", "openmp") + "_teams")
            self.assertEqual(of_card - of_cpus - (self.names_in(teams) if teams.exists() else set()), set(), file)
            left_out = [name for name in of_cpus - of_card if not any(re.search(kind, name) for kind in ON_CPUS_ALONE)]
            self.assertEqual(left_out, [], file)

    def test_resources_of_kernels(self):
        tool = find_tool("cuobjdump")
        if tool is None:
            self.skipTest("no cuobjdump on the PATH, in CUDA_HOME/bin or named by DEKODER_CUOBJDUMP: registers and spills are not "
                          "looked at (some tool kits leave it out; PyPI's nvidia-cuda-cuobjdump has it)")
        table, spills = [], []
        for plugin in PLUGINS:
            # -p: without the types of parameters, of which c++filt does not understand all
            report = subprocess.run(["c++filt", "-p"], input=output(tool, "--dump-resource-usage", plugin), capture_output=True,
                                    text=True, check=True).stdout
            kernels = re.findall(r"Function (.*):\n +REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", report)
            rows, others = [], 0
            for symbol, *numbers in sorted(set(kernels)):
                name = kernel_name(symbol)
                if name is None:
                    self.assertNotRegex(symbol, r"^_Z|dekoder::(?!BFloat16\b)", "a kernel whose name is not understood")
                    others += 1
                    continue
                registers, stack, shared, local = map(int, numbers)
                rows.append(f"{name[1]:<56} {registers:9} {stack + local:6} {shared:6}")
                if stack + local > 0 and name[0] not in MAY_HAVE_STACK:
                    spills.append(f"{plugin.name}: {rows[-1]}")
            self.assertGreater(len(rows), 20, report[:2000])
            table += [f"{plugin.name:<56} registers  stack shared (bytes: per thread, per team with 1024 of CUDA)", *sorted(rows),
                      f"and {others} kernels of Kokkos' own"]
        table += [f"stack accepted: {name}: {why}" for name, why in MAY_HAVE_STACK.items()]
        (BUILD / "cuda_kernels.txt").write_text("\n".join(table) + "\n")
        print("\n".join(table), flush=True)
        self.assertEqual(spills, [], "kernels with a stack frame or spilled registers")


if __name__ == "__main__":
    unittest.main(verbosity=2)
