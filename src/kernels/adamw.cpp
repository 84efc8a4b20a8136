// SPDX-License-Identifier: Apache-2.0
#include "kernels/adamw.hpp"

#include "kernels/rows.hpp"

namespace dekoder {

void adamw(const ExecSpace& exec, const AdamWStep& step, ConstByteTensor1 decay, Tensor1 gradient, Tensor1 value,
           Tensor1 first_moment, Tensor1 second_moment) {
  const auto extent = adamw_shapes.match(decay, gradient, value, first_moment, second_moment);
  const int blocks = extent['K'];
  if (extent['N'] != blocks * decay_block)
    throw ShapeError(fmt::format("adamw: N={} but decay has K={} flags of {} elements", extent['N'], blocks, decay_block));
  const AdamWStep s = step;
  const Real step_size = Real(double(s.learning_rate) / s.bias_correction1);
  const Real inverse_correction2 = Real(1.0 / s.bias_correction2);
  const Real kept = Real(1.0 - double(s.learning_rate) * double(s.weight_decay));
  for_each_row(
      "dekoder::adamw", exec, blocks, KOKKOS_LAMBDA(const RowTeam& team, int block) {
        const int first = block * decay_block;
        Real* g = &gradient(first);
        Real* w = &value(first);
        Real* m = &first_moment(first);
        Real* v = &second_moment(first);
        const Real shrink = decay(block) != 0 ? kept : Real(1);
        team.each(decay_block, [=](int i) {
          const Real scaled = g[i] * s.gradient_scale;
          const Real moment = s.beta1 * m[i] + (Real(1) - s.beta1) * scaled;
          const Real square = s.beta2 * v[i] + (Real(1) - s.beta2) * scaled * scaled;
          m[i] = moment;
          v[i] = square;
          w[i] = w[i] * shrink - step_size * moment / (Kokkos::sqrt(square * inverse_correction2) + s.epsilon);
          g[i] = 0;
        });
      });
}

}  // namespace dekoder
