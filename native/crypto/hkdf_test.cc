// SPDX-License-Identifier: Apache-2.0
// HKDF against the examples of RFC 5869 (appendix A) and RFC 8448 (section 3).
#include "crypto/hkdf.h"

#include <gtest/gtest.h>

#include <string>

#include "base/assert.h"
#include "crypto/hex_testing.h"

namespace basalt::crypto {
namespace {

SecretBytes bytes_of(const char* text) {
  auto bytes = SecretBytes::from_hex(text);
  BASALT_ASSERT(bytes.has_value());
  return std::move(*bytes);
}

TEST(Hkdf, is_that_of_rfc_5869) {
  const SecretBytes input = bytes_of("0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b");
  const SecretBytes salt = bytes_of("000102030405060708090a0b0c");
  const SecretBytes info = bytes_of("f0f1f2f3f4f5f6f7f8f9");
  const Digest key = hkdf_extract(Hash::sha256, as_bytes(salt), as_bytes(input));
  EXPECT_EQ(to_hex(key.span()), "077709362c2e32df0ddc3f0dc47bba6390b6c73bb50f9c3122ec844ad7c2b3e5");
  EXPECT_EQ(to_hex(as_bytes(hkdf_expand(Hash::sha256, key.span(), as_bytes(info), 42))),
            "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865");
}

TEST(Hkdf, takes_no_salt_for_zeroes) {
  const SecretBytes input = bytes_of("0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b0b");
  const Digest key = hkdf_extract(Hash::sha256, {}, as_bytes(input));
  EXPECT_EQ(to_hex(key.span()), "19ef24a32c717b167f33a91d6f648bdf96596776afdb6377ac434c1c293ccb04");
  EXPECT_EQ(to_hex(as_bytes(hkdf_expand(Hash::sha256, key.span(), {}, 42))),
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8");
}

TEST(Hkdf, labels_as_tls_1_3_does) {
  const SecretBytes secret = bytes_of("b67b7d690cc16c4e75e54213cb2d37b4e9c912bcded9105d42befd59d391ad38");
  EXPECT_EQ(to_hex(as_bytes(hkdf_expand_label(Hash::sha256, as_bytes(secret), "key", "", 16))),
            "3fce516009c21727d0f2e4e86ee403bc");
  EXPECT_EQ(to_hex(as_bytes(hkdf_expand_label(Hash::sha256, as_bytes(secret), "iv", "", 12))),
            "5d313eb2671276ee13000b30");
}

}  // namespace
}  // namespace basalt::crypto
