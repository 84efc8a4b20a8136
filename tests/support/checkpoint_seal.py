# SPDX-License-Identifier: Apache-2.0
"""Digests of a checkpoint (src/io/run/checkpoint.hpp), made anew: for tests that change what is in one and want it whole."""
import struct

import h5py
import numpy

MASK = (1 << 64) - 1
PRIMES = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
FIELDS = ("step", "tokens_seen", "config_yaml", "tokenizer", "data_hash", "validation_loss", "best_validation_loss", "best_step",
          "sampled_step", "metrics_bytes", "samples_bytes", "run_id", "writer")
LATER_FIELDS = {1: ("validation_hash", "best_validation_hash", "restarts"), 2: ("skipped_steps",)}  # by minor version


def rotated(value, bits):
    return (value << bits | value >> (64 - bits)) & MASK


def mixed(lane, word):
    return rotated((lane + word * PRIMES[1]) & MASK, 31) * PRIMES[0] & MASK


def xxh64(data):
    """XXH64 with seed 0, after its specification (github.com/Cyan4973/xxHash, doc/xxhash_spec.md)."""
    end = len(data) // 32 * 32
    if end:
        lanes = [(PRIMES[0] + PRIMES[1]) & MASK, PRIMES[1], 0, -PRIMES[0] & MASK]
        for words in struct.iter_unpack("<4Q", data[:end]):
            lanes = [mixed(lane, word) for lane, word in zip(lanes, words)]
        digest = sum(rotated(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18))) & MASK
        for lane in lanes:
            digest = ((digest ^ mixed(0, lane)) * PRIMES[0] + PRIMES[3]) & MASK
    else:
        digest = PRIMES[4]
    digest = (digest + len(data)) & MASK
    rest = data[end:]
    while len(rest) >= 8:
        digest = (rotated(digest ^ mixed(0, int.from_bytes(rest[:8], "little")), 27) * PRIMES[0] + PRIMES[3]) & MASK
        rest = rest[8:]
    if len(rest) >= 4:
        digest = (rotated(digest ^ int.from_bytes(rest[:4], "little") * PRIMES[0] & MASK, 23) * PRIMES[1] + PRIMES[2]) & MASK
        rest = rest[4:]
    for byte in rest:
        digest = rotated(digest ^ byte * PRIMES[4] & MASK, 11) * PRIMES[0] & MASK
    for shift, prime in ((33, PRIMES[1]), (29, PRIMES[2])):
        digest = (digest ^ digest >> shift) * prime & MASK
    return digest ^ digest >> 32


def text_of(value):
    """Of an attribute, as the digest of the root has it."""
    if isinstance(value, bytes):
        return value.rstrip(b"\0").decode()
    if isinstance(value, str):
        return value.rstrip("\0")
    text = repr(value.item())
    return text[:-2] if text.endswith(".0") else text


def tensor_heading(dataset):
    return f"{dataset.name}\n{dataset.dtype.name}\n{','.join(map(str, dataset.shape))}\n{text_of(dataset.attrs['axes'])}\n"


def tensor_digest(dataset):
    return xxh64(tensor_heading(dataset).encode() + dataset[()].tobytes())


def fields_text(file, names):
    texts = [(name, text_of(file.attrs[name])) for name in names]
    return "".join(f"{name}:{len(text.encode())}:{text}\n" for name, text in texts)


def root_digest(file):
    text = "dekoder-checkpoint 1\n" + fields_text(file, FIELDS)
    datasets = sorted((dataset for group in file.values() for dataset in group.values()), key=lambda dataset: dataset.name)
    return xxh64((text + "".join(f"{tensor_heading(d)}{int(d.attrs['digest']):016x}\n" for d in datasets)).encode())


def replace(group, name, values):
    """A tensor in the place of one, with its axes."""
    axes = group[name].attrs["axes"]
    del group[name]
    group.create_dataset(name, data=values).attrs["axes"] = axes


def set_text(file, name, text):
    """Of any length, which attrs.modify would cut to that of the old one."""
    del file.attrs[name]
    file.attrs[name] = numpy.bytes_(text.encode())


def change(path, edit):
    """edit(file) changes tensors and fields; the digests become those of what is there then."""
    with h5py.File(path, "r+") as file:
        edit(file)
        for group in file.values():
            for dataset in group.values():
                dataset.attrs["digest"] = numpy.uint64(tensor_digest(dataset))
        file.attrs["digest"] = numpy.uint64(root_digest(file))
        for minor in range(1, int(file.attrs["minor"]) + 1):
            text = f"dekoder-checkpoint 1.{minor}\n" + fields_text(file, LATER_FIELDS[minor])
            file.attrs[f"digest_{minor}"] = numpy.uint64(xxh64(text.encode()))
