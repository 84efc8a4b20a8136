// SPDX-License-Identifier: Apache-2.0
// A job on the simulated cluster whose ranks exchange gradients and parameters by the program's own
// GradientReducer.
#pragma once

#include <functional>
#include <string>

#include "config/run_config.hpp"
#include "scaling/cluster.hpp"
#include "train/gradient_reducer.hpp"

namespace dekoder::scaling {

/// The command line: [ranks, micro-batches, model, bucket], and --cfg=... of SimGrid.
struct JobOptions {
  int ranks = 8;
  long leaves = 0;                            ///< micro-batches of a step; 0: one for each rank
  RunConfig config;                           ///< its model alone counts
  std::size_t bucket = std::size_t{8} << 20;  ///< bytes
  std::size_t unit = 4096;                    ///< elements between cuts
};

class Job {
 public:
  /// Ends the process with exit code 2 and a message where the command line is wrong.
  Job(int& argc, char** argv);
  ~Job();
  Job(const Job&) = delete;

  const JobOptions& options() const { return options_; }
  const ParameterLayout& layout() const { return layout_; }
  /// Where backward says that all behind is done, ascending, from 0 on.
  const std::vector<std::size_t>& finished() const { return finished_; }
  Shards shards(int ranks) const;
  const Cluster& cluster() const { return cluster_; }

  /// Runs body on every rank, between MPI_Init and MPI_Finalize, to the end of the simulation.
  void run(const std::function<void(const Communicator&)>& body);

 private:
  JobOptions options_;
  ParameterLayout layout_;
  std::vector<std::size_t> finished_;
  simgrid::s4u::Engine engine_;
  Cluster cluster_;
};

}  // namespace dekoder::scaling
