// SPDX-License-Identifier: Apache-2.0
// Round trip of saved states, and that no damage to a file goes unseen.
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <fstream>
#include <limits>
#include <random>
#include <span>

#include "io/files/xxh64.hpp"
#include "io/hdf5/hdf5_file.hpp"
#include "io/run/checkpoint_folder.hpp"
#include "support/host_tensor.hpp"
#include "support/process_limit.hpp"
#include "support/scratch_folder.hpp"
#include "tensor/random_stream.hpp"

namespace dekoder {
namespace {

namespace fs = std::filesystem;
using testing::change;
using testing::on_host;
using testing::set_element;
using testing_support::free_descriptor;
using testing_support::message_of;
using testing_support::ProcessLimit;

ParameterLayout small_layout(int channels = 40) {
  ParameterLayout layout;
  layout.add("embedding.token.weight", "V,C", {37, channels}, true, {});
  layout.add("blocks.00.norm.gain", "C", {channels}, false, {});
  layout.add("blocks.00.attention.qkv.weight", "3C,C", {3 * channels, channels}, true, {});
  layout.add("blocks.00.scalar", "1", {1}, false, {});
  return layout;
}

bool equal_bits(const Tensor1& a, const Tensor1& b) {
  const auto x = on_host(a), y = on_host(b);
  return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(Real)) == 0;
}

/// Parameters and moments, filled with a function of (salt, place).
struct State {
  explicit State(const ParameterLayout& layout)
      : store(layout), first("first", layout.flat_size()), second("second", layout.flat_size()) {}

  std::array<Tensor1, 3> buffers() const { return {store.values_to_write(), first, second}; }
  std::vector<NamedBuffer> named() const {
    return {{parameter_group, store.values_to_write()}, {"first_moment", first}, {"second_moment", second}};
  }

  void fill(std::uint64_t salt) {
    int which = 0;
    for (const Tensor1& buffer : buffers()) {
      const RandomStream stream(salt, site_of("test"), std::uint64_t(which++));
      change(buffer, [&](const auto& values) {
        for (const ParameterEntry& entry : store.layout().entries())
          for (std::size_t i = 0; i < entry.size(); ++i)
            values(entry.offset + i) = static_cast<Real>(stream.normal(entry.offset + i));
      });
    }
  }
  bool same_bits(const State& other) const {
    const auto mine = buffers(), others = other.buffers();
    return std::equal(mine.begin(), mine.end(), others.begin(), equal_bits);
  }

  ParameterStore store;
  Tensor1 first, second;
};

CheckpointInfo info_of(long step) {
  CheckpointInfo info;
  info.step = step;
  info.tokens_seen = 1234567890123u;
  info.config_yaml = "model:\n  layers: 2\n";
  info.tokenizer = "char U+000A U+0020";
  info.data_hash = "abc";
  info.best_validation_loss = 0.1;
  info.best_step = 7;
  info.metrics_bytes = 99;
  info.samples_bytes = 11;
  info.run_id = "run";
  info.writer = "test";
  info.validation_hash = "text/10-90";
  info.best_validation_hash = "text/10-80";
  info.restarts = "{\"step\":4}\n";
  return info;
}

class Checkpoint : public ::testing::Test {
 protected:
  Checkpoint() : state(small_layout()), other(small_layout()) {
    std::string pattern = (fs::temp_directory_path() / "dekoder-test-XXXXXX").string();
    if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary folder");
    folder = pattern;
    state.fill(1);
  }
  ~Checkpoint() override { fs::remove_all(folder); }

