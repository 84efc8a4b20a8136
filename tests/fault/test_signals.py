# SPDX-License-Identifier: Apache-2.0
"""Signals and readers that go away. The README's table of signals is true, row by row, for the real program: every test
below that names a row sends each of its signals."""

import os
import pathlib
import pty
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import dekoder_runs as dk  # noqa: E402

ENVIRONMENT = dict(os.environ, OMP_NUM_THREADS="1")
for sanitizer in {"ASAN_OPTIONS", "TSAN_OPTIONS"} & set(os.environ):  # what sanitizers handle is theirs, not the program's
    ENVIRONMENT[sanitizer] += ":handle_segv=0:handle_sigbus=0:handle_sigfpe=0"
README = pathlib.Path(os.environ["DEKODER_SOURCE_DIR"]) / "README.md"


def table_rows():
    """The rows of the README's table as lists of signals, by the first signal's name."""
    rows = {}
    lines = iter(README.read_text().splitlines())
    while not next(lines).startswith("| signal |"):
        pass
    next(lines)
    for line in lines:
        if not line.startswith("|"):
            return rows
        cell = line.split("|")[1].replace("RTMIN to RTMAX", ", ".join(str(n) for n in range(signal.SIGRTMIN, signal.SIGRTMAX + 1)))
        names = cell.replace(" ", "").strip(",").replace(",,", ",").split(",")
        rows[names[0]] = [int(name) if name.isdigit() else int(getattr(signal, "SIG" + name)) for name in names]
    return rows


ROWS = table_rows()


def name_of(number):
    return signal.Signals(number).name if number < signal.SIGRTMIN else f"real-time signal {number}"


def no_core():
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def start(command, start_with=(), **options):
    """The program in a process group of its own, as a shell starts it: suspending works there."""
    return subprocess.Popen([*start_with, dk.PROGRAM, *command], stdin=subprocess.DEVNULL,
                            **{"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": ENVIRONMENT,
                               "process_group": 0, "preexec_fn": no_core, **options})


class Training:
    """A `train` without an end, of which the first steps are done."""

    def __init__(self, shop, run, start_with=(), **options):
        self.run = run
        self.process = start(["train", shop.config(10**9, 10**9), "--run", run], start_with, **options)
        self.wait_for_steps()

    def wait_for_steps(self):
        """Until lines have come to metrics.jsonl after this call."""
        log = self.run / "metrics.jsonl"
        size = lambda: log.stat().st_size if log.exists() else 0
        before, end = size(), time.monotonic() + 60
        while size() <= before:
            dk.check(self.process.poll() is None, f"train ended with {self.process.returncode}")
            dk.check(time.monotonic() < end, "train makes no steps")
            time.sleep(0.005)

    def end(self, number):
        self.process.send_signal(number)
        return self.process.wait(timeout=60)

    def state(self):
        return pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def the_table_is_whole():
    every = sorted(number for row in ROWS.values() for number in row)
    expected = sorted(int(number) for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
    dk.check(every == expected, f"the README's table has {every}, expected each of {expected} once")
    dk.check(list(ROWS) == ["TERM", "HUP", "XFSZ", "PIPE", "QUIT", "TSTP", "CHLD"], f"rows {list(ROWS)} have no tests")


def train_saves(shop, root):
    """Also where it was started with the signals blocked, as by some launchers."""
    blocked = ROWS["TERM"]
    for number in ROWS["TERM"] + ROWS["HUP"]:
        run = root / f"saves-{number}"
        process = Training(shop, run, preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, blocked))
        code = process.end(number)
        dk.check(code == 85, f"train: exit code {code} after {name_of(number)}, expected 85")
        status = dk.status(run)
        dk.check(status["state"] == "resumable" and status["saved_step"] in dk.checkpoints(run), f"status {status}")
    print("train saves: passed")


def cpu_time_is_up(shop, root):
    """`ulimit -t 1`: the system itself sends XCPU, once a second."""
    code = start(["train", shop.config(10**9, 10**9), "--run", root / "cpu"],
                 preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (1, 60))).wait(timeout=120)
    dk.check(code == 85, f"train: exit code {code} after its CPU time, expected 85")
    print("train saves when its CPU time is up: passed")


def nohup(shop, root):
    training = Training(shop, root / "nohup", ["nohup"])
    training.process.send_signal(signal.SIGHUP)
    training.wait_for_steps()
    dk.check(training.end(signal.SIGTERM) == 85, "train under nohup")
    bench = start(["bench", shop.config(20, 20), "--steps", "1000000000"], ["nohup"])
    time.sleep(1)
    bench.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    dk.check(bench.poll() is None, f"bench under nohup ended with {bench.returncode} after SIGHUP")
    bench.kill()
    bench.wait()
    print("nohup keeps train and bench alive: passed")


