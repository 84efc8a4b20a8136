// SPDX-License-Identifier: Apache-2.0
// The file of one step: its layout, and that what is under its name is whole whatever happens.
#include "io/run/attention_file.hpp"

#include <sys/resource.h>

#include <csignal>
#include <cstdlib>

#include "io/run/attention_reader.hpp"
#include "support/attention_maps.hpp"
#include "support/scratch_folder.hpp"
#include "support/source_folder.hpp"
#include "tensor/random_stream.hpp"

namespace dekoder {
namespace {

namespace fs = std::filesystem;
using namespace testing_support;
using Names = std::vector<std::string>;

class AttentionFileTest : public testing::Test {
 protected:
  void write(long step) const { write_attention_file(path(), info_, step, maps_of(info_, step)); }
  fs::path path() const { return scratch_ / "maps.h5"; }
  Names names() const { return names_in(scratch_.path()); }

  ScratchFolder scratch_{"attention-file"};
  AttentionFileInfo info_ = small_info();
};

TEST_F(AttentionFileTest, LayoutIsAsDocumented) {
  write(40);
  EXPECT_EQ(names(), Names{"maps.h5"});
  expect_whole(path(), info_, 40);
  const Hdf5File file = Hdf5File::open(path());
  EXPECT_EQ(file.text_attribute("/", "format"), "dekoder-attention");
  EXPECT_EQ(file.attribute<std::int32_t>("/", "major"), 2);
  EXPECT_EQ(file.attribute<std::int32_t>("/", "minor"), 0);
  EXPECT_EQ(file.text_attribute("/", "config"), info_.config_yaml);
  EXPECT_EQ(file.text_attribute("/", "statistic_names"),
            "entropy,mean_distance,previous_token,first_token,same_token,duplicate_token,induction");
  EXPECT_EQ(file.read<std::int32_t>("/layers"), info_.layers);
  EXPECT_EQ(file.read<std::int32_t>("/heads"), info_.heads);
  EXPECT_EQ(file.text_attribute("/attention/text_0", "text"), "aé\\xC3\\x00€ ");
  EXPECT_EQ(file.text_attribute("/attention/window_0", "source"), "held-out tokens 5 to 7");
  EXPECT_EQ(file.attribute<std::uint8_t>("/attention/text_0", "causal"), 1);
  EXPECT_EQ(file.read<Token>("/attention/window_0/tokens"), (std::vector<Token>{1, 2, 3}));
  EXPECT_EQ(file.read_texts("/attention/text_0/token_text"), (Names{"a", "é", "\\xC3", "\\x00", "€", " "}));
  const Hdf5Dataset maps = file.dataset("/attention/text_0/weights");
  EXPECT_EQ(maps.type(), Hdf5Type::float16);
  EXPECT_EQ(maps.shape(), (std::vector<std::size_t>{2, 3, 6, 6}));
  EXPECT_EQ(maps.chunk(), (std::vector<std::size_t>{1, 1, 6, 6}));
  EXPECT_EQ(file.text_attribute(maps.name(), "axes"), "layer,head,query,key");
  EXPECT_EQ(file.shape("/attention/text_0/statistics"), (std::vector<std::size_t>{2, 3, 7}));
  EXPECT_EQ(file.text_attribute("/attention/text_0/statistics", "axes"), "layer,head,statistic");
}

TEST_F(AttentionFileTest, H5pyReadsIt) {
  if (std::system("python3 -c 'import h5py' 2> /dev/null") != 0) GTEST_SKIP() << "no h5py";
  write(1200);
  const std::string reader = (source_folder() / "tests/unit/check_attention_file.py").string();
  const std::string command = "python3 '" + reader + "' '" + path().string() + "'";
  EXPECT_EQ(std::system(command.c_str()), 0);
}

TEST_F(AttentionFileTest, ReadsBackWhatWasWritten) {
  write(40);
  const AttentionReader reader(path());
  EXPECT_EQ(reader.step(), 40);
  EXPECT_EQ(reader.info().probes, as_written(info_).probes);
  EXPECT_EQ(reader.info().statistic_names, info_.statistic_names);
  EXPECT_EQ(reader.info().layers, info_.layers);
  EXPECT_EQ(reader.info().heads, info_.heads);
  EXPECT_EQ(reader.info().config_yaml, info_.config_yaml);
  for (std::size_t p = 0; p < 2; ++p) {
    EXPECT_EQ(reader.read(p).weights, maps_of(info_, 40)[p].weights);
    EXPECT_EQ(reader.read(p).statistics, maps_of(info_, 40)[p].statistics);
  }
  const std::string missing = message_of<DataError>([&] { AttentionReader(scratch_ / "none.h5"); });
  EXPECT_NE(missing.find("none.h5: no such file"), std::string::npos) << missing;
}

TEST_F(AttentionFileTest, AFileOfAnotherFormatVersionIsNamed) {
  {
    Hdf5File file = Hdf5File::create(path());
    file.write_attribute("/", "format", "dekoder-attention");
    file.write_attribute("/", "major", std::int32_t{1});
    file.close();
  }
  const std::string said = message_of<DataError>([&] { AttentionReader(path()).step(); });
  EXPECT_NE(said.find("has format 1, this program reads format 2"), std::string::npos) << said;
}

TEST_F(AttentionFileTest, TakesThePlaceOfTheLast) {
  for (const long step : {7, 3}) {
    write(step);
    expect_whole(path(), info_, step);
    EXPECT_EQ(names(), Names{"maps.h5"});
  }
}

TEST_F(AttentionFileTest, TwoWritersOfOneFileEachLeaveAWholeOne) {
  write(0);
  std::vector<pid_t> children;
  for (const long step : {1, 2}) {
    children.push_back(::fork());
    if (children.back() != 0) continue;
    try {
      for (int i = 0; i < 30; ++i) write(step);
    } catch (...) {
      ::_exit(1);
    }
    ::_exit(0);
  }
  for (int i = 0; i < 30; ++i) AttentionReader(path()).verify();
  for (const pid_t child : children) {
    int status = -1;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0) << "the other one took its temporary file away";
  }
  expect_whole(path(), info_, AttentionReader(path()).step());
  EXPECT_EQ(names(), Names{"maps.h5"});
}

TEST_F(AttentionFileTest, WhatTheDiskDoesNotTakeLeavesTheFileOfBefore) {
  write(7);
  const std::string before = contents_of(path());
  const int limited = in_child([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit small = {1000, 1000};
    if (::setrlimit(RLIMIT_FSIZE, &small) != 0) return 1;
    const std::string said = message_of<SaveError>([&] { write(9); });
    return said.find("step 9 are not saved; " + path().string() + " is as it was") != std::string::npos ? 0 : 2;
  });
  EXPECT_EQ(limited, 0);
  EXPECT_EQ(contents_of(path()), before);
  EXPECT_EQ(names(), Names{"maps.h5"});
  const std::string said = message_of<SaveError>(
      [&] { write_attention_file(scratch_ / "nothing/here.h5", info_, 9, maps_of(info_, 9)); });
  EXPECT_NE(said.find("nothing does not exist; make it first"), std::string::npos) << said;
  EXPECT_EQ(said.find("as it was"), std::string::npos) << "of a file that never was: " << said;
}

TEST_F(AttentionFileTest, NoTruncationAndNoFlippedByteIsTakenForGood) {
  write(40);
  const std::string good = contents_of(path());
  const auto refused = [&](const std::string& bytes) {
    scratch_.write("maps.h5", bytes);
    const std::string reason = message_of<DataError>([&] { AttentionReader(path()).verify(); });
    if (reason.empty()) expect_whole(path(), info_, 40);
    return !reason.empty();
  };
  for (std::size_t cut = 0; cut < good.size(); cut += good.size() / 40)
    EXPECT_TRUE(refused(good.substr(0, cut))) << cut;
  int found = 0, flips = 0;
  for (std::size_t at = 0; at < good.size(); at += 61, ++flips) {
    std::string damaged = good;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x10);
    found += refused(damaged);
  }
  EXPECT_GT(found, flips / 4) << "of " << flips;  // the others hit bytes that hold nothing
}

