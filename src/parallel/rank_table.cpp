// SPDX-License-Identifier: Apache-2.0
#include "parallel/rank_table.hpp"

#include <fmt/ranges.h>
#include <omp.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <sstream>
#include <utility>

#include "base/cpu_mask.hpp"
#include "base/cpu_quota.hpp"
#include "base/decimal.hpp"
#include "base/log.hpp"
#include "base/process_space.hpp"

namespace dekoder {

namespace {

/// "0-3,8" of the CPUs that are set.
std::string list_of(const CpuMask& cpus) {
  std::vector<std::string> runs;
  const int most = int(8 * cpus.bytes());
  for (int first = 0; first < most; ++first) {
    if (!CPU_ISSET_S(std::size_t(first), cpus.bytes(), cpus.set())) continue;
    int last = first;
    while (last + 1 < most && CPU_ISSET_S(std::size_t(last + 1), cpus.bytes(), cpus.set())) ++last;
    runs.push_back(first == last ? fmt::format("{}", first) : fmt::format("{}-{}", first, last));
    first = last;
  }
  return fmt::format("{}", fmt::join(runs, ","));
}

/// NUMA nodes that have one of the CPUs (sysfs-devices-node).
std::string nodes_of_cpus(const std::string& cpus) {
  const std::vector<int> own = numbers_of(cpus);
  std::vector<int> nodes;
  std::error_code missing;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/devices/system/node", missing)) {
    const std::string name = entry.path().filename();
    if (!name.starts_with("node") || name.find_first_not_of("0123456789", 4) != std::string::npos) continue;
    std::string list;
    std::getline(std::ifstream(entry.path() / "cpulist"), list);
    const std::vector<int> of_node = numbers_of(list);
    if (std::any_of(own.begin(), own.end(),
                    [&](int cpu) { return std::find(of_node.begin(), of_node.end(), cpu) != of_node.end(); }))
      nodes.push_back(std::atoi(name.c_str() + 4));
  }
  std::sort(nodes.begin(), nodes.end());
  return fmt::format("{}", fmt::join(nodes, ","));
}

std::string to_line(const RankPlace& p) {
  return fmt::format("{}\t{}\t{}\t{}\t{}\t{}", p.host, p.cpus, p.nodes, p.device, p.threads, p.quota);
}

RankPlace from_line(const std::string& line) {
  std::istringstream fields(line);
  RankPlace p;
  std::string threads, quota;
  for (std::string* field : {&p.host, &p.cpus, &p.nodes, &p.device, &threads, &quota})
    std::getline(fields, *field, '\t');
  p.threads = std::atoi(threads.c_str());
  read_decimal(quota, p.quota);
  return p;
}

/// Ranks of one host.
struct Group {
  std::vector<int> ranks;
  int threads = 0;
  std::set<int> cpus;
  double quota = 0;

  void add(int rank, const RankPlace& place, const std::vector<int>& given) {
    ranks.push_back(rank);
    threads += place.threads;
    cpus.insert(given.begin(), given.end());
    quota = std::max(quota, place.quota);
  }
  bool crowded() const { return threads > int(cpus.size()); }
};

/// The ranks that have no CPUs but those of one of them, the narrowest first that are too many for them: with CPUs
/// that are disjoint or one in the other, as launchers give them, no others can be.
std::optional<Group> crowded_ranks(const std::vector<std::pair<int, RankPlace>>& ranks) {
  std::vector<std::vector<int>> cpus;
  for (const auto& [rank, place] : ranks) cpus.push_back(numbers_of(place.cpus));
  std::optional<Group> narrowest;
  for (const std::vector<int>& outer : cpus) {
    if (narrowest && outer.size() >= narrowest->cpus.size()) continue;
    Group group;
    for (std::size_t i = 0; i < ranks.size(); ++i)
      if (std::includes(outer.begin(), outer.end(), cpus[i].begin(), cpus[i].end()))
        group.add(ranks[i].first, ranks[i].second, cpus[i]);
    if (group.crowded()) narrowest = std::move(group);
  }
  return narrowest;
}

}  // namespace

std::vector<int> numbers_of(const std::string& list) {
  std::vector<int> numbers;
  std::istringstream runs(list);
  for (std::string run; std::getline(runs, run, ',');) {
    int first = 0;
    const auto [end, error] = std::from_chars(run.data(), run.data() + run.size(), first);
    if (error != std::errc()) continue;
    const int last = *end == '-' ? std::atoi(end + 1) : first;
    for (int number = first; number <= last; ++number) numbers.push_back(number);
  }
  return numbers;
}

