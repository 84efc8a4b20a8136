# SPDX-License-Identifier: Apache-2.0
"""Holds a file that test_attention_file.cpp wrote against the layout, as a user of h5py sees it: argument = file."""
import sys

import h5py
import numpy

STATISTICS = "entropy,mean_distance,previous_token,first_token,same_token,duplicate_token,induction"
TOKEN_TEXTS = {"text_0": ["a", "é", "\\xC3", "\\x00", "€", " "], "window_0": ["x", "y", "\n"]}
STEP = 1200


def values(salt, probe, shape):
    """The numbers of support/attention_maps.hpp: multiples of 1/128, which float16 holds exactly."""
    index = numpy.arange(numpy.prod(shape))
    return ((salt + 7 * STEP + 31 * probe + 13 * index) % 101 / 128).reshape(shape)


def main():
    with h5py.File(sys.argv[1], "r", locking=False) as file:
        root = file.attrs
        assert root["format"].decode() == "dekoder-attention", root["format"]
        assert root["major"] == 2 and root["minor"] == 0 and root["major"].dtype == numpy.int32
        for name, expected in (("run_id", "run"), ("config", "model: é\n"), ("tokenizer", "byte"), ("writer", "test")):
            assert root[name].decode() == expected, name
        assert root["step"] == STEP and root["step"].dtype == numpy.int64
        assert root["statistic_names"].decode() == STATISTICS
        assert file["layers"][:].tolist() == [0, 2] and file["heads"][:].tolist() == [1, 3, 4]
        assert file["layers"].dtype == numpy.int32 and file["heads"].dtype == numpy.int32
        assert sorted(file) == ["attention", "heads", "layers"] and sorted(file["attention"]) == ["text_0", "window_0"]
        for number, (probe, texts) in enumerate(TOKEN_TEXTS.items()):
            group, n = file["attention"][probe], len(texts)
            assert group.attrs["causal"] == 1 and group.attrs["causal"].dtype == numpy.uint8
            assert group.attrs["source"].decode() == ("configuration", "held-out tokens 5 to 7")[number]
            assert group.attrs["text"].decode() == "".join(texts)
            assert group["token_text"].asstr()[:].tolist() == texts, group["token_text"].asstr()[:]
            assert group["token_text"].fletcher32 and group["tokens"].fletcher32
            assert group["tokens"].dtype == numpy.int32 and group["tokens"][:].tolist() == list(range(1, n + 1))
            assert set(group) == {"tokens", "token_text", "weights", "statistics"}
            maps, statistics = group["weights"], group["statistics"]
            assert maps.dtype == numpy.float16 and maps.shape == (2, 3, n, n) and maps.chunks == (1, 1, n, n)
            assert maps.shuffle and maps.compression == "gzip" and maps.fletcher32
            assert maps.attrs["axes"].decode() == "layer,head,query,key"
            assert (maps[...] == values(1, number, maps.shape)).all(), probe
            assert statistics.dtype == numpy.float32 and statistics.shape == (2, 3, 7) and statistics.fletcher32
            assert statistics.attrs["axes"].decode() == "layer,head,statistic"
            assert (statistics[...] == values(2, number, statistics.shape)).all(), probe


if __name__ == "__main__":
    main()