TEST_F(AttentionFileTest, BytesAreBoundedAsPrinted) {
  for (const std::size_t tokens : {1u, 96u})
    for (const int probes : {1, 3, 40}) {
      info_.probes.clear();
      for (int p = 0; p < probes; ++p)
        info_.probes.push_back(probe_of("text_" + std::to_string(p), "configuration", Names(tokens, "\xFF")));
      std::vector<AttentionMaps> maps = maps_of(info_, 0);
      std::uint64_t draw = 0;  // bits that no compression makes smaller
      for (AttentionMaps& each : maps)
        for (float& weight : each.weights)
          weight =
              to_float({static_cast<std::uint16_t>(RandomStream(1, site_of("test"), 0).bits32(draw++) & 0xfbff)});
      write_attention_file(path(), info_, 0, maps);
      EXPECT_LE(fs::file_size(path()), attention_bytes(info_)) << tokens << " tokens, " << probes << " probes";
      // and no more than the values and what is stated beside them
      std::uint64_t plain = 0;
      for (const AttentionMaps& each : maps) plain += 2 * each.weights.size() + 4 * each.statistics.size();
      EXPECT_LE(attention_bytes(info_), (12 << 10) + 100 + plain + plain / 1024 +
                                            std::size_t(probes) * ((6 << 10) + 6 * 64 + 100 + 16 * tokens));
      EXPECT_GE(attention_bytes(info_), std::uint64_t(probes) * attention_probe_bytes(6, tokens, 7));
    }
}

TEST_F(AttentionFileTest, SizesMustAgree) {
  std::vector<AttentionMaps> maps = maps_of(info_, 0);
  const auto write_maps = [&] { write_attention_file(path(), info_, 0, maps); };
  maps[1].weights.pop_back();
  EXPECT_THROW(write_maps(), ShapeError);
  maps = maps_of(info_, 0);
  maps[0].statistics.push_back(0);
  EXPECT_THROW(write_maps(), ShapeError);
  maps = maps_of(info_, 0);
  maps.pop_back();
  EXPECT_THROW(write_maps(), ShapeError);
  maps = maps_of(info_, 0);
  info_.probes[0].token_texts.pop_back();
  EXPECT_THROW(write_maps(), ShapeError);
  info_ = small_info();
  info_.layers.clear();
  EXPECT_THROW(write_maps(), ShapeError);
  EXPECT_TRUE(names().empty());
}

}  // namespace
}  // namespace dekoder
