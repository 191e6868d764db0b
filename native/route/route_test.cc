// SPDX-License-Identifier: Apache-2.0
#include "route/route.h"

#include <gtest/gtest.h>
#include <rapidjson/document.h>

#include <fstream>
#include <limits>
#include <sstream>
#include <string>

namespace basalt::route {
namespace {

rapidjson::Document vectors() {
  std::ifstream file(std::string(BASALT_SOURCE_DIR) + "/test/vectors/route.json");
  std::stringstream text;
  text << file.rdbuf();
  rapidjson::Document document;
  document.Parse(text.str().c_str());
  return document;
}

Range range_of(const rapidjson::Value& value) {
  return Range{
      .start_bytes = value["startBytes"].GetUint64(),
      .length_bytes = value["lengthBytes"].GetUint64(),
      .stripe_size_bytes = value["stripeSizeBytes"].GetUint(),
      .first_leg = value["firstLeg"].GetUint(),
      .leg_count = value["legCount"].GetUint(),
      .leg_offset_bytes = value["legOffsetBytes"].GetUint64(),
      .seed = value["seed"].GetUint(),
      .conflict = std::string(value["conflict"].GetString()) == "any" ? Conflict::any : Conflict::spread,
  };
}

void expect_found(const std::vector<Range>& ranges, const rapidjson::Value& entry) {
  const uint64_t address = entry["addressBytes"].GetUint64();
  SCOPED_TRACE(address);
  const auto found = locate(ranges, address);
  const rapidjson::Value& expected = entry["found"];
  ASSERT_EQ(found.has_value(), !expected.IsNull());
  if (!found) return;
  EXPECT_EQ(found->leg, expected["leg"].GetUint());
  EXPECT_EQ(found->offset_bytes, expected["offsetBytes"].GetUint64());
  EXPECT_EQ(found->run_bytes, expected["runBytes"].GetUint64());
}

TEST(Route, GivesWhatTheSharedVectorsSay) {
  const auto document = vectors();
  ASSERT_TRUE(document.IsObject());
  for (const auto& pair : document["mix32"].GetArray())
    EXPECT_EQ(mix32(pair[0].GetUint()), pair[1].GetUint());
  const auto& routes = document["routes"].GetArray();
  ASSERT_GE(routes.Size(), 20u);
  for (const auto& entry : routes) {
    std::vector<Range> ranges;
    for (const auto& range : entry["ranges"].GetArray())
      ranges.push_back(range_of(range));
    ASSERT_TRUE(check(ranges).ok());
    for (size_t i = 0; i < ranges.size(); i++) {
      const auto pgs = leg_pgs(ranges[i], entry["pgCount"].GetUint());
      const auto& expected = entry["pgs"][static_cast<rapidjson::SizeType>(i)];
      ASSERT_EQ(pgs.size(), expected.Size());
      for (rapidjson::SizeType leg = 0; leg < expected.Size(); leg++)
        EXPECT_EQ(pgs[leg], expected[leg].GetUint());
    }
    for (const auto& address : entry["addresses"].GetArray())
      expect_found(ranges, address);
  }
}

TEST(Route, AGrownVolumeKeepsEveryAddressAsTheSharedVectorsSay) {
  const auto document = vectors();
  ASSERT_TRUE(document.IsObject() && document.HasMember("growths"));
  const auto ranges_of = [](const rapidjson::Value& list) {
    std::vector<Range> ranges;
    for (const auto& range : list.GetArray())
      ranges.push_back(range_of(range));
    return ranges;
  };
  const auto& growths = document["growths"].GetArray();
  ASSERT_GE(growths.Size(), 20u);
  for (const auto& entry : growths) {
    const std::vector<Range> before = ranges_of(entry["before"]);
    const std::vector<Range> after = ranges_of(entry["after"]);
    ASSERT_TRUE(check(after).ok());
    ASSERT_EQ(before.size(), after.size());
    ASSERT_GT(after.back().length_bytes, before.back().length_bytes);
    const uint32_t pg_count = entry["pgCount"].GetUint();
    for (size_t i = 0; i < before.size(); i++)
      EXPECT_EQ(leg_pgs(before[i], pg_count), leg_pgs(after[i], pg_count));
    for (const auto& address : entry["addresses"].GetArray()) {
      const auto was = locate(before, address.GetUint64());
      const auto is = locate(after, address.GetUint64());
      ASSERT_TRUE(was.has_value() && is.has_value());
      EXPECT_EQ(is->leg, was->leg);
      EXPECT_EQ(is->offset_bytes, was->offset_bytes);
      EXPECT_GE(is->run_bytes, was->run_bytes);
    }
  }
}

const Range good = {0, 1 << 20, 65536, 0, 4, 0, 1, Conflict::spread};

TEST(Route, IsRefusedWithTheRangeThatIsWrong) {
  const auto refused = [](Range range) {
    const Range ranges[] = {good, range};
    const Outcome outcome = check(ranges);
    return !outcome.ok() && outcome.error().message.rfind("route[1]:", 0) == 0;
  };
  Range next = good;
  next.start_bytes = 1 << 20;
  const Range ranges[] = {good, next};
  EXPECT_TRUE(check(ranges).ok());
  EXPECT_TRUE(refused(good));
  const auto with = [&](auto change) {
    Range range = next;
    change(range);
    return range;
  };
  EXPECT_TRUE(refused(with([](Range& range) { range.length_bytes = 0; })));
  EXPECT_TRUE(refused(with([](Range& range) { range.stripe_size_bytes = 0; })));
  EXPECT_TRUE(refused(with([](Range& range) { range.leg_count = 0; })));
  EXPECT_TRUE(refused(with([](Range& range) { range.leg_count = legs_max + 1; })));
  EXPECT_TRUE(refused(with([](Range& range) { range.first_leg = legs_max; })));
  EXPECT_TRUE(refused(with([](Range& range) { range.length_bytes = std::numeric_limits<uint64_t>::max(); })));
  EXPECT_TRUE(refused(with([](Range& range) { range.leg_offset_bytes = std::numeric_limits<uint64_t>::max(); })));
}

TEST(Route, EndsWhereItsLastRangeEnds) {
  EXPECT_TRUE(locate({&good, 1}, (1 << 20) - 1).has_value());
  EXPECT_FALSE(locate({&good, 1}, 1 << 20).has_value());
  EXPECT_FALSE(locate({}, 0).has_value());
}

}  // namespace
}  // namespace basalt::route
