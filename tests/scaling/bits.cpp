// SPDX-License-Identifier: Apache-2.0
// scaling_bits: a step on simulated ranks gives the bits of one rank, and the network carries the bytes that
// bytes_of_step tells. Prints a line of key=value; exit code 1 where something differs.
#include <algorithm>
#include <bit>
#include <cmath>

#include "scaling/job.hpp"
#include "tensor/random_stream.hpp"

namespace dekoder::scaling {

namespace {

/// What a rank has after a step.
struct Result {
  std::vector<Master> gradients, values;
  std::uint64_t sent = 0;  ///< bytes, as the reducer counts them
};

/// Adds a leaf's gradients, of many magnitudes: another order of sums has other bits.
void accumulate(const MasterTensor1& gradients, long leaf, FlatRange range) {
  const RandomStream stream(1, site_of("scaling.gradients"), 0, std::uint64_t(leaf));
  for (std::size_t i = range.begin; i < range.end; ++i) {
    const std::uint32_t bits = stream.bits32(i);
    gradients(i) += Master(int(bits >> 8) - (1 << 23)) * Master(1u << (bits & 15u));
  }
}

/// A step with gradients that are a function of (leaf, element) alone, in parts as backward finishes them. The
/// owner of a piece makes minus its gradients the values.
Result step(const Communicator& ranks, const Job& job) {
  const Shards shards = job.shards(ranks.size());
  const ExecSpace exec;
  const ParameterStore store(job.layout());
  const MasterTensor1 &gradients = store.gradients(), &values = store.values_to_write();
  GradientReducer reducer(ranks, shards, store, job.options().leaves);
  for (long leaf = reducer.leaves().begin; leaf < reducer.leaves().end; ++leaf) {
    const bool last = leaf + 1 == reducer.leaves().end;
    std::size_t end = shards.flat();
    for (auto from = job.finished().rbegin(); from != job.finished().rend(); ++from) {
      accumulate(gradients, leaf, {*from, end});
      end = *from;
      if (last) reducer.part_done(exec, end);
    }
    if (!last) reducer.leaf_done(exec);
  }
  reducer.finish(exec);
  Result result;
  result.gradients.assign(gradients.data(), gradients.data() + gradients.size());
  for (const FlatRange& own : shards.owned(ranks.rank()))
    for (std::size_t i = own.begin; i < own.end; ++i) values(i) = -gradients(i);
  reducer.share_values(exec);
  result.values.assign(values.data(), values.data() + values.size());
  result.sent = reducer.bytes_sent();
  return result;
}

bool same_bits(Master a, Master b) {
  return std::bit_cast<std::uint32_t>(a) == std::bit_cast<std::uint32_t>(b);
}

/// Elements with other bits than one rank's: gradients of a rank's own pieces, zeros elsewhere, and all values.
std::size_t differences(const Result& result, const Result& alone, const Shards& shards, int rank) {
  std::vector<bool> own(shards.flat(), false);
  for (const FlatRange& range : shards.owned(rank))
    std::fill_n(own.begin() + long(range.begin), range.size(), true);
  std::size_t different = 0;
  for (std::size_t i = 0; i < shards.flat(); ++i)
    if (!same_bits(result.gradients[i], own[i] ? alone.gradients[i] : Master(0)) ||
        !same_bits(result.values[i], alone.values[i]))
      ++different;
  return different;
}

int check(Job& job) {
  const Result alone = step(Communicator::single(), job);
  const Shards shards = job.shards(job.options().ranks);
  std::size_t different = 0;
  std::uint64_t counted = 0;
  double before = -1;  // what making a communicator takes
  job.run([&](const Communicator& ranks) {
    check_mpi(MPI_Barrier(ranks.handle()), "MPI_Barrier");
    if (before < 0) before = job.cluster().bytes();
    const Result result = step(ranks, job);
    different += differences(result, alone, shards, ranks.rank());
    counted += result.sent;
  });
  const auto carried = std::uint64_t(std::llround(job.cluster().bytes() - before));
  const std::uint64_t expected = bytes_of_step(shards, job.options().leaves);
  fmt::print("ranks={} leaves={} elements={} buckets={} different={} carried={} counted={} expected={}\n",
             job.options().ranks, job.options().leaves, shards.flat(), shards.buckets().size(), different, carried,
             counted, expected);
  return different == 0 && carried == expected && counted == expected ? 0 : 1;
}

}  // namespace

}  // namespace dekoder::scaling

int main(int argc, char** argv) {
  dekoder::scaling::Job job(argc, argv);
  // All ranks are contexts of this one thread.
  const Kokkos::ScopeGuard kokkos(Kokkos::InitializationSettings().set_num_threads(1));
  return dekoder::scaling::check(job);
}