def early_signals(shop, root):
    """From the first moment in which a program can keep a signal waiting, train saves."""
    for number in ROWS["TERM"] + ROWS["HUP"]:
        for milliseconds in (0, 30, 90):
            run = root / f"early-{number}-{milliseconds}"
            process = start(["train", shop.config(10**9, 10**9), "--run", run])
            hangup_waits = lambda: any(int(mask, 16) >> (signal.SIGHUP - 1) & 1 for mask in re.findall(
                r"Sig(?:Blk|Cgt):\s*(\w+)", pathlib.Path(f"/proc/{process.pid}/status").read_text()))
            while not hangup_waits():
                dk.check(process.poll() is None, f"train ended with {process.returncode}")
            time.sleep(milliseconds / 1000)
            process.send_signal(number)
            code = process.wait(timeout=60)
            dk.check(code == 85, f"train: exit code {code} after {name_of(number)} at {milliseconds} ms, expected 85")
            dk.check(dk.status(run)["saved_step"] in dk.checkpoints(run), f"status {dk.status(run)}")
    print("train saves after early signals: passed")


def early_hangup(shop):
    """One that comes while libraries are loaded is not lost, nor taken by them."""
    for milliseconds in range(0, 24, 4):
        process = start(["bench", shop.config(20, 20), "--steps", "1000000000"])
        time.sleep(milliseconds / 1000)
        process.send_signal(signal.SIGHUP)
        code = process.wait(timeout=20)
        dk.check(code == -signal.SIGHUP, f"bench: exit code {code} after SIGHUP at {milliseconds} ms")
    print("an early hangup ends bench: passed")


def closed_streams(shop, root):
    """No file of the run takes the place of a closed stream."""
    for closed in ((1, 2), (0, 2), (0, 1, 2)):
        run = root / ("closed-" + "".join(map(str, closed)))
        def close():
            for stream in closed:
                os.close(stream)
        process = subprocess.Popen([dk.PROGRAM, "train", shop.config(20, 10), "--run", run], env=ENVIRONMENT, preexec_fn=close)
        process.wait(timeout=60)
        for log in ("metrics.jsonl", "samples.jsonl"):
            if (run / log).exists():
                dk.check("dekoder" not in (run / log).read_text(), f"log lines in {log} with {closed} closed")
        dk.check(len((run / "metrics.jsonl").read_text().splitlines()) >= 20, "rows are missing")
    print("closed standard streams: passed")


def compare_inherits(root):
    """`dekoder compare` becomes another program: that one is not started with what UCX or dekoder did to SIGHUP."""
    program = root / "bin/dekoder-compare"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\nexec grep -E '^Sig(Blk|Ign)' /proc/self/status\n")
    program.chmod(0o755)
    for start_with, ignored in (((), 0), (("nohup",), 1)):
        printed = start(["compare", "a", "b"], start_with, stdout=subprocess.PIPE,
                        env=dict(ENVIRONMENT, PATH=f"{program.parent}:{os.environ['PATH']}")).communicate(timeout=60)[0].decode()
        block, ignore = (int(re.search(rf"Sig{what}:\s*(\w+)", printed).group(1), 16) for what in ("Blk", "Ign"))
        dk.check(not block & 1 and ignore & 1 == ignored, f"compare is started with {printed}")
    print("compare inherits the signals: passed")


def second_interrupt(shop, root):
    """While the first waits for a step that does not end. One that is passed on by a container's runtime as well comes twice in a moment."""
    run = root / "second"
    process = start(["train", shop.config(10**9, 10**9), "--run", run, "--set", "model.channels=1024", "--set",
                     "model.layers=4", "--set", "training.batch=1024", "--set", "training.micro_batch=256",
                     "--set", "evaluation.every=0", "--set", "sampling.every=0"])
    dk.wait_until((run / "status").exists, "a status", process=None)
    process.send_signal(signal.SIGINT)
    time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    dk.check(process.poll() is None, f"the step ended before the second interrupt: {process.returncode}")
    process.send_signal(signal.SIGINT)
    code = process.wait(timeout=20)
    dk.check(code == 130, f"exit code {code} after two interrupts, expected 130")
    print("a second interrupt ends at once: passed")


def train_goes_on(shop, root):
    training = Training(shop, root / "goes-on")
    for number in ROWS["XFSZ"] + ROWS["PIPE"] + ROWS["CHLD"]:
        training.process.send_signal(number)
        training.wait_for_steps()
    for number in ROWS["TSTP"]:
        training.process.send_signal(number)
        end = time.monotonic() + 30
        while training.state() != "T":
            dk.check(time.monotonic() < end, f"{name_of(number)} does not suspend train")
            time.sleep(0.01)
        training.process.send_signal(signal.SIGCONT)
        training.wait_for_steps()
    dk.check(training.end(signal.SIGTERM) == 85, "train ends in order after all that")
    print("train goes on: passed")


