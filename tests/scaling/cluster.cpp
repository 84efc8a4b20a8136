// SPDX-License-Identifier: Apache-2.0
#include "scaling/cluster.hpp"

#include <fmt/format.h>
#include <mpi.h>
#include <xbt/log.h>
#include <simgrid/kernel/resource/Action.hpp>

#include <algorithm>
#include <chrono>
#include <map>
#include <string>

namespace dekoder::scaling {

namespace sg4 = simgrid::s4u;

namespace {

/// Bytes that SMPI sends with every message: tag, receiver and communicator.
constexpr double envelope = 16;

}  // namespace

Cluster::Cluster(sg4::Engine& engine) {
  xbt_log_control_set("root.thresh:warning");
  // Links are shared by flows, max-min fair, at their nominal rate; nothing of TCP, whose answers take a part of
  // the way back. What computation takes is not counted, nor what a poll takes.
  for (const char* setting :
       {"network/model:CM02", "network/crosstraffic:no", "smpi/simulate-computation:no", "smpi/host-speed:1f",
        "smpi/test:0", "smpi/wtime:0", "smpi/init:0", "smpi/tmpdir:/tmp"})
    engine.set_config(setting);
  for (const char* call : {"smpi/os", "smpi/ois"})
    engine.set_config(fmt::format("{}:0:{}:0", call, message_seconds));
  using simgrid::kernel::resource::Action;
  sg4::Link::on_communication_state_change_cb(
      [this](simgrid::kernel::resource::NetworkAction& message, Action::State before) {
        // The public headers leave out that this class is derived from Action, and from nothing else.
        const auto& action = reinterpret_cast<const Action&>(message);
        if (action.get_state() == Action::State::FINISHED && before != Action::State::FINISHED)
          bytes_ += action.get_cost() - envelope;
      });
  // A fat tree must stand inside a zone with full routing.
  sg4::NetZone* const tree = engine.get_netzone_root()->add_netzone_fatTree(
      "fabric", 2, {gpus_of_leaf, leaf_switches}, {1, spine_switches}, {1, cables_of_spine}, bytes_per_second,
      cable_seconds, sg4::Link::SharingPolicy::SPLITDUPLEX);
  tree->set_host_cb([this](sg4::NetZone* zone, const std::vector<unsigned long>&, unsigned long id) {
    hosts_.push_back(zone->add_host(fmt::format("gpu-{}", id), 1e9));
    return hosts_.back();
  });
  tree->seal();
  engine.get_netzone_root()->seal();
}

std::vector<sg4::Host*> Cluster::hosts(int ranks) const {
  return {hosts_.begin(), hosts_.begin() + ranks};
}

namespace {

/// When the rank's exchange began.
std::map<aid_t, double> begin_of;

}  // namespace

void begin_exchange() {
  begin_of[sg4::this_actor::get_pid()] = sg4::Engine::get_clock();
}

}  // namespace dekoder::scaling

/// In place of MPI_Testall (by the linker's --wrap). SMPI's own asks every request whenever it is called, and lets
/// a tenth of a millisecond pass for each of them; simulated time must pass in a poll that finds nothing, but not
/// that.
extern "C" int __wrap_MPI_Testall(int count, MPI_Request* requests, int* all, MPI_Status*) {
  using namespace dekoder::scaling;
  *all = 1;
  for (int i = 0; i < count && *all != 0; ++i)
    if (requests[i] != MPI_REQUEST_NULL)
      if (const int code = MPI_Test(&requests[i], all, MPI_STATUS_IGNORE); code != MPI_SUCCESS) return code;
  const double waited = sg4::Engine::get_clock() - begin_of[sg4::this_actor::get_pid()];
  if (*all == 0) sg4::this_actor::sleep_for(std::max(waited / 1000, 1e-6));
  return MPI_SUCCESS;
}

/// In place of std::chrono::steady_clock::now in what waits for other ranks: the clock of the simulation. A wait
/// there of a second of a busy machine would send messages that no rank of a real cluster sends.
std::chrono::steady_clock::time_point simulated_now() __asm__("__wrap__ZNSt6chrono3_V212steady_clock3nowEv");
std::chrono::steady_clock::time_point simulated_now() {
  const std::chrono::duration<double> time(simgrid::s4u::Engine::get_clock());
  return std::chrono::steady_clock::time_point(
      std::chrono::duration_cast<std::chrono::steady_clock::duration>(time));
}