  fs::path write(long step) const {
    return write_checkpoint(folder, info_of(step), state.store.layout(), state.named());
  }
  CheckpointInfo read(const fs::path& file) const {
    return read_checkpoint(file, other.store.layout(), other.named());
  }
  std::optional<LoadedCheckpoint> load() const { return load(other); }
  std::optional<LoadedCheckpoint> load(const State& into) const {
    return restart_checkpoint(
        folder, [&](const fs::path& file) { return read_checkpoint(file, into.store.layout(), into.named()); });
  }
  static std::string contents(const fs::path& file) {
    std::ifstream stream(file, std::ios::binary);
    return {std::istreambuf_iterator<char>(stream), {}};
  }
  static void put(const fs::path& file, const std::string& bytes) {
    std::ofstream(file, std::ios::binary | std::ios::trunc) << bytes;
  }
  /// Why `bytes`, in the place of `file`, are not accepted; empty where they are and give this state bit for bit.
  std::string verdict(const fs::path& file, const std::string& bytes) {
    put(file, bytes);
    CheckpointInfo info;
    try {
      info = read(file);
    } catch (const DataError& error) {
      return error.what();
    }
    EXPECT_TRUE(state.same_bits(other)) << "loaded silently with other numbers";
    const CheckpointInfo expected = info_of(checkpoint_step(file));
    EXPECT_EQ(info.step, expected.step);
    EXPECT_EQ(info.config_yaml, expected.config_yaml);
    EXPECT_EQ(info.tokenizer, expected.tokenizer);
    EXPECT_EQ(info.best_validation_loss, expected.best_validation_loss);
    EXPECT_EQ(info.metrics_bytes, expected.metrics_bytes);
    EXPECT_EQ(info.validation_hash, expected.validation_hash);
    EXPECT_EQ(info.best_validation_hash, expected.best_validation_hash);
    EXPECT_EQ(info.restarts, expected.restarts);
    return "";
  }

  fs::path folder;
  State state, other;
};

TEST(Xxh64, PublishedValues) {
  const auto digest = [](std::string_view text) {
    Xxh64 hash;
    hash.update(text);
    return hash.digest();
  };
  EXPECT_EQ(digest(""), 0xef46db3751d8e999u);
  EXPECT_EQ(digest("a"), 0xd24ec4f1a98c6e5bu);
  EXPECT_EQ(digest("abc"), 0x44bc2cf5ad770999u);
  EXPECT_EQ(digest("The quick brown fox jumps over the lazy dog"), 0x0b242d361fda71bcu);
}

TEST_F(Checkpoint, RoundTripBitForBit) {
  set_element(state.store.values_to_write(), 0, -0.0);
  set_element(state.store.values_to_write(), 1, std::numeric_limits<double>::infinity());
  set_element(state.first, 2, std::numeric_limits<Real>::denorm_min());
  change(state.second, [](const auto& values) {
    const std::uint32_t payload = 0x7fa12345;  // a signalling NaN with a payload
    std::memcpy(&values(3), &payload, sizeof(payload));
  });
  const fs::path file = write(12);
  EXPECT_EQ(file.filename(), "ckpt-00000012.h5");
  const CheckpointInfo info = read(file), expected = info_of(12);
  EXPECT_TRUE(state.same_bits(other));
  EXPECT_EQ(info.step, 12);
  EXPECT_EQ(info.tokens_seen, expected.tokens_seen);
  EXPECT_EQ(info.config_yaml, expected.config_yaml);
  EXPECT_EQ(info.tokenizer, expected.tokenizer);
  EXPECT_EQ(info.data_hash, expected.data_hash);
  EXPECT_TRUE(std::isnan(info.validation_loss));
  EXPECT_EQ(info.best_validation_loss, expected.best_validation_loss);
  EXPECT_EQ(info.best_step, expected.best_step);
  EXPECT_EQ(info.metrics_bytes, expected.metrics_bytes);
  EXPECT_EQ(info.samples_bytes, expected.samples_bytes);
  EXPECT_EQ(info.run_id, expected.run_id);
  EXPECT_EQ(info.writer, expected.writer);
  EXPECT_EQ(info.validation_hash, expected.validation_hash);
  EXPECT_EQ(info.best_validation_hash, expected.best_validation_hash);
  EXPECT_EQ(info.restarts, expected.restarts);
  EXPECT_EQ(read_checkpoint_info(file).tokens_seen, expected.tokens_seen);
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) EXPECT_EQ(entry.path(), file);
}

TEST_F(Checkpoint, ParametersAlone) {
  const fs::path file = write(3);
  read_checkpoint_parameters(file, other.store);
  EXPECT_TRUE(equal_bits(state.store.values_to_write(), other.store.values_to_write()));
  EXPECT_EQ(on_host(other.first)(0), Real(0));
}

