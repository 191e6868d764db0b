// SPDX-License-Identifier: Apache-2.0
#include "crypto/hkdf.h"

#include <algorithm>
#include <string>

#include "base/assert.h"

namespace basalt::crypto {

Digest hkdf_extract(Hash hash, Bytes salt, Bytes input) {
  return Hmac(hash, salt).add(input).finish();  // HMAC fills a short key with zeroes
}

SecretBytes hkdf_expand(Hash hash, Bytes key, Bytes info, size_t length_bytes) {
  BASALT_ASSERT(length_bytes <= 255 * digest_bytes(hash));
  SecretBytes out(length_bytes);
  Bytes before;
  for (size_t at = 0, count = 1; at < length_bytes; at += digest_bytes(hash), count++) {
    const auto counter = static_cast<uint8_t>(count);
    const Digest block = Hmac(hash, key).add(before).add(info).add({&counter, 1}).finish();
    const size_t take = std::min(block.size(), length_bytes - at);
    std::memcpy(out.data() + at, block.data(), take);
    before = {out.data() + at, take};
  }
  return out;
}

SecretBytes hkdf_expand_label(Hash hash, Bytes key, std::string_view label, std::string_view context,
                              size_t length_bytes) {
  constexpr std::string_view prefix = "tls13 ";
  BASALT_ASSERT(prefix.size() + label.size() <= 255 && context.size() <= 255);
  //= RFC8446#7.1  HkdfLabel: the length, then label and context, each with its own length in front
  std::string info;
  info.push_back(static_cast<char>(length_bytes >> 8));
  info.push_back(static_cast<char>(length_bytes));
  info.push_back(static_cast<char>(prefix.size() + label.size()));
  info.append(prefix).append(label);
  info.push_back(static_cast<char>(context.size()));
  info.append(context);
  return hkdf_expand(hash, key, as_bytes(info), length_bytes);
}

}  // namespace basalt::crypto
