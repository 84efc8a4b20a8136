// SPDX-License-Identifier: Apache-2.0
// One saved state of training = one HDF5 file that never changes once it has its name, ckpt-<step>.h5:
//   /                  attributes format, major, minor, digest, digest_1 and the fields of CheckpointInfo
//   /<buffer>/<name>   one group per NamedBuffer: parameters, and what the optimizer keeps (first_moment,
//                      second_moment, of what Muon updates its momentum and none; average, where there is one);
//                      attributes axes ("3C,C") and digest
// Digests are XXH64 (io/files/xxh64.hpp). A tensor's is over "<path>\n<type>\n<extents>\n<axes>\n" (extents joined
// by commas) and its raw little-endian bytes; `digest` of the root is over the fields of minor version 0 and all
// tensors' digests (checkpoint.cpp). Chunks carry HDF5's Fletcher32 besides. Fields that a later minor version n
// adds have a digest of their own, digest_<n>, so that an older program reads the file without them; a file of an
// older minor version gives them their defaults.
#pragma once

#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <string_view>

#include "base/error.hpp"
#include "tensor/parameter_store.hpp"

namespace dekoder {

/// Everything of a state that is not a tensor. What follows from (configuration, step), such as the learning rate,
/// the place in the data and all random numbers, is not stored.
struct CheckpointInfo {
  static constexpr double none = std::numeric_limits<double>::quiet_NaN();

  long step = 0;                       ///< optimizer steps done
  std::uint64_t tokens_seen = 0;       ///< training tokens so far, over all ranks
  std::string config_yaml;             ///< the resolved configuration
  std::string tokenizer;               ///< text form of the tokenizer
  std::string data_hash;               ///< TokenFileHeader::identity of the token file
  double validation_loss = none;       ///< of these parameters, nats per token; NaN: not evaluated
  double best_validation_loss = none;  ///< smallest of the states saved by period so far; NaN: none
  long best_step = -1;                 ///< of that state; -1: none
  long sampled_step = -1;              ///< last step whose sample is in samples.txt; -1: none
  std::uint64_t metrics_bytes = 0;     ///< length of metrics.jsonl that belongs to this state
  std::uint64_t samples_bytes = 0;     ///< length of samples.txt that belongs to this state
  std::string run_id;                  ///< names the run over all its restarts
  std::string writer;                  ///< program version and backend, for information only
  // since minor version 1
  std::string validation_hash;       ///< of the tokens that validation_loss was measured on; empty: not known
  std::string best_validation_hash;  ///< of those of best_validation_loss; empty: not known
  std::string restarts;              ///< a JSON line for each restart that changed settings
  // since minor version 2
  long skipped_steps = 0;  ///< that changed nothing but the count of steps, as they were not finite
};

/// Written by a newer program: nothing is wrong with the file, so nothing older is used in its place.
class NewerFormatError : public DataError {
 public:
  using DataError::DataError;
};

/// Of the files of checkpoints (step_files.hpp).
inline constexpr const char* checkpoint_prefix = "ckpt-";

/// Name of the file of a step: "ckpt-00001200.h5".
std::string checkpoint_file_name(long step);

/// The group of the parameters among the buffers of a state; the others are the optimizer's.
inline constexpr const char* parameter_group = "parameters";

inline constexpr const char* average_group = "average";
/// Of the state of a run: the parameters, the optimizer's two moments, and the moving average of the parameters.
inline constexpr std::array state_groups = {parameter_group, "first_moment", "second_moment", average_group};
inline constexpr std::size_t buffers_of_state = state_groups.size();
inline constexpr std::size_t second_moment = 2;  ///< its index among them

/// Whether a group of a state holds a tensor: one that is updated as a matrix has no second moment, and not every
/// run has averages.
bool in_group(std::string_view group, const ParameterEntry& entry);
/// Whether it holds any; files have no groups that do not.
bool is_kept(std::string_view group, const ParameterLayout& layout);

/// Bytes of the file of the state of a run, at most, beside its texts.
std::uint64_t checkpoint_bytes(const ParameterLayout& layout);

/// Saves a state as folder/ckpt-<step>.h5 and returns that path: a PendingFile, read back against its digests
/// before it takes its name. On return the file is complete on the disk. An older file of the same step is
/// replaced. Each of `buffers` is a flat buffer of `layout`, with a name of its own (ShapeError). `may_take_place`
/// is called last, before the file takes its name, which it does not where that throws. Call on rank 0 only. Throws
/// SaveError.
std::filesystem::path write_checkpoint(const std::filesystem::path& folder, const CheckpointInfo& info,
                                       const ParameterLayout& layout, std::span<const NamedBuffer> buffers,
                                       const std::function<void()>& may_take_place = {});

/// Fields of a file, checked by the root digest; tensors are not read. Throws DataError where the file is damaged
/// or no checkpoint, NewerFormatError where its major version is newer than this program's, ReadError where the
/// system cannot read it now.
CheckpointInfo read_checkpoint_info(const std::filesystem::path& file);

/// Reads a whole state, every digest checked, and returns its fields. The buffers hold rubbish where this throws:
/// DataError for a damaged file, ConfigError where an intact file's groups differ from the names of `buffers` or
/// its tensors from `layout` (names the first one), NewerFormatError.
CheckpointInfo read_checkpoint(const std::filesystem::path& file, const ParameterLayout& layout,
                               std::span<const NamedBuffer> buffers);

/// The same for the parameters alone, for evaluation and generation.
CheckpointInfo read_checkpoint_parameters(const std::filesystem::path& file, const ParameterStore& store);

/// Reads every tensor and checks every digest. Throws as read_checkpoint_info.
void verify_checkpoint(const std::filesystem::path& file);

}  // namespace dekoder
