// SPDX-License-Identifier: Apache-2.0
// Rates of gemm() and causal attention on this machine, in GFLOP/s, and attention's share of the GEMM rate seen in
// the same run. Attention counts the causal half only: forward 4 D T (T + 1) / 2 per head, backward 2.5 times that.
// Usage: bench_kernels_<float|bf16> [seconds per measurement, default 0.3]
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <initializer_list>

#include "kernels/attention/attention.hpp"
#include "kernels/gemm.hpp"

namespace dekoder {
namespace {

/// Seconds of the fastest call within about `seconds`, after one to warm up.
template <class Call>
double fastest(const ExecSpace& exec, double seconds, const Call& call) {
  call();
  exec.fence();
  double best = 1e30, spent = 0;
  for (int calls = 0; (spent < seconds || calls < 3) && calls < 100000; ++calls) {
    const Kokkos::Timer timer;
    call();
    exec.fence();
    const double once = timer.seconds();
    best = std::min(best, once);
    spent += once;
  }
  return best;
}

/// One linear layer: y = x w^T, its input gradient and its accumulated weight gradient. Returns the best rate.
double bench_linear(const ExecSpace& exec, double seconds, int N, int out, int in) {
  const StoredTensor2 x("x", N, in), w("w", out, in), y("y", N, out);
  const MasterTensor2 grad_w("grad_w", out, in);
  Kokkos::deep_copy(x, Stored(0.5f));
  Kokkos::deep_copy(w, Stored(1e-3f));
  Kokkos::deep_copy(y, Stored(1e-3f));
  const double work = 2.0 * N * out * in * 1e-9;
  const double forward = work / fastest(exec, seconds, [&] { gemm(exec, Op::none, Op::transpose, 1, x, w, 0, y); });
  const double input = work / fastest(exec, seconds, [&] { gemm(exec, Op::none, Op::none, 1, y, w, 0, x); });
  const double weight =
      work / fastest(exec, seconds, [&] { gemm_master(exec, Op::transpose, Op::none, 1, y, x, 1, grad_w); });
  fmt::print("{:6d} {:6d} {:6d}  {:8.1f} {:8.1f} {:8.1f}\n", N, out, in, forward, input, weight);
  return std::max({forward, input, weight});
}

void bench_attention(const ExecSpace& exec, double seconds, double roof, int B, int T, int H, int G, int D,
                     Real rate) {
  const StoredTensor2 qkv("qkv", std::size_t(B) * T, (H + 2 * G) * D),
      grad_qkv("grad_qkv", std::size_t(B) * T, (H + 2 * G) * D);
  const Heads parts = split_heads(qkv, B, H, G), grad_parts = split_heads(grad_qkv, B, H, G);
  const StoredTensor4 out("out", B, T, H, D), grad_out("grad_out", B, T, H, D);
  const MasterTensor3 lse("lse", B, H, T), delta("delta", B, H, T);
  const auto numbers = Kokkos::create_mirror_view(qkv);
  for (std::size_t i = 0; i < numbers.size(); ++i) numbers.data()[i] = Stored(float(RandomStream(1, 2).normal(i)));
  Kokkos::deep_copy(qkv, numbers);
  Kokkos::deep_copy(grad_out, Stored(0.5f));
  const Dropout dropout{rate, RandomStream(1, 3), 0};
  const MasterTensor1 scores("scores", attention_score_elements(B, T, G));
  const Real scale = Real(1 / std::sqrt(double(D)));
  const double work = 2.0 * D * T * (T + 1.0) * B * H * 1e-9;
  const double forward =
      work / fastest(exec, seconds, [&] { causal_attention(exec, parts, scale, dropout, out, lse, scores); });
  const double backward =
      2.5 * work / fastest(exec, seconds, [&] {
        causal_attention_backward(exec, parts, out, grad_out, lse, scale, dropout, delta, grad_parts, scores);
      });
  fmt::print("{:4d} {:5d} {:4d} {:4d} {:4d} {:8.1f}  {:8.1f} {:5.0f}%  {:8.1f} {:5.0f}%\n", B, T, H, G, D,
             double(rate), forward, 100 * forward / roof, backward, 100 * backward / roof);
}

void bench(double seconds) {
  const ExecSpace exec;
  fmt::print("{} thread(s), {}\n\ngemm: N tokens, out x in\n{:>6} {:>6} {:>6}  {:>8} {:>8} {:>8}   GFLOP/s\n",
             exec.concurrency(), precision_name, "N", "out", "in", "forward", "grad_x", "grad_w");
  struct Linear {
    int N, out, in;
  };
  double roof = 0;
  for (Linear l : std::initializer_list<Linear>{{4096, 2304, 768},
                                                {4096, 768, 768},
                                                {4096, 3072, 768},
                                                {4096, 768, 3072},
                                                {512, 50304, 768},
                                                {4096, 1152, 384},
                                                {4096, 384, 1536},
                                                {768, 384, 128},
                                                {768, 512, 128},
                                                {768, 128, 512}})
    roof = std::max(roof, bench_linear(exec, seconds, l.N, l.out, l.in));
  fmt::print(
      "\nattention, share of {:.1f} GFLOP/s\n{:>4} {:>5} {:>4} {:>4} {:>4} {:>8}  {:>8} {:>6}  {:>8} {:>6}\n", roof,
      "B", "T", "H", "G", "D", "dropout", "forward", "", "backward", "");
  struct Heads {
    int B, T, H, G, D;
    Real rate;
  };
  for (Heads a : std::initializer_list<Heads>{{4, 1024, 12, 12, 64, 0},
                                              {2, 2048, 9, 3, 64, 0},
                                              {1, 1024, 1, 1, 64, 0},
                                              {16, 256, 6, 6, 64, 0},
                                              {12, 64, 4, 4, 32, 0},
                                              {4, 64, 12, 12, 64, 0},
                                              {4, 512, 6, 6, 128, 0},
                                              {4, 512, 8, 8, 16, 0},
                                              {16, 256, 6, 6, 64, Real(0.1)}})
    bench_attention(exec, seconds, roof, a.B, a.T, a.H, a.G, a.D, a.rate);
}

}  // namespace
}  // namespace dekoder

int main(int argc, char** argv) {
  const Kokkos::ScopeGuard kokkos(argc, argv);
  dekoder::bench(argc > 1 ? std::atof(argv[1]) : 0.3);
}
