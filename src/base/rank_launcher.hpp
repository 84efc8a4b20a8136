// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace dekoder {

/// A program that starts the ranks of a job, and the environment variables in which it announces them.
struct RankLauncher {
  const char* name;
  const char* ranks;       ///< variable: how many it started
  const char* rank;        ///< variable: which of them this process is
  const char* local_rank;  ///< variable: which of those on this host
  const char* more_cores;  ///< the words that give a rank more cores
};

/// The one that announces ranks to this process; null where none does. What it says may be of a job that has ended.
const RankLauncher* rank_launcher();

/// What it says: a number of at least 1, and 1 where there is none.
int announced_ranks();
/// From 0; 0 for a single one.
int announced_rank();
/// Among the ranks of this host, from 0; 0 where no launcher is.
int announced_local_rank();

}  // namespace dekoder
