# SPDX-License-Identifier: Apache-2.0
"""jobs/bundle: the folder that it makes of this build runs where nothing but it, /proc, /dev and an empty /tmp is, to the same
bits as the build; it runs from wherever it lies; what cannot be packed is refused before anything is made."""
import json
import os
import shutil
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(os.environ.get("DEKODER_SOURCE_DIR", Path(__file__).resolve().parents[2]))
BUILD = Path(os.environ.get("DEKODER_BINARY_DIR", ROOT / "build/tests"))
SETTINGS = ["training.steps=6", "training.warmup_steps=2", "checkpoint.every=3", "attention.every=6"]
# Of the build, what is tested elsewhere in full: here it only has to start and find what it reads.
CARRIED_TESTS = ["unit_test_gemm_openmp_float", "unit_test_shape_signature_openmp_float", "unit_test_run_config_yaml_openmp_float",
                 "unit_test_hdf5_file_openmp_float", "gradient_test_decoder_gradient_openmp_double",
                 "parity_test_parity_openmp_double"]
SMALL = ["dekoder", "libdekoder_openmp_float.so", "libdekoder_openmp_bf16.so"]
ENVIRONMENT = {"OMP_NUM_THREADS": "2", "OMP_PROC_BIND": "false"}

# Lays what the kernel gives into an otherwise empty root, of which /tmp alone can be written, and runs a command there:
# ROOT COMMAND...
ENTER = """
set -e
mkdir -p "$1/proc" "$1/dev" "$1/tmp"
mount --bind "$1" "$1"
mount --bind "$1/tmp" "$1/tmp"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount -o remount,bind,ro "$1"
exec chroot "$@"
"""
NAMESPACE = ["unshare", "--mount", "--pid", "--fork"]


def bundle(*arguments):
    return subprocess.run(["bash", ROOT / "jobs/bundle", *arguments], capture_output=True, text=True, timeout=600)


def train(folder, run):
    settings = [f"data.tokens={folder}/data/source-char.h5", *SETTINGS]
    return ["train", f"{folder}/input/talk-multihead.yaml", "--run", run, "--backend", "openmp",
            *(word for setting in settings for word in ("--set", setting))]


def numbers(run):
    """What a run computed: every number of its log but speeds, step by step."""
    lines = [line.split(',"tokens_per_second"')[0] for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if '"step"' in line]


