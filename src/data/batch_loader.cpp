// SPDX-License-Identifier: Apache-2.0
#include "data/batch_loader.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <stdexcept>
#include <thread>

#include "base/error.hpp"
#include "base/helper_thread.hpp"
#include "io/files/sha256.hpp"
#include "tensor/shape_signature.hpp"

namespace dekoder {

// ---- BatchLoader

MixtureOrder training_order(const DataMixture& data, std::uint64_t seed, int context) {
  if (context < 1) throw ConfigError("model.context: got {}, expected at least 1", context);
  std::vector<std::uint64_t> windows;
  for (const TokenDataset& source : data.sources()) {
    const std::uint64_t tokens = source.training_tokens();
    if (tokens < static_cast<std::uint64_t>(context) + 1)
      throw DataError(
          "{}: its training part has {} tokens, fewer than one window of model.context + 1 = {}; use a longer "
          "text or a smaller context",
          source.path().string(), tokens, context + 1);
    windows.push_back((tokens - 1) / static_cast<std::uint64_t>(context));
  }
  return MixtureOrder(seed, windows, data.weights());
}

namespace {

/// Copies the T + 1 tokens of a window into row b of both tensors.
void split_window(std::span<const Token> window, std::size_t b, const Batch& batch) {
  for (std::size_t t = 0; t + 1 < window.size(); ++t) {
    batch.inputs(b, t) = window[t];
    batch.targets(b, t) = window[t + 1];
  }
}

}  // namespace

/// Two batches: the consumer holds one while the thread fills the other.
class BatchLoader::Prefetch {
 public:
  Prefetch(const DataMixture& data, std::uint64_t seed, int context, int batch, int micro_batch, long first,
           long end, long first_step, std::uint64_t first_sample)
      : data_(data),
        order_(training_order(data, seed, context)),
        batch_(batch),
        micro_batch_(micro_batch),
        first_(first),
        end_(end),
        step_(first_step),
        micro_(first),
        sample_(first_sample),
        window_(static_cast<std::size_t>(context) + 1) {
    if (batch < 1 || micro_batch < 1 || batch % micro_batch != 0 || first < 0 || first >= end ||
        end > batch / micro_batch || first_step < 0)
      throw ConfigError(
          "training.batch: got {} sequences in micro-batches of {}, of which {} to {} are this rank's; expected a "
          "multiple of training.micro_batch, and micro-batches among them",
          batch, micro_batch, first, end - 1);
    for (Batch& slot : slots_) {
      slot.inputs = HostTokenTensor2("dekoder::BatchLoader inputs", static_cast<std::size_t>(micro_batch),
                                     static_cast<std::size_t>(context));
      slot.targets = HostTokenTensor2("dekoder::BatchLoader targets", static_cast<std::size_t>(micro_batch),
                                      static_cast<std::size_t>(context));
    }
    thread_ = start_helper_thread("dekoder-data", [this] { work(); });
  }

