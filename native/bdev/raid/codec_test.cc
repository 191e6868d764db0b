// SPDX-License-Identifier: Apache-2.0
#include "bdev/raid/codec.h"

#include <gtest/gtest.h>

#include <bit>
#include <random>

namespace basalt::bdev {
namespace {

struct Strips {
  Strips(uint32_t count, size_t length_bytes) : bytes(count, std::vector<uint8_t>(length_bytes)) {
    for (auto& strip : bytes)
      pointers.push_back(strip.data());
  }
  std::vector<std::vector<uint8_t>> bytes;
  std::vector<uint8_t*> pointers;
};

Strips random_stripe(const ParityCodec& codec, size_t length_bytes, uint32_t seed) {
  std::mt19937 random(seed);
  Strips strips(codec.strip_count(), length_bytes);
  for (uint32_t role = 0; role < codec.data_count(); role++) {
    for (auto& byte : strips.bytes[role])
      byte = static_cast<uint8_t>(random());
  }
  codec.encode(length_bytes, strips.pointers.data(), &strips.pointers[codec.data_count()]);
  return strips;
}

TEST(ParityCodec, FirstParityIsTheExclusiveOrOfTheData) {
  const ParityCodec codec(5, 2);
  const Strips strips = random_stripe(codec, 512, 1);
  for (size_t at = 0; at < 512; at++) {
    uint8_t sum = 0;
    for (uint32_t role = 0; role < 5; role++)
      sum ^= strips.bytes[role][at];
    ASSERT_EQ(sum, strips.bytes[5][at]);
  }
}

// Every k and m, every set of m lost strips: what is left gives back what was there.
TEST(ParityCodec, AnyKOfTheStripsGiveBackTheOthers) {
  constexpr size_t length_bytes = 64;
  for (uint32_t m = 1; m <= ParityCodec::parity_count_max; m++) {
    for (uint32_t k = 1; k <= ParityCodec::data_count_max; k++) {
      const ParityCodec codec(k, m);
      const Strips strips = random_stripe(codec, length_bytes, k * 10 + m);
      const uint32_t all = (1u << codec.strip_count()) - 1;
      for (uint32_t lost = 1; lost <= all; lost++) {
        if (static_cast<uint32_t>(std::popcount(lost)) != m) continue;
        auto recovery = codec.recovery(all & ~lost, lost);
        ASSERT_TRUE(recovery) << "k " << k << " m " << m << " lost " << lost;
        std::vector<uint8_t*> sources;
        for (const uint8_t role : recovery->sources())
          sources.push_back(strips.pointers[role]);
        Strips found(m, length_bytes);
        recovery->run(length_bytes, sources.data(), found.pointers.data());
        for (uint32_t i = 0; i < m; i++)
          ASSERT_EQ(found.bytes[i], strips.bytes[recovery->results()[i]])
              << "k " << k << " m " << m << " lost " << lost;
      }
    }
  }
}

TEST(ParityCodec, AnUpdateGivesWhatEncodingAnewGives) {
  const ParityCodec codec(6, 3);
  Strips strips = random_stripe(codec, 4096, 7);
  std::vector<uint8_t> difference(4096);
  std::mt19937 random(8);
  for (size_t at = 0; at < difference.size(); at++) {
    difference[at] = static_cast<uint8_t>(random());
    strips.bytes[4][at] ^= difference[at];
  }
  Strips fresh(3, 4096);
  codec.encode(4096, strips.pointers.data(), fresh.pointers.data());
  codec.update(4096, 4, difference.data(), &strips.pointers[6]);
  for (uint32_t i = 0; i < 3; i++)
    EXPECT_EQ(strips.bytes[6 + i], fresh.bytes[i]);
}

TEST(ParityCodec, RefusesToRecoverFromTooFewStrips) {
  const ParityCodec codec(4, 2);
  auto recovery = codec.recovery(0b000111, 0b001000);
  ASSERT_FALSE(recovery);
  EXPECT_EQ(recovery.error().code, Errc::invalid_argument);
  EXPECT_NE(recovery.error().message.find("only 3 are present; 4 are needed"), std::string::npos);
}

}  // namespace
}  // namespace basalt::bdev
