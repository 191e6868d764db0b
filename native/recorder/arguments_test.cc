// SPDX-License-Identifier: Apache-2.0
// Goal: the command line means one thing, and what is wrong with it is said exactly.
#include "recorder/arguments.h"

#include <gtest/gtest.h>

namespace basalt::recorder {
namespace {

using Words = std::vector<std::string>;

std::string problem(Words words) {
  const Words known = {"--device", "/dev/d", "--history", "h"};
  words.insert(words.begin(), known.begin(), known.end());
  const auto arguments = read_arguments(words);
  return arguments.ok() ? "" : arguments.error().message;
}

TEST(Arguments, SayWhereAndHowLong) {
  const auto plain = read_arguments({"--device", "/dev/d", "--history", "h"});
  ASSERT_TRUE(plain.ok());
  EXPECT_EQ(plain.value().length_s, 10u);
  EXPECT_FALSE(plain.value().seed || plain.value().volume || plain.value().resume || plain.value().erase);
  const auto all = read_arguments({"--device", "/dev/d", "--history", "h", "--ops", "70", "--rate", "5", "--seed",
                                   "0xff", "--first", "3", "--blocks", "9", "--clients", "2", "--resume", "--durable"});
  ASSERT_TRUE(all.ok()) << all.error().message;
  EXPECT_EQ(all.value().length_s, 0u);
  EXPECT_EQ(all.value().operation_count, 70u);
  EXPECT_EQ(all.value().rate, 5u);
  EXPECT_EQ(all.value().seed, 0xffu);
  EXPECT_EQ(all.value().first_block, 3u);
  EXPECT_EQ(all.value().block_count, 9u);
  EXPECT_EQ(all.value().client_count, 2u);
  EXPECT_TRUE(all.value().resume && all.value().durable);
}

TEST(Arguments, ThatAreWrongAreNamed) {
  EXPECT_EQ(read_arguments({}).error().message, "--device: is missing");
  EXPECT_EQ(read_arguments({"--device", "d"}).error().message, "--history: is missing");
  EXPECT_EQ(read_arguments({"--device", "d", "--history", "d"}).error().message,
            "--history: must not be what --device names");
  EXPECT_EQ(problem({"--depth", "3"}), "--depth: unknown option");
  EXPECT_EQ(problem({"--seed"}), "--seed: its value is missing");
  EXPECT_EQ(problem({"--seed", "1", "--seed", "2"}), "--seed: given twice");
  EXPECT_EQ(problem({"--seed", "0x"}), "--seed: a number, decimal or 0x..., not '0x'");
  EXPECT_EQ(problem({"--ops", "0"}), "--ops: a number of at least 1, not '0'");
  EXPECT_EQ(problem({"--clients", "1000"}), "--clients: a number from 1 to 256, not '1000'");
  EXPECT_EQ(problem({"--blocks", "12k"}), "--blocks: a number from 1 to 4294967296, not '12k'");
  EXPECT_EQ(problem({"--resume", "--erase"}), "--erase: does not go with --resume, which reads what was written");
  EXPECT_EQ(problem({"--resume", "--volume", "7"}), "--volume: does not go with --resume, the history has it");
}

}  // namespace
}  // namespace basalt::recorder
