// SPDX-License-Identifier: Apache-2.0
#include "engine/keyring.h"

#include <gtest/gtest.h>

namespace basalt {
namespace {

TEST(Keyring, KeepsTheTextWithoutItsLinesEnd) {
  Keyring keyring;
  ASSERT_TRUE(keyring.add("a", "/keys/a", "secret\r\n").ok());
  ASSERT_TRUE(keyring.add("b", "/keys/b", "with space ").ok());
  EXPECT_EQ(keyring.find("a").value(), "secret");
  EXPECT_EQ(keyring.find("b").value(), "with space ");
  EXPECT_EQ(keyring.entries().size(), 2u);
  EXPECT_EQ(keyring.entries()[0].path, "/keys/a");
}

TEST(Keyring, RefusesDoublesAndEmptyFilesAndForgets) {
  Keyring keyring;
  EXPECT_EQ(keyring.add("a", "/keys/a", "\n").error().code, Errc::invalid_argument);
  ASSERT_TRUE(keyring.add("a", "/keys/a", "secret").ok());
  const Outcome twice = keyring.add("a", "/keys/other", "another");
  EXPECT_EQ(twice.error().code, Errc::exists);
  EXPECT_EQ(twice.error().message.find("another"), std::string::npos);
  EXPECT_EQ(keyring.find("a").value(), "secret");
  ASSERT_TRUE(keyring.remove("a").ok());
  EXPECT_EQ(keyring.remove("a").error().code, Errc::not_found);
  EXPECT_EQ(keyring.find("a").error().code, Errc::not_found);
  EXPECT_TRUE(keyring.entries().empty());
}

}  // namespace
}  // namespace basalt
