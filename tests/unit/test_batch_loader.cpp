// SPDX-License-Identifier: Apache-2.0
#include "data/batch_loader.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <set>

#include "base/error.hpp"
#include "data/prepare_tokens.hpp"
#include "io/files/sha256.hpp"
#include "io/hdf5/hdf5_file.hpp"
#include "support/scratch_folder.hpp"

namespace dekoder {
namespace {

using testing_support::message_of;
using testing_support::ScratchFolder;

/// A text of random bytes, so that no two windows are alike.
std::string random_text(std::size_t bytes) {
  std::mt19937 engine(7);
  std::string text(bytes, ' ');
  for (char& byte : text) byte = static_cast<char>(engine() & 0xFF);
  return text;
}

class BatchLoaderTest : public testing::Test {
 protected:
  DataMixture make(std::size_t bytes, double fraction = 0.1) {
    const auto text = scratch_.write("text", random_text(bytes));
    prepare_tokens(text, scratch_ / "tokens.h5", TokenizerKind::bytes, fraction);
    return DataMixture(TokenDataset(scratch_ / "tokens.h5"));
  }
  ScratchFolder scratch_{"batch-loader"};
};

std::vector<Token> rows_of(const Batch& batch) {
  std::vector<Token> tokens(batch.inputs.data(), batch.inputs.data() + batch.inputs.size());
  tokens.insert(tokens.end(), batch.targets.data(), batch.targets.data() + batch.targets.size());
  return tokens;
}

TEST_F(BatchLoaderTest, TargetsFollowInputsAndWindowsCoverTheTrainingPart) {
  const DataMixture data = make(1000);
  const TokenDataset& dataset = data.sources()[0];
  const int context = 7, batch = 4;
  BatchLoader loader(data, 3, context, batch, batch, 0, 1, 0, 0);
  std::vector<Token> all(dataset.training_tokens());
  dataset.read(0, all);
  const std::uint64_t windows = (900 - 1) / 7;
  ASSERT_EQ(loader.order().sources()[0].windows(), windows);
  for (long step = 0; step < 70; ++step) {  // crosses two epoch boundaries
    const Batch& got = loader.next();
    EXPECT_EQ(got.step, step);
    EXPECT_EQ(got.first_sample, static_cast<std::uint64_t>(step * batch));
    for (std::size_t b = 0; b < 4; ++b) {
      const std::uint64_t begin = loader.order().place(got.first_sample + b).window * 7;
      for (std::size_t t = 0; t < 7; ++t) {
        ASSERT_EQ(got.inputs(b, t), all[begin + t]);
        ASSERT_EQ(got.targets(b, t), all[begin + t + 1]);
      }
    }
  }
}

TEST_F(BatchLoaderTest, AnyRankCountAndMicroBatchGivesTheSameSamples) {
  const DataMixture data = make(5000);
  const TokenDataset& dataset = data.sources()[0];
  const int batch = 8;
  const long steps = 5;
  const DataOrder order(9, (dataset.training_tokens() - 1) / 16);
  for (const int ranks : {1, 2, 3, 4})
    for (const int micro : {1, 2}) {
      std::vector<std::set<std::uint64_t>> samples(steps);
      for (int rank = 0; rank < ranks; ++rank) {
        const long leaves = batch / micro, first = leaves * rank / ranks, end = leaves * (rank + 1) / ranks;
        BatchLoader loader(data, 9, 16, batch, micro, first, end, 0, 0);
        for (long step = 0; step < steps; ++step)
          for (long m = first; m < end; ++m) {
            const Batch& got = loader.next();
            ASSERT_EQ(got.step, step);
            ASSERT_EQ(got.micro, m);
            ASSERT_EQ(got.first_sample, std::uint64_t(step * batch + m * micro))
                << "the same on any number of ranks";
            for (int b = 0; b < micro; ++b) {
              const std::uint64_t sample = got.first_sample + static_cast<std::uint64_t>(b);
              samples[static_cast<std::size_t>(step)].insert(sample);
              Token token = 0;
              dataset.read(order.window(sample) * 16, std::span(&token, 1));
              ASSERT_EQ(got.inputs(static_cast<std::size_t>(b), 0), token);
            }
          }
      }
      for (long step = 0; step < steps; ++step) {
        const auto& got = samples[static_cast<std::size_t>(step)];
        EXPECT_EQ(got.size(), 8u) << ranks << " ranks, micro-batch " << micro;
        EXPECT_EQ(*got.begin(), static_cast<std::uint64_t>(step * batch));
        EXPECT_EQ(*got.rbegin(), static_cast<std::uint64_t>(step * batch + batch - 1));
      }
    }
}

TEST_F(BatchLoaderTest, RestartsAtAnyStep) {
  const DataMixture data = make(600);
  std::vector<std::vector<Token>> reference;
  BatchLoader whole(data, 5, 10, 6, 3, 0, 2, 0, 0);
  for (int i = 0; i < 60; ++i) reference.push_back(rows_of(whole.next()));
  for (const long first_step : {1L, 8L, 9L, 17L, 29L}) {
    BatchLoader loader(data, 5, 10, 6, 3, 0, 2, first_step, std::uint64_t(first_step) * 6);
    for (std::size_t i = static_cast<std::size_t>(first_step) * 2; i < reference.size(); ++i)
      ASSERT_EQ(rows_of(loader.next()), reference[i]) << "from step " << first_step << ", micro-batch " << i;
  }
}

TEST_F(BatchLoaderTest, StreamedFileGivesTheSameBatches) {
  const DataMixture kept = make(3'000'000), streamed(TokenDataset(kept.sources()[0].path(), 1000));
  EXPECT_FALSE(kept.sources()[0].streams());
  ASSERT_TRUE(streamed.sources()[0].streams());
  BatchLoader a(kept, 1, 100, 8, 8, 0, 1, 0, 0), b(streamed, 1, 100, 8, 8, 0, 1, 0, 0);
  for (int i = 0; i < 100; ++i) ASSERT_EQ(rows_of(a.next()), rows_of(b.next())) << i;
}

TEST_F(BatchLoaderTest, WindowsOfAMixtureAreThoseOfItsOrder) {
  std::vector<std::filesystem::path> files;
  for (const char* name : {"a", "b", "c"}) {
    files.push_back(scratch_ / (std::string(name) + ".h5"));
    prepare_tokens(scratch_.write("text", random_text(700 + 300 * files.size())), files.back(),
                   TokenizerKind::bytes, 0.1);
  }
  const DataMixture data(files, {2, 1, 1});
  EXPECT_EQ(data.name(), files[0].string() + " and 2 more");
  EXPECT_EQ(data.identity(), data.sources()[0].header().identity() + " + " + data.sources()[1].header().identity() +
                                 " + " + data.sources()[2].header().identity());
  BatchLoader loader(data, 4, 10, 8, 4, 0, 2, 3, 24);
  std::vector<std::size_t> rows(3, 0);
  for (int batch = 0; batch < 40; ++batch) {
    const Batch& got = loader.next();
    for (std::size_t b = 0; b < 4; ++b) {
      const MixtureOrder::Place place = loader.order().place(got.first_sample + b);
      ++rows[place.source];
      std::vector<Token> window(11);
      data.sources()[place.source].read(place.window * 10, window);
      for (std::size_t t = 0; t < 10; ++t) {
        ASSERT_EQ(got.inputs(b, t), window[t]);
        ASSERT_EQ(got.targets(b, t), window[t + 1]);
      }
    }
  }
  EXPECT_EQ(rows, (std::vector<std::size_t>{80, 40, 40}));
  EXPECT_THROW(DataMixture({}, {}), std::logic_error);

  prepare_tokens(scratch_.write("text", "abc abc abc"), scratch_ / "char.h5", TokenizerKind::characters, 0.1);
  EXPECT_EQ(
      message_of<DataError>([&] { DataMixture({files[0], scratch_ / "char.h5"}, {}); }),
      fmt::format("{}: has another tokenizer (char, vocabulary 4) than {} (byte, vocabulary 256); expected one "
                  "for all files of a mixture: prepare each with the same --tokenizer (`dekoder tokens FILE "
                  "-o tokenizer.json` writes what a file of bpe has)",
                  (scratch_ / "char.h5").string(), files[0].string()));
  EXPECT_NE(
      message_of<DataError>([&] { training_order(DataMixture(files, {}), 1, 1000); }).find("a.h5: its training"),
      std::string::npos);
}

TEST_F(BatchLoaderTest, StopsWhileBatchesWait) {
  const DataMixture data = make(1000);
  for (int i = 0; i < 200; ++i) {
    BatchLoader loader(data, 1, 10, 2, 2, 0, 1, 0, 0);
    if (i % 2) loader.next();
  }
}

TEST_F(BatchLoaderTest, FailureOfTheThreadReachesTheConsumer) {
  make(3'000'000);
  const std::streamoff place = static_cast<std::streamoff>(std::filesystem::file_size(scratch_ / "tokens.h5") / 2);
  const DataMixture data(TokenDataset(scratch_ / "tokens.h5", 1000));
  std::fstream(scratch_ / "tokens.h5", std::ios::in | std::ios::out | std::ios::binary)
      .seekp(place)
      .put('\x11')
      .put('\x22');
  BatchLoader loader(data, 1, 1000, 8, 8, 0, 1, 0, 0);
  const auto use = [&] {
    for (int i = 0; i < 1000; ++i) loader.next();
  };
  EXPECT_NE(message_of<DataError>(use).find("Fletcher32"), std::string::npos);
  EXPECT_NE(message_of<DataError>(use).find("Fletcher32"), std::string::npos) << "and again";
}

TEST_F(BatchLoaderTest, RefusesWhatDoesNotFit) {
  const DataMixture data = make(100);  // 90 to train on
  EXPECT_NO_THROW(BatchLoader(data, 1, 89, 1, 1, 0, 1, 0, 0).next());
  EXPECT_NE(message_of<DataError>([&] {
              BatchLoader(data, 1, 90, 1, 1, 0, 1, 0, 0);
            }).find("has 90 tokens, fewer than one window of model.context + 1 = 91"),
            std::string::npos);
  EXPECT_THROW(BatchLoader(data, 1, 8, 4, 3, 0, 1, 0, 0), ConfigError);
  EXPECT_THROW(BatchLoader(data, 1, 8, 4, 4, 0, 2, 0, 0), ConfigError);
  EXPECT_THROW(BatchLoader(data, 1, 8, 4, 2, 1, 3, 0, 0), ConfigError);
}

TEST_F(BatchLoaderTest, ValidationCountsEveryHeldOutTokenOnce) {
  const DataMixture data = make(1000);  // 100 held out
  const TokenDataset& dataset = data.sources()[0];
  std::vector<Token> all(1000);
  dataset.read(0, all);
  const ValidationWindows whole(dataset, 16, 0);
  EXPECT_EQ(whole.tokens(), 100u);
  EXPECT_EQ(whole.bytes(), 100u);
  EXPECT_EQ(whole.windows(), 7u);
  HostTokenTensor2 inputs("inputs", 3, 16), targets("targets", 3, 16);
  std::uint64_t at = 0;
  for (std::uint64_t first = 0; first < whole.windows(); first += 3) {
    const std::uint64_t count = whole.read(first, inputs, targets);
    EXPECT_EQ(count, std::min<std::uint64_t>(48, 100 - at));
    for (std::size_t i = 0; i < 48; ++i) {
      ASSERT_EQ(inputs.data()[i], i < count ? all[899 + at + i] : 0);
      ASSERT_EQ(targets.data()[i], i < count ? all[900 + at + i] : 0);
    }
    at += count;
  }
  EXPECT_EQ(at, 100u);
  EXPECT_EQ(ValidationWindows(dataset, 16, 20).tokens(), 20u);
  EXPECT_EQ(ValidationWindows(dataset, 16, 5000).digest(), whole.digest());
  EXPECT_NE(ValidationWindows(dataset, 16, 99).digest(), whole.digest());
  const DataMixture none = make(1000, 0);
  EXPECT_EQ(ValidationWindows(none.sources()[0], 16, 0).windows(), 0u);
}

TEST_F(BatchLoaderTest, RefusesEveryNumberBelowItsRange) {
  const DataMixture data = make(100);
  const TokenDataset& dataset = data.sources()[0];
  EXPECT_NO_THROW(BatchLoader(data, 1, 8, 4, 2, 1, 2, 0, 0));
  EXPECT_THROW(BatchLoader(data, 1, 8, 0, 2, 1, 2, 0, 0), ConfigError) << "batch";
  EXPECT_THROW(BatchLoader(data, 1, 8, 4, 0, 1, 2, 0, 0), ConfigError) << "micro_batch";
  EXPECT_THROW(BatchLoader(data, 1, 8, 4, 2, -1, 2, 0, 0), ConfigError) << "first";
  EXPECT_THROW(BatchLoader(data, 1, 8, 4, 2, 1, 1, 0, 0), ConfigError) << "end";
  EXPECT_THROW(BatchLoader(data, 1, 8, 4, 2, 1, 2, -1, 0), ConfigError) << "first_step";
  EXPECT_THROW(BatchLoader(data, 1, 0, 4, 2, 1, 2, 0, 0), ConfigError) << "context";
  EXPECT_THROW(ValidationWindows(dataset, 0, 0), ConfigError) << "context";
  EXPECT_THROW(ValidationWindows(dataset, 8, -1), ConfigError) << "tokens";
}

TEST_F(BatchLoaderTest, ValidationDigestIsThatOfTheTokensAsWords) {
  const DataMixture data = make(300'000, 0.5);  // more than one piece
  const TokenDataset& dataset = data.sources()[0];
  std::vector<Token> all(300'000);
  dataset.read(0, all);
  std::vector<std::byte> words;
  for (std::size_t at = dataset.training_tokens() - 1; at < all.size(); ++at) {
    words.push_back(static_cast<std::byte>(all[at]));
    words.insert(words.end(), 3, std::byte{0});
  }
  EXPECT_EQ(ValidationWindows(dataset, 16, 0).digest(), sha256(words));
}

TEST_F(BatchLoaderTest, ValidationBytesAreThoseOfTheTextThatIsPredicted) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += i % 2 ? "€" : "a";  // the last training token has three bytes, or one
  prepare_tokens(scratch_.write("text", text), scratch_ / "c.h5", TokenizerKind::characters, 0.5);
  const TokenDataset dataset(scratch_ / "c.h5");
  ASSERT_EQ(dataset.training_tokens(), 50u);
  EXPECT_EQ(ValidationWindows(dataset, 4, 0).bytes(), 25u * (1 + 3));
  EXPECT_EQ(ValidationWindows(dataset, 4, 5).bytes(), 3u * 1 + 2u * 3);
}

}  // namespace
}  // namespace dekoder