TEST_F(Checkpoint, LongTextFieldsSurvive) {
  CheckpointInfo info = info_of(1);
  info.tokenizer = "char";
  for (int c = 0x4e00; c < 0x9fff; ++c) info.tokenizer += fmt::format(" U+{:04X}", c);  // 147 kB
  info.config_yaml.clear();
  const fs::path file = write_checkpoint(folder, info, state.store.layout(), state.named());
  EXPECT_EQ(read(file).tokenizer, info.tokenizer);
  EXPECT_EQ(read(file).config_yaml, "");
}

TEST_F(Checkpoint, TensorsLieWhereTheHeaderSays) {
  const Hdf5File file = Hdf5File::open(write(1));
  const std::string path = "/second_moment/blocks.00.attention.qkv.weight";
  EXPECT_EQ(file.shape(path), (std::vector<std::size_t>{120, 40}));
  EXPECT_EQ(file.text_attribute(path, "axes"), "3C,C");
  const std::vector<Real> values = file.read<Real>(path);
  Xxh64 digest;
  digest.update(path + "\nfloat32\n120,40\n3C,C\n");
  digest.update(std::as_bytes(std::span(values)));
  EXPECT_EQ(file.attribute<std::uint64_t>(path, "digest"), digest.digest());
}

TEST_F(Checkpoint, TruncatedFilesAreRejected) {
  const fs::path file = write(5);
  const std::string whole = contents(file);
  for (std::size_t k = 0; k <= 60; ++k) {
    const std::size_t length = k < 60 ? whole.size() * k / 60 : whole.size() - 1;
    EXPECT_NE(verdict(file, whole.substr(0, length)), "") << "accepted " << length << " of " << whole.size();
  }
}

TEST_F(Checkpoint, FlippedBitsAreRejectedOrHarmless) {
  const fs::path file = write(5);
  const std::string whole = contents(file);
  std::mt19937_64 random(2024);
  int harmless = 0;
  for (int trial = 0; trial < 400; ++trial) {
    std::string damaged = whole;
    // every other flip into the first 16 KiB, where the metadata is dense
    const std::size_t span = trial % 2 == 0 ? whole.size() : std::min<std::size_t>(whole.size(), 16384);
    const std::size_t at = random() % span;
    damaged[at] = static_cast<char>(damaged[at] ^ (1 << random() % 8));
    SCOPED_TRACE(fmt::format("byte {}", at));
    harmless += verdict(file, damaged).empty();
  }
  EXPECT_LT(harmless, 200) << "most of a file is in use";
}

/// Every place of `needle` in `bytes`.
std::size_t place_of(const std::string& bytes, std::span<const Real> values) {
  return bytes.find(std::string(reinterpret_cast<const char*>(values.data()), values.size_bytes()));
}

TEST_F(Checkpoint, ZeroedAndSwappedChunksAreRejected) {
  // two tensors of one shape, so that whole chunks can change places with their checksums
  const fs::path file = write(5);
  const std::string whole = contents(file);
  const ParameterEntry& entry = state.store.layout().find("blocks.00.attention.qkv.weight");
  const std::size_t size = entry.size() * sizeof(Real) + 4;  // values and Fletcher32
  const auto chunk_at = [&](const Tensor1& buffer) {
    const auto values = on_host(buffer);
    return place_of(whole, std::span<const Real>(&values(entry.offset), entry.size()));
  };
  const std::size_t a = chunk_at(state.first), b = chunk_at(state.second);
  ASSERT_NE(a, std::string::npos);
  ASSERT_NE(b, std::string::npos);
  std::string zeroed = whole, swapped = whole;
  zeroed.replace(a, size, size, '\0');
  EXPECT_NE(verdict(file, zeroed), "");
  swapped.replace(a, size, whole, b, size);
  swapped.replace(b, size, whole, a, size);
  EXPECT_NE(verdict(file, swapped).find("digest differs"), std::string::npos) << "Fletcher32 cannot see this one";
}

