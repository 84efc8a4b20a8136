# SPDX-License-Identifier: Apache-2.0
"""A GGUF file, read by the layout of its specification: metadata as a dict, tensors as float32 arrays with the name of their type."""
import struct

import numpy

SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TYPES = {0: "F32", 1: "F16", 8: "Q8_0", 30: "BF16"}
ALIGNMENT = 32


class GgufFile:
    def __init__(self, path):
        with open(path, "rb") as file:
            self.data = file.read()
        self.place = 0
        magic, version, tensors, entries = self.take("4sIQQ")
        if (magic, version) != (b"GGUF", 3):
            raise ValueError(f"{path}: {magic} {version}")
        self.metadata = {}
        for _ in range(entries):
            key = self.text()
            if key in self.metadata:
                raise ValueError(f"{path}: {key} twice")
            self.metadata[key] = self.value(self.take("I")[0])
        infos = []
        for _ in range(tensors):
            name = self.text()
            shape = self.take(f"{self.take('I')[0]}Q")[::-1]
            infos.append((name, shape, TYPES[self.take("I")[0]], self.take("Q")[0]))
        begin = self.next_multiple(self.place)
        self.tensors, self.types, end = {}, {}, begin
        for name, shape, kind, offset in infos:
            if begin + offset != end or name in self.tensors:
                raise ValueError(f"{path}: {name} at {offset}, expected {end - begin}")
            self.place = end
            self.tensors[name], self.types[name] = self.elements(shape, kind), kind
            end = self.next_multiple(self.place)
        if end != len(self.data):
            raise ValueError(f"{path}: {len(self.data)} bytes, expected {end}")

    @staticmethod
    def next_multiple(place):
        return -(-place // ALIGNMENT) * ALIGNMENT

    def take(self, form):
        values = struct.unpack_from("<" + form, self.data, self.place)
        self.place += struct.calcsize("<" + form)
        return values

    def text(self):
        return self.take(f"{self.take('Q')[0]}s")[0].decode()

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            inner, count = self.take("IQ")
            return [self.value(inner) for _ in range(count)]
        return self.take(SCALARS[kind])[0]

    def elements(self, shape, kind):
        count = int(numpy.prod(shape))
        dtype = {"F32": "<f4", "F16": "<f2", "BF16": "<u2", "Q8_0": numpy.dtype([("scale", "<f2"), ("values", "i1", 32)])}[kind]
        stored = numpy.frombuffer(self.data, dtype, count // 32 if kind == "Q8_0" else count, self.place)
        self.place += stored.nbytes
        if kind == "BF16":
            stored = (stored.astype("<u4") << 16).view("<f4")
        if kind == "Q8_0":
            stored = stored["scale"].astype("f4")[:, None] * stored["values"].astype("f4")
        return stored.astype("f4").reshape(shape)
