# SPDX-License-Identifier: Apache-2.0
"""The commands as processes of their own: without a home, without permission, without packages, with names and contents
of any kind; whatever goes wrong is one line and an exit code."""
import contextlib
import io
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from dekoder_postprocess import compare, errors, report, watch  # noqa: E402
from dekoder_postprocess.files import OutputFile, check_folder  # noqa: E402
from dekoder_postprocess.runs import command as runs_command  # noqa: E402
from synthetic_run import write_checkpoint, write_run  # noqa: E402

BIN = Path(__file__).resolve().parents[1] / "bin"
NOBODY = 54321  # a user that no list of users has
COMMANDS = ("report", "compare", "watch", "runs", "figures", "tensorboard")
TRACKERS = ("mlflow", "wandb")  # whose packages the toolbox does not have


def words_for(name, run, out):
    """The command line of a command that reads `run` and writes below `out`."""
    return [sys.executable, "-B", str(BIN / f"dekoder-{name}"), os.fspath(run),
            *(["--format", "png"] if name == "figures" else []),
            *([os.fspath(run)] if name in ("compare", "watch", "runs") else ["-o", os.fspath(Path(out) / name)])]


class Processes(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)
        self.folder.chmod(0o777)
        self.run_folder = write_run(self.folder / "run", layers=1, heads=1, captured=(40,), texts=("ab",)).path

    def start(self, name, run=None, anyone=False, out=None, **environment):
        """Runs the command; anyone: as a user without rights, where this is a privileged one."""
        other = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if anyone and os.geteuid() == 0 else {}
        return subprocess.run(words_for(name, run or self.run_folder, out or self.folder), capture_output=True, text=True,
                              errors="surrogateescape", env={**os.environ, "PYTHONPATH": "", **environment}, **other)

    def anyone_can_start(self):
        """Whether a user without rights gets at this checkout."""
        if os.geteuid() != 0:
            return True
        look = subprocess.run([sys.executable, "-c", f"open({str(BIN / 'dekoder-report')!r})"], user=NOBODY,
                              capture_output=True)
        return look.returncode == 0

    def test_a_run_without_a_name(self):
        """It would be the current folder, silently."""
        for name in (*COMMANDS, *TRACKERS):
            done = subprocess.run(words_for(name, "", self.folder), capture_output=True, text=True, cwd=self.run_folder)
            self.assertEqual(done.returncode, 2, (name, done.stderr))
            self.assertIn("an empty name; expected a file or folder", done.stderr)

    def test_without_a_home(self):
        """Also of a user whom no list of users knows; nothing is left in the folder of temporary files."""
        temporary = self.folder / "tmp"
        temporary.mkdir()
        temporary.chmod(0o777)
        for home in ({"HOME": "/nowhere"}, {"HOME": None}):
            environment = {key: value for key, value in {**os.environ, "TMPDIR": str(temporary), **home}.items()
                           if value is not None and key not in ("MPLCONFIGDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME")}
            with mock.patch.dict(os.environ, environment, clear=True):
                for name in ("figures", "tensorboard"):
                    shutil.rmtree(self.folder / name, ignore_errors=True)
                    done = self.start(name, anyone=self.anyone_can_start())
                    self.assertEqual((done.returncode, done.stderr), (0, ""), (home, name))
        self.assertEqual(list(temporary.iterdir()), [])

    def test_what_may_not_be_read_is_not_missing(self):
        if not self.anyone_can_start():
            self.skipTest("a user without rights cannot read this checkout")
        (self.run_folder / "samples.txt").write_text("=== step 3\nolder\n\n")
        (self.run_folder / "checkpoints").mkdir()
        write_checkpoint(self.run_folder / "checkpoints", 40)
        names = ["config.yaml", "metrics.jsonl", "samples.jsonl", "samples.txt", "status", "attention",
                 "attention/step-00000040.h5"]
        for command, files in (("compare", [*names, "checkpoints", "checkpoints/ckpt-00000040.h5", "."]), ("report", names),
                               ("watch", ["metrics.jsonl", "status", "."])):
            for name in files:
                path = self.run_folder / name
                mode = path.stat().st_mode
                path.chmod(0)
                done = self.start(command, anyone=True)
                path.chmod(mode)
                self.assertEqual((done.returncode, done.stderr.count("\n")), (3, 1), (command, name, done.stderr))
                self.assertIn("Permission denied", done.stderr)
                self.assertIn(str(path), done.stderr)
                self.assertNotRegex(done.stderr, "no such|has no|delete|damaged", name)

    def test_without_a_package(self):
        code = ("import sys; sys.path.insert(0, {!r}); sys.modules['h5py'] = None\n"
                "from dekoder_postprocess.commands import {}; sys.exit({}())")
        for name in (*COMMANDS, *TRACKERS):
            program = code.format(str(BIN.parent), name, name)
            done = subprocess.run([sys.executable, "-B", "-c", program, "run"], capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stderr.count("\n")), (2, 1), done.stderr)
            self.assertRegex(done.stderr, f"^dekoder-{name}: needs the Python package h5py; run it in the toolbox")

    def test_names_that_are_no_text(self):
        odd = Path(os.fsdecode(os.fsencode(self.folder) + b"/r\xff \xc3\x28"))
        self.run_folder.rename(odd)
        out = Path(os.fsdecode(os.fsencode(self.folder) + b"/o\xfe"))
        out.mkdir()
        for name in COMMANDS:
            for language in ("C", "C.UTF-8"):
                if name == "tensorboard":
                    done = self.start(name, odd, out=out, LC_ALL=language)
                    self.assertEqual((done.returncode, done.stderr.count("\n")), (3, 1), done.stderr)
                    self.assertIn("is no UTF-8, as TensorBoard wants", done.stderr)
                done = self.start(name, odd, out=self.folder if name == "tensorboard" else out, LC_ALL=language)
                self.assertEqual((done.returncode, done.stderr), (0, ""), name)
        self.assertTrue((out / "report").read_text().startswith("<!DOCTYPE html>"))
        done = self.start("report", out / "nothing\udcff")
        self.assertEqual((done.returncode, done.stderr.count("\n")), (3, 1))

    def test_an_interrupt_at_any_time_leaves_no_trace(self):
        """While this or that module is loaded, the first of them before anybody watches."""
        code = ("import builtins, os, signal, sys\n"
                "load, target = builtins.__import__, sys.argv[1]\n"
                "def interrupted(name, *more):\n"
                "    if name == target:\n"
                "        os.kill(os.getpid(), signal.SIGINT)\n"
                "    return load(name, *more)\n"
                "builtins.__import__, sys.argv = interrupted, sys.argv[2:]\n"
                "exec(open(sys.argv[0]).read(), {'__name__': '__main__', '__file__': sys.argv[0]})\n")
        for name in ("report", "runs", "sweep"):
            words = words_for("runs" if name == "sweep" else name, self.run_folder, self.folder)[2:]
            words = [sys.executable, "-B", "-c", code, "MODULE", str(BIN / f"dekoder-{name}"), *words[1:]]
            for module in ("importlib", "errors", "traceback", "argparse", "numpy"):
                done = subprocess.run([module if word == "MODULE" else word for word in words], capture_output=True, text=True)
                expected = (130, f"dekoder-{name}: interrupted\n") if module in ("argparse", "numpy") else (-signal.SIGINT, "")
                self.assertEqual((done.returncode, done.stderr), expected, (name, module))

    def test_output_that_cannot_take_it(self):
        """A closed and a full standard output."""
        words = words_for("compare", self.run_folder, self.folder)
        self.assertEqual(subprocess.run(["bash", "-c", '"$@" >&-', "-", *words], capture_output=True).returncode, 0)
        if Path("/dev/full").exists():
            with open("/dev/full", "w") as full:
                done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
            self.assertEqual((done.returncode, done.stderr.count("\n")), (3, 1), done.stderr)
            self.assertIn("No space left on device", done.stderr)