TEST_F(Checkpoint, DamagedRootFieldsAreRejected) {
  const fs::path file = write(5);
  const std::string whole = contents(file);
  for (const std::string field : {"layers: 2", "text/10-80"}) {  // of minor version 0 and 1
    std::string damaged = whole;
    const std::size_t at = whole.find(field);
    ASSERT_NE(at, std::string::npos);
    damaged[at + field.size() - 1] = '3';
    EXPECT_NE(verdict(file, damaged), "") << field;
  }
}

/// What a program of another minor version of the format has written: `change` does the difference.
class OtherMinorVersion : public Checkpoint {
 protected:
  /// Copies the groups and the attributes of a file, without those of `without`, and with `minor`; the text
  /// `changed` has another value.
  fs::path rewritten(const fs::path& source, std::int32_t minor, const std::vector<std::string>& without,
                     const std::string& changed = "") const {
    const fs::path target = folder / "rewritten.h5";
    const Hdf5File from = Hdf5File::open(source);
    Hdf5File to = Hdf5File::create(target);
    const auto wanted = [&](const std::string& name) {
      return std::find(without.begin(), without.end(), name) == without.end();
    };
    for (const std::string& group : from.members("/"))
      if (wanted(group)) to.copy(from, "/" + group);
    for (const char* name : {"format", "config_yaml", "tokenizer", "data_hash", "run_id", "writer",
                             "validation_hash", "best_validation_hash", "restarts"}) {
      if (!wanted(name)) continue;
      std::string text = from.text_attribute("/", name);
      if (name == changed) text.back() = '?';
      to.write_attribute("/", name, text);
    }
    for (const char* name : {"step", "best_step", "sampled_step", "skipped_steps"})
      if (wanted(name)) to.write_attribute("/", name, from.attribute<long>("/", name));
    for (const char* name : {"tokens_seen", "metrics_bytes", "samples_bytes", "digest", "digest_1", "digest_2"})
      if (wanted(name)) to.write_attribute("/", name, from.attribute<std::uint64_t>("/", name));
    for (const char* name : {"validation_loss", "best_validation_loss"})
      to.write_attribute("/", name, from.attribute<double>("/", name));
    to.write_attribute("/", "major", std::int32_t{1});
    to.write_attribute("/", "minor", minor);
    if (minor > 2) to.write_attribute("/", "of_a_later_program", "text");
    to.close();
    fs::rename(target, source);
    return source;
  }
};

TEST_F(OtherMinorVersion, AnOlderOneLacksFieldsAndReadsAsBefore) {
  const fs::path file = rewritten(write(5), 0, {"validation_hash", "best_validation_hash", "restarts", "digest_1"});
  const CheckpointInfo info = read(file);
  EXPECT_TRUE(state.same_bits(other));
  EXPECT_EQ(info.writer, info_of(5).writer);
  EXPECT_EQ(info.validation_hash, "");
  EXPECT_EQ(info.best_validation_hash, "");
  EXPECT_EQ(info.restarts, "");
  verify_checkpoint(file);
}

TEST_F(OtherMinorVersion, OneWithoutTheStepsLeftOutHasNone) {
  const CheckpointInfo info = read(rewritten(write(5), 1, {"skipped_steps", "digest_2"}));
  EXPECT_EQ(info.restarts, info_of(5).restarts);
  EXPECT_EQ(info.skipped_steps, 0);
}

TEST_F(OtherMinorVersion, ALaterOneHasFieldsThatAreLeftOut) {
  const fs::path file = rewritten(write(5), 3, {});
  EXPECT_EQ(read(file).restarts, info_of(5).restarts);
  EXPECT_TRUE(state.same_bits(other));
}

TEST_F(OtherMinorVersion, AFieldOfItsOwnVersionMustBeThere) {
  for (const char* missing : {"validation_hash", "restarts", "digest_1"}) {
    const fs::path file = rewritten(write(5), 1, {missing});
    EXPECT_THROW(read(file), DataError) << missing;
  }
  for (const char* missing : {"skipped_steps", "digest_2"})
    EXPECT_THROW(read(rewritten(write(5), 2, {missing})), DataError) << missing;
}

