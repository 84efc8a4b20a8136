// SPDX-License-Identifier: Apache-2.0
#include "kernels/adamw.hpp"

#include "kernels/rows.hpp"

namespace dekoder {

namespace {

/// One element; all constants of the step are worked out before the launch.
struct AdamWElement {
  Real beta1, beta2, one_minus_beta1, one_minus_beta2, epsilon, gradient_scale;
  Real step_size;            ///< learning rate / bias_correction1
  Real inverse_correction2;  ///< 1 / bias_correction2

  KOKKOS_FORCEINLINE_FUNCTION void update(Real kept, Master& g, Master& w, Master& m, Master& v) const {
    const Real scaled = g * gradient_scale;
    const Real moment = beta1 * m + one_minus_beta1 * scaled;
    const Real square = beta2 * v + one_minus_beta2 * scaled * scaled;
    m = moment;
    v = square;
    w = w * kept - step_size * moment / (Kokkos::sqrt(square * inverse_correction2) + epsilon);
    g = 0;
  }
};

AdamWElement element_of(const AdamWStep& s) {
  return {s.beta1,
          s.beta2,
          Real(1) - s.beta1,
          Real(1) - s.beta2,
          s.epsilon,
          s.gradient_scale,
          Real(double(s.learning_rate) / s.bias_correction1),
          Real(1.0 / s.bias_correction2)};
}

}  // namespace

void adamw(const ExecSpace& exec, const AdamWStep& step, ConstByteTensor1 decay, MasterTensor1 gradient,
           MasterTensor1 value, MasterTensor1 first_moment, MasterTensor1 second_moment, StoredTensor1 weight) {
  const auto extent = adamw_shapes.match(decay, gradient, value, first_moment, second_moment, weight);
  const long blocks = extent['K'];
  if (extent['N'] != blocks * decay_block)
    throw ShapeError(
        fmt::format("adamw: N={} but decay has K={} flags of {} elements", extent['N'], blocks, decay_block));
  const AdamWElement element = element_of(step);
  const bool with_weight = weight.size() > 0;
  const Real shrink = Real(1.0 - double(step.learning_rate) * double(step.weight_decay));
#if defined(DEKODER_ROW_TEAMS)
  // One thread per element: neighbours touch neighbouring memory.
  Kokkos::parallel_for(
      "dekoder::adamw", Kokkos::RangePolicy<ExecSpace, Kokkos::IndexType<long>>(exec, 0, extent['N']),
      KOKKOS_LAMBDA(long i) {
        element.update(decay(i / decay_block) != 0 ? shrink : Real(1), gradient(i), value(i), first_moment(i),
                       second_moment(i));
        if (with_weight) weight(i) = value(i);
      });
#else
  // One block is one fp32 vector of 16 lanes.
  using Policy = Kokkos::RangePolicy<ExecSpace, Kokkos::Schedule<Kokkos::Static>, Kokkos::IndexType<long>>;
  Kokkos::parallel_for(
      "dekoder::adamw", Policy(exec, 0, blocks), KOKKOS_LAMBDA(long block) {
        const std::size_t first = std::size_t(block) * decay_block;
        Master *g = &gradient(first), *w = &value(first), *m = &first_moment(first), *v = &second_moment(first);
        const Real kept = decay(block) != 0 ? shrink : Real(1);
        const AdamWElement e = element;
#pragma omp simd
        for (int i = 0; i < decay_block; ++i) e.update(kept, g[i], w[i], m[i], v[i]);
        if (!with_weight) return;
        Stored* stored = &weight(first);
#pragma omp simd
        for (int i = 0; i < decay_block; ++i) stored[i] = w[i];
      });
#endif
}

}  // namespace dekoder
