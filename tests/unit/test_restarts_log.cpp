// SPDX-License-Identifier: Apache-2.0
#include "io/run/restarts_log.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.hpp"
#include "base/process_space.hpp"
#include "io/run/metrics_log.hpp"
#include "support/scratch_folder.hpp"

namespace dekoder {
namespace {

using nlohmann::json;

class RestartsLogTest : public ::testing::Test {
 protected:
  /// metrics.jsonl with steps 1 to `last` of half a second each.
  void put_steps(long last) const {
    std::filesystem::remove(paths.metrics());
    MetricsLog log(paths.metrics(), 0);
    for (long step = 1; step <= last; ++step)
      log.write(StepMetrics{step, 1, 1e-3, 1, std::uint64_t(step) * 100, 200});
  }
  std::string contents() const {
    std::ifstream file(paths.restarts());
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::vector<json> rows() const {
    std::vector<json> read;
    std::istringstream lines(contents());
    for (std::string line; std::getline(lines, line);) read.push_back(json::parse(line));
    return read;
  }
  void put(const std::vector<json>& lines) const {
    std::string text;
    for (const json& line : lines) text += line.dump() + "\n";
    scratch.write("restarts.jsonl", text);
  }
  static json begin_row(const char* time, long step, long lost) {
    return {{"event", "begin"}, {"time", time}, {"step", step}, {"lost_steps", lost}};
  }
  static json end_row(double wall_seconds) { return {{"event", "end"}, {"wall_seconds", wall_seconds}}; }

  testing_support::ScratchFolder scratch{"restarts-log"};
  RunPaths paths{scratch.path()};
};

TEST_F(RestartsLogTest, AStartHasALineForItsBeginningAndItsEnd) {
  ::setenv("SLURM_JOB_ID", "4711", 1);
  {
    RestartsLog log(paths, 0, 3);
    EXPECT_EQ(contents(), "") << "before anything is recorded";
    log.begin();
    log.step_done(0.25);
    log.step_done(0.5);
    log.waited_for_save(0.125);
    log.end(2, 2, "SIGUSR1");
  }
  ::unsetenv("SLURM_JOB_ID");
  const auto lines = rows();
  ASSERT_EQ(lines.size(), 2u);
  const auto without_time = [](json row) { return row.erase("time"), row; };
  EXPECT_EQ(without_time(lines[0]), json({{"event", "begin"},
                                          {"step", 0},
                                          {"ranks", 3},
                                          {"host", host_name()},
                                          {"job", "4711"},
                                          {"lost_steps", 0}}));
  json end = without_time(lines[1]);
  EXPECT_NEAR(end["wall_seconds"].get<double>(), process_age(), 1);
  const double wall = end["wall_seconds"].get<double>(), effective = end["effective_time"].get<double>();
  EXPECT_NEAR(effective * wall, 0.75, 0.0006 * effective + 0.0001 * wall);  // rounded to 1 ms and to 1e-4
  end.erase("wall_seconds");
  end.erase("effective_time");
  EXPECT_EQ(end, json({{"event", "end"},
                       {"step", 2},
                       {"reason", "SIGUSR1"},
                       {"steps", 2},
                       {"step_seconds", 0.75},
                       {"save_seconds", 0.125}}));
  EXPECT_LT(lines[0]["time"], lines[1]["time"]);
}

TEST_F(RestartsLogTest, EffectiveTimeIsThatOfStepsThatCounted) {
  put_steps(30);
  put({begin_row("2026-11-24T21:40:03.250Z", 0, 0), end_row(3600), begin_row("2026-11-24T23:40:03Z", 20, 2),
       end_row(1200)});
  RestartsLog log(paths, 24, 1);
  log.begin();
  log.step_done(120 - 12);  // with 24 steps of half a second before: 0.025 of 80 minutes
  EXPECT_EQ(rows().back()["lost_steps"], 6);
  const std::string said = log.summary();
  EXPECT_EQ(said,
            "effective time 2.5 % of 1:20:0" + said.substr(30, 1) + " in 3 starts (8 steps were computed twice)");
}

TEST_F(RestartsLogTest, StepsBehindTheLastCheckpointDoNotCount) {
  put({begin_row("2026-11-24T21:40:03.250Z", 0, 0), end_row(3600)});
  RestartsLog log(paths, 0, 1);
  log.begin();
  put_steps(30);
  log.step_done(15);  // 30 of half a second
  log.end(30, 24, "the disk is full");
  EXPECT_EQ(rows().back()["step_seconds"], 15);
  EXPECT_NEAR(rows().back()["effective_time"].get<double>(), 12. / 3600, 1e-4);
}

TEST_F(RestartsLogTest, StepsOfProgramsWithoutThisLogDoNotCount) {
  put_steps(1000);
  {
    RestartsLog log(paths, 1000, 1);
    log.begin();
    log.end(1000, 1000, "finished");
    EXPECT_EQ(rows().back()["effective_time"], 0);
  }
  put_steps(1001);
  RestartsLog log(paths, 1001, 1);
  log.begin();
  log.end(1001, 1001, "finished");
  const double wall = rows()[1]["wall_seconds"].get<double>() + rows()[3]["wall_seconds"].get<double>();
  EXPECT_NEAR(rows().back()["effective_time"].get<double>() * wall, 0.5, 0.05);
}

TEST_F(RestartsLogTest, AStartWithoutAnEndGetsOneOfTheNext) {
  put_steps(30);
  put({begin_row("2026-11-24T21:40:03.250Z", 10, 0)});
  const timespec seen[2] = {{1795556503, 0}, {1795556503, 0}};  // 2026-11-24T21:41:43Z
  ASSERT_EQ(::utimensat(AT_FDCWD, paths.metrics().c_str(), seen, 0), 0);
  RestartsLog(paths, 25, 1);  // one that records nothing
  EXPECT_EQ(rows().size(), 1u);
  scratch.write("restarts.jsonl", contents() + "{\"event\":\"en");  // killed as it wrote
  RestartsLog log(paths, 25, 1);
  log.begin();
  const auto lines = rows();
  ASSERT_EQ(lines.size(), 3u);
  EXPECT_EQ(lines[1], json({{"event", "end"},
                            {"time", "2026-11-24T21:41:43.000Z"},
                            {"step", 30},
                            {"reason", "crashed or killed: it left no word"},
                            {"steps", 20},
                            {"wall_seconds", 99.75},
                            {"step_seconds", 10.0},
                            {"save_seconds", nullptr},
                            {"effective_time", nullptr}}));
  EXPECT_EQ(lines[2]["lost_steps"], 5);
}

TEST_F(RestartsLogTest, LinesThatCannotBeReadAreLeftOut) {
  put_steps(4);
  scratch.write("restarts.jsonl",
                "nonsense\n[]\n{\"event\":\"begin\",\"time\":\"yesterday\",\"step\":0,\"lost_steps\":0}\n");
  RestartsLog log(paths, 4, 1);
  log.begin();
  EXPECT_NE(log.summary().find("in 1 start"), std::string::npos) << log.summary();
  EXPECT_TRUE(contents().starts_with("nonsense\n[]\n"));
}

TEST_F(RestartsLogTest, SomethingElseInItsPlaceIsRefused) {
  std::filesystem::create_directory(paths.restarts());
  EXPECT_THROW(RestartsLog(paths, 0, 1), UserError);
}

TEST_F(RestartsLogTest, ALinkWithoutATargetGetsOne) {
  std::filesystem::create_symlink("elsewhere", paths.restarts());
  RestartsLog log(paths, 0, 1);
  log.begin();
  EXPECT_EQ(rows().size(), 1u);
  EXPECT_TRUE(std::filesystem::is_regular_file(scratch / "elsewhere"));
}

}  // namespace
}  // namespace dekoder