class Bundle(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.scratch = tempfile.TemporaryDirectory(prefix="with blank ")
        cls.work = Path(cls.scratch.name)
        cls.root = cls.work / "root"
        cls.root.mkdir()
        cls.folder = cls.root / "dekoder"
        done = bundle(BUILD, "-o", cls.folder)
        if done.returncode != 0:
            raise AssertionError(f"jobs/bundle: exit code {done.returncode}\n{done.stdout}{done.stderr}")
        cls.small = cls.work / "small"  # a build without tests and with the openmp plug-in alone
        cls.small.mkdir()
        for name in SMALL:
            shutil.copy(BUILD / name, cls.small)
        (cls.small / "CMakeCache.txt").write_text("DEKODER_ISA:STRING=native\nDEKODER_BACKENDS:STRING=openmp\n")

    @classmethod
    def tearDownClass(cls):
        cls.scratch.cleanup()

    def run_here(self, *command, code=0, **environment):
        """What a command says, which ends with exit code `code`."""
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300, cwd=self.work,
                              env={**os.environ, **ENVIRONMENT, **environment})
        self.assertEqual(done.returncode, code, f"{command}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def may_mount(self):
        return subprocess.run([*NAMESPACE, "mount", "-t", "proc", "proc", "/proc"], capture_output=True).returncode == 0

    def enter_root(self, *command, **environment):
        """What a command says in the root, which is empty but for the folder."""
        if not self.may_mount():
            self.skipTest("no mounts of one's own here")
        return self.run_here(*NAMESPACE, "bash", "-c", ENTER, "enter", self.root, *command, HOME="/tmp", **environment)

    def run_in_root(self, script, *arguments, **environment):
        """A start script there. All that it needs is a shell, whose libc is the carried one, too."""
        shutil.copy(os.path.realpath("/bin/sh"), self.root / "sh")
        return self.enter_root("/dekoder/lib/ld-linux-x86-64.so.2", "--library-path", "/dekoder/lib", "/sh", f"/dekoder/bin/{script}",
                               *arguments, **environment)

    def test_empty_root(self):
        """Trains to the bits of the build, goes on, generates and tells its state, and runs tests of the build."""
        self.run_in_root("dekoder", *train("/dekoder", "/tmp/run"))
        self.run_here(BUILD / "dekoder", *train(self.folder, "own"))
        own, carried = numbers(self.work / "own"), numbers(self.root / "tmp/run")
        self.assertEqual(sum('"loss"' in line for line in own), 6, own)
        self.assertEqual(own, carried)
        self.assertIn("finished", self.run_in_root("dekoder", "status", "/tmp/run"))
        self.assertEqual(self.run_in_root("dekoder", "generate", "/tmp/run", "--tokens", "8", "--seed", "3"),
                         self.run_here(BUILD / "dekoder", "generate", "own", "--tokens", "8", "--seed", "3"))
        names = self.run_in_root("dekoder-test").split()
        built = [file.name for kind in ("unit", "gradient", "parity") for file in (BUILD / "tests" / kind).glob("*_test_*")]
        self.assertEqual(sorted(names), sorted([*built, "checkpoint_digests"]))
        self.assertRegex(self.run_in_root("dekoder-test", "checkpoint_digests", "/tmp/run/checkpoints/ckpt-00000006.h5"),
                         r"(?m)^parameters/blocks\.03\.attention\.qkv\.weight [0-9a-f]{16}$")
        for name in CARRIED_TESTS:
            self.assertIn("[  PASSED  ]", self.run_in_root("dekoder-test", name))

    def test_programs_start_themselves_again(self):
        """In a root that has a shell besides, and what a shell needs: tests that start their own program again find it."""
        for place, what in (("bin/sh", os.path.realpath("/bin/sh")), ("lib64/ld-linux-x86-64.so.2", "/dekoder/lib/ld-linux-x86-64.so.2"),
                            ("lib/x86_64-linux-gnu/libc.so.6", "/dekoder/lib/libc.so.6")):
            (self.root / place).parent.mkdir(parents=True, exist_ok=True)
            if place == "bin/sh":
                shutil.copy(what, self.root / place)
            else:
                (self.root / place).symlink_to(what)
            self.addCleanup(shutil.rmtree, self.root / place.split("/")[0], ignore_errors=True)
        self.assertIn("[  PASSED  ]", self.enter_root("/dekoder/bin/dekoder-test", "unit_test_helper_thread_openmp_float",
                                                        "--gtest_filter=HelperThreadDeath.*"))

    def test_one_process(self):
        """Under a launcher of several, whose libraries stay behind, it says so and starts none of them alone."""
        self.assertIn("error: OMPI_COMM_WORLD_SIZE is 2: the job announces 2 ranks but MPI sees 1",
                      self.run_here(self.folder / "bin/dekoder", "describe", self.folder / "input/gpt2-124m.yaml", code=2,
                                    OMPI_COMM_WORLD_SIZE="2", OMPI_COMM_WORLD_RANK="0"))

    def test_runs_from_anywhere(self):
        """Moved, through a link, found on the PATH; its program names itself to what it starts; refusals are the launcher's."""
        moved = self.work / "with space"
        self.folder.rename(moved)
        try:
            (self.work / "link").symlink_to(moved / "bin/dekoder")
            (self.work / "linked-bin").symlink_to(moved / "bin")
            for command, path in (([moved / "bin/dekoder"], ""), ([self.work / "link"], ""), (["dekoder"], f"{moved}/bin:"),
                                  ([self.work / "linked-bin/dekoder"], "")):
                said = self.run_here("env", *command, "describe", moved / "input/gpt2-124m.yaml",
                                     PATH=path + os.environ["PATH"])
                self.assertIn("blocks.11.attention.qkv.weight", said)
            tools = self.work / "tools"
            tools.mkdir()
            compare = '#!/bin/sh\necho "program: $DEKODER_PROGRAM $*"\n"$DEKODER_PROGRAM" --version\n'
            (tools / "dekoder-compare").write_text(compare)
            (tools / "dekoder-compare").chmod(0o755)
            said = self.run_here(self.work / "link", "compare", "a", PATH=f"{tools}:{os.environ['PATH']}")
            self.assertRegex(said, f"^program: {moved}/bin/dekoder a\ndekoder [0-9.]+\n$")
            self.assertIn("there is no such configuration", self.run_here(self.work / "link", "train", "none.yaml", code=2))
            self.assertRegex(self.run_here("sh", "-c", 'cd "$1" && sh dekoder --version', "sh", moved / "bin"), r"^dekoder [0-9.]+\n$")
            for cdpath in (".", "/usr"):
                self.assertRegex(self.run_here("sh", "-c", 'cd "$1" && bin/dekoder --version', "sh", moved, CDPATH=cdpath),
                                 r"^dekoder [0-9.]+\n$")
            self.assertRegex(self.run_here(moved / "bin/dekoder-test", "--help"), r"^bin/dekoder-test \[PROGRAM \[--gtest_")
            (moved / "tests").rename(self.work / "no-tests")
            said = self.run_here(moved / "bin/dekoder-test", code=2)
            (self.work / "no-tests").rename(moved / "tests")
            self.assertIn("was made of a build without tests", said)
            self.assertIn("no such test program", self.run_here(moved / "bin/dekoder-test", "unit_test_none", code=2))
        finally:
            moved.rename(self.folder)

    def test_other_processor(self):
        """Built for instructions that no processor has."""
        isa = self.folder / "lib/dekoder/isa"
        built_for = isa.read_text()
        try:
            isa.write_text("x86-64-v9\n")
            self.assertIn("error: this processor lacks instructions of x86-64-v9", self.run_here(self.folder / "bin/dekoder", "--version",
                                                                                             code=2))
        finally:
            isa.write_text(built_for)

    def test_incomplete(self):
        """What is missing is named, and nothing of the machine takes its place."""
        said = "cannot be read; expected all that jobs/bundle packed"
        for part in ("lib/dekoder/parts", "lib/dekoder/isa", "lib/dekoder/dekoder", "lib/libc.so.6", "lib/libgomp.so.1",
                     "lib/ld-linux-x86-64.so.2"):
            (self.folder / part).rename(self.work / "aside")
            try:
                self.assertEqual(self.run_here(self.folder / "bin/dekoder", "--version", code=2).split(": ", 2)[1:],
                                 [f"{self.folder}/{part}", f"{said}; unpack or copy the folder again, where the disk has room\n"])
            finally:
                (self.work / "aside").rename(self.folder / part)
        loader = self.folder / "lib/ld-linux-x86-64.so.2"
        mode = loader.stat().st_mode
        loader.chmod(0o644)
        try:
            self.assertIn(f"error: {loader}: may not be executed", self.run_here(self.folder / "bin/dekoder", "--version", code=2))
        finally:
            loader.chmod(mode)

    def test_machine_with_a_card(self):
        """The driver and the tool kit's libraries are found where they lie, behind the carried ones; what is missing is said."""
        plugin, wanted = self.folder / "lib/dekoder/libdekoder_cuda_float.so", self.folder / "lib/dekoder/from_machine"
        carries, listed = plugin.exists(), wanted.read_text()
        site = self.work / "venv/lib/python3.13/site-packages/nvidia/cu13/lib"
        driver = self.work / "driver"
        site.mkdir(parents=True)
        driver.mkdir()
        library = (self.folder / "lib/libdl.so.2").read_bytes()
        (driver / "libcuda.so.1").write_bytes(library)
        unusable = []  # in front of it: of 32 bits, cut short, no library
        for number, content in enumerate((library[:4] + b"\1" + library[5:], library[:100], b"text")):
            unusable.append(self.work / f"unusable-{number}")
            unusable[-1].mkdir()
            (unusable[-1] / "libcuda.so.1").write_bytes(content)
        listed_by = self.work / "ldconfig"  # as the driver is the last of far more libraries than a machine has
        listed_by.mkdir()
        (listed_by / "list").write_text("".join(
            f"\t{name} (libc6,x86-64) => {driver}/{name}\n" for name in (*(f"lib{n}.so.1" for n in range(20000)), "libcuda.so.1")))
        (listed_by / "ldconfig").write_text(f'#!/bin/sh\ncat "{listed_by}/list"\n')
        (listed_by / "ldconfig").chmod(0o755)
        yaml = next(self.folder.glob("lib/libyaml-cpp*"))
        (driver / yaml.name).write_text("no library")  # in front of the carried one, the program would not start
        try:
            if not carries:
                plugin.write_text("")
            wanted.write_text("libonlyhere.so.13\n")
            for found_by in ({"PATH": f"{listed_by}:{os.environ['PATH']}", "LD_LIBRARY_PATH": ""},
                             {"LD_LIBRARY_PATH": ":".join(map(str, (*unusable, driver)))}):
                trace = self.run_here(self.folder / "bin/dekoder", "--version", LD_DEBUG="libs", **found_by)
                searched = next(line for line in trace.splitlines() if "(--library-path)" in line)  # the rest is the shell's own
                self.assertIn(str(driver), searched)
                self.assertNotIn("unusable", searched)
            told = {"LD_LIBRARY_PATH": f"/nowhere::{driver}"}
            said = self.run_here(self.folder / "bin/dekoder", "--version", **told)
            self.assertRegex(said, r"warning: this machine has a driver for GPUs, but no libonlyhere.so.13 was found in .*\n")
            self.assertNotIn("warning", self.run_here(self.folder / "bin/dekoder", "describe", self.folder / "input/gpt2-124m.yaml",
                                                      "--backend", "openmp", **told))
            (site / "libonlyhere.so.13").write_bytes(library)
            trace = self.run_here(self.folder / "bin/dekoder", "--version", VIRTUAL_ENV=str(self.work / "venv"), LD_DEBUG="libs", **told)
            self.assertNotIn("warning", trace)
            self.assertRegex(trace, f"search path=.*{site}")
        finally:
            wanted.write_text(listed)
            if not carries:
                plugin.unlink()

    def test_cuda_libraries(self):
        """With them, nothing but the driver comes from the machine."""
        if not (BUILD / "libdekoder_cuda_float.so").exists():
            self.skipTest("this build has no cuda plug-in")
        done = bundle(BUILD, "-o", self.work / "whole", "--with-cuda-libraries")
        self.addCleanup(shutil.rmtree, self.work / "whole", ignore_errors=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertEqual((self.work / "whole/lib/dekoder/from_machine").read_text(), "")
        self.assertTrue(list((self.work / "whole/lib").glob("libcublasLt.so.*")))
        self.assertFalse(list((self.work / "whole/lib").glob("libcuda.so*")))

    def test_archive(self):
        """A packed folder holds what the folder itself does."""
        done = bundle(BUILD, "-o", self.work / "dekoder.tar.gz")
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        names = subprocess.run(["tar", "-tzf", self.work / "dekoder.tar.gz"], capture_output=True, text=True, check=True).stdout
        packed = {name.removeprefix("dekoder/") for name in names.split() if not name.endswith("/")}
        self.assertEqual(packed, {str(p.relative_to(self.folder)) for p in self.folder.rglob("*") if not p.is_dir()})
        for name in ("lib/ld-linux-x86-64.so.2", "lib/libc.so.6", "lib/dekoder/libdekoder_openmp_float.so",
                     "lib/dekoder/libdekoder_openmp_bf16.so", "input/quickstart.yaml", "tests/gpu/first_minutes.sh", "licences/libc6"):
            self.assertIn(name, packed)
        self.assertEqual([name for name in packed if "libcuda.so" in name], [])

    def build_of(self, cache, *files):
        """A build folder of the files of the small one, with this CMakeCache.txt."""
        folder = Path(tempfile.mkdtemp(dir=self.work))
        self.addCleanup(shutil.rmtree, folder)
        for name in files or SMALL:
            shutil.copy(self.small / name, folder)
        (folder / "CMakeCache.txt").write_text(cache)
        return folder

    def test_refusals(self):
        cuda = self.build_of("DEKODER_ISA:STRING=native\nDEKODER_BACKENDS:STRING=openmp;cuda\n")
        cuda_half = self.build_of("DEKODER_ISA:STRING=native\nDEKODER_BACKENDS:STRING=openmp;cuda\n")
        (cuda_half / "libdekoder_cuda_float.so").touch()
        cuda_alone = self.build_of("DEKODER_ISA:STRING=native\nDEKODER_BACKENDS:STRING=cuda\n")
        empty = self.build_of("")
        before = sorted(self.work.iterdir())
        for arguments, message in (
                ([], "expected BUILD -o OUTPUT"), ([BUILD], "expected BUILD -o OUTPUT"), ([BUILD, "-o"], "expected BUILD -o OUTPUT"),
                ([self.work, "-o", self.work / "x.tar.zst"], "dekoder: no such file; expected a finished build folder"),
                ([BUILD, "-o", self.work / "x.zip"], "expected a name that ends in .tar.zst"),
                ([BUILD, "-o", self.folder], "is there already"), ([BUILD, "--with", "-o", "x"], "--with: no such option"),
                ([cuda, "-o", self.work / "x"], f"{cuda}/libdekoder_cuda_float.so: no such file; expected a finished build folder"),
                ([cuda_half, "-o", self.work / "x"], f"{cuda_half}/libdekoder_cuda_bf16.so: no such file"),
                ([cuda_alone, "-o", self.work / "x"], "is configured without the openmp plug-in"),
                ([empty, "-o", self.work / "x"], "CMakeCache.txt: names no DEKODER_ISA; expected a finished build folder"),
                ([BUILD, "-o", self.work / "a:b"], "takes ':' and ';' for the end of a path"),
                ([BUILD, "-o", ROOT / "src/x"], "lies in src/, which is packed"),
                ([BUILD, "-o", ROOT / "input/x.tar.gz"], "lies in input/, which is packed")):
            done = bundle(*arguments)
            self.assertEqual(done.returncode, 2, arguments)
            self.assertIn(message, done.stderr)
        self.assertEqual(sorted(self.work.iterdir()), before)
        self.assertEqual([*ROOT.glob("*/.bundle-*")], [])

    def test_archive_named_as_a_folder(self):
        folder = self.work / "folder.tar.gz"
        folder.mkdir()
        done = bundle(self.small, "-o", folder)
        self.assertEqual((done.returncode, done.stderr), (2, f"bundle: {folder}: is a folder; expected the name of a new file\n"))
        self.assertEqual([*folder.iterdir()], [])

    def test_truncated_plugin(self):
        build = self.build_of("DEKODER_ISA:STRING=native\nDEKODER_BACKENDS:STRING=openmp\n")
        os.truncate(build / "libdekoder_openmp_float.so", 1000000)
        left = self.work / ".bundle-killed"  # by an earlier run: it is named, and stays
        left.mkdir()
        self.addCleanup(left.rmdir)
        done = bundle(build, "-o", self.work / "x")
        self.assertEqual(done.returncode, 3, done.stderr)
        self.assertRegex(done.stderr, r"^bundle: .*: libdekoder_openmp_float.so is no whole program or library \(.*\); .*\n$")
        self.assertIn(f"bundle: {left}: of a run that goes on, or was killed", done.stdout)
        self.assertFalse((self.work / "x").exists())

    def test_full_disk(self):
        if not self.may_mount():
            self.skipTest("no mounts of one's own here")
        disk = self.work / "disk"
        disk.mkdir()
        script = 'mount -t tmpfs -o size=20m tmpfs "$1" && bash "$2" "$3" -o "$1/x"; code=$?; ls -A "$1"; exit $code'
        done = subprocess.run([*NAMESPACE, "bash", "-c", script, "full", disk, ROOT / "jobs/bundle", self.small], capture_output=True,
                              text=True, timeout=60)
        self.assertEqual((done.returncode, done.stdout), (3, ""), done.stderr)
        self.assertRegex(done.stderr, f"\nbundle: {disk}/x: cannot be made: .* failed, as it says above; expected room for it in {disk}\n$")

    def start(self, output, until):
        """A running jobs/bundle, in whose working folder there is `until` by now."""
        process = subprocess.Popen(["bash", ROOT / "jobs/bundle", self.small, "-o", output], stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True)
        self.addCleanup(process.stderr.close)
        self.addCleanup(process.kill)
        for _ in range(6000):
            if list(self.work.glob(f".bundle-??????/{until}")):
                return process
            self.assertIsNone(process.poll(), "it ended before")
            time.sleep(0.01)
        self.fail(f"no {until} in a minute")

    def test_two_into_one_folder(self):
        """The later one leaves what is there by then as it is."""
        output = self.work / "two"
        process = self.start(output, "dekoder/lib/dekoder/parts")
        output.mkdir()
        (output / "file").write_text("of another")
        said = process.communicate(timeout=120)[1]
        self.assertEqual(process.returncode, 2, said)
        self.assertIn(f"bundle: {output}: is there by now", said)
        self.assertEqual([file.name for file in output.iterdir()], ["file"])
        self.assertEqual([*self.work.glob(".bundle-*")], [])

    def test_stopped(self):
        """Nothing of it stays: neither files nor processes."""
        process = self.start(self.work / "stopped.tar.xz", "packed")
        process.terminate()
        said = process.communicate(timeout=20)[1]
        self.assertEqual(process.returncode, 143, said)
        self.assertEqual([*self.work.glob(".bundle-*"), *self.work.glob("stopped*")], [])
        self.assertEqual([line for line in subprocess.run(["ls", "-l", *(f"/proc/{pid}/fd" for pid in os.listdir("/proc") if pid.isdigit())],
                                                          capture_output=True, text=True).stdout.splitlines() if ".bundle-" in line], [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
