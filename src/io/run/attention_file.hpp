// SPDX-License-Identifier: Apache-2.0
// attention.h5: attention weights and head statistics of a few texts, the probes, at steps of training.
//   /                             attributes format, major, minor (int32), run_id, config (resolved YAML, of the
//                                 start that captured last), tokenizer, writer; text is fixed-length UTF-8
//   /layers, /heads               int32: which of the model's layers and heads axes 0 and 1 of the maps are
//   /attention/<probe>            attributes text, source, causal (uint8 = 1: query t sees keys 0 to t)
//   /attention/<probe>/tokens     int32 (token)
//   /attention/<probe>/token_text fixed-length UTF-8 (token)
//   /attention/<probe>/step_<n>   float16 (layer, head, query, key), a chunk per head, shuffle, gzip, Fletcher32;
//                                 attributes axes = "layer,head,query,key", step (int64)
//   /statistics                   attribute names = "entropy,mean_distance,...": what the axis statistic holds
//   /statistics/<probe>/step_<n>  float32 (layer, head, statistic), Fletcher32; attributes axes, step (int64)
// <n> is not padded; step 0 = initial values. A step is there for all probes or for none. In texts a byte that is
// no UTF-8 reads \xC3 (four characters), so does a NUL.
//
// The file under its name never changes: each step goes into a copy, which then takes the name. So a reader of a
// run in progress, and a restart after a kill at any time, find a whole file.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "base/error.hpp"
#include "tensor/tensor.hpp"

namespace dekoder {

class Hdf5File;

namespace attention_file {

inline constexpr const char* format = "dekoder-attention";
inline constexpr std::int32_t major_version = 1;  ///< another one is refused
inline constexpr std::int32_t minor_version = 0;  ///< additions that older readers may ignore

/// Datasets of a step of the probe named `probe`.
std::string map_path(const std::string& probe, long step);
std::string statistics_path(const std::string& probe, long step);

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

/// What all steps of a file have in common.
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

/// Maps and statistics of one probe at one step, row-major; L layers and H heads captured, n tokens.
struct AttentionMaps {
  std::vector<float> weights;     ///< (L,H,n,n): layer, head, query, key
  std::vector<float> statistics;  ///< (L,H,S): layer, head, statistic
};

/// Writer of attention.h5: one per run, by the holder of the run directory. Throws ShapeError (a fault of the
/// program) where lists are empty or sizes do not agree.
class AttentionFile {
 public:
  /// Goes on with the file at `path`, or where a symbolic link there leads, or begins one with the first append.
  /// Steps after `kept_step` belong to a future that a restart repeats: they are dropped, and their space with
  /// them; -1: all of them. Steps that stay are read, so that damage shows. A file that is damaged, of another
  /// kind, or of another run, other probes, layers, heads or statistics is moved aside (attention.h5 ->
  /// attention-1.h5, the first number that is free) with one warning. The temporary file of a writer that died is
  /// removed. The attributes config and writer are brought up to date by the next append. Throws SaveError where
  /// the disk does not take it.
  AttentionFile(std::filesystem::path path, AttentionFileInfo info, long kept_step);

  bool has(long step) const { return steps_.contains(step); }
  const std::set<long>& steps() const { return steps_; }

  /// Adds a step that is not there yet, with the maps of each probe in the order of the info; on return it is on
  /// the disk. A file that was put there since is treated as at construction, so that none of others is added to.
  /// Throws SaveError where the disk does not take it: the file is as before and has no such step.
  void append(long step, std::span<const AttentionMaps> one_per_probe);

 private:
  bool take_over(long kept_step, bool read_maps);
  void write_kept(Hdf5File& file) const;

  std::filesystem::path path_, temporary_;
  AttentionFileInfo info_;
  std::set<long> steps_;
  bool current_ = false;                       ///< the file's attributes are those of info_
  std::array<std::int64_t, 5> identity_ = {};  ///< of the file as this writer left it
};

/// The steps that AttentionFile(path, info, kept_step) would go on with if none is damaged; changes nothing.
std::set<long> kept_attention_steps(const std::filesystem::path& path, AttentionFileInfo info, long kept_step);

/// Writes a file of one step, which takes the place of a file at `path`. Any number of processes may do so at once:
/// what is there is always a whole file of one of them. Throws SaveError where the disk does not take it, and
/// ShapeError as AttentionFile.
void write_attention_file(const std::filesystem::path& path, AttentionFileInfo info, long step,
                          std::span<const AttentionMaps> one_per_probe);

/// Upper bound of a file's size in bytes with `steps` steps: the uncompressed values, and for HDF5's own structures
/// 32 KiB, 8 KiB for a probe, 4 KiB for a step of a probe and 64 bytes + 1/1024 for a map. Compressed it is about
/// half of that, as the half above the diagonal is 0.
std::uint64_t attention_bytes(const AttentionFileInfo& info, long steps);

/// What one step of one probe adds to that bound: `maps` = layers * heads, of `tokens` tokens.
std::uint64_t attention_step_bytes(std::uint64_t maps, std::uint64_t tokens, std::uint64_t statistics);

}  // namespace dekoder