RankPlace own_place(const std::string& device) {
  RankPlace place;
  place.host = host_name();
  place.cpus = list_of(process_cpus());
  place.nodes = nodes_of_cpus(place.cpus);
  place.device = device;
  place.threads = omp_get_max_threads();
  place.quota = cpu_quota();
  return place;
}

std::string RankPlace::text() const {
  return fmt::format("{}, {} threads on CPUs {}, NUMA node {}{}", host, threads, cpus, nodes,
                     device.empty() ? "" : ", GPU " + device);
}

std::vector<std::string> oversubscribed_hosts(const std::vector<RankPlace>& places) {
  std::map<std::string, std::vector<std::pair<int, RankPlace>>> hosts;
  for (std::size_t rank = 0; rank < places.size(); ++rank)
    hosts[places[rank].host].emplace_back(int(rank), places[rank]);
  std::vector<std::string> lines;
  for (const auto& [name, ranks] : hosts) {
    Group all;
    for (const auto& [rank, place] : ranks) all.add(rank, place, numbers_of(place.cpus));
    if (all.crowded())
      lines.push_back(
          fmt::format("{}: {} ranks with {} threads on {} CPUs", name, ranks.size(), all.threads, all.cpus.size()));
    else if (const std::optional<Group> some = crowded_ranks(ranks))
      lines.push_back(fmt::format("{}: rank{} {} with {} threads on CPU{} {}", name,
                                  some->ranks.size() > 1 ? "s" : "", fmt::join(some->ranks, ", "), some->threads,
                                  some->cpus.size() > 1 ? "s" : "", fmt::join(some->cpus, ", ")));
    else if (all.quota > 0 && all.threads > all.quota)
      lines.push_back(
          fmt::format("{}: {} threads, which may take the time of {:g} CPUs (its control group's limit)", name,
                      all.threads, all.quota));
  }
  return lines;
}

std::vector<std::string> shared_devices(const std::vector<RankPlace>& places) {
  std::map<std::string, std::vector<int>> ranks;
  for (std::size_t rank = 0; rank < places.size(); ++rank)
    if (!places[rank].device.empty())
      ranks[places[rank].host + ", GPU " + places[rank].device].push_back(int(rank));
  std::vector<std::string> lines;
  for (const auto& [device, sharing] : ranks)
    if (sharing.size() > 1) lines.push_back(fmt::format("{}: ranks {}", device, fmt::join(sharing, ", ")));
  return lines;
}

bool devices_may_be_shared() {
  const char* allowed = std::getenv("DEKODER_SHARE_GPU");  // the launcher has checked it
  return allowed != nullptr && allowed[0] == '1';
}

std::vector<RankPlace> all_places(const Communicator& ranks, const std::string& device) {
  std::vector<RankPlace> places;
  for (const std::string& line : ranks.gather(to_line(own_place(device)))) places.push_back(from_line(line));
  return places;
}

void log_ranks(const Communicator& ranks, const std::string& device) {
  if (ranks.size() == 1) return;
  const std::vector<RankPlace> places = all_places(ranks, device);
  for (std::size_t rank = 0; rank < places.size(); ++rank) log_info("rank {}: {}", rank, places[rank].text());
  for (const std::string& line : oversubscribed_hosts(places))
    log_warning("{}: they take turns; lower OMP_NUM_THREADS or the number of ranks", line);
  const std::vector<std::string> shared = shared_devices(places);
  if (ranks.from_root(!shared.empty()) && !devices_may_be_shared())
    throw ConfigError(
        "several ranks share a GPU ({}); start one rank for each GPU (srun --gpus-per-task=1, or mpirun --map-by "
        "ppr:GPUS:node), or set DEKODER_SHARE_GPU=1",
        fmt::join(shared, "; "));
}

void require_same_on_all(const Communicator& ranks, const std::string& what, const std::string& text) {
  if (ranks.size() == 1) return;
  const std::size_t own = std::hash<std::string>{}(text);
  const bool differs = own != ranks.from_root(own);
  if (ranks.max(differs ? 1 : 0) == 0) return;
  std::vector<int> others;
  const std::vector<std::string> all = ranks.gather(differs ? "differs" : "");
  for (std::size_t rank = 0; rank < all.size(); ++rank)
    if (!all[rank].empty()) others.push_back(int(rank));
  if (!ranks.root()) throw ElsewhereError(ExitCode::usage);
  throw ConfigError("{} of rank {} is not that of rank 0; start all ranks with the same command, build and files",
                    what, fmt::join(others, ", "));
}

}  // namespace dekoder
