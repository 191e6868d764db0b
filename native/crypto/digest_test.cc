// SPDX-License-Identifier: Apache-2.0
// Digests and HMAC against published vectors: FIPS 180-2 ("abc"), RFC 4231 (HMAC-SHA-2, cases 1, 2 and 6).
#include "crypto/digest.h"

#include <gtest/gtest.h>

#include <string>

#include "crypto/hex_testing.h"

namespace basalt::crypto {
namespace {

TEST(Digest, IsWhatFips180SaysOfAbc) {
  EXPECT_EQ(to_hex(digest(Hash::sha256, as_bytes("abc")).span()),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(to_hex(digest(Hash::sha384, as_bytes("abc")).span()),
            "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7");
  EXPECT_EQ(to_hex(digest(Hash::sha512, as_bytes("abc")).span()),
            "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
            "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f");
  EXPECT_EQ(to_hex(digest(Hash::sha256, {}).span()),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
}

std::string hmac(Hash hash, const std::string& key, const std::string& data) {
  // In two pieces: where they are cut must not matter.
  const std::string_view text = data;
  return to_hex(Hmac(hash, as_bytes(key)).add(text.substr(0, 3)).add(text.substr(3)).finish().span());
}

TEST(Hmac, IsWhatRfc4231Says) {
  const std::string key1(20, '\x0b');
  EXPECT_EQ(hmac(Hash::sha256, key1, "Hi There"), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  EXPECT_EQ(hmac(Hash::sha384, key1, "Hi There"),
            "afd03944d84895626b0825f4ab46907f15f9dadbe4101ec682aa034c7cebc59cfaea9ea9076ede7f4af152e8b2fa9cb6");
  EXPECT_EQ(hmac(Hash::sha512, key1, "Hi There"),
            "87aa7cdea5ef619d4ff0b4241a1d6cb02379f4e2ce4ec2787ad0b30545e17cde"
            "daa833b7d6b8a702038b274eaea3f4e4be9d914eeb61f1702e696c203a126854");
  const std::string what = "what do ya want for nothing?";
  EXPECT_EQ(hmac(Hash::sha256, "Jefe", what), "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(hmac(Hash::sha384, "Jefe", what),
            "af45d2e376484031617f78d2b58a6b1b9c7ef464f5a01b47e42ec3736322445e8e2240ca5e69e2c78b3239ecfab21649");
  EXPECT_EQ(hmac(Hash::sha512, "Jefe", what),
            "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
            "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737");
  const std::string long_key(131, '\xaa');  // longer than a block: it is hashed first
  EXPECT_EQ(hmac(Hash::sha256, long_key, "Test Using Larger Than Block-Size Key - Hash Key First"),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST(Hmac, TakesAnEmptyKey) {
  EXPECT_EQ(hmac(Hash::sha256, "", "   "), hmac(Hash::sha256, std::string(1, '\0'), "   "));
}

TEST(Equal, ComparesContentsAndLengths) {
  EXPECT_TRUE(equal(as_bytes("same"), as_bytes("same")));
  EXPECT_FALSE(equal(as_bytes("same"), as_bytes("samE")));
  EXPECT_FALSE(equal(as_bytes("same"), as_bytes("sam")));
  EXPECT_TRUE(equal({}, {}));
}

}  // namespace
}  // namespace basalt::crypto
