// SPDX-License-Identifier: Apache-2.0
// Goal: whatever lies in a plan's file is refused or means what it says.
#include "sim/plan_file.h"

#include <gtest/gtest.h>

namespace basalt::sim {
namespace {

TEST(PlanFile, IsRefusedWhenNestedDeeplyWithoutUsingUpTheStack) {
  for (const char* open : {"[", "{\"found\":"}) {
    std::string text;
    while (text.size() < size_t{4} << 20)
      text += open;
    EXPECT_EQ(parse_plan(text).error().message, "not a JSON object");
  }
}

TEST(PlanFile, TakesNamesAsAWhole) {
  const std::string field = R"({"suite":"data","seed":"0x1","why\u0000":"x"})";
  EXPECT_FALSE(parse_plan(field).ok());
  EXPECT_FALSE(parse_plan(R"({"suite":"data\u0000s","seed":"0x1"})").ok());
  EXPECT_FALSE(parse_plan(R"({"suite":"data","seed":"0x1\u0000"})").ok());
  EXPECT_FALSE(parse_plan(R"({"suite":"data","seed":"0x1","bugs":["skip_fence\u0000"]})").ok());
}

TEST(PlanFile, KeepsItsTextsWhole) {
  auto plan = parse_plan(R"({"suite":"data","seed":"0x1","why":"a\u0000b\n"})");
  ASSERT_TRUE(plan.ok());
  EXPECT_EQ(plan->why, std::string("a\0b\n", 4));
  auto again = parse_plan(plan_text(*plan));
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->why, plan->why);
}

}  // namespace
}  // namespace basalt::sim
