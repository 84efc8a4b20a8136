// SPDX-License-Identifier: Apache-2.0
#include "train/state_exchange.hpp"

#include <algorithm>
#include <exception>

namespace dekoder {

namespace {

constexpr int tag = 1;

/// What rank 0 tells before a tensor, or at the end.
struct News {
  StartNews news;
  int buffer, entry;  ///< of a tensor
  ExitCode code;      ///< of a failure
};

std::span<std::byte> bytes_of(const HostBuffer& buffer) {
  return std::as_writable_bytes(std::span<Master>(buffer.data(), buffer.size()));
}

}  // namespace

std::vector<StateExchange::Overlap> StateExchange::overlaps(const ParameterEntry& entry) const {
  std::vector<Overlap> found;
  const std::size_t first = entry.offset, last = entry.offset + entry.size();
  for (int rank = 0; rank < model_.ranks().size(); ++rank) {
    std::size_t moments = 0;
    for (const FlatRange& range : model_.shards().owned(rank)) {
      const std::size_t begin = std::max(range.begin, first), end = std::min(range.end, last);
      if (begin < end)
        found.push_back(
            {rank, {begin - first, end - first}, {moments + begin - range.begin, moments + end - range.begin}});
      moments += range.size();
    }
  }
  return found;
}

HostBuffer StateExchange::gather(const MasterTensor1& moments, const ParameterEntry& entry) {
  const HostBuffer tensor("state.tensor", entry.size());
  Messages messages(model_.ranks());
  for (const auto& [rank, in_tensor, in_moments] : overlaps(entry)) {
    const HostBuffer part = rows(tensor, long(in_tensor.begin), long(in_tensor.end));
    if (rank == 0)
      Kokkos::deep_copy(part, rows(moments, long(in_moments.begin), long(in_moments.end)));
    else
      messages.receive(part.data(), part.size(), rank, tag);
  }
  messages.wait();
  return tensor;
}

void StateExchange::scatter(const MasterTensor1& moments, const ParameterEntry& entry, const HostBuffer& tensor) {
  Messages messages(model_.ranks());
  for (const auto& [rank, in_tensor, in_moments] : overlaps(entry)) {
    const HostBuffer part = rows(tensor, long(in_tensor.begin), long(in_tensor.end));
    if (rank == 0)
      Kokkos::deep_copy(rows(moments, long(in_moments.begin), long(in_moments.end)), part);
    else
      messages.send(part.data(), part.size(), rank, tag);
  }
  messages.wait();
}

void StateExchange::give(const MasterTensor1& moments, const ParameterEntry& entry) {
  for (const auto& [rank, in_tensor, in_moments] : overlaps(entry)) {
    if (rank != model_.ranks().rank()) continue;
    const auto part = Kokkos::create_mirror_view_and_copy(
        Kokkos::HostSpace(), rows(moments, long(in_moments.begin), long(in_moments.end)));
    Messages messages(model_.ranks());
    messages.send(part.data(), part.size(), 0, tag);
    messages.wait();
  }
}

void StateExchange::take(const MasterTensor1& moments, const ParameterEntry& entry) {
  for (const auto& [rank, in_tensor, in_moments] : overlaps(entry)) {
    if (rank != model_.ranks().rank()) continue;
    const HostBuffer part("state.part", in_moments.size());
    Messages messages(model_.ranks());
    messages.receive(part.data(), part.size(), 0, tag);
    messages.wait();
    Kokkos::deep_copy(rows(moments, long(in_moments.begin), long(in_moments.end)), part);
  }
}

std::vector<NamedBuffer> StateExchange::to_owners() {
  std::vector<NamedBuffer> buffers = model_.state();
  if (model_.ranks().size() == 1) return buffers;
  for (std::size_t b = 0; b < buffers.size(); ++b) {
    const MasterTensor1 own = buffers[b].buffer;
    buffers[b].put = [this, b, own](const ParameterEntry& entry, const HostBuffer& tensor) {
      const auto& entries = model_.store().layout().entries();
      model_.ranks().from_root(News{StartNews::tensor, int(b), int(&entry - entries.data()), ExitCode::finished});
      if (b > 0) return scatter(own, entry, tensor);
      model_.ranks().broadcast(bytes_of(tensor));
      Kokkos::deep_copy(ParameterStore::flat_slice(own, entry), tensor);
    };
  }
  return buffers;
}

void StateExchange::tell(StartNews news, ExitCode code) const {
  model_.ranks().from_root(News{news, 0, 0, code});
}

bool StateExchange::follow_reading() {
  const std::vector<NamedBuffer> buffers = model_.state();
  while (true) {
    const News heard = model_.ranks().from_root(News{});
    if (heard.news == StartNews::failed) throw ElsewhereError(heard.code);
    if (heard.news != StartNews::tensor) return heard.news == StartNews::read;
    const ParameterEntry& entry = model_.store().layout().entries().at(std::size_t(heard.entry));
    const MasterTensor1& own = buffers.at(std::size_t(heard.buffer)).buffer;
    if (heard.buffer > 0) {
      take(own, entry);
    } else {
      const HostBuffer tensor("state.tensor", entry.size());
      model_.ranks().broadcast(bytes_of(tensor));
      Kokkos::deep_copy(ParameterStore::flat_slice(own, entry), tensor);
    }
  }
}

void StateExchange::collect(const std::function<void(const std::vector<NamedBuffer>&)>& write) {
  std::vector<NamedBuffer> buffers = model_.state();
  if (model_.ranks().size() == 1) return write(buffers);
  const std::vector<ParameterEntry>& entries = model_.store().layout().entries();
  if (!model_.ranks().root()) {
    for (std::size_t b = 1; b < buffers.size(); ++b)
      for (const ParameterEntry& entry : entries) give(buffers[b].buffer, entry);
    return;
  }
  // Tensors come in a fixed order. What was not asked for, as the disk was full before, comes all the same.
  std::size_t taken = 0;
  for (std::size_t b = 1; b < buffers.size(); ++b)
    buffers[b].get = [this, own = buffers[b].buffer, &taken](const ParameterEntry& entry) {
      ++taken;
      return gather(own, entry);
    };
  std::exception_ptr failure;
  try {
    write(buffers);
  } catch (...) {
    failure = std::current_exception();
  }
  for (std::size_t next = taken; next < entries.size() * (buffers.size() - 1); ++next)
    gather(buffers[1 + next / entries.size()].buffer, entries[next % entries.size()]);
  if (failure) std::rethrow_exception(failure);
}

}  // namespace dekoder
