// SPDX-License-Identifier: Apache-2.0
#include "train/state_exchange.hpp"

namespace dekoder {

namespace {

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

void StateExchange::scatter(std::size_t buffer, const MasterTensor1& moments, const ParameterEntry& entry,
                            const HostBuffer& tensor) {
  Messages messages(model_.ranks());
  for (const auto& [rank, range, place] : model_.parts_of(buffer, entry)) {
    const HostBuffer part = rows(tensor, long(range.begin - entry.offset), long(range.end - entry.offset));
    if (rank == 0)
      Kokkos::deep_copy(rows(moments, long(place), long(place + part.size())), part);
    else
      messages.send(part.data(), part.size(), rank, state_tag);
  }
  messages.wait();
}

void StateExchange::take(std::size_t buffer, const MasterTensor1& moments, const ParameterEntry& entry) {
  for (const auto& [rank, range, place] : model_.parts_of(buffer, entry)) {
    if (rank != model_.ranks().rank()) continue;
    const HostBuffer part("state.part", range.size());
    Messages messages(model_.ranks());
    messages.receive(part.data(), part.size(), 0, state_tag);
    messages.wait();
    Kokkos::deep_copy(rows(moments, long(place), long(place + part.size())), part);
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
      if (b > 0) return scatter(b, own, entry, tensor);
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
      take(std::size_t(heard.buffer), own, entry);
    } else {
      const HostBuffer tensor("state.tensor", entry.size());
      model_.ranks().broadcast(bytes_of(tensor));
      Kokkos::deep_copy(ParameterStore::flat_slice(own, entry), tensor);
    }
  }
}

}  // namespace dekoder
