// SPDX-License-Identifier: Apache-2.0
#include "io/files/durable_file.hpp"

#include <gtest/gtest.h>

#include "base/error.hpp"
#include "support/scratch_folder.hpp"

namespace dekoder {
namespace {

namespace fs = std::filesystem;
using testing_support::message_of;
using testing_support::ScratchFolder;

TEST(DurableFile, BytesReadAsTheirSize) {
  EXPECT_EQ(bytes_text(0), "0 bytes");
  EXPECT_EQ(bytes_text(999), "999 bytes");
  EXPECT_EQ(bytes_text(12345), "12.3 kB");
  EXPECT_EQ(bytes_text(256000000), "256.0 MB");
}

TEST(DurableFile, SpaceThatIsMissingIsNamed) {
  const ScratchFolder folder("durable-file");
  require_space(folder.path(), 1);
  const std::uint64_t exabyte = 1'000'000'000'000'000'000;
  const std::string said = message_of<DataError>([&] { require_space(folder.path(), exabyte); });
  EXPECT_TRUE(said.starts_with(folder.path().string() + ": ")) << said;
  EXPECT_NE(said.find(" are free, 1000000000000.0 MB are needed; free some space"), std::string::npos) << said;
  EXPECT_TRUE(message_of<DataError>([&] { require_space("", exabyte); }).starts_with(".: "));
}

TEST(DurableFile, ALinkLeadsToItsTarget) {
  const ScratchFolder folder("durable-file");
  const fs::path link = folder / "link", chain = folder / "chain", absolute = folder / "absolute";
  fs::create_symlink("nothing yet", link);
  fs::create_symlink("link", chain);
  fs::create_symlink("/nowhere/file", absolute);
  EXPECT_EQ(link_target(link), folder / "nothing yet");
  EXPECT_EQ(link_target(chain), folder / "nothing yet");
  EXPECT_EQ(link_target(absolute), "/nowhere/file");
  EXPECT_EQ(link_target(folder.write("file", "")), folder / "file");
  EXPECT_EQ(link_target(folder / "missing"), folder / "missing");
  fs::create_symlink("loop", folder / "loop");
  EXPECT_EQ(link_target(folder / "loop"), folder / "loop");
}

}  // namespace
}  // namespace dekoder
