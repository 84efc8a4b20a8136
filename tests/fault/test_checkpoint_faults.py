# SPDX-License-Identifier: Apache-2.0
"""The command dies while it saves, finds damaged files, a full disk, a read-only folder, another trainer."""

import os
import pathlib
import resource
import signal
import socket
import subprocess
import sys
import tempfile

import h5py
import numpy

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import dekoder_runs as dk  # noqa: E402


def killed_while_saving(workshop, root, whole):
    for point in ("create", "mid_write", "before_fsync", "before_rename", "after_rename"):
        for save in (1, 2):
            run = root / f"killed-{point}-{save}"
            workshop.train(run, fault=f"checkpoint:{point}@{save}", expect=-signal.SIGKILL)
            saved = save if point == "after_rename" else save - 1
            dk.check(list(dk.checkpoints(run)) == [40, 80][:saved], f"{point}@{save}: {list(dk.checkpoints(run))}")
            said = workshop.train(run)
            if saved:
                dk.check(f"going on from step {saved * 40}" in said, f"{point}@{save}: {said}")
            dk.compare_runs(whole, run)
        print(f"kill -9 at {point}: passed")


def flip(path, place, bit=1):
    data = bytearray(path.read_bytes())
    data[place] ^= bit
    path.write_bytes(data)


def chunk_of(path, name):
    """Where the first chunk of a dataset lies in the file: offset, bytes."""
    with h5py.File(path) as file:
        chunk = file[name].id.get_chunk_info(0)
    return chunk.byte_offset, chunk.size


def zero_chunk(path, name="parameters/blocks.00.attention.qkv.weight"):
    """A hole, as a crash of the machine leaves it."""
    begin, size = chunk_of(path, name)
    data = bytearray(path.read_bytes())
    data[begin : begin + size] = bytes(size)
    path.write_bytes(data)


def swap_chunks(path, names=("first_moment/blocks.00.attention.qkv.weight", "first_moment/blocks.01.attention.qkv.weight")):
    """Two tensors of one shape: each has the other's values, with their own checksums."""
    (one, size), (other, other_size) = (chunk_of(path, name) for name in names)
    dk.check(size == other_size, f"chunks of {size} and {other_size} bytes")
    data = bytearray(path.read_bytes())
    data[one : one + size], data[other : other + size] = data[other : other + size], data[one : one + size]
    path.write_bytes(data)


def damaged_files(workshop, root, whole):
    damages = {
        "weight": lambda path: flip(path, chunk_of(path, "parameters/blocks.01.feed_forward.up.weight")[0] + 100),
        "hole": zero_chunk,
        "swapped": swap_chunks,
        "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
        "empty": lambda path: os.truncate(path, 0),
        "flipped": lambda path: flip(path, path.read_bytes().find(b"layers: 2")),
        "heap": lambda path: flip(path, path.read_bytes().index(b"FRHP") + 20),  # of a group with many members
        "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    }
    reasons = {"weight": "parameters/blocks.01.feed_forward.up.weight", "hole": "parameters/blocks.00.attention.qkv.weight",
               "swapped": "first_moment/blocks.0"}
    for name, damage in damages.items():
        run = root / f"damaged-{name}"
        workshop.train(run, fault="checkpoint:create@4", expect=-signal.SIGKILL)  # dies after step 120
        damage(dk.checkpoints(run)[120])
        said = workshop.train(run)
        dk.check("ckpt-00000120.h5" in said and "going on from step 80" in said, f"{name}: {said}")
        dk.check(reasons.get(name, "") in said, f"{name}: {said}")
        dk.compare_runs(whole, run)
        run = root / f"all-{name}"
        workshop.train(run, fault="checkpoint:create@3", expect=-signal.SIGKILL)
        for path in dk.checkpoints(run).values():
            damage(path)
        before = {path: path.read_bytes() for path in dk.checkpoints(run).values()}
        log = (run / "metrics.jsonl").read_bytes()
        said = workshop.train(run, expect=3)
        dk.check(all(path.name in said for path in before), f"{name}: not every file is named: {said}")
        dk.check({path: path.read_bytes() for path in dk.checkpoints(run).values()} == before, "files were changed")
        dk.check((run / "metrics.jsonl").read_bytes() == log, "the log was changed")
        print(f"{name} files: passed")


def older_format(workshop, root, whole):
    """A run whose checkpoints were written in minor version 0 of the format, which had fewer fields, goes on."""
    run = root / "older"
    workshop.train(run, fault="checkpoint:create@4", expect=-signal.SIGKILL)
    for path in dk.checkpoints(run).values():
        with h5py.File(path, "r+") as file:
            for name in ("validation_hash", "best_validation_hash", "restarts", "digest_1"):
                del file.attrs[name]
            file.attrs.modify("minor", numpy.int32(0))
    said = workshop.train(run)
    dk.check("going on from step 120" in said and "not used" not in said, said)
    dk.compare_runs(whole, run)
    print("checkpoints of minor version 0: passed")


def without_override(*words):
    """A command that file modes hold back, also where the tests run as root."""
    if os.geteuid() != 0:
        return [str(word) for word in words]
    return ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *map(str, words)]


