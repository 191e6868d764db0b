// SPDX-License-Identifier: Apache-2.0
// Goal: data units are encrypted as IEEE 1619 says, and nothing is allocated on the way. Method: vectors of the
// standard's annex (2 and 10); OpenSSL's allocator is counted.
#include "crypto/xts.h"

#include <gtest/gtest.h>
#include <openssl/crypto.h>

#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "crypto/hex_testing.h"

namespace basalt::crypto {
namespace {

SecretBytes hex(std::string_view text) {
  auto bytes = SecretBytes::from_hex(text);
  EXPECT_TRUE(bytes.has_value()) << text;
  return bytes ? std::move(*bytes) : SecretBytes();
}

// Vector 10 of IEEE 1619: two keys of 256 bits.
XtsCipher vector_10() {
  auto cipher = XtsCipher::create(hex("2718281828459045235360287471352662497757247093699959574966967627"),
                                  hex("3141592653589793238462643383279502884197169399375105820974944592"));
  EXPECT_TRUE(cipher.ok());
  return std::move(cipher).value();
}

// OpenSSL's allocations. It takes the functions once, before it allocates: when the first test of this program begins.
size_t allocation_count = 0;
void* counted_malloc(size_t bytes, const char* file, int line) {
  allocation_count++;
  return std::malloc(bytes);
}
void* counted_realloc(void* memory, size_t bytes, const char* file, int line) {
  allocation_count++;
  return std::realloc(memory, bytes);
}
void counted_free(void* memory, const char* file, int line) {
  std::free(memory);
}
class CountAllocations : public ::testing::Environment {
 public:
  void SetUp() override { counting = CRYPTO_set_mem_functions(counted_malloc, counted_realloc, counted_free) == 1; }
  static inline bool counting = false;
};
const ::testing::Environment* const counter = ::testing::AddGlobalTestEnvironment(new CountAllocations);

TEST(Xts, EncryptsTheVectorsOfTheStandard) {
  auto short_keys = XtsCipher::create(hex("11111111111111111111111111111111"), hex("22222222222222222222222222222222"));
  ASSERT_TRUE(short_keys.ok());
  EXPECT_EQ(short_keys->key_bits(), 128u);
  const std::vector<uint8_t> fours(32, 0x44);
  std::vector<uint8_t> out(32);
  ASSERT_TRUE(short_keys->encrypt(0x3333333333, fours.data(), out.data(), out.size()));
  EXPECT_EQ(to_hex(out), "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0");

  XtsCipher cipher = vector_10();
  EXPECT_EQ(cipher.key_bits(), 256u);
  std::vector<uint8_t> plain(512);
  for (size_t i = 0; i < plain.size(); i++)
    plain[i] = static_cast<uint8_t>(i);
  out.resize(512);
  ASSERT_TRUE(cipher.encrypt(0xff, plain.data(), out.data(), out.size()));
  EXPECT_EQ(to_hex(out).substr(0, 64), "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b");
  EXPECT_EQ(to_hex(out).substr(960), "773dad38014bd2092fa755c824bb5e54c4f36ffda9fcea70b9c6e693e148c151");
}

TEST(Xts, DecryptsInPlaceWhatItEncrypted) {
  XtsCipher cipher = vector_10();
  std::vector<uint8_t> plain(4096);
  for (size_t i = 0; i < plain.size(); i++)
    plain[i] = static_cast<uint8_t>(i * 7 + i / 256);
  for (const uint64_t unit : {uint64_t{0}, uint64_t{1}, uint64_t{1} << 40, UINT64_MAX}) {
    std::vector<uint8_t> data = plain;
    ASSERT_TRUE(cipher.encrypt(unit, data.data(), data.data(), data.size()));
    EXPECT_NE(data, plain);
    std::vector<uint8_t> elsewhere = data;
    ASSERT_TRUE(cipher.decrypt(unit ^ 1, elsewhere.data(), elsewhere.data(), elsewhere.size()));
    EXPECT_NE(elsewhere, plain) << "a block that was moved must not be readable";
    ASSERT_TRUE(cipher.decrypt(unit, data.data(), data.data(), data.size()));
    EXPECT_EQ(data, plain);
  }
}

TEST(Xts, AllocatesNothingPerUnit) {
  ASSERT_TRUE(CountAllocations::counting);
  const size_t before_create = allocation_count;
  XtsCipher cipher = vector_10();
  EXPECT_GT(allocation_count, before_create) << "the count does not see OpenSSL";
  std::vector<uint8_t> data(4096);
  const size_t before = allocation_count;
  for (uint64_t unit = 0; unit < 100; unit++) {
    ASSERT_TRUE(cipher.encrypt(unit, data.data(), data.data(), data.size()));
    ASSERT_TRUE(cipher.decrypt(unit, data.data(), data.data(), data.size()));
  }
  EXPECT_EQ(allocation_count, before);
}

TEST(Xts, RefusesKeysThatAreNotTwoDifferentOnesOfOneLength) {
  const auto problem = [](std::string_view one, std::string_view two) {
    auto made = XtsCipher::create(hex(one), hex(two));
    return made.ok() ? std::string() : made.error().message;
  };
  const std::string sixteen = "000102030405060708090a0b0c0d0e0f";
  const std::string other = "100102030405060708090a0b0c0d0e0f";
  EXPECT_EQ(problem(sixteen, other), "");
  EXPECT_EQ(problem("00", "01"), "key: must be of 16 or 32 bytes, is of 1");
  EXPECT_EQ(problem(sixteen, other + other), "key2: must be as long as key, is of 32 bytes");
  EXPECT_EQ(problem(sixteen, sixteen), "key2: must differ from key");
}

TEST(SecretBytes, ReadHexadecimalDigitsAndNothingElse) {
  auto bytes = SecretBytes::from_hex("00fFa9");
  ASSERT_TRUE(bytes.has_value());
  EXPECT_EQ(std::vector<uint8_t>(bytes->data(), bytes->data() + bytes->size()), (std::vector<uint8_t>{0, 255, 0xa9}));
  for (const char* text : {"0", "0g", "0x11", " 11", "1 "})
    EXPECT_FALSE(SecretBytes::from_hex(text).has_value()) << text;
}

}  // namespace
}  // namespace basalt::crypto
