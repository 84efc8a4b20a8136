# SPDX-License-Identifier: Apache-2.0
"""`dekoder prepare` under SIGKILL and SIGTERM, a full disk, little memory and unusable folders: a whole token file or none."""

import os
import random
import resource
import shutil
import signal
import socket
import stat
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
    check(result.returncode == 3 and "File too large; raise the limit on the size of files (ulimit -f)" in result.stderr,
          f"file size limit: exit {result.returncode}, {result.stderr.strip()[-300:]}")
    check(f"{folder / 'out.h5'}:" in result.stderr and ".tmp" not in result.stderr, f"the output is named: {result.stderr}")
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
    check("No space left on device; free some space, or choose another place" in result.stderr, f"full disk is named: {result.stderr.strip()[-300:]}")
    check(f"{small / 'out.h5'}:" in result.stderr and ".tmp" not in result.stderr, f"the output is named: {result.stderr}")
    check(result.stderr.rstrip().endswith("left:"), "nothing is left on the full disk")


def test_links(folder):
    """An output that is a link: the file and its temporary one go where the link leads; the link stays."""
    text = folder / "t.txt"
    text.write_text("some text " * 20)
    for name in ("links", "data"):
        (folder / name).mkdir()
    link, target = folder / "links" / "tokens.h5", folder / "data" / "real.h5"
    link.symlink_to("../data/real.h5")
    (folder / "links").chmod(0o555)  # nothing may be made beside the link
    command = [PROGRAM, "prepare", text, "-o", link, "--tokenizer", "byte"]
    if os.geteuid() == 0:
        command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *command]
    for state in ("dangling", "with a target"):
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        check(result.returncode == 0 and link.is_symlink() and target.is_file(), f"a link, {state}: {result.stderr}")
        text.write_text("other text " * 20)
    (folder / "links").chmod(0o755)
    (folder / "one").symlink_to("two")
    (folder / "two").symlink_to("one")
    result = prepare(text, folder / "one")
    check(result.returncode == 3 and "its symbolic links lead back to themselves" in result.stderr,
          f"links that go round: {result.stderr.strip()}")
    long = "n" * 252 + ".h5"
    check(prepare(text, folder / long[-255:]).returncode == 0, "a name as long as the file system allows")
    result = prepare(text, folder / long[:250] / "x.h5")
    check(result.returncode == 3, f"a missing folder: {result.stderr.strip()[-80:]}")
    result = prepare(text, folder / ("n" * 256))
    check(result.returncode == 3 and "File name too long" in result.stderr,
          f"a longer one: {result.stderr.strip()[-80:]}")
    check(hidden_files(folder) == [] and hidden_files(folder / "data") == [], "no temporary file is left")


def test_unreadable(folder):
    """A token file that may not be read now, or a text: nothing is written in its place."""
    text, output = folder / "t.txt", folder / "o.h5"
    text.write_text("some text " * 20)
    check(prepare(text, output).returncode == 0, "a token file")
    before = output.read_bytes()
    for path in (output, text):
        path.chmod(0)
        command = [PROGRAM, "prepare", text, "-o", output, "--tokenizer", "char"]
        if os.geteuid() == 0:
            command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *command]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
        path.chmod(0o644)
        check(result.returncode == 3 and f"{path.name}: cannot be read: Permission denied" in result.stderr
              and "no usable" not in result.stderr, f"{path.name}: {result.returncode}, {result.stderr.strip()}")
        check(output.read_bytes() == before, "the output is as it was")


def test_outputs_of_another_kind(folder):
    (folder / "t.txt").write_text("some text " * 20)
    os.mkfifo(folder / "pipe")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(folder / "socket"))
    (folder / "place").mkdir()
    for name, kind in (("pipe", "a FIFO"), ("socket", "a socket"), ("/dev/null", "a device"), ("place", "a folder")):
        result = prepare(folder / "t.txt", folder / name)
        check(result.returncode == 3 and f"is {kind}, expected a regular file" in result.stderr,
              f"{name}: {result.returncode}, {result.stderr.strip()[-120:]}")
    check(stat.S_ISFIFO((folder / "pipe").stat().st_mode), "the FIFO is still one")
    listener.close()


def test_small_file_size_limits(folder):
    """Whatever write meets the limit, of the first bytes or the last: exit 3, the reason, and no half file."""
    (folder / "t.txt").write_bytes(random.randbytes(100_000))
    check(prepare(folder / "t.txt", folder / "whole.h5").returncode == 0, "without a limit")
    whole = (folder / "whole.h5").stat().st_size
    for limit in (0, 1, 5 << 10, whole // 2, whole - 2048, whole - 1):

        def limited():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        result = prepare(folder / "t.txt", folder / "out.h5", preexec_fn=limited)
        check(result.returncode == 3 and "File too large; raise the limit on the size of files (ulimit -f)" in result.stderr,
              f"limit of {limit} bytes: exit {result.returncode}, {result.stderr.strip()[-120:]}")
        check("out.h5:" in result.stderr and ".tmp" not in result.stderr, f"the output is named: {result.stderr}")
        check(not (folder / "out.h5").exists() and hidden_files(folder) == [], "nothing is left")


def test_unusable(folder):
    (folder / "t.txt").write_text("some text " * 20)
    (folder / "empty").mkdir()
    cases = [
        ("none.txt", "o.h5", "byte", 3, "no such text file"),
        ("t.txt", "none/o.h5", "byte", 3, "does not exist; make it first"),
        ("t.txt", "t.txt", "byte", 2, "is the text itself"),
        ("empty", "o.h5", "byte", 3, "is a folder without texts"),
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
        for test in (test_content, test_unusable, test_links, test_unreadable, test_outputs_of_another_kind,
                     test_small_file_size_limits, test_kill, test_little_memory, test_full_disk):
            place = root / test.__name__
            place.mkdir()
            test(place)
    finally:
        shutil.rmtree(root)
    print(f"{len(failures)} failures")
    sys.exit(1 if failures else 0)
