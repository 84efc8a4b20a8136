// SPDX-License-Identifier: Apache-2.0
#include "base/cpu_quota.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <string>

#include "support/scratch_folder.hpp"

namespace dekoder {
namespace {

namespace fs = std::filesystem;

class CpuQuota : public testing::Test {
 protected:
  void put(const std::string& file, const std::string& text) {
    fs::create_directories((folder_ / file).parent_path());
    folder_.write(file, text);
  }
  double quota(const std::string& own) {
    put("own", own);
    return cpu_quota(folder_ / "own", folder_ / "groups");
  }

  testing_support::ScratchFolder folder_{"cpu-quota"};
};

TEST_F(CpuQuota, OfVersion2) {
  EXPECT_EQ(quota("0::/job/step\n"), 0);
  put("groups/job/step/cpu.max", "max 100000\n");
  EXPECT_EQ(quota("0::/job/step\n"), 0);
  put("groups/job/cpu.max", "250000 100000\n");
  EXPECT_EQ(quota("0::/job/step\n"), 2.5) << "of the group above";
  put("groups/job/step/cpu.max", "50000 100000\n");
  EXPECT_EQ(quota("0::/job/step\n"), 0.5);
  EXPECT_EQ(quota("0::/job\n"), 2.5);
  EXPECT_EQ(quota("0::/\n"), 0);
}

TEST_F(CpuQuota, OfVersion1) {
  const std::string own = "5:cpuset:/job\n4:cpu,cpuacct:/docker/12:ab\n0::/\n";
  put("groups/cpuset/job/cpu.cfs_quota_us", "100000\n");
  put("groups/cpuset/job/cpu.cfs_period_us", "100000\n");
  put("groups/cpu,cpuacct/docker/12:ab/cpu.cfs_quota_us", "-1\n");
  put("groups/cpu,cpuacct/docker/12:ab/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(quota(own), 0);
  put("groups/cpu,cpuacct/docker/12:ab/cpu.cfs_quota_us", "300000\n");
  EXPECT_EQ(quota(own), 3);
}

TEST_F(CpuQuota, OfAContainerWhosePathIsTheHosts) {
  put("groups/cpu.max", "400000 100000\n");
  EXPECT_EQ(quota("0::/kubepods/pod7/12ab\n"), 4);
}

TEST_F(CpuQuota, OfNothing) {
  EXPECT_EQ(quota("\n:\n::\n4:cpu\nnonsense"), 0);
  EXPECT_EQ(cpu_quota(folder_ / "missing", folder_.path()), 0);
}

}  // namespace
}  // namespace dekoder
