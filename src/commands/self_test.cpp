// SPDX-License-Identifier: Apache-2.0
#include "commands/self_test.hpp"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <vector>

#include "base/stop_signal.hpp"
#include "commands/finding.hpp"
#include "commands/folder_check.hpp"
#include "commands/message_check.hpp"
#include "commands/training_check.hpp"
#include "parallel/rank_table.hpp"
#include "parallel/threads.hpp"
#include "tensor/device.hpp"
#include "tensor/tensor.hpp"

namespace dekoder {

namespace {

class SelfTest {
 public:
  SelfTest(const Communicator& ranks, void (*print)(const std::string&)) : ranks_(ranks), print_(print) {}

  /// Runs check() on all ranks; what ranks have found is told apart where one failed.
  void run(const char* name, const char* remedy, const std::function<Finding()>& check) {
    if (stopped_) return;
    Finding own;
    try {
      own = check();
    } catch (const ElsewhereError&) {  // the rank that has failed tells
    } catch (const std::exception& error) {
      own = {true, error.what()};
    }
    const std::vector<std::string> all = ranks_.gather(own.failed ? own.text : "");
    std::string failures;
    for (std::size_t rank = 0; rank < all.size(); ++rank)
      if (!all[rank].empty())
        failures +=
            (failures.empty() ? "" : "; ") + (all.size() > 1 ? fmt::format("rank {}: ", rank) : "") + all[rank];
    failed_ = ranks_.max(own.failed ? 1 : 0) != 0 || failed_;
    if (ranks_.root())
      print_(failures.empty() ? fmt::format("ok       {}: {}\n", name, own.text)
                              : fmt::format("FAILED   {}: {}\n         {}\n", name, failures, remedy));
    stopped_ = ranks_.max(stop_requested()) != 0;
  }
  void skip(const char* name, const char* why) {
    if (ranks_.root() && !stopped_) print_(fmt::format("skipped  {}: {}\n", name, why));
  }
  ExitCode result() const {
    return failed_ ? ExitCode::usage : stopped_ ? ExitCode::wants_to_go_on : ExitCode::finished;
  }

 private:
  const Communicator& ranks_;
  void (*print_)(const std::string&);
  bool failed_ = false, stopped_ = false;
};

/// On rank 0 what `places`, of all ranks, are.
Finding check_placement(const std::vector<RankPlace>& places) {
  std::vector<std::string> faults = oversubscribed_hosts(places);
  if (!devices_may_be_shared())
    for (const std::string& shared : shared_devices(places)) faults.push_back(shared);
  if (!faults.empty()) return {true, fmt::format("{}", fmt::join(faults, "; "))};
  constexpr std::size_t most = 8;
  const ThreadFacts facts = thread_facts();
  std::string text = fmt::format("OpenMP binds: {}", facts.binding);
  for (std::size_t rank = 0; rank < std::min(places.size(), most); ++rank)
    text += fmt::format("; rank {}: {}", rank, places[rank].text());
  if (places.size() > most) text += fmt::format("; and {} more ranks", places.size() - most);
  if (facts.threads > facts.cores)
    text += fmt::format("; rank 0 has several threads on a core: with OMP_NUM_THREADS={} it may be faster",
                        facts.cores);
  return {false, text};
}

}  // namespace

ExitCode run_self_test(const Command& command, void (*print)(const std::string&)) {
  setenv("DEKODER_TF32", "0", 1);  // the numbers to compare with are of fp32; read at the first product
  const Communicator ranks = Communicator::world();
  const std::vector<RankPlace> places = all_places(ranks, device_id());
  const char* wrong =
      "the processor, the GPU, their memory or a library computes wrongly: name this node to the "
      "administrators";
  SelfTest test(ranks, print);
  test.run(
      "placement",
      "ask for one CPU for each thread: srun --cpus-per-task, mpirun --map-by slot:pe=N, and OMP_NUM_THREADS; in a "
      "container also for as much CPU time",
      [&] { return ranks.root() ? check_placement(places) : Finding{}; });
  if (stored_is_short)
    test.skip("gradients", "what bf16 rounds away hides finite differences; dekoder selftest --precision float");
  else
    test.run("gradients", wrong, check_gradients);
  test.run(device_is_host ? "losses" : "losses, GPU against CPU", wrong, check_losses);
  if (device_is_host) test.skip("GPU against CPU", "the backend is openmp");
  if (ranks.size() == 1) {
    for (const char* name : {"messages", "ranks"})
      test.skip(name, "there is one rank; with more, as a job starts them: srun or mpirun dekoder selftest");
  } else {
    const char* between =
        "messages between these nodes arrive changed, or the nodes compute differently: name them to "
        "the administrators";
    test.run("messages", between, [&] { return check_messages(ranks); });
    test.run("ranks", between, [&] { return check_ranks(ranks); });
  }
  test.run("files",
           "choose another --folder or make this one, or ask the administrators for one that all nodes have, with "
           "room, locks and fsync",
           [&] { return Finding{false, check_folder(command.folder, ranks)}; });
  return test.result();
}

}  // namespace dekoder
