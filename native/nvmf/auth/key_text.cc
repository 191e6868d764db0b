// SPDX-License-Identifier: Apache-2.0
#include "nvmf/auth/key_text.h"

#include <optional>

#include "base/bytes.h"

namespace basalt::nvmf::auth {
namespace {

constexpr size_t crc_bytes = 4;
constexpr size_t key_text_max = 256;
constexpr char base64_digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

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

Result<crypto::SecretBytes> read_key_text(std::string_view text) {
  if (text.size() > key_text_max) return Error{Errc::invalid_argument, "the key is too long"};
  const auto bytes = decode_base64(text);
  if (!bytes) return Error{Errc::invalid_argument, "the key is not base64"};
  if (bytes->size() <= crc_bytes) return Error{Errc::invalid_argument, "the key is too short"};
  const crypto::Bytes key = crypto::as_bytes(*bytes).first(bytes->size() - crc_bytes);
  if (load_le<uint32_t>(bytes->data() + key.size()) != crc32(key)) {
    return Error{Errc::invalid_argument, "its checksum is wrong"};
  }
  return crypto::secret_copy(key);
}

std::string encode_base64(crypto::Bytes bytes) {
  std::string out;
  for (size_t at = 0; at < bytes.size(); at += 3) {
    uint32_t bits = 0;
    for (size_t i = 0; i < 3; i++)
      bits = bits << 8 | (at + i < bytes.size() ? bytes[at + i] : 0u);
    for (size_t i = 0; i < 4; i++)
      out.push_back(at + i > bytes.size() ? '=' : base64_digits[bits >> (18 - 6 * i) & 63]);
  }
  return out;
}

}  // namespace basalt::nvmf::auth