class OnePlace(unittest.TestCase):
    """run_command."""

    def ended(self, error):
        def body():
            raise error

        with mock.patch("sys.stderr", io.StringIO()) as said:
            return errors.run_command("dekoder-x", body), said.getvalue()

    def test_codes_and_lines(self):
        for error, code, words in ((errors.RunError("a:\n  b"), 3, "dekoder-x: a: b\n"),
                                   (MemoryError(), 3, "out of memory"), (KeyboardInterrupt(), 130, "dekoder-x: interrupted\n"),
                                   (OSError(28, "No space left on device", "file"), 3, "file: No space left on device"),
                                   (OSError(5, "Input/output error"), 3, "standard output"),
                                   (ModuleNotFoundError("no", name="numpy"), 2, "packages (pip install ./postprocess)"),
                                   (ModuleNotFoundError("no", name="sklearn.ensemble"), 2, '(pip install "./postprocess[importance]")'),
                                   (ModuleNotFoundError("no", name="optuna"), 2, '(pip install "./postprocess[sweep]")'),
                                   (ZeroDivisionError("by\nzero"), 1, "internal error (please report it): "
                                                                      "ZeroDivisionError: by zero (test_commands.py:")):
            got, said = self.ended(error)
            self.assertEqual((got, said.count("\n")), (code, int(bool(words))), said)
            self.assertIn(words, said)

    def test_what_others_make_of_an_interrupt(self):
        self.addCleanup(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT))

        def body():
            errors.catch_interrupts()
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except:  # noqa: E722  (as in Debian's h5py)
                raise ImportError("partially loaded")

        for catches in (errors.catch_interrupts, lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)):
            catches()
            with mock.patch.object(errors, "_interrupted", False), mock.patch("sys.stderr", io.StringIO()) as said:
                self.assertEqual((errors.run_command("dekoder-x", body), said.getvalue()), (130, "dekoder-x: interrupted\n"))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        errors.catch_interrupts()
        self.assertEqual(signal.getsignal(signal.SIGINT), signal.SIG_IGN)

    def test_trace_on_demand(self):
        with mock.patch.dict(os.environ, {"DEKODER_TRACEBACK": "1"}):
            self.assertIn("Traceback", self.ended(ZeroDivisionError())[1])
        self.assertNotIn("Traceback", self.ended(ZeroDivisionError())[1])