  ~Prefetch() {
    {
      const std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  const Batch& next() {
    std::unique_lock lock(mutex_);
    if (taken_ > 0) released_ = taken_;
    changed_.notify_all();
    changed_.wait(lock, [&] { return made_ > taken_ || failure_; });
    if (made_ == taken_) std::rethrow_exception(failure_);
    return slots_[taken_++ % slots_.size()];
  }

  const MixtureOrder& order() const { return order_; }

 private:
  void work() {
    try {
      for (std::unique_lock lock(mutex_);;) {
        changed_.wait(lock, [&] { return stop_ || made_ - released_ < slots_.size(); });
        if (stop_) return;
        Batch& slot = slots_[made_ % slots_.size()];
        lock.unlock();
        fill(slot);
        lock.lock();
        ++made_;
        changed_.notify_all();
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      failure_ = std::current_exception();
      changed_.notify_all();
    }
  }

  void fill(Batch& slot) {
    slot.step = step_;
    slot.micro = micro_;
    slot.first_sample = sample_ + static_cast<std::uint64_t>(micro_ * micro_batch_);
    for (int b = 0; b < micro_batch_; ++b) {
      const MixtureOrder::Place place = order_.place(slot.first_sample + static_cast<std::uint64_t>(b));
      data_.sources()[place.source].read(place.window * (window_.size() - 1), window_);
      split_window(window_, static_cast<std::size_t>(b), slot);
    }
    if (++micro_ == end_) {
      micro_ = first_;
      ++step_;
      sample_ += static_cast<std::uint64_t>(batch_);
    }
  }

  const DataMixture& data_;
  MixtureOrder order_;
  int batch_, micro_batch_;
  long first_, end_, step_, micro_;
  std::uint64_t sample_;  ///< the first one of the step
  std::vector<Token> window_;

  std::array<Batch, 2> slots_;
  std::uint64_t made_ = 0, taken_ = 0, released_ = 0;  ///< batches so far; guarded by mutex_
  bool stop_ = false;
  std::exception_ptr failure_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::thread thread_;
};

BatchLoader::BatchLoader(const DataMixture& data, std::uint64_t seed, int context, int batch, int micro_batch,
                         long first, long end, long first_step, std::uint64_t first_sample)
    : prefetch_(std::make_unique<Prefetch>(data, seed, context, batch, micro_batch, first, end, first_step,
                                           first_sample)) {}

BatchLoader::~BatchLoader() = default;

const Batch& BatchLoader::next() {
  return prefetch_->next();
}
const MixtureOrder& BatchLoader::order() const {
  return prefetch_->order();
}

// ---- ValidationWindows

ValidationWindows::ValidationWindows(const TokenDataset& dataset, int context, long tokens)
    : dataset_(dataset), context_(static_cast<std::uint64_t>(context)), tokens_(dataset.validation_tokens()) {
  if (context < 1) throw ConfigError("model.context: got {}, expected at least 1", context);
  if (tokens < 0) throw ConfigError("evaluation.tokens: got {}, expected 0 (all) or more", tokens);
  if (tokens > 0) tokens_ = std::min(tokens_, static_cast<std::uint64_t>(tokens));
  Sha256 hash;
  std::vector<Token> piece;
  std::vector<std::byte> words;
  const std::uint64_t begin = dataset.training_tokens() - 1, end = dataset.training_tokens() + tokens_;
  for (std::uint64_t at = begin; tokens_ > 0 && at < end; at += piece.size()) {
    piece.resize(static_cast<std::size_t>(std::min<std::uint64_t>(1 << 16, end - at)));
    dataset.read(at, piece);
    words.clear();
    for (const Token token : piece) {
      for (int shift = 0; shift < 32; shift += 8) words.push_back(static_cast<std::byte>(token >> shift & 0xff));
      bytes_ += dataset.tokenizer().bytes_of(token);
    }
    if (at == begin) bytes_ -= dataset.tokenizer().bytes_of(piece[0]);  // the last training token is not predicted
    hash.update(words);
  }
  // Of a text that its tokenizer changes, the same share as of the bytes that tokens have.
  if (const TokenFileHeader& header = dataset.header(); header.validation_token_bytes > 0)
    bytes_ = static_cast<std::uint64_t>(
        std::llround(static_cast<double>(bytes_) * (static_cast<double>(header.validation_bytes) /
                                                    static_cast<double>(header.validation_token_bytes))));
  digest_ = hash.finish();
}

std::uint64_t ValidationWindows::read(std::uint64_t first, const HostTokenTensor2& inputs,
                                      const HostTokenTensor2& targets) const {
  static constexpr ShapeSignature shapes{"ValidationWindows::read", "-> inputs(B,T) targets(B,T)"};
  const MatchedExtents extent = shapes.match(inputs, targets);
  if (static_cast<std::uint64_t>(extent['T']) != context_)
    throw ShapeError(fmt::format("ValidationWindows::read: T={}, expected {}", extent['T'], context_));
  const std::size_t positions = inputs.size();
  const std::uint64_t begin = std::min(first * context_, tokens_);
  const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(positions, tokens_ - begin));
  // windows follow each other, so inputs and targets are one stretch of tokens each, one token apart
  const std::span<Token> input_row(inputs.data(), positions), target_row(targets.data(), positions);
  std::fill(input_row.begin(), input_row.end(), 0);
  std::fill(target_row.begin(), target_row.end(), 0);
  if (count == 0) return 0;
  dataset_.read(dataset_.training_tokens() - 1 + begin, input_row.first(count));
  dataset_.read(dataset_.training_tokens() + begin, target_row.first(count));
  return count;
}

}  // namespace dekoder
