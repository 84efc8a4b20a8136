// SPDX-License-Identifier: Apache-2.0
// Attention files of known numbers, and what is read back of them.
#pragma once

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <vector>

#include "io/hdf5/half.hpp"
#include "io/hdf5/hdf5_file.hpp"
#include "io/run/attention_file.hpp"

namespace dekoder::testing_support {

inline AttentionProbe probe_of(const std::string& name, const std::string& source,
                               const std::vector<std::string>& texts) {
  AttentionProbe probe{name, source, "", {}, texts};
  for (const std::string& text : texts) {
    probe.text += text;
    probe.tokens.push_back(static_cast<Token>(probe.tokens.size() + 1));
  }
  return probe;
}

inline AttentionFileInfo small_info() {
  AttentionFileInfo info;
  info.run_id = "run";
  info.config_yaml = "model: é\n";
  info.tokenizer = "byte";
  info.layers = {0, 2};
  info.heads = {1, 3, 4};
  info.probes = {
      probe_of("text_0", "configuration", {"a", "é", "\xC3", std::string(1, '\0'), "€", " "}),
      probe_of("window_0", "held-out tokens 5 to 7", {"x", "y", "\n"}),
  };
  info.statistic_names = {"entropy",    "mean_distance",   "previous_token", "first_token",
                          "same_token", "duplicate_token", "induction"};
  info.writer = "test";
  return info;
}

/// Multiples of 1/128, which binary16 holds exactly; check_attention_file.py makes the same.
inline std::vector<float> values_of(long salt, long step, std::size_t probe, std::size_t count) {
  std::vector<float> values(count);
  for (std::size_t i = 0; i < count; ++i)
    values[i] = static_cast<float>((std::size_t(salt + 7 * step) + 31 * probe + 13 * i) % 101) / 128;
  return values;
}

inline std::vector<AttentionMaps> maps_of(const AttentionFileInfo& info, long step) {
  std::vector<AttentionMaps> maps;
  const std::size_t heads = info.layers.size() * info.heads.size();
  for (std::size_t p = 0; p < info.probes.size(); ++p) {
    const std::size_t tokens = info.probes[p].tokens.size();
    maps.push_back({values_of(1, step, p, heads * tokens * tokens),
                    values_of(2, step, p, heads * info.statistic_names.size())});
  }
  return maps;
}

/// Expects every number of maps_of in the file of that step.
inline void expect_whole(const std::filesystem::path& path, const AttentionFileInfo& info, long step) {
  const Hdf5File file = Hdf5File::open(path);
  EXPECT_EQ(file.attribute<std::int64_t>("/", "step"), step) << path;
  const std::vector<AttentionMaps> expected = maps_of(info, step);
  for (std::size_t p = 0; p < info.probes.size(); ++p) {
    const std::string group = "/attention/" + info.probes[p].name;
    const std::vector<Half> stored = file.read<Half>(group + "/weights");
    EXPECT_TRUE(std::equal(stored.begin(), stored.end(), expected[p].weights.begin(), expected[p].weights.end(),
                           [](Half half, float value) { return to_float(half) == value; }))
        << path << group;
    EXPECT_EQ(file.read<float>(group + "/statistics"), expected[p].statistics) << path << group;
  }
}

/// Names in a folder, in alphabetical order.
inline std::vector<std::string> names_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

inline std::string contents_of(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

/// Runs `act` in a process of its own; returns what waitpid says of it.
inline int in_child(const std::function<int()>& act) {
  const pid_t child = ::fork();
  if (child == 0) {
    const int code = act();
    ::_exit(testing::Test::HasFailure() ? 99 : code);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  return status;
}

}  // namespace dekoder::testing_support
