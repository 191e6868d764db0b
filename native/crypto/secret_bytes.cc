// SPDX-License-Identifier: Apache-2.0
#include "crypto/secret_bytes.h"

#include <openssl/crypto.h>

namespace basalt::crypto {
namespace {

int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

}  // namespace

void erase(void* data, size_t length_bytes) {
  OPENSSL_cleanse(data, length_bytes);
}

std::optional<SecretBytes> SecretBytes::from_hex(std::string_view text) {
  if (text.size() % 2 != 0) return std::nullopt;
  SecretBytes bytes(text.size() / 2);
  for (size_t i = 0; i < bytes.size(); i++) {
    const int high = digit_of(text[2 * i]);
    const int low = digit_of(text[2 * i + 1]);
    if (high < 0 || low < 0) return std::nullopt;
    bytes.data()[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return bytes;
}

}  // namespace basalt::crypto
