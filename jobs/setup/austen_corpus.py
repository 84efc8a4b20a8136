#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""austen_corpus.py OUTPUT: the default corpus, six novels by Jane Austen (public domain), as one text file.

The text comes from Debian's package r-cran-janeaustenr through apt-get; R is not needed: the package's data file is a
sequence of records (raw size as big-endian 32-bit integer, zlib stream) of R's XDR serialisation ("R Internals",
section 1.8), and each book is one vector of strings, a line each. Checked by size and SHA-256; written whole or not at
all; does nothing where the file is there already. Exit code 69 where apt-get cannot download the package, 1 for anything else.
"""
import hashlib
import os
import struct
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path

PACKAGE = "r-cran-janeaustenr"
DATA_FILE = "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb"
SIZE = 4025029
SHA256 = "65b434d16a8755142bfa95ba19c5f9abd0d30cf3dffe3b6793e834f9f56dcc96"

CHARSXP, STRSXP = 9, 16
OUT_OF_REACH = 69  # EX_UNAVAILABLE of sysexits.h


class CorpusError(Exception):
    code = 1


class OutOfReach(CorpusError):
    code = OUT_OF_REACH


def records(data):
    """The raw bytes of each record of a lazy-load file."""
    at = 0
    while at + 4 <= len(data):
        size = struct.unpack_from(">I", data, at)[0]
        stream = zlib.decompressobj()
        try:
            raw = stream.decompress(data[at + 4:])
        except zlib.error as error:
            raise CorpusError(f"the record at byte {at} is not a zlib stream: {error}")
        if not stream.eof or len(raw) != size:
            raise CorpusError(f"the record at byte {at} has {len(raw)} bytes; expected {size}")
        yield raw
        at = len(data) - len(stream.unused_data)


def string_vector(raw):
    """The strings of a serialised character vector as bytes, or None where the record is something else."""
    if raw[:2] != b"X\n":
        raise CorpusError("a record is not in R's XDR serialisation")
    version = struct.unpack_from(">i", raw, 2)[0]
    at = 14
    if version == 3:  # the native encoding by name
        at += 4 + struct.unpack_from(">i", raw, at)[0]
    elif version != 2:
        raise CorpusError(f"serialisation version {version}; expected 2 or 3")
    flags, count = struct.unpack_from(">ii", raw, at)
    if flags & 0xFF != STRSXP:
        return None
    at += 8
    strings = []
    for _ in range(count):
        flags, length = struct.unpack_from(">ii", raw, at)
        if flags & 0xFF != CHARSXP:
            raise CorpusError(f"a string vector holds an item of type {flags & 0xFF}")
        at += 8
        strings.append(raw[at:at + max(length, 0)])
        at += max(length, 0)
    return strings


def read_books(data):
    lines = []
    for raw in records(data):
        lines += string_vector(raw) or []
    return b"".join(line + b"\n" for line in lines)


def download(folder):
    """The package's data file; apt-get needs its lists once."""
    for attempt in range(2):
        got = subprocess.run(["apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", PACKAGE], cwd=folder,
                             capture_output=True, text=True)
        if got.returncode == 0:
            break
        if attempt == 0:
            subprocess.run(["apt-get", "-qq", "update"], capture_output=True)
    else:
        raise OutOfReach(f"apt-get download {PACKAGE} failed: {got.stderr.strip()}; check the network, or train on a text "
                         "of your own: bash jobs/quickstart.sh TEXT")
    package = next(Path(folder).glob("*.deb"))
    subprocess.run(["dpkg-deb", "-x", package, Path(folder) / "tree"], check=True)
    return (Path(folder) / "tree" / DATA_FILE).read_bytes()


def is_corpus(text):
    return len(text) == SIZE and hashlib.sha256(text).hexdigest() == SHA256


def main():
    if len(sys.argv) != 2:
        raise CorpusError("expected one argument, the file to write")
    output = Path(sys.argv[1])
    if output.is_file() and is_corpus(output.read_bytes()):
        return
    with tempfile.TemporaryDirectory() as folder:
        text = read_books(download(folder))
    if not is_corpus(text):
        raise CorpusError(f"{PACKAGE} gave {len(text)} bytes with SHA-256 {hashlib.sha256(text).hexdigest()}; expected {SIZE} "
                          f"bytes with {SHA256}: the package has changed; give a text of your own")
    output.parent.mkdir(parents=True, exist_ok=True)
    part = output.with_name(output.name + f".{os.getpid()}.part")
    part.write_bytes(text)
    os.replace(part, output)


if __name__ == "__main__":
    try:
        main()
    except (CorpusError, OSError, subprocess.CalledProcessError) as error:
        print(f"austen_corpus: {error}", file=sys.stderr)
        sys.exit(getattr(error, "code", 1))