def unreadable_file(workshop, root, whole):
    """A checkpoint that may not be read now is no damaged one: nothing older is used, nothing is renamed or cut."""
    run = root / "unreadable"
    workshop.train(run, fault="checkpoint:create@4", expect=-signal.SIGKILL)  # dies after step 120
    newest = dk.checkpoints(run)[120]
    train = ["train", workshop.config(200, 40), "--run", run]

    def state():
        return {path.relative_to(run): path.read_bytes() for path in run.rglob("*")
                if path.is_file() and path.name != "lock"}

    for path, mode, words in [(newest, 0, ["ckpt-00000120.h5: cannot be read: Permission denied",
                                           "change the permissions"]),
                              (run / "checkpoints", 0o300, ["checkpoints: cannot be listed: Permission denied"]),
                              (run, 0, ["Permission denied"])]:
        before, old_mode = state(), path.stat().st_mode
        for command in (train, ["eval", run], ["generate", run, "--prompt", "a"]):
            path.chmod(mode)
            done = subprocess.run(without_override(dk.PROGRAM, *command), capture_output=True, text=True, timeout=120)
            path.chmod(old_mode)
            if command is train and path == run:
                continue  # the folder's own check: exit code 2
            dk.check(done.returncode == 3, f"{command[0]}: exit code {done.returncode}: {done.stderr}")
            dk.check(all(word in done.stderr for word in words), f"{command[0]}: {done.stderr}")
            dk.check(state() == before, f"{command[0]} changed files: {sorted(map(str, state()))}")
    for name in ("status", "metrics.jsonl"):
        (run / name).chmod(0)
        done = subprocess.run(without_override(dk.PROGRAM, "status", run), capture_output=True, text=True, timeout=120)
        (run / name).chmod(0o644)
        dk.check(done.returncode == 3 and f"{name}: cannot be read: Permission denied" in done.stderr,
                 f"status: {done.returncode}, {done.stdout}{done.stderr}")
    for file in (run / "checkpoints").glob(".*.tmp"):  # of the killed writer, which the next start removes
        file.unlink()
    for name in ("metrics.jsonl", "samples.jsonl"):
        for mode in (0, 0o444):
            before = state()
            (run / name).chmod(mode)
            done = subprocess.run(without_override(dk.PROGRAM, *train), capture_output=True, text=True, timeout=120)
            (run / name).chmod(0o644)
            dk.check(done.returncode == 3, f"{name}, mode {mode:o}: exit code {done.returncode}: {done.stderr}")
            dk.check(f"{name}: cannot be opened for reading and writing: Permission denied; change the permissions"
                     in done.stderr.splitlines()[-1], done.stderr)
            dk.check(state() == before, f"a refused start changed files: {sorted(map(str, state()))}")
    closed = root / "closed"
    closed.mkdir()
    closed.chmod(0)
    for command in (["eval"], ["generate", "--prompt", "a"], ["attention", "--text", "a"], ["status"]):
        words = without_override(dk.PROGRAM, command[0], closed / "run", *command[1:])
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        dk.check(done.returncode == 3 and "Permission denied" in done.stderr and "internal" not in done.stderr,
                 f"{command[0]} of a run in a closed folder: {done.returncode}, {done.stderr}")
    said = workshop.train(run)
    dk.check("going on from step 120" in said, said)
    dk.compare_runs(whole, run)
    print("unreadable files: passed")


