# SPDX-License-Identifier: Apache-2.0
"""`dekoder prepare` under SIGKILL and SIGTERM, a full disk, little memory and unusable folders: a whole token file or none."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import numpy

PROGRAM = os.environ.get("DEKODER_PROGRAM") or os.path.join(os.environ["DEKODER_BINARY_DIR"], "dekoder")
failures = []


def check(condition, message):
    print(("ok    " if condition else "WRONG ") + message, flush=True)
    if not condition:
        failures.append(message)


def command(text, output, tokenizer="byte"):
    return [PROGRAM, "prepare", str(text), "-o", str(output), "--tokenizer", tokenizer]


def prepare(text, output, tokenizer="byte", **options):
    return subprocess.run(command(text, output, tokenizer), capture_output=True, text=True, timeout=120, **options)


def hidden_files(folder):
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("."))


def test_content(folder):
    text = "Käse, 1 € — 😀\n" * 5000
    (folder / "a.txt").write_text(text, encoding="utf-8")
    result = prepare(folder / "a.txt", folder / "a.h5", "char")
    check(result.returncode == 0, f"prepare makes a token file {result.stderr}")
    with h5py.File(folder / "a.h5") as file:
        vocabulary = [chr(int(name[2:], 16)) for name in file.attrs["tokenizer"].decode().split()[1:]]
        tokens = file["tokens"][:]
        check(tokens.dtype == numpy.uint16, "h5py reads tokens as uint16")
        check(vocabulary == sorted(set(text)), "the vocabulary is sorted by code point")
        check("".join(vocabulary[token] for token in tokens) == text, "h5py gives the text back")
        held_out = "".join(vocabulary[token] for token in tokens[file.attrs["training_tokens"]:])
        check(file.attrs["validation_bytes"] == len(held_out.encode()), "validation bytes are those of the held-out text")


def test_kill(folder):
    """SIGKILL and SIGTERM at random moments: the output is missing, or whole; leftovers go away with the next call."""
    random.seed(1)
    (folder / "big.txt").write_bytes(random.randbytes(1 << 20) * 40)
    begin = time.monotonic()
    check(prepare(folder / "big.txt", folder / "whole.h5").returncode == 0, "undisturbed call")
    duration = time.monotonic() - begin
    killed, seen_temporary = {signal.SIGKILL: 0, signal.SIGTERM: 0}, False
    for attempt in range(25):
        output = folder / "killed.h5"
        output.unlink(missing_ok=True)
        process = subprocess.Popen(command(folder / "big.txt", output), stdout=subprocess.DEVNULL,
                                   stderr=subprocess.DEVNULL)
        time.sleep(duration * random.uniform(0.1, 1.0))
        number = random.choice(list(killed))
        process.send_signal(number)
        code = process.wait()
        if code != 0:  # it had not ended before the signal came
            check(code == -number, f"attempt {attempt}: exit code {code} after {number.name}")
            killed[number] += 1
        seen_temporary = seen_temporary or bool(hidden_files(folder))
        if output.exists():
            with h5py.File(output) as file:
                check(file["tokens"].shape == (40 << 20,), f"attempt {attempt}: what is there is whole")
    for number, count in killed.items():
        check(count >= 4, f"{count} of 25 calls were killed by {number.name}")
    check(seen_temporary, "some were killed while they wrote")
    check(prepare(folder / "big.txt", folder / "killed.h5").returncode == 0, "a later call succeeds")
    check(hidden_files(folder) == [], f"and removes what killed ones left: {hidden_files(folder)}")


def peak_memory(text, output):
    """Peak resident memory of a call in bytes, as the kernel last showed it while the call ran."""
    process = subprocess.Popen(command(text, output, "char"), stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        peak = max([peak] + [int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM")])
        time.sleep(0.001)
    check(process.wait() == 0, f"{text.name} is prepared")
    return peak


def test_little_memory(folder):
    """A text of 200 MiB needs hardly more memory than one of 16 MiB."""
    (folder / "small.txt").write_bytes(b"0123456789abcdef" * (1 << 20))
    with open(folder / "large.txt", "wb") as file:
        for _ in range(200):
            file.write(b"0123456789abcdef" * (1 << 16))
    extra = peak_memory(folder / "large.txt", folder / "large.h5") - peak_memory(folder / "small.txt", folder / "small.h5")
    check(extra < 32 << 20, f"200 MiB of text take {extra / (1 << 20):.1f} MiB more than 16 MiB")


def test_full_disk(folder):
    """A file size limit, and a tmpfs of 1 MiB in a mount namespace of its own where one can be made."""
    (folder / "medium.txt").write_bytes(random.randbytes(4 << 20))

    def limit_file_size():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    result = prepare(folder / "medium.txt", folder / "out.h5", preexec_fn=limit_file_size)
    check(result.returncode == 3 and "File too large" in result.stderr,
          f"file size limit: exit {result.returncode}, {result.stderr.strip()[-300:]}")
    check(not (folder / "out.h5").exists() and hidden_files(folder) == [], "nothing is left")

    small = folder / "small"
    small.mkdir()
    shared = " shared:" in Path("/proc/self/mountinfo").read_text()
    unshare = ["unshare", "--mount", "--propagation", "private" if shared else "unchanged"]
    if os.getuid() != 0:
        unshare.append("--map-root-user")
    script = (f"mount -t tmpfs -o size=1m none '{small}' || exit 99; "
              f"'{PROGRAM}' prepare '{folder}/medium.txt' -o '{small}/out.h5' --tokenizer byte; code=$?; "
              f"echo \"left: $(ls -A '{small}')\" >&2; exit $code")
    result = subprocess.run(unshare + ["bash", "-c", script], capture_output=True, text=True, timeout=120)
    if result.returncode == 99 or "unshare:" in result.stderr:
        print(f"skip  tmpfs: {result.stderr.strip()}")
        return
    check(result.returncode == 3, f"full disk: exit code {result.returncode}, expected 3")
    check("No space left on device" in result.stderr, f"full disk is named: {result.stderr.strip()[-300:]}")
    check(result.stderr.rstrip().endswith("left:"), "nothing is left on the full disk")


def test_unusable(folder):
    (folder / "t.txt").write_text("some text " * 20)
    cases = [
        ("none.txt", "o.h5", "byte", 3, "no such text file"),
        ("t.txt", "none/o.h5", "byte", 3, "does not exist; make it first"),
        ("t.txt", "t.txt", "byte", 2, "is the text itself"),
        (".", "o.h5", "byte", 3, "is a folder"),
    ]
    (folder / "latin1.txt").write_bytes("naïve".encode("latin-1"))
    cases.append(("latin1.txt", "o.h5", "char", 3, "byte 0xEF at offset 2 is not UTF-8"))
    (folder / "empty.txt").write_text("")
    cases.append(("empty.txt", "o.h5", "char", 3, "is empty"))
    for text, output, tokenizer, code, message in cases:
        result = prepare(folder / text, folder / output, tokenizer)
        check(result.returncode == code and message in result.stderr,
              f"{text} -> {output}: exit {result.returncode}, {result.stderr.strip()[-200:]}")
        check(not (folder / "o.h5").exists(), "no output")
    os.mkfifo(folder / "pipe")
    result = prepare(folder / "pipe", folder / "o.h5")
    check(result.returncode == 3 and "no regular file" in result.stderr, "a pipe is refused")
    check(hidden_files(folder) == [], "no temporary file is left")


if __name__ == "__main__":
    root = Path(tempfile.mkdtemp(prefix="dekoder-token-files-"))
    try:
        for test in (test_content, test_unusable, test_kill, test_little_memory, test_full_disk):
            place = root / test.__name__
            place.mkdir()
            test(place)
    finally:
        shutil.rmtree(root)
    print(f"{len(failures)} failures")
    sys.exit(1 if failures else 0)
