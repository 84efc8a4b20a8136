// SPDX-License-Identifier: Apache-2.0
#include "config/run_origin.hpp"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <fstream>

#include "base/error.hpp"
#include "config/run_config_yaml.hpp"
#include "support/scratch_folder.hpp"

namespace dekoder {
namespace {

namespace fs = std::filesystem;

class RunOrigin : public ::testing::Test {
 protected:
  RunOrigin() {
    for (const char* name : {"a", "b", "runs/x"}) fs::create_directories(root() / name);
    for (const char* name : {"a/x.yaml", "b/x.yaml"}) std::ofstream(root() / name) << "model:\n";
  }
  const fs::path& root() const { return scratch_.path(); }
  fs::path run() const { return root() / "runs/x"; }
  /// The refusal of a configuration for a run directory with this config.yaml; "" where it is taken.
  std::string refusal(const fs::path& config, const std::string& yaml) const {
    return testing_support::message_of<ConfigError>([&] { check_origin(config, run(), yaml); });
  }

 private:
  const testing_support::ScratchFolder scratch_{"run-origin"};
};

TEST_F(RunOrigin, IsAPathFromTheRunDirectory) {
  EXPECT_EQ(origin_line(root() / "a/x.yaml", run()), "# from \"../../a/x.yaml\"\n");
  const std::string yaml = origin_line(root() / "a/x.yaml", run()) + to_yaml(RunConfig{});
  EXPECT_TRUE(config_differences(recorded_run_config(yaml, "config.yaml"), RunConfig{}).empty());
}

TEST_F(RunOrigin, AnotherFileOfTheSameNameIsRefused) {
  const std::string yaml = origin_line(root() / "a/x.yaml", run()) + "version: 1\n";
  EXPECT_EQ(refusal(root() / "a/x.yaml", yaml), "");
  EXPECT_EQ(refusal(root() / "b/../a/x.yaml", yaml), "");
  const std::string refused = refusal(root() / "b/x.yaml", yaml);
  for (const char* part :
       {"runs/x: is the run of ", "a/x.yaml, not of ", "b/x.yaml", "another run directory with --run"})
    EXPECT_NE(refused.find(part), std::string::npos) << refused;
  fs::remove(root() / "a/x.yaml");  // gone, but not this one
  EXPECT_NE(refusal(root() / "b/x.yaml", yaml), "");
}

TEST_F(RunOrigin, LinksAndMovesAreTheSameFile) {
  const std::string yaml = origin_line(root() / "a/x.yaml", run()) + "version: 1\n";
  fs::create_symlink(root() / "a", root() / "link");
  fs::create_symlink(root() / "a/x.yaml", root() / "b/link.yaml");
  EXPECT_EQ(refusal(root() / "link/x.yaml", yaml), "");
  EXPECT_EQ(refusal(root() / "b/link.yaml", yaml), "");
  fs::create_directories(root() / "moved/runs/x");
  fs::rename(root() / "a", root() / "moved/a");
  EXPECT_NO_THROW(check_origin(root() / "moved/a/x.yaml", root() / "moved/runs/x", yaml));
}

TEST_F(RunOrigin, AnyNameComesBack) {
  const fs::path odd = root() / "a \"#\\ : \n\xc3\xa9.yaml";
  std::ofstream(odd) << "model:\n";
  const std::string yaml = origin_line(odd, run()) + "version: 1\n";
  EXPECT_EQ(std::count(yaml.begin(), yaml.end(), '\n'), 2);
  EXPECT_EQ(refusal(odd, yaml), "");
  EXPECT_NE(refusal(root() / "a/x.yaml", yaml), "");
}

TEST_F(RunOrigin, WithoutALineThereIsNothingToCheck) {
  for (const char* yaml : {"", "version: 1\n", "# from my own head\nmodel:\n", "# from [1]\n", "# from \"open\n",
                           "# a comment\n# from \"../../a/x.yaml\"\n"})
    EXPECT_EQ(refusal(root() / "b/x.yaml", yaml), "") << yaml;
}

TEST_F(RunOrigin, APipeHasNoName) {
  const fs::path pipe = root() / "pipe.yaml";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_EQ(origin_line(pipe, run()), "");
  EXPECT_THROW(default_run_directory(pipe), ConfigError);
  EXPECT_EQ(default_run_directory(root() / "a/x.yaml"), "runs/x");
  const fs::path foreign = root() / "caf\xe9.yaml";
  std::ofstream(foreign) << "model:\n";
  EXPECT_EQ(origin_line(foreign, run()), "");
}

}  // namespace
}  // namespace dekoder