TEST_F(OtherMinorVersion, WhatHdf5FindsInOrderIsHeldAgainstTheDigestsOfTheRoot) {
  const auto damaged = [&](const fs::path& file) {
    return message_of<DataError>([&] { read(file); }) ==
           file.string() + ": its fields or its list of tensors are damaged (digest of the root differs)";
  };
  EXPECT_FALSE(damaged(rewritten(write(5), 1, {})));
  for (const char* name : {"config_yaml", "tokenizer", "data_hash", "run_id", "writer", "validation_hash",
                           "best_validation_hash", "restarts"})
    EXPECT_TRUE(damaged(rewritten(write(5), 1, {}, name))) << name;
  for (const char* group : {parameter_group, "second_moment"})
    EXPECT_TRUE(damaged(rewritten(write(5), 1, {group}))) << group;
}

TEST_F(Checkpoint, NewestBadOlderUsed) {
  write(10);
  const fs::path newest = write(20);
  put(newest, contents(newest).substr(0, 3000));
  put(folder / ".ckpt-00000030.h5.tmp", "half");
  put(folder / ".other.tmp", "not ours");
  const auto loaded = load();
  ASSERT_TRUE(loaded.has_value());
  EXPECT_EQ(loaded->info.step, 10);
  ASSERT_EQ(loaded->rejected.size(), 1u);
  EXPECT_EQ(loaded->rejected[0].file, newest);
  EXPECT_NE(loaded->rejected[0].reason.find("ckpt-00000020.h5"), std::string::npos);
  EXPECT_TRUE(state.same_bits(other));
  EXPECT_FALSE(fs::exists(newest));
  EXPECT_TRUE(fs::exists(newest.string() + ".corrupt"));
  EXPECT_FALSE(fs::exists(folder / ".ckpt-00000030.h5.tmp"));
  EXPECT_TRUE(fs::exists(folder / ".other.tmp"));
}

TEST_F(Checkpoint, WhoOnlyLooksChangesNothing) {
  write(10);
  const fs::path newest = write(20), half = folder / ".ckpt-00000030.h5.tmp";
  put(newest, "text");
  put(half, "half");
  ::testing::internal::CaptureStderr();
  const LoadedCheckpoint found = newest_checkpoint(folder, read_checkpoint_info);
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(found.file, folder / checkpoint_file_name(10));
  ASSERT_EQ(found.rejected.size(), 1u);
  EXPECT_EQ(said, "dekoder: warning: checkpoint not used: " + found.rejected[0].reason + "\n");
  EXPECT_EQ(contents(newest), "text");
  EXPECT_EQ(contents(half), "half");
}

TEST_F(Checkpoint, WhatCannotBeRenamedOrDeletedIsAWarning) {
  write(10);
  const fs::path newest = write(20), old = folder / checkpoint_file_name(5);
  put(newest, "text");
  fs::create_directories(newest.string() + ".corrupt/folder");
  fs::create_directories(old / "folder");
  ::testing::internal::CaptureStderr();
  EXPECT_EQ(load()->info.step, 10);
  rotate_checkpoints(folder, 2, -1, -1);
  const std::string said = ::testing::internal::GetCapturedStderr();
  EXPECT_NE(said.find("warning: " + newest.string() + ": cannot be renamed to .corrupt: Is a directory\n"),
            std::string::npos)
      << said;
  EXPECT_NE(said.find("warning: " + old.string() + ": old checkpoint cannot be deleted: Directory not empty\n"),
            std::string::npos)
      << said;
  EXPECT_EQ(std::count(said.begin(), said.end(), '\n'), 3) << said;
}

