// SPDX-License-Identifier: Apache-2.0
// Attention weights and head statistics of a few texts, the probes, at one step of training = one HDF5 file that
// never changes once it has its name, attention/step-00000500.h5 of a run directory:
//   /                              attributes format, major, minor (int32), step (int64; 0 = initial values),
//   run_id,
//                                  config (resolved YAML, of the start that captured), tokenizer, writer,
//                                  statistic_names = "entropy,mean_distance,...": what the axis statistic holds;
//                                  text is fixed-length UTF-8
//   /layers, /heads                int32: which of the model's layers and heads axes 0 and 1 of the maps are
//   /attention/<probe>             attributes text, source, causal (uint8 = 1: query t sees keys 0 to t)
//   /attention/<probe>/tokens      int32 (token)
//   /attention/<probe>/token_text  fixed-length UTF-8 (token)
//   /attention/<probe>/weights     float16 (layer, head, query, key), a chunk per head, shuffle, gzip, Fletcher32;
//                                  attribute axes = "layer,head,query,key"
//   /attention/<probe>/statistics  float32 (layer, head, statistic), Fletcher32; attribute axes
// In texts a byte that is no UTF-8 reads \xC3 (four characters), so does a NUL.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "tensor/tensor.hpp"

namespace dekoder {

namespace attention_file {

inline constexpr const char* format = "dekoder-attention";
inline constexpr std::int32_t major_version = 2;  ///< another one is refused
inline constexpr std::int32_t minor_version = 0;  ///< additions that older readers may ignore

/// Datasets of the probe named `probe`.
std::string map_path(const std::string& probe);
std::string statistics_path(const std::string& probe);

}  // namespace attention_file

/// A text whose attention is looked at.
struct AttentionProbe {
  std::string name;                      ///< of its group: text_0, window_0
  std::string source;                    ///< "configuration", "held-out tokens 0 to 127", "command line"
  std::string text;                      ///< all of it; any bytes
  std::vector<Token> tokens;             ///< n of them
  std::vector<std::string> token_texts;  ///< the bytes each token stands for

  bool operator==(const AttentionProbe&) const = default;
};

/// What a file says beside the step and its numbers.
struct AttentionFileInfo {
  std::string run_id;       ///< names the run over all its restarts
  std::string config_yaml;  ///< the resolved configuration
  std::string tokenizer;    ///< "byte", "char"
  std::vector<int> layers;  ///< captured ones, counted from 0
  std::vector<int> heads;
  std::vector<AttentionProbe> probes;
  std::vector<std::string> statistic_names;  ///< S of them
  std::string writer;                        ///< program version and backend, for information only
};

/// Maps and statistics of one probe, row-major; L layers and H heads captured, n tokens.
struct AttentionMaps {
  std::vector<float> weights;     ///< (L,H,n,n): layer, head, query, key
  std::vector<float> statistics;  ///< (L,H,S): layer, head, statistic
};

/// The info as a file gives it back: its texts in UTF-8. Throws ShapeError (a fault of the program) where lists are
/// empty or sizes do not agree.
AttentionFileInfo as_written(AttentionFileInfo info);

/// Writes a file with the maps of each probe in the order of the info; it takes the place of a file at `path`. It
/// is written under a temporary name beside it, read back, renamed, and on the disk on return; a process that dies
/// before leaves only the temporary file. Any number of processes may do so at once: what is there is always a
/// whole file of one of them. Throws SaveError where the disk does not take it: what is at `path` is as before; and
/// ShapeError as as_written.
void write_attention_file(const std::filesystem::path& path, AttentionFileInfo info, long step,
                          std::span<const AttentionMaps> one_per_probe);

/// Upper bound of a file's size in bytes: the uncompressed values, and for HDF5's own structures 12 KiB, 6 KiB for
/// a probe and 64 bytes + 1/1024 for a map. Compressed it is about half of that, as the half above the diagonal is
/// 0.
std::uint64_t attention_bytes(const AttentionFileInfo& info);

/// What one probe adds to that bound without its texts: `maps` = layers * heads, of `tokens` tokens.
std::uint64_t attention_probe_bytes(std::uint64_t maps, std::uint64_t tokens, std::uint64_t statistics);

}  // namespace dekoder
