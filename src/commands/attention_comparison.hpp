// SPDX-License-Identifier: Apache-2.0
// Attention maps of one run at two steps, and of several runs at one step.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "io/run/attention_reader.hpp"

namespace dekoder {

/// One number per head.
struct HeadTable {
  std::vector<int> layers, heads;  ///< which of the models', counted from 0
  std::vector<double> values;      ///< (layer, head)
};

/// How far maps lie apart, head by head: the total variation distance 1/2 sum_s |w(t,s) - v(t,s)| of two rows of
/// weights, from 0 (equal) to 1 (no key in common), averaged over all queries t of all probes.
struct MapDistance {
  long first_step = 0, last_step = 0;  ///< of the two maps
  std::vector<std::string> probes;     ///< names in the first map's file
  HeadTable distance;
};

/// The statistics of all compared runs at one step.
struct StatisticsComparison {
  long step = 0;
  std::vector<std::string> names, probes;
  std::vector<int> layers, heads;
  std::vector<std::vector<double>> values;  ///< (run)(layer, head, statistic): means over probes; empty: no maps
};

struct AttentionComparison {
  std::vector<bool> has_maps;                       ///< (run)
  std::vector<std::optional<MapDistance>> changes;  ///< (run) from the first to the last step that is in the file
  std::vector<std::optional<MapDistance>> differences;  ///< (run) to A at the last common step; none for A
  std::optional<StatisticsComparison> statistics;       ///< at the last step that all runs with maps have in common
};

/// Compares the files of runs, nullptr where a run has none; the first is A. Probes are the same where their tokens
/// and the texts of these are; heads are matched by their numbers, which says something only where the initial
/// values were the same. What has no common probe, head or step is left out. Throws DataError for a damaged file.
AttentionComparison compare_attention(std::span<const AttentionReader* const> runs);

/// Mean over n queries of the total variation distance of two maps w(query, key) and v(query, key) of n * n
/// weights. Throws ShapeError where they are of different sizes.
double total_variation(std::span<const float> w, std::span<const float> v, int queries);

}  // namespace dekoder
