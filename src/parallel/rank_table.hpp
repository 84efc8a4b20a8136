// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <vector>

#include "parallel/communicator.hpp"

namespace dekoder {

/// Where one rank computes.
struct RankPlace {
  std::string host;
  std::string cpus;    ///< that it was given: "0-3,8"
  std::string nodes;   ///< NUMA nodes of these: "0"
  std::string device;  ///< PCI id of its GPU; empty on CPUs
  int threads = 1;
  double quota = 0;  ///< cpu_quota(); 0: none

  /// "n1, 4 threads on CPUs 0-3, NUMA node 0".
  std::string text() const;
};

/// This process's. `device`: of the backend.
RankPlace own_place(const std::string& device);

/// Numbers of a list such as "0-3,8".
std::vector<int> numbers_of(const std::string& list);

/// What is wrong with these places: hosts on which more threads compute than there are CPUs for, or than there is
/// CPU time for, and ranks that were given so few, a line for each host; empty where nothing is.
std::vector<std::string> oversubscribed_hosts(const std::vector<RankPlace>& places);

/// Hosts and GPUs that several ranks share; empty where none does.
std::vector<std::string> shared_devices(const std::vector<RankPlace>& places);

/// Whether they may: DEKODER_SHARE_GPU is 1.
bool devices_may_be_shared();

/// On rank 0 those of all ranks, on the others nothing.
std::vector<RankPlace> all_places(const Communicator& ranks, const std::string& device);

/// Logs where each rank computes, and warns of hosts with more threads than CPUs. Throws ConfigError on all ranks
/// where two share a GPU and may not.
void log_ranks(const Communicator& ranks, const std::string& device);

/// Throws ConfigError on all ranks where `text`, of `what` ("the configuration"), is not the same on all of them,
/// and names the ranks that differ from rank 0.
void require_same_on_all(const Communicator& ranks, const std::string& what, const std::string& text);

}  // namespace dekoder
