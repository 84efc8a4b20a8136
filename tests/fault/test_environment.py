# SPDX-License-Identifier: Apache-2.0
"""What the process around a run gives it or denies it: MPI's variables, cores, threads, memory."""

import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import dekoder_runs as dk  # noqa: E402

LAUNCHERS = ("OMPI_", "PMIX_", "PMI_", "PRTE_", "SLURM_")
BINDING = ("OMP_", "GOMP_", "KMP_", "KOKKOS_")
CPUS = sorted(os.sched_getaffinity(0))
# They take terabytes of address space for themselves.
SANITIZED = bool({"ASAN_OPTIONS", "TSAN_OPTIONS"} & set(os.environ))


def environment(**changes):
    """This process' own, without what tells of launchers, threads and binding; None takes a variable away."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHERS + BINDING)}
    mine.update({"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"})
    mine.update(changes)
    return {name: value for name, value in mine.items() if value is not None}


def run(command, start=(), **options):
    return subprocess.run([*start, dk.PROGRAM, *command],
                          **{"capture_output": True, "text": True, "timeout": 120, "env": environment(), **options})


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = pathlib.Path(tempfile.mkdtemp(prefix="dekoder-environment-"))
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        cls.shop = dk.Workshop(cls.folder)
        cls.runs = 0

    def train(self, steps=20):
        """Arguments of a training in a run directory of its own."""
        type(self).runs += 1
        return ["train", self.shop.config(steps, steps), "--run", self.folder / f"run-{self.runs}"]

    def bench(self):
        return ["bench", self.shop.config(20, 20), "--set", "model.vocabulary=256", "--steps", "1", "--json"]

    def assert_refused(self, done, *fragments):
        """One message that holds all fragments, and exit code 2."""
        self.assertEqual(done.returncode, 2, done.stderr)
        lines = done.stderr.splitlines()
        self.assertEqual(len(lines), 1, done.stderr)
        for fragment in ("dekoder: error: ", *fragments):
            self.assertIn(fragment, lines[0])


class Mpi(Case):
    def ended_job(self, ranks):
        """The environment that mpirun gave its first rank, of a job that is over by now."""
        printed = subprocess.run(["mpirun", "--oversubscribe", "-n", str(ranks), "env", "-0"], capture_output=True, text=True,
                                 check=True, env=environment(), timeout=60).stdout
        left = dict(entry.split("=", 1) for entry in printed.split("\0") if "=" in entry)
        left = {name.strip(): value for name, value in left.items() if name.strip().startswith(LAUNCHERS)}
        self.assertEqual(left["OMPI_COMM_WORLD_SIZE"], str(ranks))
        return left

    def test_single_processes_need_nothing_of_mpi(self):
        """Every command, without a home directory, without any variable, and with those of jobs that have ended."""
        trained = self.train()
        self.assertEqual(run(trained).returncode, 0)
        directory = trained[-1]
        text = self.folder / "text.txt"
        commands = [trained, self.bench(), ["describe", self.shop.config(20, 20)], ["status", directory], ["eval", directory],
                    ["generate", directory, "--prompt", "a", "--tokens", "2"],
                    ["attention", directory, "--text", "alpha", "-o", self.folder / "maps.h5"],
                    ["prepare", text, "-o", self.folder / "again.h5"]]
        environments = {
            "no HOME": environment(HOME=None),
            "PATH alone": {"PATH": os.environ["PATH"]},
            "two variables of PMIx": environment(PMIX_NAMESPACE="x", PMIX_RANK="0"),
            "one rank that is gone": environment(**self.ended_job(1)),
            "a single rank's number alone": environment(OMPI_COMM_WORLD_SIZE="1", OMPI_COMM_WORLD_RANK="0", HOME=None),
        }
        for what, env in environments.items():
            for command in commands if what != "one rank that is gone" else commands[:2]:
                if command is trained:
                    command = self.train()
                with self.subTest(environment=what, command=command[0]):
                    done = run(command, env=env)
                    self.assertEqual(done.returncode, 0, done.stderr)
                    self.assertNotIn("error", done.stderr.lower())

    def test_ranks_that_are_gone(self):
        for env in (environment(**self.ended_job(2)), environment(OMPI_COMM_WORLD_SIZE="2", HOME=None),
                    environment(OMPI_COMM_WORLD_SIZE="2", OMPI_COMM_WORLD_RANK="1", PMIX_NAMESPACE="x", PMIX_RANK="0"),
                    environment(PMI_SIZE="2", PMI_RANK="1")):
            command = self.train()
            self.assert_refused(run(command, env=env), "announces 2 ranks", "unset")
            self.assertFalse(command[-1].exists())

    def test_mpi_that_does_not_start(self):
        env = environment(OMPI_COMM_WORLD_SIZE="2", OMPI_MCA_pml="nonsense")
        self.assert_refused(run(self.train(), env=env), "OMPI_COMM_WORLD_SIZE is 2", "MPI does not start", "nonsense", "unset")

    def test_wrong_number_of_ranks(self):
        for name in ("OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS", "PMI_SIZE"):
            self.assert_refused(run(self.train(), env=environment(**{name: "many"})), f"{name} is 'many'", "whole number from 1")
        for name in ("OMPI_COMM_WORLD_RANK", "SLURM_PROCID", "PMI_RANK"):
            self.assert_refused(run(self.train(), env=environment(**{name: "-1"})), f"{name} is '-1'", "whole number from 0")

    def test_mpirun_with_one_rank(self):
        """Works; that it gives one core is said, with the remedy."""
        done = run(self.train(), start=["mpirun", "-n", "1"])
        self.assertEqual(done.returncode, 0, done.stderr)
        if len(CPUS) > 1:
            self.assertRegex(done.stderr, r"dekoder: threads: \d+; cores: 1 of the machine's \d+")
            self.assertRegex(done.stderr, "warning: mpirun gave this process 1 of .*--bind-to none, or --map-by slot:pe=N")
        done = run(self.train(), start=["mpirun", "--bind-to", "none", "-n", "1"])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertNotIn("warning", done.stderr)


def cpu_list(text):
    """Linux' "0-2,5" as a list."""
    numbers = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        numbers += range(int(first), int(last or first) + 1)
    return numbers


