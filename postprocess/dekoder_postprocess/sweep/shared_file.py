# SPDX-License-Identifier: Apache-2.0
"""Files that several machines read and write at once: made under a name of one's own, and then given theirs, whole."""
from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from .fault_point import fault_point


def create_alone(path, content, fault=""):
    """Makes the file `path` with these bytes, for one of all processes that try; False where it is there. Raises OSError.
    A link appears with its contents and fails where the name exists, on NFS too, and needs no flock."""
    own = _write_own(path, content)
    try:
        fault_point(f"{fault}_written")
        try:
            os.link(own, path)
        except FileExistsError:
            # NFS asked twice as the first answer, that it was made, got lost.
            return os.stat(own).st_nlink == 2
        except OSError:  # no hard links here
            return _create_exclusively(path, content)
        return True
    finally:
        with contextlib.suppress(OSError):  # a left-over is removed later
            own.unlink()


def replace_whole(path, content, fault=""):
    """Puts these bytes in the place of the file `path`. Raises OSError."""
    own = _write_own(path, content)
    try:
        fault_point(f"{fault}_written")
        own.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            own.unlink()
        raise


def file_system_time(folder):
    """Seconds by the clock that stamps the files in `folder`, from a file made there: of a file server that is the server's, so
    that the machines' own clocks do not matter. None where no file can be made."""
    probe = _own_name(Path(folder) / "clock")
    try:
        probe.write_bytes(b"")
        os.utime(probe)
        return os.stat(probe).st_mtime
    except OSError:
        return None
    finally:
        with contextlib.suppress(OSError):
            probe.unlink()


def remove_left_over(folder, age):
    """Deletes what processes left in `folder` that died as they wrote a file, `age` seconds ago or more."""
    now = file_system_time(folder)
    for name in os.listdir(folder) if now is not None else ():
        path = Path(folder, name)
        with contextlib.suppress(OSError):
            if is_half_written(name) and now - os.stat(path).st_mtime >= age:
                path.unlink()


def is_half_written(name) -> bool:
    """Whether a file of this name is one that a process writes, or wrote as it died."""
    return name.startswith(".") and name.endswith(".tmp")


def _own_name(path):
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def _write_own(path, content):
    """A finished file beside `path`, under a name that no other process uses."""
    own = _own_name(Path(path))
    try:
        with _named(path), open(own, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            own.unlink()
        raise
    return own


def _create_exclusively(path, content):
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError:
        return False
    with _named(path), open(descriptor, "wb") as file:
        file.write(content)
    return True


@contextlib.contextmanager
def _named(path):
    """A full disk, say, is told with the file that was to be written: write() and fsync() know none, and open() one's own name."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error
