// SPDX-License-Identifier: Apache-2.0
// Byte ranges as this folder's functions take them, and what may be done with secret ones.
#pragma once

#include <cstring>
#include <span>
#include <string_view>

#include "crypto/secret_bytes.h"

namespace basalt::crypto {

using Bytes = std::span<const uint8_t>;

inline Bytes as_bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}
inline Bytes as_bytes(const SecretBytes& secret) {
  return {secret.data(), secret.size()};
}
inline SecretBytes secret_copy(Bytes from) {
  SecretBytes out(from.size());
  if (!from.empty()) std::memcpy(out.data(), from.data(), from.size());
  return out;
}

// Takes as long for equal contents as for different ones. Lengths are no secret.
bool equal(Bytes one, Bytes other);

}  // namespace basalt::crypto
