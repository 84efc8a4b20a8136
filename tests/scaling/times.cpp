// SPDX-License-Identifier: Apache-2.0
// scaling_times: how long the messages of a step take on simulated ranks, as if all gradients came at once. Sums are left
// out and all buffers are the same memory (no_arithmetic.cpp). Prints a line of key=value.
//   --cfg=smpi/allreduce:lr ... (smpirun -help-coll)   which algorithm MPI_Allreduce takes, with --allreduce
#include <algorithm>
#include <cstring>

#include "scaling/job.hpp"

namespace dekoder::scaling {

namespace {

/// Of the last rank.
struct Seconds {
  double gradients = 0, values = 0, allreduce = 0;
};

/// Seconds of body() on this rank, begun together.
template <class Body>
double seconds_of(const Communicator& ranks, const Body& body) {
  check_mpi(MPI_Barrier(ranks.handle()), "MPI_Barrier");
  begin_exchange();
  const double begin = MPI_Wtime();
  body();
  return MPI_Wtime() - begin;
}

void exchange(const Communicator& ranks, const Job& job, const Shards& shards, const ParameterStore& store,
              Seconds& seconds) {
  const ExecSpace exec;
  GradientReducer reducer(ranks, shards, store, job.options().leaves);
  const double gradients = seconds_of(ranks, [&] { reducer.finish(exec); });
  const double values = seconds_of(ranks, [&] { reducer.share_values(exec); });
  seconds.gradients = std::max(seconds.gradients, gradients);
  seconds.values = std::max(seconds.values, values);
}

void allreduce(const Communicator& ranks, const ParameterStore& store, Seconds& seconds) {
  MPI_Op nothing = MPI_OP_NULL;
  check_mpi(MPI_Op_create([](void*, void*, int*, MPI_Datatype*) {}, 1, &nothing), "MPI_Op_create");
  const MasterTensor1 &from = store.gradients(), &to = store.values();
  seconds.allreduce = std::max(seconds.allreduce, seconds_of(ranks, [&] {
    check_mpi(MPI_Allreduce(from.data(), to.data(), int(to.size()), MPI_FLOAT, nothing, ranks.handle()),
              "MPI_Allreduce");
  }));
  check_mpi(MPI_Op_free(&nothing), "MPI_Op_free");
}

void measure(Job& job, bool by_allreduce) {
  const ParameterStore store(job.layout());  // of all ranks
  const Shards shards = job.shards(job.options().ranks);
  Seconds seconds;
  job.run([&](const Communicator& ranks) {
    if (by_allreduce)
      allreduce(ranks, store, seconds);
    else
      exchange(ranks, job, shards, store, seconds);
  });
  fmt::print("ranks={} leaves={} elements={} buckets={} gradients={:.6f} values={:.6f} allreduce={:.6f}\n",
             job.options().ranks, job.options().leaves, shards.flat(), shards.buckets().size(), seconds.gradients,
             seconds.values, seconds.allreduce);
}

}  // namespace

}  // namespace dekoder::scaling

int main(int argc, char** argv) {
  const bool by_allreduce = argc > 1 && std::strcmp(argv[1], "--allreduce") == 0;
  if (by_allreduce) argv[1] = argv[0], --argc, ++argv;
  dekoder::scaling::Job job(argc, argv);
  const Kokkos::ScopeGuard kokkos(Kokkos::InitializationSettings().set_num_threads(1));
  dekoder::scaling::measure(job, by_allreduce);
}
