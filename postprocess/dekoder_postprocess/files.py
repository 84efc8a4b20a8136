# SPDX-License-Identifier: Apache-2.0
"""Files and folders of a run, read and written: each failure is a RunError that says which of them it is."""
from __future__ import annotations

import argparse
import contextlib
import errno
import os
import stat
from pathlib import Path

from .errors import RunError

# What h5py raises for a damaged file, whichever call meets the damage.
HDF5_ERRORS = (OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError)


def text_of(value) -> str:
    """A text that h5py gives, whose bytes may be any; what is no UTF-8 reads U+FFFD."""
    if isinstance(value, str):
        value = value.encode("utf-8", "surrogateescape")
    if not isinstance(value, bytes):
        raise TypeError("an attribute is no text")
    return value.decode("utf-8", "replace")


def present(path) -> bool:
    """Whether there is something of that name. Raises RunError where this cannot be told: what may not be looked at is
    not missing."""
    try:
        os.stat(path)
        return True
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise RunError(f"{path}: cannot be looked at: {_reason(error)}; check the path and the permissions") from error


def names_in(folder) -> list:
    """Names of what is in the folder, none where there is no folder. Raises RunError where it cannot be listed."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"{folder}: cannot be listed: {_reason(error)}; check the disk and the permissions") from error


def require_file(path):
    """Raises RunError where the path is there but is no file (to open a pipe would wait for ever) or may not be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be read: {_reason(error)}; check the disk and the permissions") from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise RunError(f"{path}: is a folder, a device or a pipe; expected a file; check the path")
    finally:
        os.close(descriptor)


def read_file(path) -> bytes:
    """A file's bytes. Raises RunError where it is missing, may not be read or is no file."""
    require_file(path)
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise RunError(f"{path}: cannot be read: {_reason(error)}; check the disk and the permissions") from error


def path_name(text):
    """The name of a file or folder: an argparse type."""
    if not text:
        raise argparse.ArgumentTypeError("an empty name; expected a file or folder")
    return text


def check_folder(path):
    """Raises RunError where the path is no folder for output and cannot become one; makes nothing."""
    try:
        for place in (Path(path).absolute(), *Path(path).absolute().parents):
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                if not stat.S_ISDIR(os.stat(place).st_mode):
                    raise RunError(f"{path}: cannot be made, as {place} is no folder; choose another -o")
                if not os.access(place, os.W_OK | os.X_OK):
                    raise RunError(f"{path}: cannot be made or written: no permission in {place}; choose another -o")
                return
    except (OSError, ValueError) as error:
        raise RunError(f"{path}: cannot be made: {_reason(error)}; choose another -o") from error


def require_text(path, program):
    """Raises RunError where the path is no UTF-8, which `program` cannot write to."""
    try:
        str(Path(path).absolute()).encode()
    except UnicodeEncodeError as error:
        raise RunError(f"{path}: is no UTF-8, as {program} wants the name of a folder; choose another -o") from error


def make_folder(path):
    """Makes a folder for output, with its parents. Raises RunError where the path cannot be one."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{path}: cannot be made or is no folder: {error.strerror}; choose another -o") from error


class OutputFile:
    """A file that is written beside the one that `path` names, through links, and renamed: whoever looks sees a whole
    file. A context manager: where it is left without write(), nothing has changed. Raises RunError, on entry already,
    where that file cannot be written or is another thing than a file: a folder, a device, a pipe."""

    def __init__(self, path):
        self.path = Path(path)
        self._part = None

    def __enter__(self):
        with self._errors():
            self._target = self.path.resolve()
            if _kind(self.path) not in (None, stat.S_IFREG) or self._target.is_symlink():
                raise RunError(f"{self.path}: is a folder, a device, a pipe or a link to itself; expected a file or a new "
                               "name; choose another -o")
            self._part = self._target.with_name(f".dekoder.{os.getpid()}.tmp")
            self._part.write_bytes(b"")
        return self

    def write(self, content):
        """The file's bytes, all at once."""
        with self._errors():
            self._part.write_bytes(content)
            self._part.replace(self._target)

    def __exit__(self, *_):
        self._remove()

    def _remove(self):
        if self._part is not None:
            with contextlib.suppress(OSError):
                self._part.unlink()

    @contextlib.contextmanager
    def _errors(self):
        try:
            yield
        except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: links in a circle, before Python 3.13
            self._remove()
            raise RunError(f"{self.path}: cannot be written: {_reason(error)}; {_remedy(error)}choose another -o") from error


def write_file(path, content):
    """Writes bytes as OutputFile does, and raises its errors."""
    with OutputFile(path) as output:
        output.write(content)


def _kind(path):
    """What stands there (stat.S_IFREG, ...); None where nothing does."""
    try:
        return stat.S_IFMT(os.stat(path).st_mode)
    except FileNotFoundError:
        return None


def _remedy(error):
    """What helps against what the system said; nothing where no more than another name does."""
    of = {errno.ENOENT: "make the folder first, or ", errno.ENOSPC: "free some space or ", errno.EDQUOT: "free some space or ",
          errno.EACCES: "check the permissions or ", errno.EPERM: "check the permissions or "}
    return of.get(getattr(error, "errno", None), "")


def _reason(error):
    return getattr(error, "strerror", None) or error
