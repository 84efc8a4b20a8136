// SPDX-License-Identifier: Apache-2.0
// A step of training whose loss or gradients were not finite, whole, in one HDF5 file that never changes:
//   /                      attributes format, major, minor and the fields of BlackBox that are no arrays
//   /batch/inputs, targets (batch,T); sample_indices, sources (minor version 1), windows (batch)
//   /losses                (M) of the micro-batches
//   /parameters/<name>     before the step
//   /tensors/<column>      one element per TensorHealth
//   /metrics               the last lines of metrics.jsonl
// Chunks of parameters and of the batch carry HDF5's Fletcher32.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "tensor/parameter_store.hpp"

namespace dekoder {

/// What is in a tensor.
struct TensorHealth {
  std::string name;       ///< "blocks.03.attention.qkv"
  std::string operation;  ///< that wrote it: "linear C -> 3C"
  long micro = -1;        ///< micro-batch of the step; -1: of all, as the parameters
  std::uint64_t elements = 0, nans = 0, infinities = 0;
  std::int64_t first = -1;  ///< row-major index of the first NaN or Inf; -1: none
  double largest = 0;       ///< absolute value of the finite ones
};

struct BlackBox {
  long step = 0;       ///< its number, counted from 1
  int ranks = 1;       ///< that computed it
  std::string reason;  ///< "step 14: the loss is nan"
  std::string run_id;
  std::string config_yaml;  ///< the resolved configuration
  std::string writer;
  std::vector<double> losses;                 ///< (M) what each micro-batch adds to the mean loss, nats per token
  std::vector<std::int32_t> inputs, targets;  ///< (batch,T)
  /// (batch): global sample; its number of data.tokens, from 0; window of that file's training part.
  std::vector<std::uint64_t> sample_indices, sources, windows;
  std::vector<TensorHealth>
      tensors;  ///< in the order of their computation, of which the first bad one is the cause
  std::vector<std::string> metrics;
};

/// step-<n>.h5.
std::string black_box_file_name(long step);

/// Writes it as a PendingFile: it is complete or not there. Throws SaveError.
void write_black_box(const std::filesystem::path& file, const BlackBox& box, const ParameterStore& store);
/// Throws DataError where the file is damaged or no black box.
BlackBox read_black_box(const std::filesystem::path& file);
/// Throws DataError where these are not the tensors of the store.
void read_black_box_parameters(const std::filesystem::path& file, const ParameterStore& store);

}  // namespace dekoder
