// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "data/token_dataset.hpp"
#include "data/token_shards.hpp"

namespace dekoder {

struct ShardExport {
  std::filesystem::path folder;              ///< made where it is missing, in a folder that is there
  bool as_nanogpt = false;                   ///< else as llm.c
  std::uint64_t shard_tokens = 100'000'000;  ///< in each shard of llm.c, at most 2^31 - 1
};

struct ExportedShards {
  const ShardFormat* format;
  std::vector<std::filesystem::path> files;
  std::size_t unchanged = 0;  ///< of the files, that were there already, with the same bytes
};

/// Writes both parts of a token file as shards, by the names that the programs' own scripts give them: for llm.c
/// <name of the token file>_val_000000.bin, ..._train_000001.bin and so on, for nanoGPT train.bin and val.bin.
/// llm.c's tokens have the format of Llama 3, of 4 bytes, where the vocabulary has more than 65536.
///
/// All are written under temporary names and read back before the first one takes its own, which the last shard
/// does, then those from the first on: TokenShards refuses what a kill in between leaves. Throws ConfigError where
/// the format cannot hold the vocabulary or there are more than 10,000 shards; DataError where the folder holds
/// *.bin that are not these, byte for byte, where it cannot be made or written, and as TokenDataset.
ExportedShards export_shards(const TokenDataset& data, const ShardExport& wish);

}  // namespace dekoder
