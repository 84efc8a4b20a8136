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

/// result[c] += partials(0,first+c) + ... + partials(P-1,first+c); `label` names the kernel. On CPUs in this order,
/// on GPUs as add_partials_by_teams().
void add_partials(const std::string& label, const ExecSpace& exec, ConstMasterTensor2 partials, long blocks,
                  long first_column, MasterTensor1 result);

/// Lanes over which a team spreads the rows of partials; a power of two.
inline constexpr int partial_lanes = 16;

/// The same sum by one team per 32 neighbouring columns: lane l adds rows l, l + partial_lanes, ... in ascending
/// order, then the lanes are added by halves (l and l + 8, l + 4, ...). One order for every size of teams.
void add_partials_by_teams(const std::string& label, const ExecSpace& exec, ConstMasterTensor2 partials,
                           long blocks, long first_column, MasterTensor1 result);

}  // namespace dekoder