def train_dies(shop, root):
    run = root / "dies"
    dk.check(Training(shop, run).end(signal.SIGTERM) == 85, "a first checkpoint")
    saved = dk.status(run)["saved_step"]
    # Of the 31 real-time signals the first, one in the middle and the last.
    numbers = [number for number in ROWS["QUIT"]
               if number < signal.SIGRTMIN or number in (signal.SIGRTMIN, 50, signal.SIGRTMAX)]
    for number in numbers:
        process = start(["train", shop.config(10**9, 10**9), "--run", run], stderr=subprocess.PIPE)
        while b"going on from" not in (line := process.stderr.readline()):
            dk.check(line, "train does not go on")
        process.send_signal(number)
        said = process.stderr.read().decode()
        code = process.wait(timeout=60)
        dk.check(code == -number, f"train: {code} after {name_of(number)}, expected {-number}")
        dk.check("backtrace" not in said and "Caught signal" not in said, f"a library speaks up: {said}")
        dk.check(dk.status(run)["saved_step"] == saved, "the last checkpoint does not stand")
    print("train dies of other signals: passed")


def file_size_limit(shop, root):
    """`ulimit -f`: one message and exit code 3 for every command that writes; nothing half-written is left."""
    if "TSAN_OPTIONS" in os.environ:
        return print("a file size limit: left out, as ThreadSanitizer maps a file of its own, which the limit cuts")
    dk.check(start(["train", shop.config(20, 20), "--run", root / "sized"]).wait(timeout=60) == 0, "a run to write of")
    text = root / "sized.txt"
    text.write_text("It is a truth universally acknowledged. " * 500)
    commands = [(["train", shop.config(20, 20), "--run", root / "limited"], root / "limited/checkpoints"),
                (["prepare", text, "-o", root / "out/limited.h5"], root / "out"),
                (["attention", root / "sized", "--text", "alpha beta", "-o", root / "out/limited.h5"], root / "out")]
    (root / "out").mkdir()
    for command, folder in commands:
        process = start(command, stderr=subprocess.PIPE,
                        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)))
        said = process.stderr.read().decode()
        code = process.wait(timeout=60)
        errors = [line for line in said.splitlines() if "error" in line]
        dk.check(code == 3 and len(errors) == 1 and "File too large" in errors[0], f"{command[0]}: exit code {code}: {said}")
        dk.check(not list(folder.iterdir()), f"{command[0]} leaves {list(folder.iterdir())}")
    for command in (["generate", root / "sized", "--prompt", "a", "--tokens", "9000"], ["describe", shop.config(20, 20)]):
        with open(root / "out/stdout", "w") as stdout:
            process = start(command, stdout=stdout, stderr=subprocess.PIPE,
                            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)))
            said = process.stderr.read().decode()
            code = process.wait(timeout=60)
        dk.check(code == 3 and "standard output cannot be written: File too large" in said, f"{command[0]}: {code}: {said}")
    print("a file size limit is reported: passed")


def other_commands_die(shop):
    """Of the first signal, within seconds, though bench alone would go on for minutes."""
    text = shop.folder / "long.txt"
    text.write_bytes(b"0123456789abcdef" * (16 << 20))
    bench = ["bench", shop.config(20, 20), "--steps", "1000000000"]
    for command, numbers in ((bench, ROWS["TERM"] + ROWS["HUP"] + ROWS["PIPE"] + ROWS["QUIT"][:1]),
                             (["prepare", text, "-o", shop.folder / "long.h5"], [signal.SIGTERM, signal.SIGINT])):
        for number in numbers:
            process = start(command)
            time.sleep(1)  # long enough to be at work
            process.send_signal(number)
            try:
                code = process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                code = f"none within 10 s (then {process.wait()})"
            dk.check(code == -number, f"{command[0]}: exit code {code} after {name_of(number)}")
    print("other commands die of a signal: passed")


def train_without_a_reader(workshop, root):
    """`dekoder train ... 2>&1 | head`: every evaluation logs a line that nobody reads any more."""
    for steps, number, expected in ((200, None, 0), (10**6, signal.SIGTERM, 85)):
        run = root / f"unread-{steps}"
        process = subprocess.Popen([dk.PROGRAM, "train", workshop.config(steps, 40), "--run", run],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=ENVIRONMENT)
        dk.check(process.stderr.readline().startswith(b"dekoder: "), "no log line")
        process.stderr.close()
        if number is not None:
            while 80 not in dk.checkpoints(run):
                dk.check(process.poll() is None, f"train ended with {process.poll()} once its log was closed")
                time.sleep(0.01)
            process.send_signal(number)
        code = process.wait(timeout=300)
        dk.check(code == expected, f"train ended with {code} once its log was closed, expected {expected}")
        saved = dk.status(run)["saved_step"]
        dk.check(saved == steps or number is not None and saved in dk.checkpoints(run), f"saved step {saved}")
    print("train goes on without a reader of its log: passed")


