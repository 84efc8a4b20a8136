// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace dekoder {

/// Activation of the feed-forward network; gelu_tanh is the tanh approximation of gelu_erf, relu_squared relu's
/// square.
enum class Activation { relu, gelu_tanh, gelu_erf, silu, relu_squared };

}  // namespace dekoder
