# SPDX-License-Identifier: Apache-2.0
"""tests/gpu/first_minutes.sh, rehearsed with the openmp plug-in in the cuda plug-in's place: every step runs, the table says what
it found, and what fails, hangs or is missing is recorded and does not stop the rest."""
import json
import os
import re
import subprocess
import tempfile
import time
import unittest
from pathlib import Path

ROOT = Path(os.environ.get("DEKODER_SOURCE_DIR", Path(__file__).resolve().parents[2]))
BUILD = Path(os.environ.get("DEKODER_BINARY_DIR", ROOT / "build/tests"))
SHORT = ["--backend", "openmp", "--steps", "2", "--curve", "20", "--python", "/nowhere/python3"]


class FirstMinutes(unittest.TestCase):
    def setUp(self):
        self.scratch = tempfile.TemporaryDirectory()
        self.addCleanup(self.scratch.cleanup)
        self.work = Path(self.scratch.name)

    def run_script(self, *arguments, place=BUILD, **environment):
        """Exit code, the table as {step: (result, what it says)}, and all that was said."""
        out = self.work / "out"
        done = subprocess.run(["bash", ROOT / "tests/gpu/first_minutes.sh", *arguments, "-o", out, place], cwd=self.work, text=True,
                              capture_output=True, timeout=600, env=dict(os.environ, OMP_NUM_THREADS="2", **environment))
        table = {}
        if (out / "summary.txt").exists():
            summary = (out / "summary.txt").read_text()
            self.assertIn(summary, done.stdout)
            for name, result, said in re.findall(r"^(\S+) +(passed|FAILED|skipped|NO TIME) +\d+ s  (.*)$", summary, re.M):
                table[name] = (result, said)
        return done.returncode, table, done.stdout + done.stderr

    def place(self, **programs):
        """A build folder with the build's command and these unit test programs."""
        place = self.work / "place"
        (place / "tests/unit").mkdir(parents=True)
        for file in (BUILD / "dekoder", *BUILD.glob("libdekoder_*_float.so")):
            (place / file.name).symlink_to(file)
        for name, script in programs.items():
            file = place / f"tests/unit/unit_test_{name}_openmp_float"
            file.write_text("#!/bin/sh\n" + script + "\n")
            file.chmod(0o755)
        return place

    def test_every_step(self):
        code, table, said = self.run_script(*SHORT, "--models", "talk-multihead talk-multihead:3", "--tests", "*_test_[agp]*",
                                            "--peak-fp32", "0.5")
        self.assertEqual(code, 0, said)
        self.assertEqual({name: result for name, (result, _) in table.items()},
                         {"starts": "passed", "tests-unit": "passed", "tests-gradient": "passed", "tests-parity": "passed",
                          "compute-sanitizer": "skipped", "restart": "passed", "curve-as-openmp": "passed",
                          "bench-talk-multihead-fp32": "passed", "bench-talk-multihead-b3-fp32": "passed",
                          "torch-talk-multihead": "skipped", "torch-talk-multihead-b3": "skipped"}, said)
        count = len(list((BUILD / "tests/unit").glob("*_test_[agp]*_openmp_float")))
        self.assertEqual(table["tests-unit"][1], f"{count} programs passed")
        self.assertRegex(table["restart"][1], r"^killed at step 20 of 40: 40 losses and 153 tensors equal, bit for bit$")
        self.assertRegex(table["curve-as-openmp"][1], r"^largest relative difference of 20 losses 0.0e\+00, ")
        # The rates are those of the JSON that lies beside the table.
        bench = json.loads((self.work / "out/bench-talk-multihead-b3-fp32.json").read_text())
        self.assertEqual((bench["batch"], bench["micro_batch"], bench["steps"]), (3, 3, 2))
        share = bench["tokens_per_second"] * bench["flops_per_token"] / 0.5e12
        self.assertRegex(said, rf"(?m)^talk-multihead-b3-fp32 +{bench['tokens_per_second']:.0f} +{bench['gflops']:.0f} +"
                               rf"{100 * share:.1f}% +{100 * bench['share_of_gemm']:.1f}% +- +-$")
        self.assertIn("all steps passed", said)
        self.assertFalse((self.work / "out/work").exists())

    def test_a_benchmark_that_is_stopped_has_no_rate(self):
        place = self.place()
        (place / "dekoder").unlink()
        (place / "dekoder").write_text(f"""#!/bin/sh
case "$*" in *bench*) exec sleep 600 ;; esac
exec {BUILD}/dekoder "$@"
""")
        (place / "dekoder").chmod(0o755)
        code, table, said = self.run_script(*SHORT, "--minutes", "1", "--models", "talk-multihead", place=place)
        self.assertEqual((code, table["bench-talk-multihead-fp32"]), (1, ("NO TIME", "stopped after 9 s; ")), said)
        self.assertEqual(table["torch-talk-multihead"], ("skipped", "no benchmark of talk-multihead-fp32 to compare with"), said)
        self.assertNotRegex(said, r"(?m)^talk-multihead-fp32 ")

    def test_failures_and_hangs_do_not_stop_it(self):
        sleeper = self.work / "sleeper"
        place = self.place(good="exit 0", bad="echo wrong; exit 1", hangs=f"echo $$ > {sleeper}; exec sleep 600")
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
        for name in ("starts", "restart", "curve-as-openmp", "bench-talk-multihead-fp32", "bench-talk-multihead-tf32"):
            self.assertEqual(table[name][0], "FAILED", name)
        self.assertIn("--backend cuda: the CUDA driver (libcuda.so.1) reports no device here", table["starts"][1])

    def test_a_curve_that_differs_fails(self):
        """The openmp side of the comparison is another run here: a program in between changes its learning rate."""
        place = self.place()
        (place / "dekoder").unlink()
        (place / "dekoder").write_text(f"""#!/bin/sh
case "$*" in *curve-openmp*) set -- "$@" --set training.learning_rate=1.0e-4 ;; esac
exec {BUILD}/dekoder "$@"
""")
        (place / "dekoder").chmod(0o755)
        code, table, said = self.run_script(*SHORT, "--models", "", place=place)
        self.assertEqual((code, table["curve-as-openmp"][0]), (1, "FAILED"), said)
        self.assertRegex(table["curve-as-openmp"][1], r"^largest relative difference of 20 losses [1-9].*e-0[123], of the first 20 ")
        self.assertEqual(table["restart"], ("passed", "40 losses and gradient norms equal; no checkpoint_digests here to compare the "
                                                      "checkpoints"), said)

    def test_command_line(self):
        for arguments, message in ((["--backend", "hip"], "--backend hip: expected cuda or openmp"), (["--models", "a", "x"], "a second place"),
                                   (["--minutes", "ten"], "ten: expected a whole number"), (["--quick"], "--quick: no such option"),
                                   (["--peak-tf32", "fast"], "fast: expected TFLOP/s")):
            code, table, said = self.run_script(*arguments)
            self.assertEqual((code, table), (2, {}), said)
            self.assertIn(message, said)
        code, table, said = self.run_script(place=self.work)
        self.assertEqual((code, table), (2, {}), said)
        self.assertIn("has neither bin/dekoder nor dekoder", said)


if __name__ == "__main__":
    unittest.main(verbosity=2)
