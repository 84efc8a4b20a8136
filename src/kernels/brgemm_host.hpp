// SPDX-License-Identifier: Apache-2.0
// Products of small bf16 tiles inside a thread, by the micro-kernels of oneDNN: AMX or AVX512_BF16.
#pragma once

#include <compare>
#include <memory>

#include "tensor/bfloat16.hpp"

namespace dekoder::host {

/// Columns of b that lie side by side, at most; with fewer, 16, 32 or 48.
inline constexpr int brgemm_columns = 64;

/// A tile's product: c(M,N) = [c +] a(M,K) b(K,N), a and b of bf16, sums and c of fp32. Rows of a and c lie row_a
/// and row_c elements apart. b lies in pairs (K/2, row_b, 2): neighbours along K side by side; K is even, N <=
/// row_b.
struct BrgemmShape {
  int M, N, K;
  long row_a, row_b, row_c;
  bool accumulate;
  auto operator<=>(const BrgemmShape&) const = default;
};

/// One kernel, to be used by any number of threads.
class Brgemm {
 public:
  /// The kernel of a shape, made at the first call and kept; null where oneDNN has none that is faster than fp32 on
  /// this processor (see onednn_multiplies_bf16) or was left out. Not for several threads at once.
  static const Brgemm* find(const BrgemmShape& shape);

  void operator()(const BFloat16* a, const BFloat16* b, float* c) const;

  Brgemm(const Brgemm&) = delete;
  ~Brgemm();

 private:
  struct Kernel;
  explicit Brgemm(std::unique_ptr<Kernel> kernel);
  std::unique_ptr<Kernel> kernel_;
};

/// Gives the processor's tile registers back, at the end of a task that used kernels.
void release_brgemm();

}  // namespace dekoder::host
