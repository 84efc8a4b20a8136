// SPDX-License-Identifier: Apache-2.0
// Row-wise kernels written once: a row belongs to one thread with SIMD lanes on a CPU, to one team of threads on a
// GPU. DEKODER_ROW_TEAMS chooses the form for GPUs, of these and of every other kernel that has one; tests define
// it for OpenMP too, so that the same bodies run on the host.
#pragma once

#include <string>

#include "tensor/tensor.hpp"

#if defined(DEKODER_BACKEND_CUDA)
#define DEKODER_ROW_TEAMS
#endif

namespace dekoder {

#if defined(DEKODER_ROW_TEAMS)

/// The lanes that share one row; every method must be called by all of them.
class RowTeam {
 public:
  using Member = Kokkos::TeamPolicy<ExecSpace>::member_type;
  KOKKOS_INLINE_FUNCTION explicit RowTeam(const Member& member) : member_(member) {}

  /// body(i) for i in [0, n), in parallel.
  template <class Body>
  KOKKOS_INLINE_FUNCTION void each(int n, const Body& body) const {
    Kokkos::parallel_for(Kokkos::TeamVectorRange(member_, n), body);
    member_.team_barrier();
  }
  /// Sum of term(i) over [0, n) by a fixed tree; every lane gets it.
  template <class Term>
  KOKKOS_INLINE_FUNCTION Real sum(int n, const Term& term) const {
    Real total = 0;
    Kokkos::parallel_reduce(
        Kokkos::TeamVectorRange(member_, n), [&](int i, Real& part) { part += term(i); }, total);
    return total;
  }
  /// Largest term(i) over [0, n).
  template <class Term>
  KOKKOS_INLINE_FUNCTION Real max(int n, const Term& term) const {
    Real largest = -Kokkos::Experimental::infinity_v<Real>;
    Kokkos::parallel_reduce(
        Kokkos::TeamVectorRange(member_, n), [&](int i, Real& part) { part = Kokkos::max(part, Real(term(i))); },
        Kokkos::Max<Real>(largest));
    return largest;
  }
  /// Runs body() on one lane.
  template <class Body>
  KOKKOS_INLINE_FUNCTION void once(const Body& body) const {
    Kokkos::single(Kokkos::PerTeam(member_), body);
  }

 private:
  const Member& member_;
};

/// body(team, row) for every row in [0, rows). A league has at most 2^31 - 1 teams: beyond that each takes several
/// rows. A team of the host is one thread: larger ones are not legal everywhere.
template <class Body>
void for_each_row(const std::string& label, const ExecSpace& exec, long rows, const Body& body) {
  const int teams = int(Kokkos::min(rows, long(Kokkos::Experimental::finite_max_v<int>)));
  Kokkos::parallel_for(
      label, Kokkos::TeamPolicy<ExecSpace>(exec, teams, device_is_host ? 1 : 128),
      KOKKOS_LAMBDA(const RowTeam::Member& member) {
        for (long row = member.league_rank(); row < rows; row += teams) body(RowTeam(member), row);
      });
}

#else

/// The lanes that share one row: SIMD lanes of one thread. Sums have one fixed order for a given instruction set.
class RowTeam {
 public:
  template <class Body>
  KOKKOS_FORCEINLINE_FUNCTION void each(int n, const Body& body) const {
#pragma omp simd
    for (int i = 0; i < n; ++i) body(i);
  }
  template <class Term>
  KOKKOS_FORCEINLINE_FUNCTION Real sum(int n, const Term& term) const {
    Real total = 0;
#pragma omp simd reduction(+ : total)
    for (int i = 0; i < n; ++i) total += term(i);
    return total;
  }
  template <class Term>
  KOKKOS_FORCEINLINE_FUNCTION Real max(int n, const Term& term) const {
    Real largest = -Kokkos::Experimental::infinity_v<Real>;
#pragma omp simd reduction(max : largest)
    for (int i = 0; i < n; ++i) {
      const Real value = term(i);
      largest = value > largest ? value : largest;
    }
    return largest;
  }
  template <class Body>
  KOKKOS_FORCEINLINE_FUNCTION void once(const Body& body) const {
    body();
  }
};

template <class Body>
void for_each_row(const std::string& label, const ExecSpace& exec, long rows, const Body& body) {
  using Policy = Kokkos::RangePolicy<ExecSpace, Kokkos::Schedule<Kokkos::Static>, Kokkos::IndexType<long> >;
  Kokkos::parallel_for(label, Policy(exec, 0, rows), KOKKOS_LAMBDA(long row) { body(RowTeam(), row); });
}

#endif

}  // namespace dekoder
