// SPDX-License-Identifier: Apache-2.0
#include "nvmf/auth/secret.h"

#include "base/bytes.h"

namespace basalt::nvmf::auth {
namespace {

constexpr std::string_view prefix = "DHHC-1:";
constexpr size_t crc_bytes = 4;
constexpr size_t key_bytes_max = 64;

Error wrong(const char* problem) {
  return {Errc::invalid_argument, std::string("not a DH-HMAC-CHAP secret: ") + problem};
}

// CRC-32 of IEEE 802.3, as zlib's. Bit by bit: it runs over some tens of bytes once.
uint32_t crc32(crypto::Bytes data) {
  uint32_t crc = ~0u;
  for (const uint8_t byte : data) {
    crc ^= byte;
    for (int bit = 0; bit < 8; bit++)
      crc = crc >> 1 ^ ((crc & 1) != 0 ? 0xedb88320u : 0);
  }
  return ~crc;
}

int digit_of(char c) {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  if (c == '+') return 62;
  return c == '/' ? 63 : -1;
}

// RFC 4648 with its padding; nothing when the text is not exactly the encoding of some bytes.
std::optional<crypto::SecretBytes> decode_base64(std::string_view text) {
  if (text.empty() || text.size() % 4 != 0) return std::nullopt;
  size_t padding = 0;
  while (padding < 2 && text[text.size() - 1 - padding] == '=')
    padding++;
  crypto::SecretBytes out(text.size() / 4 * 3 - padding);
  uint32_t bits = 0;
  size_t at = 0;
  for (size_t i = 0; i < text.size(); i++) {
    const int digit = i < text.size() - padding ? digit_of(text[i]) : 0;
    if (digit < 0) return std::nullopt;
    bits = bits << 6 | static_cast<uint32_t>(digit);
    if (i % 4 != 3) continue;
    for (int shift = 16; shift >= 0; shift -= 8) {
      const auto byte = static_cast<uint8_t>(bits >> shift);
      if (at < out.size()) {
        out.data()[at++] = byte;
      } else if (byte != 0) {
        return std::nullopt;  // bits where there should be none
      }
    }
    bits = 0;
  }
  return out;
}

}  // namespace

Result<Secret> Secret::parse(std::string_view text) {
  if (text.substr(0, prefix.size()) != prefix) return wrong("it must begin with DHHC-1:");
  text.remove_prefix(prefix.size());
  Secret secret;
  if (text.size() < 3 || text[0] != '0' || text[1] < '0' || text[1] > '3' || text[2] != ':') {
    return wrong("the hash must be 00, 01, 02 or 03");
  }
  if (text[1] != '0') secret.transform_ = static_cast<crypto::Hash>(text[1] - '1');
  text.remove_prefix(3);
  if (text.empty() || text.back() != ':') return wrong("it must end with a colon");
  text.remove_suffix(1);
  const auto bytes = decode_base64(text);
  if (!bytes) return wrong("the key is not base64");
  if (bytes->size() < crc_bytes) return wrong("the key must have 32, 48 or 64 bytes");
  const crypto::Bytes key = crypto::as_bytes(*bytes).first(bytes->size() - crc_bytes);
  if (key.size() != 32 && key.size() != 48 && key.size() != key_bytes_max) {
    return wrong("the key must have 32, 48 or 64 bytes");
  }
  if (load_le<uint32_t>(bytes->data() + key.size()) != crc32(key)) return wrong("its checksum is wrong");
  secret.key_ = crypto::secret_copy(key);
  return secret;
}

crypto::SecretBytes Secret::key_of(std::string_view nqn) const {
  if (!transform_) return crypto::secret_copy(crypto::as_bytes(key_));
  const crypto::Digest transformed =
      crypto::Hmac(*transform_, crypto::as_bytes(key_)).add(nqn).add("NVMe-over-Fabrics").finish();
  return crypto::secret_copy(transformed.span());
}

bool Secret::same_key(const Secret& other) const {
  return crypto::equal(crypto::as_bytes(key_), crypto::as_bytes(other.key_));
}

}  // namespace basalt::nvmf::auth