TEST_F(Checkpoint, WhatCannotBeReadNowIsNotReplacedByAnOlderOne) {
  write(10);
  const fs::path newest = write(20), damaged = write(30);
  put(damaged, "text");
  put(folder / ".ckpt-00000040.h5.tmp", "half");
  for (const bool restart : {true, false}) {
    const ReadCheckpoint read_without_descriptors = [&](const fs::path& file) {
      std::optional<ProcessLimit> limit;
      if (file != damaged) limit.emplace(RLIMIT_NOFILE, rlim_t(free_descriptor()));
      return read(file);
    };
    try {
      restart ? restart_checkpoint(folder, read_without_descriptors).value()
              : newest_checkpoint(folder, read_without_descriptors);
      FAIL() << "an older file took its place";
    } catch (const ReadError& error) {
      EXPECT_EQ(error.code(), ExitCode::no_data);
      EXPECT_NE(std::string(error.what()).find("ckpt-00000020.h5: cannot be read: Too many open files"),
                std::string::npos)
          << error.what();
    }
    EXPECT_TRUE(fs::exists(newest) && fs::exists(damaged)) << "renamed";
    EXPECT_TRUE(fs::exists(folder / ".ckpt-00000040.h5.tmp")) << "nothing is touched";
  }
  EXPECT_EQ(load()->info.step, 20);
  EXPECT_TRUE(fs::exists(damaged.string() + ".corrupt"));
}

TEST_F(Checkpoint, ALinkToAFileSystemThatIsNotMountedIsNoDamage) {
  write(10);
  fs::create_symlink("/not-mounted/ckpt-00000020.h5", folder / checkpoint_file_name(20));
  EXPECT_THROW(load(), ReadError);
  EXPECT_TRUE(fs::is_symlink(folder / checkpoint_file_name(20)));
}

TEST_F(Checkpoint, AFileSizeLimitKeepsEarlierFiles) {
  const fs::path first = write(10);
  const std::string before = contents(first);
  const std::size_t whole = fs::file_size(first);
  for (const std::size_t bytes : {std::size_t{0}, std::size_t{1000}, whole / 2, whole - 1}) {
    const ProcessLimit limit(RLIMIT_FSIZE, bytes);
    try {
      write(20);
      FAIL() << bytes << " of " << whole;
    } catch (const SaveError& error) {
      EXPECT_NE(std::string(error.what()).find("File too large"), std::string::npos) << error.what();
    }
  }
  EXPECT_EQ(contents(first), before);
  EXPECT_EQ(std::distance(fs::directory_iterator(folder), fs::directory_iterator()), 1) << "something is left";
  EXPECT_EQ(read(write(20)).step, 20);
}

TEST_F(Checkpoint, AllBadNamesEachAndKeepsThem) {
  const std::array<fs::path, 2> files = {write(10), write(20)};
  put(files[0], "");
  put(files[1], "text");
  try {
    load();
    FAIL() << "started afresh";
  } catch (const DataError& error) {
    EXPECT_EQ(error.code(), ExitCode::no_data);
    EXPECT_NE(std::string(error.what()).find("ckpt-00000010.h5"), std::string::npos);
    EXPECT_NE(std::string(error.what()).find("ckpt-00000020.h5"), std::string::npos);
  }
  EXPECT_TRUE(fs::exists(files[0]) && fs::exists(files[1]));
}

TEST_F(Checkpoint, NoFilesIsAFreshStart) {
  EXPECT_FALSE(load().has_value());
  for (const fs::path& empty : {folder, folder / "missing"})
    EXPECT_EQ(message_of<DataError>([&] { newest_checkpoint(empty, read_checkpoint_info); }),
              empty.string() + ": there is no checkpoint yet (ckpt-<step>.h5); train, or wait for the first one");
}

TEST_F(Checkpoint, RenamedFileIsRejected) {
  fs::rename(write(10), folder / checkpoint_file_name(20));
  EXPECT_THROW(load(), DataError);
}

TEST_F(Checkpoint, AnotherModelNamesTheTensor) {
  write(10);
  const State wider(small_layout(48));
  try {
    load(wider);
    FAIL();
  } catch (const ConfigError& error) {
    const std::string message = error.what();
    EXPECT_NE(message.find("embedding.token.weight"), std::string::npos) << message;
    EXPECT_NE(message.find("(37,40), expected (37,48)"), std::string::npos) << message;
  }
  ParameterLayout longer = small_layout(), shorter;
  longer.add("head.weight", "V,C", {37, 40}, true, {});
  const State more(longer);
  EXPECT_THROW(load(more), ConfigError);
  shorter.add("embedding.token.weight", "V,C", {37, 40}, true, {});
  const State fewer(shorter);
  EXPECT_THROW(load(fewer), ConfigError);
}