class Outputs(unittest.TestCase):
    def setUp(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        self.folder = Path(scratch.name)

    def test_refused_before_the_work(self):
        """A bad -o is seen before a run is read: this one is none, and nobody looks at it."""
        (self.folder / "file").write_text("mine")
        for name in ("report", "figures", "tensorboard"):
            for out in ("file/x", "n" * 300):
                words = [*words_for(name, self.folder / "nowhere", self.folder)[:-1], str(self.folder / out)]
                done = subprocess.run(words, capture_output=True, text=True)
                self.assertEqual((done.returncode, done.stderr.count("\n")), (3, 1), done.stderr)
                self.assertIn("-o", done.stderr)
                self.assertNotIn("nowhere", done.stderr)
        self.assertEqual([path.name for path in self.folder.iterdir()], ["file"])

    def test_a_failed_work_leaves_nothing(self):
        target = self.folder / "page"
        target.write_text("old")
        with self.assertRaises(ZeroDivisionError), OutputFile(target):
            self.assertEqual(target.read_text(), "old")
            raise ZeroDivisionError
        self.assertEqual((target.read_text(), len(list(self.folder.iterdir()))), ("old", 1))
        with OutputFile(target) as output:
            output.write(b"new")
        self.assertEqual((target.read_text(), len(list(self.folder.iterdir()))), ("new", 1))

    def test_check_folder_makes_nothing(self):
        check_folder(self.folder / "a/b/c")
        check_folder(self.folder)
        self.assertEqual(list(self.folder.iterdir()), [])
        (self.folder / "file").write_text("")
        for path in ("file", "file/a/b", "n" * 300):
            with self.assertRaises(errors.RunError):
                check_folder(self.folder / path)


class OddContents(unittest.TestCase):
    """Files of a run with bytes, values and structure changed at random: read, or refused with one line."""

    VALUES = [b"null", b"NaN", b"-Infinity", b"1e999", b"-1", b"0", b"9223372036854775807", b"9223372036854775808",
              b"1e308", b"-1e308", b"5e-324", b"true", b'"x"', b"[]", b"{}", b"[[[[", b"\xff", b"\x00", b"\r",
              b"\xe2\x80\xa8", b'"\\ud800"', b"1" + b"0" * 400, b"\xef\xbb\xbf", b"~", b"&a", b"*a", b"<<", b"? ", b"yes",
              b"2020-01-01", b".nan", b"'", b"%", b"</script>"]

    def mutate(self, random_, path):
        data = bytearray(path.read_bytes())
        kind = random_.random()
        if path.suffix == ".h5" or kind < 0.35:
            for _ in range(random_.choice((1, 3, 30)) if data else 0):
                data[random_.randrange(len(data))] = random_.randrange(256)
        elif kind < 0.5:
            data = data[:random_.randrange(len(data) + 1)]
        else:
            for _ in range(random_.choice((1, 2, 5))):
                spots = [found.span() for found in re.finditer(rb'-?\d[\d.e+-]*|"[^"]*"|\[[^\]]*\]|\w+', bytes(data))]
                if spots:
                    begin, end = random_.choice(spots)
                    data[begin:end] = random_.choice(self.VALUES)
        path.write_bytes(data)

    def test_no_trace(self):
        scratch = tempfile.TemporaryDirectory()
        self.addCleanup(scratch.cleanup)
        root = Path(scratch.name)
        whole = write_run(root / "whole", layers=2, heads=2, steps=12, captured=(0, 12), restarts=(5,), phases=True,
                          changes={5: {"training.steps": ["9", "12"]}}, texts=("ab a",)).path
        (whole / "samples.txt").write_text("=== step 3\nolder\n\n")
        (whole / "checkpoints").mkdir()
        write_checkpoint(whole / "checkpoints", 12)
        mains = {"report": lambda run: report.main([str(run), str(whole), "-o", str(root / "page.html")]),
                 "compare": lambda run: compare.main([str(run), str(whole), "--json"]),
                 "watch": lambda run: watch.main([str(run), str(whole)]),
                 "runs": lambda run: runs_command.main([str(run), str(whole), "--json"])}
        program = mock.patch.dict(os.environ, {"DEKODER_PROGRAM": "/nowhere/dekoder"})
        program.start()
        self.addCleanup(program.stop)
        codes = set()
        for seed in range(100):
            random_, run = random.Random(seed), root / "run"
            shutil.rmtree(run, ignore_errors=True)
            shutil.copytree(whole, run)
            self.mutate(random_, random_.choice(sorted(path for path in run.rglob("*") if path.is_file())))
            for name, main in mains.items():
                with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
                    code = main(run)
                lines = [line for line in said.getvalue().splitlines()  # of files that are not used
                         if not line.startswith("warning: checkpoint") and not line.endswith("; left out")]
                self.assertEqual(len(lines), {0: 0, 3: 1}.get(code), f"{name}, seed {seed}: {code} {said.getvalue()}")
                codes.add(code)
        self.assertEqual(codes, {0, 3})


if __name__ == "__main__":
    unittest.main()
