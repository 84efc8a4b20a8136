// SPDX-License-Identifier: Apache-2.0
#include "base/base64.hpp"

#include <gtest/gtest.h>

namespace dekoder {
namespace {

TEST(Base64, TheVectorsOfTheStandard) {  // RFC 4648, section 10
  const char* texts[][2] = {{"", ""},
                            {"f", "Zg=="},
                            {"fo", "Zm8="},
                            {"foo", "Zm9v"},
                            {"foob", "Zm9vYg=="},
                            {"fooba", "Zm9vYmE="},
                            {"foobar", "Zm9vYmFy"}};
  for (const auto& [bytes, text] : texts) {
    EXPECT_EQ(to_base64(bytes), text);
    EXPECT_EQ(from_base64(text), bytes);
  }
}

TEST(Base64, AllBytesInAllPlacesRoundTrip) {
  std::string bytes;
  for (int length = 0; length < 1000; ++length) {
    ASSERT_EQ(from_base64(to_base64(bytes)), bytes) << length;
    bytes.push_back(static_cast<char>(length * 167));
  }
  EXPECT_EQ(to_base64("\xFB\xEF\xBE\xFF"), "++++/w==");
}

TEST(Base64, WhatIsNoneIsRefused) {
  for (const char* text : {"Z", "Zg", "Zg=", "Zm9", "Zg==Zg==", "Z===", "====", "=", "==", "=AAA", "Zm9v\n",
                           "Zm9v\nZm9v", " Zm9v", "Zm-v", "Zm_v", "Zm9\xC3", "Zg==\n", "A=A="})
    EXPECT_EQ(from_base64(text), std::nullopt) << text;
  for (const char* text : {"Zh==", "Zm9=", "//=="})  // bits behind the last byte
    EXPECT_EQ(from_base64(text), std::nullopt) << text;
  EXPECT_EQ(from_base64(std::string_view("AA\0A", 4)), std::nullopt);
}

}  // namespace
}  // namespace dekoder