def generate_without_a_reader(workshop, root):
    """`dekoder generate ... | head`: ends, as programs that write to a pipe do."""
    process = subprocess.Popen([dk.PROGRAM, "generate", root / "unread-200", "--prompt", "a", "--tokens", "100000000"],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    process.stdout.read(10)
    process.stdout.close()
    code = process.wait(timeout=60)
    dk.check(code == -signal.SIGPIPE, f"generate ended with {code} once its text was not read")
    print("generate ends without a reader: passed")


def generate_stops_in_order(root):
    """The text ends with a line break, and the exit code is that of a finished command."""
    for number in ROWS["TERM"] + ROWS["HUP"]:
        process = start(["generate", root / "unread-200", "--prompt", "a", "--tokens", "100000000"], stdout=subprocess.PIPE)
        process.stdout.read(10)
        process.send_signal(number)
        text = process.stdout.read()
        code = process.wait(timeout=60)
        dk.check(code == 0 and text.endswith(b"\n"), f"generate: {code} and {text[-20:]} after {name_of(number)}")
    print("generate stops in order: passed")


def eval_stops_in_order(shop, root):
    """A held-out part of 7 million tokens: it would take minutes."""
    text = root / "held-out.txt"
    text.write_text("alpha beta gamma delta epsilon zeta " * 250000)
    tokens = root / "held-out.h5"
    subprocess.run([dk.PROGRAM, "prepare", text, "-o", tokens, "--validation-fraction", "0.8"], check=True,
                   stdout=subprocess.DEVNULL)
    for number in ROWS["TERM"] + ROWS["HUP"]:
        process = start(["eval", root / "unread-200", "--tokens-file", tokens], stdout=subprocess.PIPE)
        dk.wait_until(lambda: catches(process.pid, number), "a handler", None)
        process.send_signal(number)
        printed = process.stdout.read()
        code = process.wait(timeout=60)
        dk.check(code == 85 and printed == b"", f"eval: {code} and {printed} after {name_of(number)}")
    print("eval stops in order: passed")


def catches(pid, number):
    """With a handler, and not blocked."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    caught, blocked = (int(re.search(rf"Sig{what}:\s*(\w+)", status).group(1), 16) for what in ("Cgt", "Blk"))
    return caught & ~blocked & 1 << (number - 1)


def error_after_progress(workshop, root):
    """On a terminal an error takes the place of the live progress line instead of following its last word."""
    run = root / "terminal"
    terminal, stderr = pty.openpty()
    process = subprocess.Popen([dk.PROGRAM, "train", workshop.config(10**6, 40), "--run", run],
                               stdout=subprocess.DEVNULL, stderr=stderr, env=ENVIRONMENT)
    os.close(stderr)
    said = b""
    while said.count(b" to go") < 3:
        dk.check(process.poll() is None, f"train ended with {process.poll()}: {said}")
        said += os.read(terminal, 4096)
    (run / "checkpoints").rename(root / "away")  # the save that the signal asks for fails
    (run / "checkpoints").write_text("")
    process.send_signal(signal.SIGTERM)
    while True:
        try:
            said += os.read(terminal, 4096)
        except OSError:  # EIO: the program has ended
            break
    code = process.wait(timeout=60)
    os.close(terminal)
    dk.check(code == 3, f"exit code {code}, expected 3; it said {said[-500:]}")
    dk.check(re.search(rb"(^|\r|\n)(\x1b\[K)?dekoder: error: ", said), f"the error follows other text: {said[-500:]}")
    print("an error takes the place of the live line: passed")


with tempfile.TemporaryDirectory(prefix="dekoder-signals-") as place:
    folder = pathlib.Path(place)
    workshop = dk.Workshop(folder)
    the_table_is_whole()
    train_saves(workshop, folder)
    cpu_time_is_up(workshop, folder)
    nohup(workshop, folder)
    early_signals(workshop, folder)
    early_hangup(workshop)
    closed_streams(workshop, folder)
    compare_inherits(folder)
    second_interrupt(workshop, folder)
    train_goes_on(workshop, folder)
    train_dies(workshop, folder)
    file_size_limit(workshop, folder)
    other_commands_die(workshop)
    train_without_a_reader(workshop, folder)
    generate_without_a_reader(workshop, folder)
    generate_stops_in_order(folder)
    eval_stops_in_order(workshop, folder)
    error_after_progress(workshop, folder)
