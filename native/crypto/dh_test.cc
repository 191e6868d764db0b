// SPDX-License-Identifier: Apache-2.0
// Diffie-Hellman against values computed elsewhere: the primes by the formula of RFC 7919, appendix A (2^b - 2^(b-64) +
// (floor(2^(b-130) e) + X) * 2^64 - 1, with X 560316, 2625351, 5736041, 15705020, 10965728), the powers by a plain
// square-and-multiply over big integers of another language. What stands here are SHA-256 digests of the results.
#include "crypto/dh.h"

#include <gtest/gtest.h>

#include <string>

#include "crypto/digest.h"
#include "crypto/hex_testing.h"

namespace basalt::crypto {
namespace {

constexpr DhGroup groups[] = {DhGroup::ffdhe2048, DhGroup::ffdhe3072, DhGroup::ffdhe4096, DhGroup::ffdhe6144,
                              DhGroup::ffdhe8192};

std::string digest_hex(Bytes bytes) {
  return to_hex(digest(Hash::sha256, bytes).span());
}

DhKey counting_up(DhGroup group) {
  std::vector<uint8_t> entropy(dh_exponent_bytes(group));
  for (size_t i = 0; i < entropy.size(); i++)
    entropy[i] = static_cast<uint8_t>(i + 1);
  return {group, entropy};
}
DhKey counting_down(DhGroup group) {
  std::vector<uint8_t> entropy(dh_exponent_bytes(group));
  for (size_t i = 0; i < entropy.size(); i++)
    entropy[i] = static_cast<uint8_t>(200 - i);
  return {group, entropy};
}

TEST(DhKey, GivesTheValuesThatOthersCompute) {
  const struct {
    const char* public_value;
    const char* shared_secret;
  } expected[] = {{"e895af9f94b47475728d275440199dc028d709d47d5ac25f3400fe005b3a9155",
                   "c0914af6dd665a32de95f878e543bc49a7e757a828e577af7bcf59e15093ba44"},
                  {"e4a6cacdcb3d6582b8f287b6a33a35d8a214adfd3dff2630d845cbc2764a7807",
                   "f177ad9244e8295811bf5da9e37f084ce55c8c17d861fda40726de98a8bf1533"},
                  {"219eb8b26466d46c6a2f6044daaa1149c384547ffb562743b0a59eabe36d8b41",
                   "e1968118c851d12dc3250f961f743c097be9286408db7c066a69b9bf2c37555f"},
                  {"1b640106c23040b9d6892f6adccd41bfa17a6fe72b8fef64aea160e402a1f29d",
                   "395c760617bfa0940929cf5768d07ed7b989b581f3ccab22fc6a32cb2ffaa68b"},
                  {"5a55fe268ef6a311811ddb515eed5095abf3ba54705d2bdfe5d06be9903219c1",
                   "284b7e9e42ad395c5e36066eab79c031d328efd876eb263c055a5b44ca81a523"}};
  for (const DhGroup group : groups) {
    const auto& right = expected[static_cast<size_t>(group)];
    const DhKey one = counting_up(group);
    const DhKey other = counting_down(group);
    ASSERT_EQ(one.public_value().size(), dh_value_bytes(group));
    EXPECT_EQ(digest_hex(one.public_value()), right.public_value);
    const auto here = one.shared_secret(other.public_value());
    const auto there = other.shared_secret(one.public_value());
    ASSERT_TRUE(here && there);
    EXPECT_EQ(digest_hex(as_bytes(*here)), right.shared_secret);
    EXPECT_TRUE(equal(as_bytes(*here), as_bytes(*there)));
  }
}

TEST(DhKey, RefusesValuesThatWouldFixTheSecret) {
  const DhKey key = counting_up(DhGroup::ffdhe2048);
  std::vector<uint8_t> value(256, 0);
  EXPECT_FALSE(key.shared_secret(value));  // 0
  value.back() = 1;
  EXPECT_FALSE(key.shared_secret(value));  // 1
  value.back() = 2;
  EXPECT_TRUE(key.shared_secret(value));
  // The prime begins and ends with 64 ones: p-1 ends in fe. What lies above it must be refused too.
  value.assign(256, 0xff);
  EXPECT_FALSE(key.shared_secret(value));
}

TEST(DhKey, RefusesAValueOfAnotherLength) {
  const DhKey key = counting_up(DhGroup::ffdhe2048);
  EXPECT_FALSE(key.shared_secret(counting_up(DhGroup::ffdhe3072).public_value()));
  EXPECT_FALSE(key.shared_secret({}));
  const auto value = key.public_value();
  EXPECT_FALSE(key.shared_secret(value.first(value.size() - 1)));
}

}  // namespace
}  // namespace basalt::crypto
