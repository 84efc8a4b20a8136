// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "data/data_mixture.hpp"
#include "data/data_order.hpp"
#include "tensor/tensor.hpp"

namespace dekoder {

/// One micro-batch of one rank. Row b is global sample first_sample + b.
struct Batch {
  HostTokenTensor2 inputs;         ///< (B,T)
  HostTokenTensor2 targets;        ///< (B,T): the token that follows each input
  std::uint64_t first_sample = 0;  ///< global index of row 0
  long step = 0;                   ///< optimizer step it belongs to
  long micro = 0;                  ///< its number among all of the step, from 0
};

/// The order of the training windows of these sources. W = floor((tokens - 1) / T) of a training part, each once
/// per epoch. Throws DataError where one is shorter than one window, ConfigError for a weight that is too small.
MixtureOrder training_order(const DataMixture& data, std::uint64_t seed, int context);

/// Training batches, made ahead by a thread of its own. Window w is tokens [w T, (w + 1) T] of a training part.
/// Each step takes the next `batch` global samples, in micro-batches of `micro_batch` rows, of which a rank makes
/// its own: for any number of ranks the same windows make up a step, in the same micro-batches.
class BatchLoader {
 public:
  /// Starts with step `first_step`, whose first global sample is `first_sample`, and makes the micro-batches
  /// [first, end) of each step, of B = `micro_batch` rows; batch is a multiple of micro_batch. Keeps a reference to
  /// `data`. Throws ConfigError for numbers that do not fit together, and as training_order.
  BatchLoader(const DataMixture& data, std::uint64_t seed, int context, int batch, int micro_batch, long first,
              long end, long first_step, std::uint64_t first_sample);
  ~BatchLoader();
  BatchLoader(const BatchLoader&) = delete;

  /// The next micro-batch; valid until the next call. Rethrows what failed while it was made ahead.
  const Batch& next();

  const MixtureOrder& order() const;

 private:
  class Prefetch;
  std::unique_ptr<Prefetch> prefetch_;
};

/// The held-out text that validation loss is measured on: the first N held-out tokens in order, each predicted
/// once, in windows of T that do not overlap. The first window begins with the last training token, so that all N
/// count and nats per token * tokens() / bytes() / ln 2 is the number of bits per byte of exactly this text.
class ValidationWindows {
 public:
  /// `tokens`: N, 0 or more than there are: the whole held-out part. Keeps a reference to `dataset`.
  ValidationWindows(const TokenDataset& dataset, int context, long tokens);

  std::uint64_t windows() const { return (tokens_ + context_ - 1) / context_; }
  std::uint64_t tokens() const { return tokens_; }  ///< predicted ones; 0 for a file without a held-out part
  std::uint64_t bytes() const { return bytes_; }    ///< of the source that they stand for
  /// SHA-256 of the tokens that are read, as little-endian 32-bit words.
  const std::string& digest() const { return digest_; }

  /// Copies windows [first, first + B) into inputs(B,T) and targets(B,T) and returns how many tokens they predict:
  /// the first that many positions in row-major order. What lies behind the end is token 0 and must not be counted.
  std::uint64_t read(std::uint64_t first, const HostTokenTensor2& inputs, const HostTokenTensor2& targets) const;

 private:
  const TokenDataset& dataset_;
  std::uint64_t context_, tokens_, bytes_ = 0;
  std::string digest_;
};

}  // namespace dekoder