TEST_F(Checkpoint, NewerFormatIsRefusedByName) {
  write(10);
  {
    Hdf5File file = Hdf5File::create(folder / checkpoint_file_name(20));
    file.write_attribute("/", "format", "dekoder-checkpoint");
    file.write_attribute("/", "major", std::int32_t{2});
    file.write_attribute("/", "minor", std::int32_t{3});
    file.close();
  }
  try {
    load();
    FAIL() << "an older file took its place";
  } catch (const NewerFormatError& error) {
    EXPECT_NE(std::string(error.what()).find("2.3"), std::string::npos);
  }
}

TEST_F(Checkpoint, RotationKeepsNewestAndBestAndDropsThatOfAStop) {
  const auto steps = [&] {
    std::vector<long> found;
    for (const fs::path& file : list_checkpoints(folder)) found.push_back(checkpoint_step(file));
    return found;
  };
  for (const long step : {10, 20, 30, 40}) write(step);
  rotate_checkpoints(folder, 2, 10, -1);
  EXPECT_EQ(steps(), (std::vector<long>{40, 30, 10}));
  write(45);
  rotate_checkpoints(folder, 2, 10, 45);
  EXPECT_EQ(steps(), (std::vector<long>{45, 40, 10})) << "the newest stays, whoever asked for it";
  write(50);
  rotate_checkpoints(folder, 2, 10, 45);
  EXPECT_EQ(steps(), (std::vector<long>{50, 40, 10})) << "that of a stop takes no other one's place";
  write(60);
  rotate_checkpoints(folder, 1, 60, 40);
  EXPECT_EQ(steps(), (std::vector<long>{60}));
  rotate_checkpoints(folder, 0, -1, -1);
  EXPECT_EQ(steps(), (std::vector<long>{60})) << "the last one stays, whatever was asked for";
}

TEST_F(Checkpoint, FolderThatCannotBeWrittenLeavesNothing) {
  EXPECT_THROW(write_checkpoint(folder / "missing", info_of(1), state.store.layout(), state.named()), SaveError);
  put(folder / "file", "");
  EXPECT_THROW(write_checkpoint(folder / "file", info_of(1), state.store.layout(), state.named()), SaveError);
}

TEST_F(Checkpoint, MomentsOfAnotherModelAreAFault) {
  std::vector<NamedBuffer> buffers = state.named();
  buffers[1].buffer = Tensor1("short", 4);
  EXPECT_THROW(write_checkpoint(folder, info_of(1), state.store.layout(), buffers), ShapeError);
  const fs::path file = write(1);
  EXPECT_THROW(read_checkpoint(file, state.store.layout(), buffers), ShapeError);
  buffers = state.named();
  buffers[2].name = buffers[1].name;
  EXPECT_THROW(write_checkpoint(folder, info_of(1), state.store.layout(), buffers), ShapeError) << "one name twice";
}

TEST_F(Checkpoint, HoldsTheBuffersOfTheListAndNoOthers) {
  std::vector<NamedBuffer> momentum = state.named();
  momentum.pop_back();
  momentum[1].name = "momentum";
  const fs::path file = write_checkpoint(folder, info_of(1), state.store.layout(), momentum);
  EXPECT_EQ(Hdf5File::open(file).members("/"), (std::vector<std::string>{"momentum", parameter_group}));
  verify_checkpoint(file);
  const auto message = [&](const std::vector<NamedBuffer>& wanted) -> std::string {
    try {
      read_checkpoint(file, other.store.layout(), wanted);
    } catch (const ConfigError& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_NE(message(other.named()).find("holds no group /first_moment"), std::string::npos);
  std::vector<NamedBuffer> wanted = other.named();
  wanted.resize(1);
  EXPECT_NE(message(wanted).find("holds a group /momentum"), std::string::npos);
  wanted.push_back({"momentum", other.first});
  EXPECT_EQ(message(wanted), "");
  EXPECT_TRUE(equal_bits(state.first, other.first));
  read_checkpoint_parameters(file, other.store);
}

}  // namespace
}  // namespace dekoder
