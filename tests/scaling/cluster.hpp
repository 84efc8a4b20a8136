// SPDX-License-Identifier: Apache-2.0
// The machine that is simulated: one rank for each GPU of a DGX SuperPOD, whose GPUs have a port of the network
// each.
#pragma once

#include <simgrid/s4u.hpp>
#include <vector>

namespace dekoder::scaling {

// A compute fabric of two scalable units, 504 to 512 GPUs: 16 leaf switches with a port for each of 32 GPUs, 8
// spine switches, 4 cables from each leaf to each spine, so that nothing is shared beyond a GPU's own port (NVIDIA
// DGX SuperPOD reference architecture with DGX H100 systems, RA-11333-001, "Network fabrics", table 4).
inline constexpr int leaf_switches = 16, gpus_of_leaf = 32, spine_switches = 8, cables_of_spine = 4;
inline constexpr int most_ranks = leaf_switches * gpus_of_leaf;
/// NDR InfiniBand, 400 Gb/s each way (the same document).
inline constexpr double bytes_per_second = 50e9;
/// Of a cable with its share of switches and ends: two of them, GPU to leaf to GPU, make the 0.9 us that
/// osu_latency measures for a message of 8 bytes with Open MPI over InfiniBand (J. Grimm, 2021,
/// gist.github.com/jfgrimm/3af692a5475bdd4ed836b5a18197a209). Through a spine it is four: 1.8 us.
inline constexpr double cable_seconds = 0.45e-6;
/// What a rank is busy with for sending a message and receiving another: twice one of the 5.5 million messages in a
/// second that osu_bw measures there with one byte each.
inline constexpr double message_seconds = 2 / 5.5e6;

/// The cluster, and SMPI with these figures. `engine` has read its own options.
class Cluster {
 public:
  explicit Cluster(simgrid::s4u::Engine& engine);
  /// The first GPUs.
  std::vector<simgrid::s4u::Host*> hosts(int ranks) const;
  /// Of all messages that have arrived, without what MPI adds to them.
  double bytes() const { return bytes_; }

 private:
  std::vector<simgrid::s4u::Host*> hosts_;
  double bytes_ = 0;
};

/// From here on polls that find nothing let time pass: as much as keeps the end of what follows within a
/// thousandth.
void begin_exchange();

}  // namespace dekoder::scaling
