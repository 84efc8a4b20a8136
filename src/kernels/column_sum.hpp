// SPDX-License-Identifier: Apache-2.0
// Sums over tokens in a fixed order: blocks of row_block rows, then the blocks in ascending order. The result does
// not depend on the number of threads.
#pragma once

#include <string>

#include "tensor/tensor.hpp"

namespace dekoder {

inline constexpr int row_block = 64;

/// Blocks of N rows: the rows that partials need.
inline long row_blocks(long rows) {
  return (rows + row_block - 1) / row_block;
}

/// Throws ShapeError where fewer rows of partials were given than needed.
void require_partials(const char* function, long given, long needed);

/// result[c] += partials(0,first+c) + ... + partials(P-1,first+c), in this order; `label` names the kernel.
void add_partials(const std::string& label, const ExecSpace& exec, ConstMasterTensor2 partials, long blocks,
                  long first_column, MasterTensor1 result);

}  // namespace dekoder
