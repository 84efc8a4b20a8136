// SPDX-License-Identifier: Apache-2.0
#include "scaling/job.hpp"

#include <smpi/smpi.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>

#include "config/run_config_yaml.hpp"
#include "model/decoder.hpp"

namespace dekoder::scaling {

namespace {

JobOptions parse(int argc, char** argv) {
  CLI::App app("Ranks of a simulated cluster exchange gradients and parameters");
  JobOptions options;
  std::string config;
  std::vector<std::string> sets;
  app.add_option("--config", config, "a configuration, for its model")->required();
  app.add_option("--set", sets, "key=value of it");
  app.add_option("--ranks", options.ranks)->check(CLI::Range(1, most_ranks));
  app.add_option("--leaves", options.leaves, "micro-batches of a step (default: one for each rank)");
  app.add_option("--bucket", options.bucket, "bytes of a bucket");
  app.add_option("--unit", options.unit, "elements between cuts");
  try {
    app.parse(argc, argv);
    options.config = parse_run_config(read_config_text(config), config, sets);
    if (options.leaves == 0) options.leaves = options.ranks;
    if (options.leaves < options.ranks)
      throw ConfigError("{} ranks for {} micro-batches", options.ranks, options.leaves);
  } catch (const CLI::ParseError& error) {
    std::exit(app.exit(error) == 0 ? 0 : 2);
  } catch (const ConfigError& error) {
    std::fprintf(stderr, "%s\n", error.what());
    std::exit(2);
  }
  return options;
}

}  // namespace

Job::Job(int& argc, char** argv)
    : engine_(&argc, argv), cluster_(engine_) {  // the engine takes its own options out
  options_ = parse(argc, argv);
  layout_ = decoder_parameters(options_.config.model);
  finished_ = backward_borders(layout_, options_.config.model.layers);
  finished_.insert(finished_.begin(), 0);
  SMPI_init();
}

Job::~Job() {
  SMPI_finalize();
}

Shards Job::shards(int ranks) const {
  return Shards(layout_.flat_size(), options_.unit, finished_, options_.bucket / sizeof(Master), ranks);
}

void Job::run(const std::function<void(const Communicator&)>& body) {
  const auto rank = [&body] {
    MPI_Init(nullptr, nullptr);
    body(Communicator::world());
    MPI_Finalize();
  };
  SMPI_app_instance_start("dekoder", rank, cluster_.hosts(options_.ranks));
  engine_.run();
}

}  // namespace dekoder::scaling
