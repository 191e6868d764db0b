// SPDX-License-Identifier: Apache-2.0
#include "bdev/raid/parity_layout.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

namespace basalt::bdev {
namespace {

ParityLayout layout_of(uint32_t k, uint32_t m, uint32_t strip_blocks) {
  ParityLayout layout;
  layout.data_count = k;
  layout.parity_count = m;
  layout.strip_blocks = strip_blocks;
  layout.strip_count = 16;
  layout.first_block = 100;
  return layout;
}

TEST(ParityLayout, EveryMemberHasEveryRoleEquallyOften) {
  const ParityLayout layout = layout_of(4, 2, 8);
  std::map<std::pair<uint32_t, uint32_t>, int> count;
  for (uint64_t stripe = 0; stripe < 60; stripe++) {
    std::set<uint32_t> members;
    for (uint32_t role = 0; role < 6; role++) {
      const uint32_t member = layout.member_of(stripe, role);
      EXPECT_EQ(layout.role_of(stripe, member), role);
      members.insert(member);
      count[{member, role}]++;
    }
    EXPECT_EQ(members.size(), 6u);
  }
  for (const auto& [key, times] : count)
    EXPECT_EQ(times, 10);
}

// Every range of a few stripes, every geometry: each block is in exactly one band, and bands are as small as was asked.
TEST(ParityBands, CoverARangeExactlyOnce) {
  for (const uint32_t k : {1u, 2u, 3u, 5u}) {
    for (const uint32_t strip : {1u, 2u, 4u, 8u}) {
      const ParityLayout layout = layout_of(k, 2, strip);
      const uint64_t span = layout.stripe_blocks() * 3;
      for (uint64_t begin = 0; begin < span; begin++) {
        for (uint64_t end = begin + 1; end <= span; end++) {
          for (const bool merge : {false, true}) {
            std::set<uint64_t> seen;
            ParityBands bands(begin, end, merge);
            ParityBand band;
            while (bands.next(layout, 3, 5, &band)) {
              ASSERT_GT(band.column_count, 0u);
              ASSERT_GT(band.role_count, 0u);
              if (band.stripe_count == 1 && !merge) {
                ASSERT_LE(band.column_count, band.role_count == k ? 5u : 3u);
              }
              for (uint64_t stripe = band.stripe; stripe < band.stripe + band.stripe_count; stripe++) {
                for (uint32_t role = band.first_role; role < band.first_role + band.role_count; role++) {
                  for (uint32_t column = band.column; column < band.column + band.column_count; column++) {
                    const uint64_t block = stripe * layout.stripe_blocks() + uint64_t{role} * strip + column;
                    ASSERT_TRUE(block >= begin && block < end);
                    ASSERT_TRUE(seen.insert(block).second) << "block " << block << " twice";
                  }
                }
              }
            }
            ASSERT_EQ(seen.size(), end - begin)
                << "k " << k << " strip " << strip << " [" << begin << ", " << end << ")";
          }
        }
      }
    }
  }
}

}  // namespace
}  // namespace basalt::bdev
