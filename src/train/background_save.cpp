// SPDX-License-Identifier: Apache-2.0
#include "train/background_save.hpp"

#include <algorithm>
#include <chrono>
#include <stdexcept>
#include <utility>

#include "base/elapsed.hpp"
#include "base/helper_thread.hpp"
#include "io/run/checkpoint.hpp"
#include "tensor/region.hpp"

namespace dekoder {

namespace {

using Clock = std::chrono::steady_clock;

/// What rank 0 tells the owners of parts.
enum Request : int { send_next_batch, send_no_more };

/// A window holds any tensor, and a few buckets: enough that the time for a request is small beside it.
std::size_t window_elements(const Shards& shards, const ParameterLayout& layout) {
  std::size_t largest = 0, all = 0;
  for (const ParameterEntry& entry : layout.entries()) {
    largest = std::max(largest, entry.size());
    all += entry.size();
  }
  return std::min(std::max(largest, 4 * shards.bucket_elements()), buffers_of_state * all);
}

}  // namespace

std::size_t BackgroundSave::copy_bytes(const Shards& shards, const ParameterLayout& layout, int rank) {
  const std::size_t of_adamw = elements_of(without(shards.owned(rank), shards.whole()));
  return ((layout.averaged() ? 3 : 2) * shards.owned_elements(rank) + of_adamw) * sizeof(Master);
}

std::size_t BackgroundSave::arrival_bytes(const Shards& shards, const ParameterLayout& layout) {
  return shards.ranks() == 1 ? 0 : 2 * window_elements(shards, layout) * sizeof(Master);
}

BackgroundSave::BackgroundSave(TrainingModel& model)
    : model_(model),
      state_(model.state()),
      wanted_(model.ranks()),
      arriving_(model.ranks()),
      departing_(model.ranks()) {
  if (state_.size() != buffers_of_state) throw std::logic_error("the state of a run is not of four buffers");
  const std::size_t owned = model.shards().owned_elements(model.ranks().rank());
  for (std::size_t b = 0; b < state_.size(); ++b)
    if (const std::size_t elements = b == 0 ? owned : state_[b].buffer.size(); elements > 0)
      copies_.emplace_back("state.copy", elements);
    else
      copies_.emplace_back();
  if (model.ranks().size() == 1) return;
  const std::size_t window = window_elements(model.shards(), model.store().layout());
  std::size_t place = window;
  for (std::size_t b = 0; b < state_.size(); ++b)
    for (const ParameterEntry& entry : model.store().layout().entries()) {
      const std::size_t elements = in_group(state_[b].name, entry) ? entry.size() : 0;
      if (place + elements > window) {
        batch_begin_.push_back(place_.size());
        place = 0;
      }
      place_.push_back(place);
      place += elements;
    }
  batches_ = batch_begin_.size();
  batch_begin_.push_back(place_.size());
  for (int i = 0; model.ranks().root() && i < 2; ++i) windows_.emplace_back("state.arriving", window);
}

BackgroundSave::~BackgroundSave() {
  if (!thread_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    abandoned_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void BackgroundSave::begin(const ExecSpace& exec, Write write) {
  if (busy_) throw std::logic_error("a save begins before the last one has ended");
  const Region region("save");
  const auto begin = Clock::now();
  std::size_t place = 0;
  for (const FlatRange& range : model_.optimizer().owned()) {
    Kokkos::deep_copy(exec, rows(copies_[0], long(place), long(place + range.size())),
                      rows(state_[0].buffer, long(range.begin), long(range.end)));
    place += range.size();
  }
  for (std::size_t b = 1; b < state_.size(); ++b) Kokkos::deep_copy(exec, copies_[b], state_[b].buffer);
  exec.fence("dekoder::copy_state");
  copied_ = Clock::now();
  copy_seconds_ = seconds_between(begin, copied_);
  busy_ = true;
  asked_ = arrived_ = consumed_ = sent_ = 0;
  written_ = false;
  if (model_.ranks().root())
    thread_ = start_helper_thread("save", [this, write = std::move(write)] { this->write(write); });
  else
    wanted_.receive(&request_, 1, 0, wanted_tag);
  advance();
}

void BackgroundSave::write(const Write& write) {
  std::vector<NamedBuffer> buffers = state_;
  for (std::size_t b = 0; b < buffers.size(); ++b)
    buffers[b].get = [this, b](const ParameterEntry& entry) { return tensor(b, entry); };
  SaveOutcome outcome;
  try {
    write(buffers);
  } catch (...) {
    outcome.failure = std::current_exception();
  }
  outcome.copy_seconds = copy_seconds_;
  outcome.write_seconds = seconds_between(copied_, Clock::now());
  const std::lock_guard lock(mutex_);
  result_ = outcome;
  written_ = true;
}

/// In the thread that writes, which asks for one tensor after the other.
HostBuffer BackgroundSave::tensor(std::size_t buffer, const ParameterEntry& entry) {
  if (batches_ == 0)
    return HostBuffer(copies_[buffer].data() + model_.parts_of(buffer, entry).front().place, entry.size());
  const std::vector<ParameterEntry>& entries = model_.store().layout().entries();
  const std::size_t index = buffer * entries.size() + std::size_t(&entry - entries.data());
  const auto behind = std::upper_bound(batch_begin_.begin(), batch_begin_.end(), index);
  const std::size_t batch = std::size_t(behind - batch_begin_.begin()) - 1;
  std::unique_lock lock(mutex_);
  consumed_ = batch;
  changed_.wait(lock, [&] { return arrived_ > batch || abandoned_; });
  if (abandoned_) throw std::runtime_error("the run ended before its state was saved");
  return HostBuffer(windows_[batch % 2].data() + place_[index], entry.size());
}

std::vector<OwnedPart> BackgroundSave::parts_of(std::size_t tensor) const {
  const std::vector<ParameterEntry>& entries = model_.store().layout().entries();
  return model_.parts_of(tensor / entries.size(), entries[tensor % entries.size()]);
}

void BackgroundSave::tell_owners(int request) {
  wanted_.wait();  // the last one has long been heard
  request_ = request;
  for (int to = 1; to < model_.ranks().size(); ++to) wanted_.send(&request_, 1, to, wanted_tag);
}

void BackgroundSave::ask_for_a_batch() {
  const Region region("save");  // each one is news for the watchdog
  const std::vector<ParameterEntry>& entries = model_.store().layout().entries();
  tell_owners(send_next_batch);
  for (std::size_t t = batch_begin_[asked_]; t < batch_begin_[asked_ + 1]; ++t)
    for (const OwnedPart& part : parts_of(t)) {
      Master* const to =
          windows_[asked_ % 2].data() + place_[t] + part.range.begin - entries[t % entries.size()].offset;
      if (part.rank == 0)
        std::copy_n(copies_[t / entries.size()].data() + part.place, part.range.size(), to);
      else
        arriving_.receive(to, part.range.size(), part.rank, saved_tag);
    }
  ++asked_;
}

void BackgroundSave::follow_root() {
  const std::size_t entries = model_.store().layout().entries().size();
  while (sent_ < batches_ && wanted_.done()) {
    if (request_ == send_no_more) {
      sent_ = batches_;
      break;
    }
    const Region region("save");
    for (std::size_t t = batch_begin_[sent_]; t < batch_begin_[sent_ + 1]; ++t)
      for (const OwnedPart& part : parts_of(t))
        if (part.rank == model_.ranks().rank())
          departing_.send(copies_[t / entries].data() + part.place, part.range.size(), 0, saved_tag);
    if (++sent_ < batches_) wanted_.receive(&request_, 1, 0, wanted_tag);
  }
  busy_ = sent_ < batches_ || !departing_.done();
}

void BackgroundSave::advance() {
  if (!busy_) return;
  if (!model_.ranks().root()) return follow_root();
  bool written = false;
  std::size_t consumed = 0;
  const bool all_here = arriving_.done();
  {
    const std::lock_guard lock(mutex_);
    if (all_here) arrived_ = asked_;
    written = written_;
    consumed = consumed_;
  }
  changed_.notify_all();
  if (!all_here) return;
  if (written) {
    if (asked_ < batches_) {
      tell_owners(send_no_more);
      asked_ = batches_;
    }
    wanted_.wait();
    thread_.join();
    outcome_ = result_;
    busy_ = false;
  } else if (asked_ < batches_ && asked_ < consumed + 2) {
    ask_for_a_batch();
  }
}

void BackgroundSave::finish() {
  const Region region("save");
  const auto ended = [&] {
    advance();
    return !busy_;
  };
  if (!model_.ranks().root()) return model_.ranks().wait_until(ended, "rank 0 (a checkpoint)");
  while (!ended()) {
    arriving_.wait("tensors of a checkpoint");  // which names the rank that does not send
    std::this_thread::sleep_for(std::chrono::microseconds(200));
  }
}

}  // namespace dekoder