class Cores(Case):
    def start(self, env, start=()):
        process = subprocess.Popen([*start, dk.PROGRAM, *self.train(10**9)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                                   env=env)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        self.line = ""
        while not self.line.startswith("dekoder: threads: "):
            self.line = process.stderr.readline().decode()
            self.assertNotRegex(self.line, "^$|step ", "train ended, or went on without a word about threads")
        return process

    def masks(self, process):
        """{thread's name: [CPUs of each]}, once the helper that makes batches has widened its own (its first act) or had
        five seconds for it."""
        for _ in range(500):
            found = {}
            for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
                status = (task / "status").read_text()
                cpus = cpu_list(re.search(r"Cpus_allowed_list:\s*(\S+)", status).group(1))
                found.setdefault(re.search(r"Name:\s*(.*)", status).group(1), []).append(cpus)
            if found.get("dekoder-data") == [CPUS]:
                break
            time.sleep(0.01)
        self.assertIn("dekoder-data", found)
        return found

    def test_two_runs_with_a_thread_each(self):
        """Neither is bound: the system gives each a core of its own."""
        pair = [self.start(environment(OMP_NUM_THREADS="1")) for _ in range(2)]
        for process in pair:
            for name, masks in self.masks(process).items():
                for mask in masks:
                    self.assertEqual(mask, CPUS, name)
        if len(CPUS) > 1:
            self.assertIn("not bound", self.line)

    @unittest.skipIf(len(CPUS) < 2, "binding shows on two CPUs")
    def test_all_cores(self):
        """Each of OpenMP's threads has its place; the helper may run on all of them."""
        masks = self.masks(self.start(environment()))
        self.assertIn("; bound to cores (close)", self.line)
        self.assertEqual(masks["dekoder-data"], [CPUS])
        bound = sorted(mask for mask in masks["dekoder"] if mask != CPUS)
        self.assertGreater(len(bound), 1)
        self.assertEqual(sorted({cpu for mask in bound for cpu in mask}), CPUS)
        for mask in bound:
            self.assertEqual([other for other in bound if set(other) & set(mask) and other != mask], [], "places overlap")

    @unittest.skipIf(len(CPUS) < 2, "a smaller mask needs two CPUs")
    def test_given_mask(self):
        """All threads use the one core that taskset leaves."""
        process = self.start(environment(), start=["taskset", "-c", str(CPUS[-1])])
        self.assertRegex(self.line, r"threads: 1; cores: 1 of the machine's \d+; bound to cores \(close\)")
        for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir():
            self.assertRegex((task / "status").read_text(), rf"Cpus_allowed_list:\s*{CPUS[-1]}\n")

    @unittest.skipIf(len(CPUS) < 2, "binding shows on two CPUs")
    def test_what_the_user_says_stands(self):
        last = CPUS[-1]
        for env, expected, text in (({"OMP_PROC_BIND": "false"}, CPUS, "not bound"),
                                    ({"OMP_PROC_BIND": "spread", "OMP_PLACES": f"{{{last}}}"}, [last], "(spread)"),
                                    ({"OMP_PLACES": f"{{{last}}}"}, [last], "(true)"),
                                    ({"GOMP_CPU_AFFINITY": str(last)}, [last], "(true)")):
            with self.subTest(environment=env):
                process = self.start(environment(OMP_NUM_THREADS="1", **env))
                self.assertIn(text, self.line)
                main = pathlib.Path(f"/proc/{process.pid}/status").read_text()
                self.assertEqual(cpu_list(re.search(r"Cpus_allowed_list:\s*(\S+)", main).group(1)), expected)
                self.assertEqual(self.masks(process)["dekoder-data"], [CPUS])

    def test_bench_tells_the_same(self):
        done = run(self.bench(), env=environment(OMP_NUM_THREADS="1"))
        facts = json.loads(done.stdout)
        self.assertEqual(facts["threads"], 1)
        line = f"dekoder: threads: 1; cores: {facts['cores']} of the machine's {facts['machine_cores']}"
        self.assertIn(line, done.stderr)
        self.assertEqual(facts["binding"], "false" if facts["cores"] > 1 else "close")

    def test_shared_cores(self):
        threads = len(CPUS) + 1
        done = run(self.train(), env=environment(OMP_NUM_THREADS=str(threads)))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn(f"warning: {threads} threads share ", done.stderr)

    def test_less_processor_time_than_threads(self):
        for threads, remedy in ((1, "; give "), (2, "; set OMP_NUM_THREADS to 1, or give ")):
            done = run(self.train(), start=dk.limited_to(0.5, self), env=environment(OMP_NUM_THREADS=str(threads)))
            self.assertEqual(done.returncode, 0, done.stderr)
            if threads <= len(CPUS):
                self.assertIn(f"warning: {threads} threads may take the time of 0.5 CPUs, the limit of their control group{remedy}", done.stderr)


# What the launcher asks of libcuda.so.1, with FAULT as cuInit's answer.
DRIVER = """
int cuInit(unsigned flags) { (void)flags; return FAULT; }
int cuDeviceGetCount(int* count) { *count = 1; return 0; }
int cuDeviceGetName(char* name, int length, int device) { (void)length, (void)device; name[0] = 'A'; name[1] = 0; return 0; }
int cuGetErrorName(int code, const char** name) { if (code != 803) return 1; *name = "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"; return 0; }
"""
# A /dev with few devices, a card's among them.
CARD = """
mount -t tmpfs tmpfs "$0"
for device in null zero urandom; do touch "$0/$device"; mount --bind "/dev/$device" "$0/$device"; done
touch "$0/nvidiactl"
mount --move "$0" /dev
exec "$@"
"""


class Devices(Case):
    """A run says which plug-in computes and why; a refusal says what the driver said."""

    def driver(self, fault):
        folder = self.folder / f"driver-{fault}"
        folder.mkdir(exist_ok=True)
        subprocess.run(["cc", "-shared", "-fPIC", f"-DFAULT={fault}", "-x", "c", "-", "-o", folder / "libcuda.so.1"], input=DRIVER,
                       text=True, check=True)
        return folder

    def backend(self, start=(), flags=(), **changes):
        """The line about it of a training."""
        done = run([*self.train(), *flags], start, env=environment(**changes))
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = [line for line in done.stderr.splitlines() if line.startswith("dekoder: backend: ")]
        self.assertEqual(len(lines), 1, done.stderr)
        return lines[0]

    def test_why_a_run_computes_on_cpus(self):
        self.assertEqual(self.backend(flags=["--backend", "openmp"]), "dekoder: backend: openmp")
        broken = self.backend(LD_LIBRARY_PATH=str(self.driver(803)), CUDA_VISIBLE_DEVICES="1,\udce9")
        self.assertEqual(broken, "dekoder: backend: openmp (auto: cuInit: error 803, CUDA_ERROR_SYSTEM_DRIVER_MISMATCH; "
                                 "CUDA_VISIBLE_DEVICES is '1,\\xE9')")
        alone = self.folder / "alone"  # a launcher with the openmp plug-in alone
        alone.mkdir()
        for name in ("dekoder", "libdekoder_openmp_float.so"):
            shutil.copy(dk.PROGRAM.parent / name, alone)
        done = subprocess.run([alone / "dekoder", *self.train()], capture_output=True, text=True, timeout=120,
                              env=environment(LD_LIBRARY_PATH=str(self.driver(0))))
        self.assertIn(f"dekoder: backend: openmp (auto: libdekoder_cuda_float.so is in none of {alone}, ", done.stderr)

    def test_a_card_without_its_driver(self):
        """As in a container that was given the one and not the other."""
        place = self.folder / "dev"
        place.mkdir()
        start = ["unshare", "--mount", "bash", "-ec", CARD, place]
        if run(["--version"], start).returncode != 0 or self.found_driver():
            self.skipTest("no mounts of one's own here, or a driver")
        self.assertIn("openmp (auto: there is a card, /dev/nvidiactl, but no libcuda.so.1; ", self.backend(start))
        self.assertEqual(self.backend(), "dekoder: backend: openmp (auto: no CUDA driver, libcuda.so.1)")

    def found_driver(self):
        return subprocess.run([sys.executable, "-c", "import ctypes; ctypes.CDLL('libcuda.so.1')"], capture_output=True).returncode == 0

    def test_refusals_say_what_the_driver_said(self):
        text = self.folder / "driver-text"
        text.mkdir()
        (text / "libcuda.so.1").write_text("no library")
        for folder, visible, reason in ((self.driver(803), None, "cuInit: error 803, CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)"),
                                        (self.driver(3), "", "cuInit: error 3; CUDA_VISIBLE_DEVICES is '')"),
                                        (text, None, f"cannot be loaded: {text}/libcuda.so.1: ")):
            done = run([*self.train(), "--backend", "cuda"], env=environment(LD_LIBRARY_PATH=str(folder), CUDA_VISIBLE_DEVICES=visible))
            self.assert_refused(done, "reports no device here; use --backend openmp", reason)


class Limits(Case):
    def refused_threads(self, limit, threads):
        """The program as a user who may start `limit` processes and threads: root's own number is not limited."""
        place = self.folder / "everybody"
        if not place.exists():
            self.folder.chmod(0o755)
            place.mkdir()
            place.chmod(0o777)
            for file in (dk.PROGRAM, dk.PROGRAM.parent / "libdekoder_openmp_float.so", self.shop.tokens):
                shutil.copy(file, place)
        config = place / f"config-{limit}-{threads}.yaml"
        config.write_text(dk.CONFIG.format(tokens=place / "tokens.h5", steps=20, every=20))
        other = {"user": 65534, "group": 65534, "extra_groups": []} if os.getuid() == 0 else {}
        return subprocess.run([place / "dekoder", "train", config, "--run", place / f"run-{limit}-{threads}"],
                              capture_output=True, text=True, timeout=60,
                              env=environment(OMP_NUM_THREADS=str(threads), UCX_VFS_ENABLE="n"),
                              preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NPROC, (limit, limit)), **other)

    def test_threads_of_openmp(self):
        self.assert_refused(self.refused_threads(1, 4), "(ulimit -u) 1", "lower OMP_NUM_THREADS")

    def test_helper_thread(self):
        done = self.refused_threads(1, 1)
        self.assertEqual(done.returncode, 2, done.stderr)
        errors = [line for line in done.stderr.splitlines() if "error" in line]
        self.assertEqual(len(errors), 1, done.stderr)
        self.assertIn("(ulimit -u) 1", errors[0])

    @unittest.skipIf(SANITIZED, "a sanitizer fits in no limit of address space")
    def test_threads_that_openmp_alone_is_refused(self):
        """For its larger stacks: OpenMP ends the process itself, and the exit code is still right."""
        done = run(self.train(), env=environment(OMP_NUM_THREADS="2", OMP_STACKSIZE="100G"),
                   preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30)))
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertEqual(done.stderr.count("dekoder: error: "), 1, done.stderr)
        self.assertIn("OMP_STACKSIZE is 100G", done.stderr)

    @unittest.skipIf(SANITIZED, "a sanitizer fits in no limit of address space")
    def test_memory(self):
        big = ["--set", "model.channels=2048", "--set", "model.layers=40"]  # 2.0e9 parameters
        for command in (self.train() + big, self.bench() + big):
            done = run(command, env=environment(OMP_NUM_THREADS="1"),
                       preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30)))
            self.assertEqual(done.returncode, 2, done.stderr)
            errors = [line for line in done.stderr.splitlines() if "error" in line]
            self.assertEqual(len(errors), 1, done.stderr)
            self.assertIn("out of memory; lower training.micro_batch", errors[0])

    @unittest.skipIf(SANITIZED, "a sanitizer fits in no limit of address space")
    def test_no_room_for_libraries(self):
        done = run(self.train(), env=environment(OMP_NUM_THREADS="2"),
                   preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (300 << 20, 300 << 20)))
        self.assert_refused(done, "(ulimit -v) is 307200 kB", "lower OMP_NUM_THREADS")


if __name__ == "__main__":
    unittest.main()
