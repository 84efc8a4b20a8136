// SPDX-License-Identifier: Apache-2.0
// The file of a prediction table: its layout, and that what is under its name is whole whatever happens.
#include "io/run/prediction_file.hpp"

#include <sys/resource.h>

#include <csignal>

#include "io/hdf5/hdf5_file.hpp"
#include "support/attention_maps.hpp"
#include "support/scratch_folder.hpp"

namespace dekoder {
namespace {

using namespace testing_support;

PredictionFileInfo info_of_file(long step) {
  PredictionFileInfo info;
  info.step = step;
  info.run_id = "run";
  info.config_yaml = "model: é\n";
  info.writer = "test";
  info.tokenizer = "byte";
  info.source = "text.txt";
  info.data_hash = "abc/70";
  info.validation_tokens = 30;
  info.validation_hash = "def";
  info.context = 2;
  info.token_texts = {"a", "é", "\xC3", std::string(1, '\0'), ""};
  return info;
}

PredictionTable small_table() {
  PredictionTable table;
  table.top = 2;
  table.window = {0, 0, 1};
  table.position = {0, 1, std::int64_t{1} << 40};
  table.input = {4, 0, 3};
  table.truth = {0, 1, 2};
  table.guess = {0, 2, 2};
  table.rank = {0, 3, 0};
  table.surprise = {0.25f, 5.5f, 0.0f};
  table.truth_probability = {0.75f, 0.125f, 1.0f};
  table.guess_probability = {0.75f, 0.5f, 1.0f};
  table.top_tokens = {0, 1, 2, 0, 2, 1};
  table.top_log_probabilities = {-0.25f, -2.0f, -0.5f, -1.0f, 0.0f, -100.0f};
  return table;
}

class PredictionFileTest : public testing::Test {
 protected:
  std::filesystem::path path() const { return scratch_ / "table.h5"; }
  ScratchFolder scratch_{"prediction-file"};
};

TEST_F(PredictionFileTest, TextsAreAsLongAsTheLongestButNotLongerThanIsRead) {
  PredictionFileInfo info = info_of_file(40);
  info.token_texts.assign(20000, "of");
  info.token_texts[7] = std::string(100000, 'a');
  info.token_texts[8] = std::string(512, '\xC3');
  EXPECT_LT(prediction_bytes(info, small_table()), 50'000'000u);
  write_prediction_file(path(), info, small_table());
  EXPECT_LT(std::filesystem::file_size(path()), 500'000u);
  const std::vector<std::string> texts = Hdf5File::open(path()).read_texts("/token_text");
  EXPECT_EQ(texts[6], "of");
  EXPECT_EQ(texts[7], std::string(512, 'a') + "... (100000 bytes)");
  EXPECT_EQ(texts[8].size(), 4 * 512u);
}

TEST_F(PredictionFileTest, LayoutIsAsDocumented) {
  const PredictionTable table = small_table();
  write_prediction_file(path(), info_of_file(40), table);
  EXPECT_EQ(names_in(scratch_.path()), std::vector<std::string>{"table.h5"});
  EXPECT_LE(std::filesystem::file_size(path()), prediction_bytes(info_of_file(40), table));
  const Hdf5File file = Hdf5File::open(path());
  EXPECT_EQ(file.text_attribute("/", "format"), "dekoder-predictions");
  EXPECT_EQ(file.attribute<std::int32_t>("/", "major"), 1);
  EXPECT_EQ(file.attribute<std::int32_t>("/", "minor"), 0);
  EXPECT_EQ(file.attribute<std::int64_t>("/", "step"), 40);
  EXPECT_EQ(file.text_attribute("/", "config"), "model: é\n");
  EXPECT_EQ(file.text_attribute("/", "data_hash"), "abc/70");
  EXPECT_EQ(file.text_attribute("/", "validation_hash"), "def");
  EXPECT_EQ(file.attribute<std::uint64_t>("/", "validation_tokens"), 30u);
  EXPECT_EQ(file.attribute<std::int32_t>("/", "context"), 2);
  EXPECT_EQ(file.attribute<std::int32_t>("/", "vocabulary"), 5);
  EXPECT_EQ(file.attribute<std::int32_t>("/", "top"), 2);
  EXPECT_EQ(file.read_texts("/token_text"), (std::vector<std::string>{"a", "é", "\\xC3", "\\x00", ""}));
  EXPECT_EQ(file.read<std::int32_t>("/window"), table.window);
  EXPECT_EQ(file.read<std::int64_t>("/position"), table.position);
  EXPECT_EQ(file.read<Token>("/input"), table.input);
  EXPECT_EQ(file.read<Token>("/truth"), table.truth);
  EXPECT_EQ(file.read<Token>("/guess"), table.guess);
  EXPECT_EQ(file.read<std::int32_t>("/rank"), table.rank);
  EXPECT_EQ(file.read<float>("/surprise"), table.surprise);
  EXPECT_EQ(file.read<float>("/truth_probability"), table.truth_probability);
  EXPECT_EQ(file.read<float>("/guess_probability"), table.guess_probability);
  EXPECT_EQ(file.shape("/top_tokens"), (std::vector<std::size_t>{3, 2}));
  EXPECT_EQ(file.read<Token>("/top_tokens"), table.top_tokens);
  EXPECT_EQ(file.read<float>("/top_log_probabilities"), table.top_log_probabilities);
  EXPECT_EQ(file.text_attribute("/surprise", "unit"), "nats");
  EXPECT_EQ(file.text_attribute("/guess_probability", "unit"), "probability");
  EXPECT_EQ(file.text_attribute("/truth", "axes"), "token");
  EXPECT_EQ(file.text_attribute("/top_tokens", "axes"), "token,place");
}

TEST_F(PredictionFileTest, OtherFilesAreToldApart) {
  write_prediction_file(path(), info_of_file(40), small_table());
  require_prediction_file(path());
  Hdf5File::create(scratch_ / "other.h5").close();
  const std::string said = message_of<DataError>([&] { require_prediction_file(scratch_ / "other.h5"); });
  EXPECT_NE(said.find("other.h5: is an HDF5 file but holds no predictions"), std::string::npos) << said;
  EXPECT_THROW(require_prediction_file(scratch_.write("text", "text")), DataError);
}

TEST_F(PredictionFileTest, ColumnsOfOtherLengthsAreAFault) {
  PredictionTable table = small_table();
  table.top_tokens.pop_back();
  EXPECT_THROW(write_prediction_file(path(), info_of_file(1), table), ShapeError);
  EXPECT_THROW(write_prediction_file(path(), info_of_file(1), PredictionTable{}), ShapeError);
  EXPECT_TRUE(names_in(scratch_.path()).empty());
}

TEST_F(PredictionFileTest, WhatTheDiskDoesNotTakeLeavesTheFileOfBefore) {
  write_prediction_file(path(), info_of_file(7), small_table());
  const std::string before = contents_of(path());
  const int limited = in_child([&] {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit small = {1000, 1000};
    if (::setrlimit(RLIMIT_FSIZE, &small) != 0) return 1;
    const std::string said =
        message_of<SaveError>([&] { write_prediction_file(path(), info_of_file(9), small_table()); });
    return said.find("step 9 are not saved; " + path().string() + " is as it was") != std::string::npos ? 0 : 2;
  });
  EXPECT_EQ(limited, 0);
  EXPECT_EQ(contents_of(path()), before);
  EXPECT_EQ(names_in(scratch_.path()), std::vector<std::string>{"table.h5"});
}

}  // namespace
}  // namespace dekoder
