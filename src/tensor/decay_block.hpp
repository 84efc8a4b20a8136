// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace dekoder {

/// Elements of a flat parameter buffer that share one weight-decay flag; every tensor starts at a multiple of it
/// (64 bytes of fp32).
inline constexpr int decay_block = 16;

}  // namespace dekoder
