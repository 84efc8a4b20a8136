// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "support/source_folder.hpp"

namespace dekoder::fuzz {

/// Calls visit(path, bytes) for the inputs of a folder beside this file, which stay few.
template <class Visit>
void for_each_input(const char* folder, const Visit& visit) {
  int count = 0;
  for (const auto& entry :
       std::filesystem::directory_iterator(testing_support::source_folder() / "tests/fuzz" / folder)) {
    std::ifstream file(entry.path(), std::ios::binary);
    visit(entry.path(), std::string{std::istreambuf_iterator<char>(file), {}});
    ++count;
  }
  EXPECT_GE(count, 5);
  EXPECT_LE(count, 20);
}

}  // namespace dekoder::fuzz
