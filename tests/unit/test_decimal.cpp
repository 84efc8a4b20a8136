// SPDX-License-Identifier: Apache-2.0
#include "base/decimal.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <utility>

namespace dekoder {
namespace {

template <class T>
std::pair<Decimal, T> read(std::string_view text) {
  T value = 77;
  const Decimal result = read_decimal(text, value);
  return {result, value};
}

TEST(Decimal, WholeNumbersAreDecimalWhateverTheirZeros) {
  for (const auto& [text, value] : std::initializer_list<std::pair<const char*, long>>{
           {"0", 0}, {"20", 20}, {"00000020", 20}, {"010", 10}, {"-010", -10}, {"0000000000000000000000009", 9}})
    EXPECT_EQ(read<long>(text), std::pair(Decimal::read, value)) << text;
  EXPECT_EQ(read<std::uint64_t>("18446744073709551615").second, std::numeric_limits<std::uint64_t>::max());
  EXPECT_EQ(read<int>("-2147483648").second, std::numeric_limits<int>::min());
}

TEST(Decimal, NothingElseIsAWholeNumber) {
  for (const char* text : {"",    " ",     "-",     "+5",    " 5",  "5 ", "5\n", "5x",  "0x10",     "0b1",
                           "0o7", "1_000", "1'000", "1,000", "1.0", "5.", "1e3", "--5", "\xd9\xa5", "one"})
    EXPECT_EQ(read<long>(text), std::pair(Decimal::malformed, 77L)) << text;
  EXPECT_EQ(read<std::uint64_t>("-1").first, Decimal::malformed);
  EXPECT_EQ(read<long>(std::string_view("5\0", 2)).first, Decimal::malformed);
}

TEST(Decimal, WhatATypeCannotHoldIsSaid) {
  EXPECT_EQ(read<int>("2147483648"), std::pair(Decimal::too_large, 77));
  EXPECT_EQ(read<int>("-2147483649").first, Decimal::too_large);
  EXPECT_EQ(read<std::uint64_t>("18446744073709551616").first, Decimal::too_large);
  EXPECT_EQ(read<int>("99999999999999999999x").first, Decimal::malformed);
  EXPECT_EQ(read<double>("1e999"), std::pair(Decimal::too_large, 77.0));
  EXPECT_EQ(read<double>("-1e999").first, Decimal::too_large);
  EXPECT_EQ(read<double>("1e-999"), std::pair(Decimal::too_small, 77.0));
  EXPECT_EQ(read<double>("0." + std::string(400, '0') + "1").first, Decimal::too_small);
  EXPECT_EQ(read<double>(std::string(400, '9') + "e-3").first, Decimal::too_large);
}

TEST(Decimal, NumbersInEveryUsualForm) {
  for (const auto& [text, value] : std::initializer_list<std::pair<const char*, double>>{{"1e-3", 1e-3},
                                                                                         {"1E+3", 1e3},
                                                                                         {".5", 0.5},
                                                                                         {"5.", 5},
                                                                                         {"-.5e1", -5},
                                                                                         {"007.50", 7.5},
                                                                                         {"010", 10},
                                                                                         {"0", 0},
                                                                                         {"0e0", 0},
                                                                                         {"1e-310", 1e-310}})
    EXPECT_EQ(read<double>(text), std::pair(Decimal::read, value)) << text;
}

TEST(Decimal, NothingElseIsANumber) {
  for (const char* text :
       {"",   ".",   "-",   "-.",   "e3",       "1e",   "1e+", "+1",   "1.2.3", "1,5",    "1_0.0", "0x1p3", "0x10",
        "1f", "1d0", "inf", "-inf", "Infinity", ".inf", "nan", "-nan", ".nan",  "nan(1)", " 1",    "1 "})
    EXPECT_EQ(read<double>(text), std::pair(Decimal::malformed, 77.0)) << text;
}

TEST(Decimal, BytesReadAsTheirSize) {
  EXPECT_EQ(bytes_text(0), "0 B");
  EXPECT_EQ(bytes_text(1023), "1023 B");
  EXPECT_EQ(bytes_text(12345), "12.1 KiB");
  EXPECT_EQ(bytes_text(256'000'000), "244.1 MiB");
  EXPECT_EQ(bytes_text(std::uint64_t{5} << 28), "1.25 GiB");
}

TEST(TimeText, HasHoursWhereThereIsOne) {
  EXPECT_EQ(time_text(0), "0:00");
  EXPECT_EQ(time_text(7.4), "0:07");
  EXPECT_EQ(time_text(3599.4), "59:59");
  EXPECT_EQ(time_text(3599.6), "1:00:00");
  EXPECT_EQ(time_text(100 * 3600 + 62), "100:01:02");
}

}  // namespace
}  // namespace dekoder
