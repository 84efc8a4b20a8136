// SPDX-License-Identifier: Apache-2.0
// scaling_times [exchange|allreduce|model] ...: how long the messages of a step take on simulated ranks, as if all
// gradients came at once. Sums are left out and all buffers are the same memory (no_arithmetic.cpp). Prints a line
// of key=value.
//   exchange    the program's, beside what the model gives
//   allreduce   MPI_Allreduce of the gradients; --cfg=smpi/allreduce:lr (a ring), rab, ... chooses how
//   model       the model alone, without a simulation
#include <algorithm>
#include <string>
#include <vector>

#include "scaling/job.hpp"

namespace dekoder::scaling {

namespace {

/// Of the last rank.
struct Seconds {
  double gradients = 0, values = 0;
};

/// The alpha-beta model of the exchange. A rank sends and receives at the same time, and all others do as much: so
/// each half of it takes what the rank with most to do is busy with, by its port or by starting messages,
///   max(bytes / bytes_per_second, messages * message_seconds) + 4 cable_seconds.
Seconds model(const Shards& shards, long leaves) {
  const std::size_t P = std::size_t(shards.ranks()), buckets = shards.buckets().size();
  std::vector<std::size_t> nodes(P), owned(P), pieces(P, 0);
  std::size_t all_nodes = 0, all_pieces = 0;
  for (std::size_t r = 0; r < P; ++r) {
    all_nodes += nodes[r] = nodes_of(leaves_of(int(r), int(P), leaves), leaves).size();
    owned[r] = shards.owned_elements(int(r));
    for (std::size_t b = 0; b < buckets; ++b) pieces[r] += shards.piece(b, int(r)).size() > 0 ? 1 : 0;
    all_pieces += pieces[r];
  }
  const auto busy = [](std::size_t elements, std::size_t messages) {
    return std::max(double(elements * sizeof(Master)) / bytes_per_second, double(messages) * message_seconds) +
           4 * cable_seconds;
  };
  Seconds most;
  for (std::size_t r = 0; r < P; ++r) {
    const std::size_t others = all_nodes - nodes[r];
    most.gradients =
        std::max({most.gradients, busy(nodes[r] * (shards.flat() - owned[r]), nodes[r] * (all_pieces - pieces[r])),
                  busy(others * owned[r], others * pieces[r])});
    most.values =
        std::max({most.values, busy((P - 1) * owned[r], (P - 1) * buckets), busy(shards.flat() - owned[r], 0)});
  }
  return most;
}

/// The same of a ring: 2 (P - 1) steps, each of which waits for the slowest cable.
double ring_model(const Shards& shards) {
  const double P = shards.ranks(), cables = shards.ranks() > gpus_of_leaf ? 4 : 2;
  const double bytes = double(shards.flat() * sizeof(Master)) / P;
  return 2 * (P - 1) * (bytes / bytes_per_second + message_seconds + cables * cable_seconds);
}

/// Seconds of body() on this rank, begun together.
template <class Body>
double seconds_of(const Communicator& ranks, const Body& body) {
  check_mpi(MPI_Barrier(ranks.handle()), "MPI_Barrier");
  begin_exchange();
  const double begin = MPI_Wtime();
  body();
  return MPI_Wtime() - begin;
}

void exchange(Job& job, const Shards& shards) {
  const ParameterStore store(job.layout());  // of all ranks
  Seconds seconds;
  job.run([&](const Communicator& ranks) {
    const ExecSpace exec;
    GradientReducer reducer(ranks, shards, store, job.options().leaves);
    const double gradients = seconds_of(ranks, [&] { reducer.finish(exec); });
    const double values = seconds_of(ranks, [&] { reducer.share_values(exec); });
    seconds.gradients = std::max(seconds.gradients, gradients);
    seconds.values = std::max(seconds.values, values);
  });
  fmt::print(" gradients={:.6f} values={:.6f}", seconds.gradients, seconds.values);
}

void allreduce(Job& job) {
  constexpr std::size_t longest = std::size_t{1} << 28;  // SMPI counts the bytes of a buffer in 32 bits
  const ParameterStore store(job.layout());
  const Master* const from = store.gradients().data();
  Master* const to = store.values_to_write().data();
  double seconds = 0;
  job.run([&](const Communicator& ranks) {
    MPI_Op nothing = MPI_OP_NULL;
    check_mpi(MPI_Op_create([](void*, void*, int*, MPI_Datatype*) {}, 1, &nothing), "MPI_Op_create");
    const auto pieces = [&] {
      for (std::size_t begin = 0; begin < store.values().size(); begin += longest) {
        const int count = int(std::min(longest, store.values().size() - begin));
        check_mpi(MPI_Allreduce(from + begin, to + begin, count, MPI_FLOAT, nothing, ranks.handle()),
                  "MPI_Allreduce");
      }
    };
    seconds = std::max(seconds, seconds_of(ranks, pieces));
    check_mpi(MPI_Op_free(&nothing), "MPI_Op_free");
  });
  fmt::print(" allreduce={:.6f}", seconds);
}

void measure(Job& job, const std::string& what) {
  const int ranks = job.options().ranks;
  const Shards shards = job.shards(ranks);
  const Seconds expected = model(shards, job.options().leaves);
  fmt::print("ranks={} elements={} buckets={} model_gradients={:.6f} model_values={:.6f} model_ring={:.6f}", ranks,
             shards.flat(), shards.buckets().size(), expected.gradients, expected.values, ring_model(shards));
  if (what == "exchange") exchange(job, shards);
  if (what == "allreduce") allreduce(job);
  fmt::print("\n");
}

}  // namespace

}  // namespace dekoder::scaling

int main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what != "exchange" && what != "allreduce" && what != "model") {
    fmt::print(stderr, "scaling_times: '{}'; expected exchange, allreduce or model\n", what);
    return 2;
  }
  argv[1] = argv[0];
  dekoder::scaling::Job job(--argc, ++argv);
  const Kokkos::ScopeGuard kokkos(Kokkos::InitializationSettings().set_num_threads(1));
  dekoder::scaling::measure(job, what);
}
