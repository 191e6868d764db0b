// SPDX-License-Identifier: Apache-2.0
// Bytes as vectors in specifications print them.
#pragma once

#include <string>

#include "crypto/bytes.h"

namespace basalt::crypto {

inline std::string to_hex(Bytes bytes) {
  static constexpr char digits[] = "0123456789abcdef";
  std::string out;
  for (const uint8_t byte : bytes) {
    out += digits[byte >> 4];
    out += digits[byte & 15];
  }
  return out;
}

}  // namespace basalt::crypto
