# SPDX-License-Identifier: Apache-2.0
"""Signals and readers that go away: train saves, eval and generate end in order, every other command dies at once."""

import os
import pathlib
import pty
import re
import signal
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import dekoder_runs as dk  # noqa: E402

ENVIRONMENT = dict(os.environ, OMP_NUM_THREADS="1")


def other_commands_die(workshop):
    """Of the first signal, within seconds, though bench alone would go on for minutes."""
    text = workshop.folder / "long.txt"
    text.write_bytes(b"0123456789abcdef" * (16 << 20))
    for command in (["bench", workshop.config(10, 10), "--steps", "1000000000"],
                    ["prepare", text, "-o", workshop.folder / "long.h5"]):
        for number in (signal.SIGTERM, signal.SIGINT):
            process = subprocess.Popen([dk.PROGRAM, *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                       env=ENVIRONMENT)
            time.sleep(1)  # long enough to be at work
            process.send_signal(number)
            try:
                code = process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                code = f"none within 10 s (then {process.wait()})"
            dk.check(code == -number, f"{command[0]}: exit code {code} after {number.name}")
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
    process = subprocess.Popen([dk.PROGRAM, "generate", root / "unread-200", "--prompt", "a", "--tokens", "100000000"],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    process.stdout.read(10)
    process.send_signal(signal.SIGINT)
    text = process.stdout.read()
    code = process.wait(timeout=60)
    dk.check(code == 0 and text.endswith(b"\n"), f"generate ended with {code} and {text[-20:]} after SIGINT")
    print("generate stops in order: passed")


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
    shop = dk.Workshop(folder)
    other_commands_die(shop)
    train_without_a_reader(shop, folder)
    generate_without_a_reader(shop, folder)
    generate_stops_in_order(folder)
    error_after_progress(shop, folder)