def file_size_limit(workshop, root):
    """Checkpoints larger than `ulimit -f`: each save says why it failed, training goes on, the last one ends with 3."""
    run = root / "limited"
    workshop.train(run, fault="checkpoint:create@2", expect=-signal.SIGKILL)
    before = dk.checkpoints(run)[40].read_bytes()
    limit = len(before) - 1  # which the log of 120 steps is far below

    def limited():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    done = subprocess.run([dk.PROGRAM, "train", workshop.config(120, 40), "--run", run], capture_output=True, text=True,
                          timeout=300, preexec_fn=limited)
    dk.check(done.returncode == 3, f"exit code {done.returncode}: {done.stderr}")
    dk.check("step 80: not saved" in done.stderr and "training goes on" in done.stderr, done.stderr)
    last = done.stderr.splitlines()[-1]
    dk.check("the state of step 120 is not saved" in last and "File too large" in last, last)
    dk.check("ckpt-00000120.h5:" in last and ".tmp" not in last, f"the checkpoint is not named: {last}")
    dk.check([path.read_bytes() for path in dk.checkpoints(run).values()] == [before], "other checkpoints")
    dk.check(not list(run.rglob("*.tmp")), "temporary files are left")
    print("file size limit: passed")


def no_regular_files(workshop, root):
    """A FIFO, a socket, a device or a folder in the place of a file of tokens or of a run: a message, no waiting."""
    os.mkfifo(root / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(root / "socket"))
    for place, kind in (("fifo", "a FIFO"), ("socket", "a socket"), ("/dev/zero", "a device"), (".", "a folder")):
        done = subprocess.run([dk.PROGRAM, "train", workshop.config(200, 40), "--run", root / "irregular", "--set",
                               f"data.tokens={root / place}"], capture_output=True, text=True, timeout=60)
        dk.check(done.returncode == 3 and f"is {kind}, no regular file" in done.stderr, f"{place}: {done.stderr}")
    run = root / "irregular-run"
    workshop.train(run, steps=40)
    newest = dk.checkpoints(run)[40]
    for path, code in ((newest, 3), (run / "metrics.jsonl", 2), (run / "samples.jsonl", 2), (run / "restarts.jsonl", 3), (run / "status", 0)):
        kept = path.read_bytes()
        path.unlink()
        os.mkfifo(path)
        done = subprocess.run([dk.PROGRAM, "train", workshop.config(80, 40), "--run", run], capture_output=True,
                              text=True, timeout=60)
        dk.check(done.returncode == code and f"{path.name}: is a FIFO" in done.stderr, f"{path.name}: {done.stderr}")
        path.unlink()
        path.write_bytes(kept)
    print("no regular files: passed")


def second_trainer(workshop, root):
    run = root / "shared"
    first = workshop.start(run, steps=10**6)
    dk.wait_until(lambda: 40 in dk.checkpoints(run), "the first checkpoint", first)
    other = dk.Workshop(tempfile.mkdtemp(dir=root))  # with a stderr of its own
    lock = (run / "lock").read_bytes()
    said = other.train(run, steps=10**6, expect=2)
    dk.check("in use by process" in said and str(first.pid) in said, said)
    dk.check((run / "lock").read_bytes() == lock, "the second trainer touched the lock")
    dk.check(first.poll() is None, "the first trainer ended")
    first.kill()
    first.wait()
    second = other.start(run, steps=10**6)  # the lock of the dead one is taken over
    dk.wait_until(lambda: "took over the lock" in second.log.read_text(), "the lock is taken over", second)
    dk.check(dk.stop(second) == 85, "exit code after SIGTERM")
    dk.check(not (run / "lock").exists(), "the lock is left")
    print("second trainer: passed")


