// SPDX-License-Identifier: Apache-2.0
#include "io/hdf5/hdf5_file.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <fstream>
#include <numeric>
#include <thread>

#include "base/error.hpp"
#include "io/files/sha256.hpp"
#include "io/hdf5/hdf5_call.hpp"
#include "support/process_limit.hpp"
#include "support/scratch_folder.hpp"

namespace dekoder {
namespace {

namespace fs = std::filesystem;
using testing_support::free_descriptor;
using testing_support::message_of;
using testing_support::ProcessLimit;

class Hdf5FileTest : public testing::Test {
 protected:
  Hdf5FileTest() : folder_(fs::temp_directory_path() / ("dekoder-hdf5-" + std::to_string(::getpid()))) {
    fs::create_directories(folder_);
  }
  ~Hdf5FileTest() override { fs::remove_all(folder_); }
  fs::path path(const std::string& name) const { return folder_ / name; }

  /// The message of the DataError that `act` throws.
  template <class Act>
  static std::string message(Act&& act) {
    try {
      act();
    } catch (const DataError& error) {
      return error.what();
    }
    ADD_FAILURE() << "no DataError";
    return "";
  }
  fs::path folder_;
};

TEST_F(Hdf5FileTest, KeepsDatasetsAndAttributes) {
  std::vector<float> matrix(6);
  std::iota(matrix.begin(), matrix.end(), 0.5f);
  const std::array<std::size_t, 2> shape = {2, 3};
  const std::string long_text(200'000, 'x');
  {
    Hdf5File file = Hdf5File::create(path("a.h5"));
    file.write<float>("/weights/head.weight", matrix, shape);
    file.write<std::int64_t>("/steps", std::vector<std::int64_t>{-1, 1L << 40});
    file.write<double>("/empty", std::vector<double>{});
    file.write_attribute("/", "format", "test");
    file.write_attribute("/", "nothing", "");
    file.write_attribute("/", "long", long_text);
    file.write_attribute("/weights", "step", std::int64_t{7});
    file.write_attribute("/weights/head.weight", "scale", 0.1);
    file.close();
  }
  const Hdf5File file = Hdf5File::open(path("a.h5"));
  EXPECT_EQ(file.read<float>("/weights/head.weight"), matrix);
  EXPECT_EQ(file.shape("/weights/head.weight"), (std::vector<std::size_t>{2, 3}));
  EXPECT_EQ(file.read<std::int64_t>("/steps"), (std::vector<std::int64_t>{-1, 1L << 40}));
  EXPECT_TRUE(file.read<double>("/empty").empty());
  EXPECT_EQ(file.text_attribute("/", "format"), "test");
  EXPECT_EQ(file.text_attribute("/", "nothing"), "");
  EXPECT_EQ(file.text_attribute("/", "long"), long_text);
  EXPECT_EQ(file.attribute<std::int64_t>("/weights", "step"), 7);
  EXPECT_EQ(file.attribute<double>("/weights/head.weight", "scale"), 0.1);
  EXPECT_TRUE(file.exists("/"));
  EXPECT_TRUE(file.exists("/weights/head.weight"));
  EXPECT_FALSE(file.exists("/weights/none/deeper"));
  EXPECT_EQ(file.members("/"), (std::vector<std::string>{"empty", "steps", "weights"}));
}

TEST_F(Hdf5FileTest, ReadsAndWritesHyperslabs) {
  const std::array<std::size_t, 2> shape = {5, 4}, offset = {1, 2}, count = {3, 2};
  Hdf5File file = Hdf5File::create(path("slab.h5"));
  Hdf5Dataset data = file.create_dataset("/x", Hdf5Type::int32, shape, {{2, 3}, true});
  EXPECT_EQ(data.chunk(), (std::vector<std::size_t>{2, 3}));
  const std::vector<std::int32_t> block = {1, 2, 3, 4, 5, 6};
  data.write<std::int32_t>(block, offset, count);
  std::vector<std::int32_t> back(6);
  data.read(std::span(back), offset, count);
  EXPECT_EQ(back, block);
  EXPECT_EQ(data.read<std::int32_t>(),
            (std::vector<std::int32_t>{0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 3, 4, 0, 0, 5, 6, 0, 0, 0, 0}));
  const std::array<std::size_t, 2> outside = {3, 2};
  EXPECT_THROW(data.read(std::span(back), outside, count), ShapeError);
  EXPECT_THROW(data.read(std::span(back).first(5), offset, count), ShapeError);
  EXPECT_THROW(file.close(), std::logic_error) << "a dataset is still open";
}

TEST_F(Hdf5FileTest, KeepsHalves) {
  const std::vector<Half> halves = {to_half(1), to_half(-0.1f), to_half(65504), {1}, {0x7c00}, {0x8000}};
  const std::vector<std::size_t> shape = {2, 3};
  {
    Hdf5File file = Hdf5File::create(path("half.h5"));
    file.write<Half>("/x", halves, shape);
    file.close();
  }
  const Hdf5File file = Hdf5File::open(path("half.h5"));
  EXPECT_EQ(file.dataset("/x").type(), Hdf5Type::float16);
  EXPECT_EQ(file.read<Half>("/x"), halves);
  EXPECT_NE(message([&] { file.read<float>("/x"); }).find("holds float16, expected float32"), std::string::npos);
}

TEST_F(Hdf5FileTest, FiltersMakeFilesSmaller) {
  std::vector<Half> values(256 * 256);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = to_half(static_cast<float>(i % 400));
  const std::vector<std::size_t> shape = {4, 64, 256}, chunk = {1, 64, 256};
  const auto bytes_with = [&](bool shuffle, int gzip) {
    Hdf5File file = Hdf5File::create(path("filters.h5"));
    file.write<Half>("/x", values, shape, Hdf5Storage{.chunk = chunk, .shuffle = shuffle, .gzip = gzip});
    file.close();
    EXPECT_EQ(Hdf5File::open(path("filters.h5")).read<Half>("/x"), values);
    return fs::file_size(path("filters.h5"));
  };
  const auto plain = bytes_with(false, 0), zipped = bytes_with(false, 4), both = bytes_with(true, 4);
  EXPECT_GT(plain, sizeof(Half) * values.size());
  EXPECT_LT(zipped, plain / 2);
  EXPECT_LT(both, zipped);
  EXPECT_EQ(bytes_with(true, 0), plain) << "to shuffle does not make smaller";
}

TEST_F(Hdf5FileTest, KeepsListsOfTexts) {
  const std::vector<std::string> texts = {"a", "é", "", "€uro", " ", "\n"};
  {
    Hdf5File file = Hdf5File::create(path("texts.h5"));
    file.write_texts("/group/texts", texts);
    file.write_texts("/none", {});
    file.write_texts("/empty", std::vector<std::string>{"", ""});
    file.write<int>("/x", std::vector<int>{1});
    file.close();
  }
  const Hdf5File file = Hdf5File::open(path("texts.h5"));
  EXPECT_EQ(file.read_texts("/group/texts"), texts);
  EXPECT_EQ(file.read_texts("/none"), std::vector<std::string>{});
  EXPECT_EQ(file.read_texts("/empty"), (std::vector<std::string>{"", ""}));
  EXPECT_NE(message([&] { file.read_texts("/x"); }).find("holds integers"), std::string::npos);
  EXPECT_NE(message([&] { file.read_texts("/y"); }).find("no such dataset"), std::string::npos);
  EXPECT_NE(message([&] { file.read<int>("/group/texts"); }).find("holds text, expected plain numbers"),
            std::string::npos);
}

TEST_F(Hdf5FileTest, CopiesOutOfAnotherFile) {
  const std::vector<float> one = {1, 2, 3}, two = {4, 5};
  {
    Hdf5File file = Hdf5File::create(path("old.h5"));
    file.write<float>("/group/one", one);
    file.write_attribute("/group/one", "step", std::int64_t{1});
    file.write<float>("/group/two", two);
    file.close();
  }
  const Hdf5File old = Hdf5File::open(path("old.h5"));
  {
    Hdf5File file = Hdf5File::create(path("new.h5"));
    file.copy(old, "/group/one");
    EXPECT_NE(message([&] { file.copy(old, "/group/three"); }).find("cannot be copied"), std::string::npos);
    file.close();
  }
  const Hdf5File copied = Hdf5File::open(path("new.h5"));
  EXPECT_EQ(copied.members("/group"), std::vector<std::string>{"one"});
  EXPECT_EQ(copied.read<float>("/group/one"), one);
  EXPECT_EQ(copied.attribute<std::int64_t>("/group/one", "step"), 1);
}

TEST_F(Hdf5FileTest, NamesWhatIsWrong) {
  {
    Hdf5File file = Hdf5File::create(path("b.h5"));
    file.write<float>("/x", std::vector<float>{1, 2});
    file.write_attribute("/", "step", std::int32_t{3});
    file.close();
  }
  const Hdf5File file = Hdf5File::open(path("b.h5"));
  std::vector<float> three(3);
  const std::array<std::size_t, 1> shape = {3};
  EXPECT_EQ(message([&] { file.read<double>("/x"); }),
            path("b.h5").string() + ":/x: holds float32, expected float64");
  EXPECT_NE(message([&] { file.read("/x", std::span(three), shape); }).find("has shape (2), expected (3)"),
            std::string::npos);
  EXPECT_NE(message([&] { file.dataset("/y"); }).find(":/y: no such dataset"), std::string::npos);
  EXPECT_NE(message([&] { file.text_attribute("/", "step"); }).find("attribute step holds integers"),
            std::string::npos);
  EXPECT_NE(message([&] { file.attribute<std::int64_t>("/", "step"); }).find("holds int32, expected int64"),
            std::string::npos);
  EXPECT_NE(message([&] { file.attribute<int>("/", "none"); }).find("has no attribute none"), std::string::npos);
  EXPECT_NE(message([&] { Hdf5File::open(path("none.h5")); }).find("no such file"), std::string::npos);
  EXPECT_NE(message([&] { Hdf5File::open(folder_); }).find("is a folder"), std::string::npos);
  std::ofstream(path("text.h5")) << "no HDF5 at all";
  EXPECT_NE(message([&] { Hdf5File::open(path("text.h5")); }).find("signature not found"), std::string::npos);
  EXPECT_NE(message([&] { Hdf5File::create(path("no/folder.h5")); }).find("No such file or directory"),
            std::string::npos);
}

TEST_F(Hdf5FileTest, FindsTruncationAndFlippedBits) {
  std::vector<std::uint16_t> values(100'000);
  std::iota(values.begin(), values.end(), std::uint16_t{0});
  {
    Hdf5File file = Hdf5File::create(path("c.h5"));
    file.write<std::uint16_t>("/x", values);
    file.close();
  }
  fs::copy_file(path("c.h5"), path("short.h5"));
  fs::resize_file(path("short.h5"), fs::file_size(path("short.h5")) / 2);
  EXPECT_NE(message([&] { Hdf5File::open(path("short.h5")); }).find("truncated file"), std::string::npos);
  std::fstream flip(path("c.h5"), std::ios::in | std::ios::out | std::ios::binary);
  flip.seekp(static_cast<std::streamoff>(fs::file_size(path("c.h5")) / 2));
  flip.put('\xA5').put('\x5A').flush();
  const Hdf5File file = Hdf5File::open(path("c.h5"));
  EXPECT_NE(message([&] { file.read<std::uint16_t>("/x"); }).find("Fletcher32"), std::string::npos);
}

/// The descriptor of an open file of this process.
int descriptor_of(const fs::path& file) {
  for (const fs::directory_entry& entry : fs::directory_iterator("/proc/self/fd")) {
    std::error_code gone;
    if (fs::read_symlink(entry.path(), gone) == file) return std::stoi(entry.path().filename().string());
  }
  return -1;
}

TEST_F(Hdf5FileTest, AReadThatTheSystemRefusesIsNoDamage) {
  {
    Hdf5File file = Hdf5File::create(path("d.h5"));
    file.write<float>("/x", std::vector<float>(100'000, 1));
    file.close();
  }
  const Hdf5File file = Hdf5File::open(path("d.h5"));
  const Hdf5Dataset data = file.dataset("/x");
  const int descriptor = descriptor_of(fs::canonical(path("d.h5")));
  ASSERT_GE(descriptor, 0);
  const int copy = ::dup(descriptor), memory = ::open("/proc/self/mem", O_RDONLY);
  ASSERT_EQ(::dup2(memory, descriptor), descriptor);  // low addresses are mapped to nothing: EIO
  EXPECT_EQ(
      message_of<ReadError>([&] { data.read<float>(); }),
      path("d.h5").string() + ":/x: cannot be read: Input/output error; start again when its file system answers");
  ::dup2(copy, descriptor);
  ::close(copy);
  ::close(memory);
  EXPECT_EQ(data.read<float>().at(99'999), 1);
}

TEST_F(Hdf5FileTest, WhatCannotBeOpenedIsNoDamage) {
  {
    Hdf5File file = Hdf5File::create(path("e.h5"));
    file.write<float>("/x", std::vector<float>{1});
    file.close();
  }
  {
    const ProcessLimit limit(RLIMIT_NOFILE, static_cast<rlim_t>(free_descriptor()));
    EXPECT_NE(message_of<ReadError>([&] { Hdf5File::open(path("e.h5")); }).find("Too many open files"),
              std::string::npos);
  }
  ASSERT_EQ(::mkfifo(path("fifo.h5").c_str(), 0600), 0);
  EXPECT_NE(message([&] { Hdf5File::open(path("fifo.h5")); }).find("is a FIFO, no regular file"),
            std::string::npos);
}

TEST_F(Hdf5FileTest, NoMemoryIsNoDamage) {
  const hdf5::Call call;
  H5Eclear2(H5E_DEFAULT);
  H5Epush2(H5E_DEFAULT, __FILE__, __func__, __LINE__, H5E_ERR_CLS, H5E_RESOURCE, H5E_NOSPACE,
           "memory allocation failed for chunk");
  EXPECT_EQ(message_of<ReadError>([] { hdf5::fail("file.h5", "/x", "cannot be read"); }),
            "file.h5:/x: cannot be read: Cannot allocate memory; free some memory");
}

TEST_F(Hdf5FileTest, AFileThatMayNotGrowSaysSo) {
  const auto open_descriptors = [] {
    const auto entries = fs::directory_iterator("/proc/self/fd");
    return std::distance(fs::begin(entries), fs::end(entries));
  };
  const auto before = open_descriptors();
  for (const std::size_t bytes : {0u, 100u, 3000u, 30'000u, 200'000u, 390'000u, 399'000u}) {
    const ProcessLimit limit(RLIMIT_FSIZE, bytes);
    const std::string said = message([&] {
      Hdf5File file = Hdf5File::create(path("limited.h5"));
      Hdf5Dataset data = file.create_dataset("/x", Hdf5Type::float32, std::array<std::size_t, 1>{100'000});
      data.write(std::span<const float>(std::vector<float>(100'000, 1)));
      data.close();
      file.close();
    });
    EXPECT_NE(said.find("File too large"), std::string::npos) << bytes << ": " << said;
  }
  EXPECT_EQ(open_descriptors(), before) << "a file that could not be written stays open";
}

TEST_F(Hdf5FileTest, UsedByTwoThreadsAtOnce) {
  const auto work = [&](int id) {
    for (int round = 0; round < 30; ++round) {
      const fs::path mine = path("thread" + std::to_string(id) + ".h5");
      Hdf5File file = Hdf5File::create(mine);
      file.write<int>("/group/x", std::vector<int>(1000, id + round));
      file.close();
      EXPECT_EQ(Hdf5File::open(mine).read<int>("/group/x").at(999), id + round);
    }
  };
  std::thread other(work, 1000);
  work(0);
  other.join();
}

TEST(Sha256, KnownAnswers) {
  // FIPS 180-4 example messages and lengths around a block's end (digests as of NIST's SHA256ShortMsg/examples)
  const auto of = [](const std::string& text) { return sha256(std::as_bytes(std::span(text))); };
  EXPECT_EQ(of(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(of("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(of(std::string(1'000'000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  const std::string text(1000, 'q');
  for (std::size_t cut = 0; cut <= 130; ++cut) {
    Sha256 pieces;
    pieces.update(std::as_bytes(std::span(text).first(cut)));
    pieces.update(std::as_bytes(std::span(text).subspan(cut)));
    EXPECT_EQ(pieces.finish(), of(text)) << cut;
  }
}

}  // namespace
}  // namespace dekoder
