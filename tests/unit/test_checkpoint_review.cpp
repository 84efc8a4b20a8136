// SPDX-License-Identifier: Apache-2.0
// Reading a checkpoint block by block, and comparing two: in which blocks, to which index, by which bits.
#include "io/run/checkpoint_review.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "io/run/checkpoint_folder.hpp"
#include "support/host_tensor.hpp"
#include "support/scratch_folder.hpp"

namespace dekoder {
namespace {

namespace fs = std::filesystem;
using Extents = std::vector<std::size_t>;
using testing::change;
using testing_support::message_of;
using testing_support::ScratchFolder;

/// A checkpoint of one tensor, whose elements count up but for those that `edit` changes.
fs::path write(const ScratchFolder& scratch, long step, const std::vector<int>& shape,
               const std::function<void(Master*)>& edit = {}) {
  ParameterLayout layout;
  layout.add("weight", shape.size() == 1 ? "C" : "V,C", shape, false, {});
  const ParameterStore store(layout);
  change(store.values_to_write(), [&](const auto& values) {
    for (std::size_t i = 0; i < layout.entries()[0].size(); ++i) values(i) = Real(i);
    if (edit) edit(values.data());
  });
  CheckpointInfo info;
  info.step = step;
  const std::vector<NamedBuffer> buffers = {{parameter_group, store.values_to_write()}};
  return write_checkpoint(scratch.path(), info, layout, buffers);
}

TEST(CheckpointReview, BlocksAreBoundedAndComeInRowMajorOrder) {
  const ScratchFolder scratch("checkpoint-blocks");
  const std::vector<std::vector<int>> shapes = {{1}, {300001}, {7, 5}, {1000, 600}, {3, 300001}, {600001, 2}};
  for (std::size_t s = 0; s < shapes.size(); ++s) {
    const OpenCheckpoint checkpoint = open_checkpoint(write(scratch, long(s), shapes[s]));
    TensorReader reader(checkpoint, checkpoint.records.at(0));
    std::size_t next = 0;
    reader.for_each_block([&](const Extents& offset, const Extents& count) {
      const std::size_t bytes = reader.read(offset, count).size();
      EXPECT_LE(bytes, std::size_t{5} << 18) << "1 MiB, and what evenly shared chunks add";
      const Extents first = index_in_tensor(0, offset, count);
      EXPECT_EQ(first, offset);
      std::size_t flat = 0;
      for (std::size_t axis = 0; axis < first.size(); ++axis)
        flat = flat * std::size_t(shapes[s][axis]) + first[axis];
      EXPECT_EQ(flat, next);
      for (std::size_t i = 0; i < bytes / sizeof(float); ++i) EXPECT_EQ(reader.value(i), double(float(next++)));
    });
    std::size_t elements = 1;
    for (const int extent : shapes[s]) elements *= std::size_t(extent);
    EXPECT_EQ(next, elements);
    EXPECT_EQ(reader.fault(), "");
  }
}

TensorDifference difference(const ScratchFolder& scratch, const std::vector<int>& shape,
                            const std::function<void(Master*)>& left, const std::function<void(Master*)>& right) {
  const OpenCheckpoint a = open_checkpoint(write(scratch, 1, shape, left)),
                       b = open_checkpoint(write(scratch, 2, shape, right));
  return compare_tensors(a, a.records.at(0), b, b.records.at(0));
}

TEST(CheckpointReview, NanIsEqualToTheSameBitsAlone) {
  const ScratchFolder scratch("checkpoint-nan");
  const float nan = std::numeric_limits<float>::quiet_NaN(), inf = std::numeric_limits<float>::infinity();
  const float other = std::bit_cast<float>(std::bit_cast<std::uint32_t>(nan) | 5);
  const auto set = [](std::size_t i, float value) { return [=](Master* values) { values[i] = value; }; };
  EXPECT_EQ(difference(scratch, {8}, set(3, nan), set(3, nan)).elements, 0u);
  EXPECT_EQ(difference(scratch, {8}, set(3, inf), set(3, inf)).elements, 0u);
  for (const auto& [left, right] : {std::pair{nan, other}, {nan, 1.0f}, {1.0f, nan}}) {
    const TensorDifference found = difference(scratch, {2, 4}, set(6, left), set(6, right));
    EXPECT_EQ(found.elements, 1u);
    EXPECT_TRUE(std::isnan(found.max_absolute) && std::isnan(found.max_relative));
    EXPECT_EQ(found.first, (Extents{1, 2}));
  }
  const TensorDifference infinite = difference(scratch, {8}, set(3, inf), set(3, -inf));
  EXPECT_EQ(infinite.max_absolute, inf);
  EXPECT_EQ(infinite.max_relative, inf);
}

TEST(CheckpointReview, ANanStaysTheMaximumWhateverFollows) {
  const ScratchFolder scratch("checkpoint-nan-first");
  const TensorDifference found = difference(
      scratch, {8}, [](Master* values) { values[2] = std::nanf(""); }, [](Master* values) { values[5] = 100; });
  EXPECT_EQ(found.elements, 2u);
  EXPECT_TRUE(std::isnan(found.max_absolute));
}

TEST(CheckpointReview, TheFirstIndexIsInTheTensorsShapeAlsoInALaterBlock) {
  const ScratchFolder scratch("checkpoint-index");
  const auto nothing = [](Master*) {};
  const auto at = [](std::size_t i) { return [=](Master* values) { values[i] += 4; }; };
  EXPECT_EQ(difference(scratch, {3, 300001}, nothing, at(2 * 300001 + 299999)).first, (Extents{2, 299999}));
  EXPECT_EQ(difference(scratch, {1000, 600}, nothing, at(999 * 600 + 1)).first, (Extents{999, 1}));
  EXPECT_EQ(difference(scratch, {600001}, nothing, at(600000)).first, (Extents{600000}));
}

TEST(CheckpointReview, OtherShapesAreAFaultOfTheProgram) {
  const ScratchFolder scratch("checkpoint-shapes");
  const OpenCheckpoint a = open_checkpoint(write(scratch, 1, {2, 4})),
                       b = open_checkpoint(write(scratch, 2, {4, 2}));
  EXPECT_THROW(compare_tensors(a, a.records.at(0), b, b.records.at(0)), ShapeError);
}

TEST(CheckpointReview, AFileThatIsGoneIsNoDamagedOne) {
  const ScratchFolder scratch("checkpoint-gone");
  const fs::path file = write(scratch, 1, {8});
  const auto layout_of = [](const std::string&, const std::string&) { return ParameterLayout(); };
  EXPECT_EQ(review_checkpoint(file, layout_of).verdict, CheckpointVerdict::other_layout) << "one group of three";
  const OpenCheckpoint open = open_checkpoint(file);
  fs::remove(file);
  EXPECT_EQ(review_checkpoint(file, layout_of).verdict, CheckpointVerdict::gone);
  require_intact_tensor(open, open.records.at(0));  // readable as long as it is open
  fs::create_symlink("nowhere", file);
  EXPECT_EQ(review_checkpoint(file, layout_of).verdict, CheckpointVerdict::unreadable);
}

TEST(CheckpointReview, WhoLooksForTheNewestLooksAgainWhereItIsDeletedMeanwhile) {
  const ScratchFolder scratch("checkpoint-rotated");
  write(scratch, 1, {8});
  int looked = 0;
  const LoadedCheckpoint loaded = newest_checkpoint(scratch.path(), [&](const fs::path& file) {
    if (++looked < 4) {  // a run that keeps one file saves the next state
      fs::remove(file);
      write(scratch, looked + 1, {8});
    }
    return read_checkpoint_info(file);
  });
  EXPECT_EQ(loaded.info.step, 4);
  EXPECT_TRUE(loaded.rejected.empty());
  const auto never = [](const fs::path& file) -> CheckpointInfo {
    fs::remove(file);
    throw DataError("{}: no such file", file.string());
  };
  EXPECT_NE(message_of<DataError>([&] { newest_checkpoint(scratch.path(), never); }).find("no checkpoint yet"),
            std::string::npos);
}

TEST(CheckpointReview, AFormatThatThereIsNotIsDamage) {
  const ScratchFolder scratch("checkpoint-minor");
  for (const auto& [major, minor] : {std::pair{1, -1}, {0, 1}, {-1, 0}}) {
    Hdf5File file = Hdf5File::create(scratch / "odd.h5");
    file.write_attribute("/", "format", checkpoint_format_name);
    file.write_attribute("/", "major", std::int32_t(major));
    file.write_attribute("/", "minor", std::int32_t(minor));
    file.close();
    EXPECT_EQ(message_of<DataError>([&] { open_checkpoint(scratch / "odd.h5"); }),
              fmt::format("{}: is damaged (checkpoint format {}.{}, which there is not)",
                          (scratch / "odd.h5").string(), major, minor));
  }
}

}  // namespace
}  // namespace dekoder