def fill(ballast, process):
    """Takes all space, also what rotation gives back, until the run says that it cannot save."""
    while "not saved" not in process.log.read_text():
        dk.check(process.poll() is None, f"a full disk ended the run: {process.log.read_text()}")
        try:
            with open(ballast, "ab", buffering=0) as file:
                file.write(bytes(1 << 14))
        except OSError:
            pass


def full_disk(workshop, root):
    disk = root / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", disk], check=True)
    run = disk / "run"
    process = workshop.start(run, steps=10**6)
    dk.wait_until(lambda: 80 in dk.checkpoints(run), "two checkpoints", process)
    ballast = disk / "ballast"
    fill(ballast, process)
    old = dk.checkpoints(run)
    dk.check(len(old) > 0, "no earlier checkpoint is left")
    ballast.unlink()
    dk.wait_until(lambda: max(dk.checkpoints(run)) > max(old), "a save after the disk was freed", process)
    dk.check(dk.stop(process) == 85, "exit code after SIGTERM")
    steps = [line for line in dk.step_lines(run) if '"loss"' in line]
    last = max(dk.checkpoints(run))
    dk.check([int(line.split(":")[1].split(",")[0]) for line in steps] == list(range(1, last + 1)), "log lines are missing")
    again = workshop.start(run, steps=10**6)
    dk.wait_until(lambda: f"going on from step {last} " in again.log.read_text(), "a restart from the last save", again)
    dk.check(dk.stop(again) == 85, "exit code after SIGTERM")

    # full when it must save: told, exit 3, earlier files valid
    process = workshop.start(run, steps=10**6)
    size = (run / "metrics.jsonl").stat().st_size
    dk.wait_until(lambda: (run / "metrics.jsonl").stat().st_size > size, "steps after a restart", process)
    fill(ballast, process)
    last = max(dk.checkpoints(run))
    dk.check(dk.stop(process) == 3, f"exit code {process.returncode}, expected 3: {process.log.read_text()}")
    dk.check("the state" in process.log.read_text().splitlines()[-1] and "not saved" in process.log.read_text().splitlines()[-1], process.log.read_text())
    dk.check(max(dk.checkpoints(run)) == last, "other checkpoints")
    with open(ballast, "ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(512))
        except OSError:
            pass
    said = workshop.train(run, steps=10**6, expect=2)
    dk.check("No space left on device" in said and str(run) in said, said)
    ballast.unlink()
    print("full disk: passed")

    before = {path: path.stat().st_mtime_ns for path in disk.rglob("*")}
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    said = workshop.train(run, steps=10**6, expect=2)
    dk.check("Read-only file system" in said and str(run) in said, said)
    said = workshop.train(disk / "new", steps=10**6, expect=2)
    dk.check("Read-only file system" in said, said)
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    dk.check({path: path.stat().st_mtime_ns for path in disk.rglob("*")} == before, "a read-only folder changed")
    process = workshop.start(run, steps=10**6)
    dk.wait_until(lambda: "going on" in process.log.read_text(), "a start once it can be written", process)
    dk.check(dk.stop(process) == 85, "exit code after SIGTERM")
    print("read-only folder: passed")


def main():
    if "--inside" not in sys.argv:
        # a mount namespace of its own, for the small disk; nothing of it is seen outside
        command = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
        private = [*command, "--propagation", "private"]
        if subprocess.run([*private, "true"], stderr=subprocess.DEVNULL).returncode != 0:
            private = [*command, "--propagation", "unchanged"]  # in a chroot, whose root is no mount point
        sys.exit(subprocess.run([*private, sys.executable, __file__, "--inside"]).returncode)
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        workshop = dk.Workshop(folder)
        whole = root / "whole"
        workshop.train(whole)
        try:
            killed_while_saving(workshop, root, whole)
            damaged_files(workshop, root, whole)
            older_format(workshop, root, whole)
            unreadable_file(workshop, root, whole)
            file_size_limit(workshop, root)
            no_regular_files(workshop, root)
            second_trainer(workshop, root)
            full_disk(workshop, root)
        finally:
            subprocess.run(["umount", root / "disk"], stderr=subprocess.DEVNULL)
    print("passed")


main()
