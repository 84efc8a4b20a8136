# SPDX-License-Identifier: Apache-2.0
"""--fresh moves the earlier run as a whole or not at all: killed after every single move, over links to other disks, and
where a file cannot be moved."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "support"))
import dekoder_runs as dk  # noqa: E402


def files_of(run):
    """Contents of every file below a folder, through links too, but for the lock."""
    found = {}
    for folder, _, names in os.walk(run, followlinks=True):
        for name in names:
            path = pathlib.Path(folder) / name
            if name != "lock":
                found[str(path.relative_to(run))] = path.read_bytes()
    return found


def copy_of(old, run, linked):
    """A copy of a finished run; `linked`: its checkpoints and its log lie on another disk."""
    shutil.copytree(old, run)
    if linked:
        disk = run.parent / f"disk-of-{run.name}"
        disk.mkdir()
        for name in ("checkpoints", "metrics.jsonl"):
            (run / name).rename(disk / name)
            (run / name).symlink_to(f"../{disk.name}/{name}")
    return run


def previous(run, number=1):
    """The earlier run's files by their old names."""
    return files_of(run / f"previous-{number}")


def check_moved(run, old, linked):
    dk.check(previous(run) == old, f"previous-1 has {sorted(previous(run))}, expected {sorted(old)}")
    dk.check(not list(run.glob(".previous*")), "a half-moved run is left")
    if linked:
        disk = run.parent / f"disk-of-{run.name}"
        dk.check((run / "checkpoints").is_symlink() and (run / "checkpoints").resolve() == disk / "checkpoints",
                 "the link to the other disk is gone")
        kept = (run / "previous-1" / "checkpoints").resolve()
        dk.check(kept == disk / "checkpoints" / "previous-1", f"earlier checkpoints are in {kept}")
        dk.check(not os.path.isabs(os.readlink(run / "previous-1" / "checkpoints")), "a relative link became absolute")


def killed_after_every_move(workshop, root, finished, linked):
    old = files_of(finished)
    kind = "linked" if linked else "plain"
    point, n, kills = "moved", 1, 0
    while True:
        run = copy_of(finished, root / f"{kind}-{point}-{n}", linked)
        process = workshop.start(run, steps=40, fault=f"fresh:{point}@{n}", flags=["--fresh"])
        code = process.wait(timeout=100)
        if point == "moved" and code == 0:  # all moves have been killed after
            check_moved(run, old, linked)
            dk.check(kills >= (6 if linked else 5), f"only {kills} moves")
            point, n = "gathered", 1
            continue
        dk.check(code == -signal.SIGKILL, f"{point}@{n}: exit code {code}: {process.log.read_text()}")
        kills += 1
        if point == "done":
            said = workshop.train(run, steps=40)  # begins anew
            dk.check("moved back" not in said, said)
            check_moved(run, old, linked)
            break
        if n == 2:  # and the way back killed too
            workshop.train(run, steps=80, fault="fresh:moved_back@1", expect=-signal.SIGKILL)
        said = workshop.train(run, steps=80)  # the earlier run, as it was
        dk.check("moved back what an interrupted --fresh had moved" in said, said)
        dk.check(not list(run.glob(".previous*")) and not (run / "previous-1").exists(), "a half-moved run is left")
        now = files_of(run)
        dk.check(set(now) == set(old), f"{sorted(now)}, expected {sorted(old)}")
        for name in old:
            dk.check(now[name] == old[name], f"{name} changed")
        if point == "gathered":
            point, n = "done", 1
        else:
            n += 1
    print(f"killed after each of {kills} steps, {kind}: passed")


def links(workshop, root, finished):
    """Twice in a row, absolute links, a link that leads nowhere yet, and folders of others beside the checkpoints."""
    run = copy_of(finished, root / "twice", True)
    disk = root / "disk-of-twice"
    (disk / "checkpoints" / "notes").mkdir()
    (run / "checkpoints").unlink()
    (run / "checkpoints").symlink_to(disk / "checkpoints")
    old = files_of(finished)
    workshop.train(run, steps=40, flags=["--fresh"])
    workshop.train(run, steps=80, flags=["--fresh"])
    dk.check(previous(run, 1) == old, f"previous-1: {sorted(previous(run, 1))}")
    dk.check(sorted(dk.checkpoints(run / "previous-2")) == [40], f"{sorted(dk.checkpoints(run / 'previous-2'))}")
    dk.check(sorted(dk.checkpoints(run)) == [40, 80], f"{sorted(dk.checkpoints(run))}")
    dk.check((disk / "checkpoints" / "notes").is_dir(), "a folder of somebody else was moved")
    dk.check(os.readlink(run / "previous-2" / "checkpoints") == str(disk / "checkpoints" / "previous-2"), "other link")

    new = root / "new"
    new.mkdir()
    (new / "checkpoints").symlink_to("../far/checkpoints")
    said = workshop.train(new, steps=40, expect=2)
    dk.check("checkpoints: cannot be made: No such file or directory" in said and not (root / "far").exists(), said)
    (root / "far").mkdir()
    workshop.train(new, steps=40)
    dk.check(sorted(dk.checkpoints(root / "far")) == [40], "the checkpoints are not where the link leads")
    print("links to another disk: passed")


def what_cannot_be_moved(workshop, root, finished):
    """A folder that is a disk of its own stays, and so does all that was moved before it."""
    run = copy_of(finished, root / "mounted", False)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", run / "checkpoints"], check=True)
    try:
        for path in dk.checkpoints(finished).values():
            shutil.copy(path, run / "checkpoints")
        old = files_of(run)
        said = workshop.train(run, steps=80, flags=["--fresh"], expect=3)
        dk.check("checkpoints: Device or resource busy" in said, said)
        dk.check(files_of(run) == old and not (run / "previous-1").exists(), "a refused move changed the run")
    finally:
        subprocess.run(["umount", run / "checkpoints"], check=True)
    print("a move that fails is taken back: passed")


with tempfile.TemporaryDirectory() as folder:
    workshop = dk.Workshop(folder)
    root = pathlib.Path(folder).resolve()
    finished = root / "finished"
    workshop.train(finished, 80)
    killed_after_every_move(workshop, root, finished, linked=False)
    killed_after_every_move(workshop, root, finished, linked=True)
    links(workshop, root, finished)
    what_cannot_be_moved(workshop, root, finished)

print("passed")
