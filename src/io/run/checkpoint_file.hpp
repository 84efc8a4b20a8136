// SPDX-License-Identifier: Apache-2.0
// What lies in the file of a checkpoint (checkpoint.hpp): its fields, its tensors and their digests, read block by
// block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "io/files/xxh64.hpp"
#include "io/hdf5/hdf5_file.hpp"
#include "io/run/checkpoint.hpp"

namespace dekoder {

inline constexpr const char* checkpoint_format_name = "dekoder-checkpoint";
inline constexpr int checkpoint_format_major = 1, checkpoint_format_minor = 2;

/// What the root digest knows of one tensor.
struct TensorRecord {
  std::string path;  ///< "/parameters/head.weight"
  Hdf5Type type = hdf5_type_of<Real>();
  std::vector<std::size_t> shape;
  std::string axes;
  std::uint64_t digest = 0;

  /// "<path>\n<type>\n<extents>\n<axes>\n"
  std::string heading() const;
  /// XXH64 over heading and `bytes`.
  std::uint64_t digest_of(std::span<const std::byte> bytes) const;
};

/// "<file>:<path>: is damaged (digest differs: stored ..., computed ...)"
std::string digest_fault(const std::string& file, const TensorRecord& record, std::uint64_t computed);

/// "/<group>/<name>"
std::string tensor_path(std::string_view group, std::string_view name);

/// Calls visit(name, value) for every field that minor version `minor` brought, in the order of its digest.
template <class Info, class Visitor>
void for_each_field(Info& info, int minor, Visitor visit) {
  switch (minor) {
    case 0:
      visit("step", info.step);
      visit("tokens_seen", info.tokens_seen);
      visit("config_yaml", info.config_yaml);
      visit("tokenizer", info.tokenizer);
      visit("data_hash", info.data_hash);
      visit("validation_loss", info.validation_loss);
      visit("best_validation_loss", info.best_validation_loss);
      visit("best_step", info.best_step);
      visit("sampled_step", info.sampled_step);
      visit("metrics_bytes", info.metrics_bytes);
      visit("samples_bytes", info.samples_bytes);
      visit("run_id", info.run_id);
      visit("writer", info.writer);
      return;
    case 1:
      visit("validation_hash", info.validation_hash);
      visit("best_validation_hash", info.best_validation_hash);
      visit("restarts", info.restarts);
      return;
    case 2:
      visit("skipped_steps", info.skipped_steps);
      return;
    default:
      throw std::logic_error(fmt::format("checkpoint fields of minor version {}", minor));
  }
}

/// Root attribute with the digest of the fields of a minor version.
std::string checkpoint_digest_name(int minor);

/// XXH64 over "<field>:<bytes of its text>:<text>\n" for each field of the minor version and
/// "<heading>\n<digest>\n" for each tensor in the order of their paths; numbers as their shortest exact text.
std::uint64_t checkpoint_root_digest(const CheckpointInfo& info, int minor, std::vector<TensorRecord> records);

/// An open file whose fields and list of tensors are known to be intact. It stays readable when it is deleted.
struct OpenCheckpoint {
  Hdf5File file;
  CheckpointInfo info;
  std::vector<std::string> groups;
  std::vector<TensorRecord> records;  ///< of all groups

  std::string name() const { return file.path().string(); }
};

/// Throws as read_checkpoint_info.
OpenCheckpoint open_checkpoint(const std::filesystem::path& path);

/// Throws ConfigError where the groups of a checkpoint are not `groups`. The message ends with `remedy`.
void require_groups(const OpenCheckpoint& checkpoint, std::span<const std::string> groups, std::string_view remedy);

/// The record of each parameter in `group`, in the order of the layout; throws ConfigError where names or shapes do
/// not match. The message ends with `remedy`.
std::vector<TensorRecord> matched_records(const OpenCheckpoint& checkpoint, const std::string& group,
                                          const ParameterLayout& layout, std::string_view remedy);

/// Reads the values of one tensor, float32 or float64, block by block in row-major order, and their digest along
/// the way. In memory is one block of about 1 MiB (or one chunk, where the file has larger ones).
class TensorReader {
 public:
  /// Throws DataError where the tensor holds another type. `checkpoint` must outlive the reader.
  TensorReader(const OpenCheckpoint& checkpoint, const TensorRecord& record);

  /// Calls visit(offset, count) for blocks that together are the whole tensor; read() them in this order.
  using BlockVisitor =
      std::function<void(const std::vector<std::size_t>& offset, const std::vector<std::size_t>& count)>;
  void for_each_block(const BlockVisitor& visit) const;

  /// The bytes of a block. Where only HDF5's checksum of them is wrong they come all the same, and fault() tells.
  /// Throws DataError, ReadError.
  std::span<const std::byte> read(const std::vector<std::size_t>& offset, const std::vector<std::size_t>& count);
  /// Element of the block that was read last.
  double value(std::size_t i) const { return doubles_.empty() ? double(floats_[i]) : doubles_[i]; }

  /// What is wrong with what was read, after the last block: "<file>:<path>: is damaged (digest differs: ...)"; ""
  /// if nothing is.
  std::string fault() const;
  /// Throws DataError where fault() is something.
  void require_intact() const;

 private:
  template <class T>
  std::span<const std::byte> read_into(std::vector<T>& values, const std::vector<std::size_t>& offset,
                                       const std::vector<std::size_t>& count);

  std::string file_;
  const TensorRecord& record_;
  Hdf5Dataset dataset_;
  Xxh64 digest_;
  std::vector<float> floats_;    ///< the block, of a float32 tensor
  std::vector<double> doubles_;  ///< the block, of a float64 tensor
  std::string checksum_fault_;   ///< HDF5's words; empty: none
};

/// Reads a whole tensor and throws DataError where it is damaged.
void require_intact_tensor(const OpenCheckpoint& checkpoint, const TensorRecord& record);

/// Index in a tensor's own shape of element `i` of a block.
std::vector<std::size_t> index_in_tensor(std::size_t i, std::span<const std::size_t> offset,
                                         std::span<const std::size_t> count);

}  // namespace dekoder
