# SPDX-License-Identifier: Apache-2.0
"""`dekoder watch` (dekoder-watch of the post-processing) in a terminal, beside a real run: it is running, is stopped, goes on and
finishes, which ends the watching; its losses are those of the log."""
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import dekoder_runs as dk  # noqa: E402

BIN = pathlib.Path(__file__).resolve().parents[2] / "postprocess/bin"
COMMAND = [dk.PROGRAM, "watch"]
ENVIRONMENT = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "TERM": "xterm-256color", "LC_ALL": "C.UTF-8",
               "PYTHONDONTWRITEBYTECODE": "1"}
FOREVER = 10**6  # steps, until the run is stopped


class Watched:
    """The command in a window of tmux, whose screen is what a user sees."""

    def __init__(self, folder, run):
        self._tmux = ["tmux", "-u", "-S", f"{folder}/tmux", "-f", "/dev/null"]
        self.tmux("new-session", "-d", "-x", "100", "-y", "30", *COMMAND, run, ";", "set-option", "-g", "remain-on-exit", "on")

    def tmux(self, *words):
        done = subprocess.run([*self._tmux, *words], capture_output=True, text=True, env=ENVIRONMENT)
        dk.check(done.returncode == 0, f"tmux {words}: {done.stderr}")
        return done.stdout

    def screen(self):
        return self.tmux("capture-pane", "-p", "-S", "-30")  # with what has scrolled out of it

    def expect(self, words):
        dk.wait_until(lambda: words in self.screen(), f"the screen says {words!r}")


def watch(shop, run, training, watched):
    """Returns the last screen."""
    watched.expect("running")
    dk.check(dk.stop(training) == 85, "the training was not stopped")
    watched.expect("resumable")
    shop.train(run, dk.status(run)["step"] + 200, 40)
    watched.expect("Pane is dead (status 0")
    return watched.screen()


def main():
    with tempfile.TemporaryDirectory() as folder:
        shop = dk.Workshop(folder)
        run = pathlib.Path(folder) / "run"
        training = shop.start(run, FOREVER, 40)
        try:
            dk.wait_until(lambda: (run / "metrics.jsonl").exists() and len(dk.step_lines(run)) > 50, "the first steps", training)
            watched = Watched(folder, run)
            try:
                last = watch(shop, run, training, watched)
            finally:
                watched.tmux("kill-server")
        finally:
            training.kill()  # where it was not stopped
        step, loss = (dk.status(run)[key] for key in ("step", "validation_loss"))
        for words in ("finished", f"step {step:,} / {step:,} (100 %)", f"validation {loss:.4f} at step {step:,}", "1 restart", "\u25b2",
                      "\u2524"):
            dk.check(words in last, f"no {words!r} in\n{last}")
        again = subprocess.run([*COMMAND, run], capture_output=True, text=True, env=ENVIRONMENT)
        dk.check(again.returncode == 0 and "\x1b" not in again.stdout, f"piped: {again}")
        bad = subprocess.run([*COMMAND, pathlib.Path(folder) / "none"], capture_output=True, text=True, env=ENVIRONMENT)
        dk.check(bad.returncode == 3 and "there is no such run directory" in bad.stderr, f"no run: {bad}")
    print("a run, watched: passed")


if __name__ == "__main__":
    main()
