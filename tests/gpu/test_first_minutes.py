# SPDX-License-Identifier: Apache-2.0
"""tests/gpu/first_minutes.sh, rehearsed with the openmp plug-in in the cuda plug-in's place: every step runs, the table says what
it found, and what fails, hangs or is missing is recorded and does not stop the rest."""
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(os.environ.get("DEKODER_SOURCE_DIR", Path(__file__).resolve().parents[2]))
BUILD = Path(os.environ.get("DEKODER_BINARY_DIR", ROOT / "build/tests"))
SCRIPT = ROOT / "tests/gpu/first_minutes.sh"
SHORT = ["--backend", "openmp", "--steps", "2", "--curve", "20", "--python", "/nowhere/python3"]


class FirstMinutes(unittest.TestCase):
    def setUp(self):
        self.scratch = tempfile.TemporaryDirectory()
        self.addCleanup(self.scratch.cleanup)
        self.work = Path(self.scratch.name)

    def run_script(self, *arguments, place=BUILD, **environment):
        """Exit code, the table as {step: (result, what it says)}, and all that was said."""
        out = self.work / "out"
        done = subprocess.run(["bash", SCRIPT, *arguments, "-o", out, place], cwd=self.work, text=True, capture_output=True, timeout=600,
                              env=dict(os.environ, OMP_NUM_THREADS="2", **environment))
        return done.returncode, self.table(done.stdout), done.stdout + done.stderr

    def table(self, stdout):
        out, table = self.work / "out", {}
        if (out / "summary.txt").exists():
            summary = (out / "summary.txt").read_text()
            self.assertIn(summary, stdout)
            for name, result, said in re.findall(r"^(\S+) +(passed|FAILED|skipped|NO TIME|STOPPED) +\d+ s  (.*)$", summary, re.M):
                table[name] = (result, said)
        return table

    def place(self, **programs):
        """A build folder with the build's command and these unit test programs."""
        place = self.work / "place"
        (place / "tests/unit").mkdir(parents=True)
        for file in (BUILD / "dekoder", *BUILD.glob("libdekoder_*.so")):
            (place / file.name).symlink_to(file)
        for name, script in programs.items():
            file = place / f"tests/unit/unit_test_{name}_openmp_float"
            file.write_text("#!/bin/sh\n" + script + "\n")
            file.chmod(0o755)
        return place

    def place_with(self, dekoder, **programs):
        """The same with another dekoder, a shell script, so that steps which are not looked at take no time."""
        place = self.place(**programs)
        (place / "dekoder").unlink()
        (place / "dekoder").write_text(f"#!/bin/bash\n{dekoder}\n")
        (place / "dekoder").chmod(0o755)
        return place

    def test_every_step(self):
        code, table, said = self.run_script(*SHORT, "--models", "talk-multihead talk-multihead:3", "--tests", "*_test_[agp]*",
                                            "--peak-fp32", "0.5", "--peak-tf32", "0.25")
        self.assertEqual(code, 0, said)
        self.assertEqual({name: result for name, (result, _) in table.items()},
                         {"starts": "passed", "tests-unit": "passed", "tests-gradient": "passed", "tests-parity": "passed",
                          "compute-sanitizer": "skipped", "restart": "passed", "curve-as-openmp": "passed",
                          "bench-talk-multihead-fp32": "passed", "bench-talk-multihead-b3-fp32": "passed",
                          "bench-talk-multihead-bf16": "passed", "bench-talk-multihead-b3-bf16": "passed",
                          "torch-talk-multihead": "skipped", "torch-talk-multihead-b3": "skipped"}, said)
        count = sum(len(list((BUILD / "tests/unit").glob(f"*_test_[agp]*_openmp_{precision}"))) for precision in ("float", "bf16"))
        self.assertEqual(table["tests-unit"][1], f"{count} programs passed")
        self.assertRegex(table["restart"][1], r"^killed at step 20 of 40: 40 losses and 153 tensors equal, bit for bit$")
        self.assertRegex(table["curve-as-openmp"][1], r"^largest relative difference of 20 losses 0.0e\+00, ")
        # The rates are those of the JSON that lies beside the table.
        for name, precision in (("fp32", "float"), ("bf16", "bf16")):
            bench = json.loads((self.work / f"out/bench-talk-multihead-b3-{name}.json").read_text())
            self.assertEqual((bench["batch"], bench["micro_batch"], bench["steps"]), (3, 3, 2))
            self.assertEqual(bench["config"]["training.precision"], precision)
            share = bench["tokens_per_second"] * bench["flops_per_token"] / 0.5e12  # of bf16: twice TF32's
            self.assertRegex(said, rf"(?m)^talk-multihead-b3-{name} +{bench['tokens_per_second']:.0f} +{bench['gflops']:.0f} +"
                                   rf"{100 * share:.1f}% +{100 * bench['share_of_gemm']:.1f}% +- +-$")
        self.assertIn("\n10 passed, 3 skipped, 0 steps did not pass\n", said)
        self.assertFalse((self.work / "out/work").exists())

    def test_a_benchmark_that_is_stopped_has_no_rate(self):
        place = self.place_with(f"""case "$*" in *bench*) exec sleep 600 ;; esac
exec {BUILD}/dekoder "$@"
""")
        code, table, said = self.run_script(*SHORT, "--minutes", "1", "--models", "talk-multihead", "--curve", "12", place=place)
        self.assertEqual((code, table["bench-talk-multihead-fp32"]), (1, ("NO TIME", "stopped after 9 s; ")), said)
        self.assertEqual(table["torch-talk-multihead"], ("skipped", "no benchmark of talk-multihead-fp32 to compare with"), said)
        self.assertNotRegex(said, r"(?m)^talk-multihead-fp32 ")
        self.assertIn(table["curve-as-openmp"][0], ("passed", "NO TIME"), said)  # twelve steps, the fewest

    def test_failures_and_hangs_do_not_stop_it(self):
        sleeper = self.work / "sleeper"
        place = self.place(good="exit 0", bad="echo wrong; exit 1", hangs=f"trap '' TERM; echo $$ > {sleeper}; exec sleep 600")
        begin = time.monotonic()
        code, table, said = self.run_script(*SHORT, "--minutes", "1", "--models", "no-such-model", place=place)
        self.assertEqual(code, 1, said)
        self.assertLess(time.monotonic() - begin, 300)
        self.assertEqual(table["tests-unit"], ("NO TIME", "stopped after 15 s; 1 programs passed; failed: unit_test_bad_openmp_float"))
        self.assertFalse(Path(f"/proc/{int(sleeper.read_text())}").exists(), "the program that hung still runs")
        self.assertIn("wrong", (self.work / "out/tests-unit.log").read_text())
        self.assertEqual(table["tests-parity"], ("skipped", "this place has no such programs for openmp"))
        self.assertEqual(table["bench-no-such-model-fp32"][0], "FAILED")
        self.assertIn("there is no such configuration", table["bench-no-such-model-fp32"][1])
        self.assertEqual(table["torch-no-such-model"], ("skipped", "no benchmark of no-such-model-fp32 to compare with"))
        failures = sum(result in ("FAILED", "NO TIME") for result, _ in table.values())  # on a busy machine others have no time
        self.assertIn(f"{failures} steps did not pass", said)

    def test_no_card(self):
        """--backend cuda where no device is: every step says so, and the run ends with its table."""
        if subprocess.run([BUILD / "dekoder", "describe", ROOT / "input/gpt2-124m.yaml", "--backend", "cuda"],
                          capture_output=True).returncode == 0:
            self.skipTest("this machine has a card")
        code, table, said = self.run_script(*SHORT, "--backend", "cuda", "--models", "talk-multihead")
        self.assertEqual(code, 1, said)
        for name in ("starts", "restart", "curve-as-openmp", "bench-talk-multihead-fp32", "bench-talk-multihead-tf32",
                     "bench-talk-multihead-bf16"):
            self.assertEqual(table[name][0], "FAILED", name)
        self.assertIn("--backend cuda: the CUDA driver (libcuda.so.1) reports no device here", table["starts"][1])

    def test_a_curve_that_differs_fails(self):
        """The openmp side of the comparison is another run here: a program in between changes its learning rate."""
        place = self.place_with(f"""case "$*" in *curve-openmp*) set -- "$@" --set training.learning_rate=1.0e-4 ;; esac
exec {BUILD}/dekoder "$@"
""")
        code, table, said = self.run_script(*SHORT, "--models", "", place=place)
        self.assertEqual((code, table["curve-as-openmp"][0]), (1, "FAILED"), said)
        self.assertRegex(table["curve-as-openmp"][1], r"^largest relative difference of 20 losses [1-9].*e-0[123], of the first 20 ")
        self.assertEqual(table["restart"], ("passed", "40 losses and gradient norms equal; no checkpoint_digests here to compare the "
                                                      "checkpoints"), said)

    def test_command_line(self):
        for arguments, message in ((["--backend", "hip"], "--backend hip: expected cuda or openmp"), (["--models", "a", "x"], "a second place"),
                                   (["--minutes", "ten"], "ten: expected a whole number"), (["--quick"], "--quick: no such option"),
                                   (["--peak-tf32", "fast"], "fast: expected TFLOP/s"),
                                   (["--peak-fp32", "0.0"], "0.0: expected TFLOP/s"), (["--minutes", "00"], "--minutes 00: expected a whole"),
                                   (["--curve", "11"], "--curve 11: expected a whole number from 12"), (["-o"], "-o: expected a value"),
                                   (["--models", "char-10m ../x"], "--models ../x: expected the NAME"),
                                   (["--models", "*"], "--models *: expected the NAME"), (["--models", "a:0"], "--models a:0: expected")):
            done = subprocess.run(["bash", SCRIPT, "-o", self.work / "out", BUILD, *arguments], text=True, capture_output=True)
            self.assertEqual((done.returncode, done.stdout), (2, ""), done.stderr)
            self.assertIn(message, done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
            self.assertFalse((self.work / "out").exists())
        done = subprocess.run(["bash", SCRIPT, "/nowhere/build"], text=True, capture_output=True)
        self.assertEqual((done.returncode, done.stderr), (2, "first_minutes: /nowhere/build: no such folder; expected one of jobs/bundle "
                                                             "or a build folder\n"))
        code, table, said = self.run_script(place=self.work)
        self.assertEqual((code, table), (2, {}), said)
        self.assertIn("has neither bin/dekoder nor dekoder", said)

    QUICK = ["--backend", "openmp", "--tests", "none", "--models", ""]

    def test_results_folder(self):
        """It is new or empty and has one owner; what else lies there stays."""
        place, out = self.place_with("exit 1"), self.work / "out"
        thesis = out / "work/thesis.txt"
        thesis.parent.mkdir(parents=True)
        thesis.write_text("x")
        for earlier in (thesis, out / "steps.txt"):
            earlier.write_text("starts passed 0 s  of another run")
            code, table, said = self.run_script(*self.QUICK, place=place)
            self.assertEqual((code, table), (2, {}), said)
            self.assertIn("expected a new or an empty folder", said)
            self.assertEqual(list(out.iterdir()), [thesis.parent if earlier == thesis else earlier])
            self.assertTrue(earlier.exists())
            shutil.rmtree(out)
            out.mkdir()
        runs = [subprocess.Popen(["bash", SCRIPT, *self.QUICK, "-o", "out", "place"], cwd=self.work, stdout=subprocess.PIPE, text=True,
                                 stderr=subprocess.DEVNULL) for _ in range(4)]
        said = {run.communicate()[0]: run.returncode for run in runs}
        self.assertEqual(sorted(run.returncode for run in runs), [1, 2, 2, 2])
        self.assertEqual(len(self.table(next(text for text, code in said.items() if code == 1))), 7)
        # A name like an option's, and the shell that takes its name.
        done = subprocess.run(["sh", SCRIPT, *self.QUICK, "-o", "-x", place], cwd=self.work, capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stderr), (1, ""))
        self.assertIn("0 passed, 4 skipped, 3 steps did not pass", (self.work / "-x/summary.txt").read_text())

    def test_stopped(self):
        """A signal ends it at once: a table of what was done, nothing left running, whatever the step makes of signals."""
        place = self.place_with("exit 1", hangs=f"""trap '' INT TERM HUP
sleep 600 &
echo $$ $! > {self.work}/running
exec sleep 600""")
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            running = self.work / "running"
            process = subprocess.Popen(["bash", SCRIPT, "--backend", "openmp", "-o", "out", place], cwd=self.work, stdout=subprocess.PIPE,
                                       stderr=subprocess.STDOUT, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
            for _ in range(600):
                if running.exists() and len(running.read_text().split()) == 2:
                    break
                time.sleep(0.05)
            left = running.read_text().split()
            process.send_signal(number)
            said = process.communicate(timeout=60)[0]  # which waits for all that have its output open
            self.assertEqual(process.returncode, 128 + number, said)
            self.assertEqual(self.table(said), {"starts": ("FAILED", "exit code 1: "), "tests-unit": ("STOPPED", "")}, said)
            self.assertIn(f"0 passed, 0 skipped, 2 steps did not pass; stopped: {number.name}\n", said)
            for pid in left:
                self.assertTrue(self.is_gone(pid), f"process {pid} still runs after {number.name}")
            self.assertFalse((self.work / "out/work").exists())
            shutil.rmtree(self.work / "out")
            running.unlink()

    @staticmethod
    def is_gone(pid):
        """A process that was killed and that nobody has waited for is gone too."""
        for _ in range(100):
            try:
                if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                    return True
            except (FileNotFoundError, ProcessLookupError):
                return True
            time.sleep(0.05)
        return False

    def test_full_disk(self):
        """It stops with exit code 3: without room for logs nothing that follows means anything."""
        place, disk = self.place_with("head -c 1000000 /dev/zero > fill; exit 0"), self.work / "disk"
        disk.mkdir()
        script = f"mount -t tmpfs -o size=300k none {disk} || exit 99; bash {SCRIPT} --backend openmp -o {disk}/out {place}"
        done = subprocess.run(["unshare", "--mount" if os.geteuid() == 0 else "-rm", "bash", "-c", script], capture_output=True, text=True)
        if done.returncode == 99 or "unshare" in done.stderr:
            self.skipTest(f"no disk of its own: {done.stderr.strip()}")
        message = f"{disk}/out cannot be written; is the disk full?"
        self.assertEqual((done.returncode, done.stderr), (3, f"first_minutes: {message}\n"), done.stdout)
        self.assertNotIn("tests-unit", done.stdout)
        self.assertIn(f"stopped: {message}", done.stdout)

    def test_environment(self):
        """Steps see no setting of dekoder's but the plug-in path, paths from the root, and the card that is asked for."""
        place = self.place_with('[ $# -gt 1 ] || env; exit 1')
        tools = self.work / "tools"
        tools.mkdir()
        (tools / "nvidia-smi").write_text("""#!/bin/bash
cards=('NVIDIA A100-SXM4-40GB, 550' 'NVIDIA H100 80GB HBM3, 550')
while [ $# -gt 0 ]; do [ "$1" != -i ] || cards=("${cards[$2]}"); shift; done
printf '%s\\n' "${cards[@]}"
""")
        (tools / "nvidia-smi").chmod(0o755)
        code, table, said = self.run_script("--backend", "cuda", "--tests", "none", "--models", "", "--minutes", "08", place=place,
                                            DEKODER_FAULT="checkpoint:after_rename", DEKODER_TF32="1", KOKKOS_DEVICE_ID="1", CDPATH="/",
                                            DEKODER_PLUGIN_PATH="plug/ins:/opt", PATH=f"tools:{os.environ['PATH']}",
                                            CUDA_VISIBLE_DEVICES="1,0")
        self.assertEqual((code, len(table)), (1, 7), said)
        seen = (self.work / "out/starts.log").read_text()
        self.assertEqual(re.findall("(?m)^((?:DEKODER|KOKKOS|CDPATH).*)", seen), [f"DEKODER_PLUGIN_PATH={self.work}/plug/ins:/opt"])
        self.assertIn(f"\nPATH={self.work}/tools:", seen)
        self.assertIn("\nCUDA_DEVICE_ORDER=PCI_BUS_ID\n", seen)
        self.assertIn("card: NVIDIA H100 80GB HBM3, 550; peaks: fp32 66.9, TF32 494.7 TFLOP/s", said)

    def test_python(self):
        """A python that is named relative to the caller's folder; one that is killed has not used up its time."""
        place = self.place_with(f"""[ "$1" = bench ] && exec {BUILD}/dekoder "$@"; exit 1""", one="exit 0")
        python = self.work / "venv/bin/python"
        python.parent.mkdir(parents=True)
        python.write_text("""#!/bin/bash
[ "$1" != -c ] || exit 0
echo '{"variant": "eager-fp32", "tokens_per_second": 12.5}'
kill -KILL $$
""")
        python.chmod(0o755)
        options = ["--backend", "openmp", "--steps", "1", "--models", "talk-multihead"]
        code, table, said = self.run_script(*options, "--tests", "none", "--python", "./venv/bin/python", place=place)
        self.assertEqual((code, table["torch-talk-multihead"]), (1, ("FAILED", "eager-fp32 12 tokens/s; then exit code 137 (SIGKILL)")), said)
        self.assertEqual(table["tests-unit"], ("skipped", "--tests none names none of this place's 1"))


BENCH = {"batch": 2, "context": 8, "threads": 1, "config": {
    "model.layers": 1, "model.heads": 2, "model.channels": 8, "model.feed_forward": 8, "model.context": 8, "model.vocabulary": 11,
    "model.vocabulary_multiple": 4, "model.positions": "learned", "model.norm": "pre", "model.norm_epsilon": 1e-5,
    "model.activation": "gelu", "model.bias": True, "model.tied_head": True, "model.dropout": 0.0, "training.learning_rate": 1e-3,
    "training.beta1": 0.9, "training.beta2": 0.95, "training.epsilon": 1e-8, "training.weight_decay": 0.1, "training.clip_norm": 1.0}}


class TorchPeer(unittest.TestCase):
    """tests/gpu/torch_peer.py: what it cannot use ends in one line and exit code 2."""

    def run_peer(self, content, *options, python=(sys.executable, "-S")):  # -S: without the packages of the site, torch among them
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "bench.json"
            if content == "folder":
                file.mkdir()
            elif content != "missing":
                file.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
            return subprocess.run([*python, "-B", ROOT / "tests/gpu/torch_peer.py", file, *options], capture_output=True, text=True)

    def test_bad_input(self):
        whole = json.dumps(BENCH).encode()
        changed = lambda **settings: {**BENCH, "config": {**BENCH["config"], **{f"model.{k}": v for k, v in settings.items()}}}
        for content, options, message in (
                ("missing", [], "No such file or directory"), ("folder", [], "Is a directory"), (b"", [], "is not JSON"), (whole[:100], [], "is not JSON"),
                (b"\xff\x00", [], "is not JSON"), (b"[" * 100000, [], "is not JSON"), ([], [], 'has no object "config"'),
                ({"config": {"a": 1}}, [], "batch is null; expected a whole number from 1"),
                ({**BENCH, "threads": True}, [], "threads is true"), (changed(vocabulary_multiple=0), [], "vocabulary_multiple is 0"),
                (changed(bias=1), [], "model.bias is 1; expected true or false"), (changed(norm=None), [], "model.norm is null"),
                (changed(norm_epsilon=float("nan")), [], "model.norm_epsilon is NaN"), (changed(dropout=0.1), [], "has dropout"),
                (BENCH, ["--device", "rocm"], "invalid choice: 'rocm'"), (BENCH, ["--steps", "-3"], "-3: expected a whole number from 0"),
                (BENCH, ["--seconds", "nan"], "nan: expected a number from 0"), (BENCH, [], "cannot import torch: No module named 'torch'")):
            with self.subTest(content=str(content)[:100], options=options):
                done = self.run_peer(content, *options)
                self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (2, "", 1), done.stderr)
                self.assertIn(message, done.stderr)

    def test_measures(self):
        """With PyTorch: a line for each variant; without a card, cuda is refused."""
        if subprocess.run([sys.executable, "-c", "import torch"], capture_output=True).returncode != 0:
            self.skipTest(f"{sys.executable} has no torch")
        done = self.run_peer(BENCH, "--device", "cpu", "--steps", "2", python=["env", "TORCHDYNAMO_DISABLE=1", sys.executable])  # which compiles nothing
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual([line["variant"] for line in lines], ["eager-fp32", "eager-tf32", "eager-bf16", "compile-fp32", "compile-tf32", "compile-bf16"], done.stderr)
        self.assertGreater(lines[0]["tokens_per_second"], 0)
        self.assertEqual(lines[0]["steps"], 2)
        self.assertEqual(done.returncode, int(any("error" in line for line in lines)))
        done = self.run_peer(BENCH, python=["env", "CUDA_VISIBLE_DEVICES=", sys.executable])
        self.assertEqual((done.returncode, done.stdout), (2, ""), done.stderr)
        self.assertIn("finds no CUDA device here", done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
