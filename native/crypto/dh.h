// SPDX-License-Identifier: Apache-2.0
// Finite-field Diffie-Hellman in the groups of RFC 7919, with keys for one use.
// Thread: any. Cost: two exponentiations for an exchange, from a millisecond (2048 bits) to tens of them (8192 bits).
#pragma once

#include <optional>
#include <vector>

#include "crypto/bytes.h"

namespace basalt::crypto {

enum class DhGroup : uint8_t { ffdhe2048, ffdhe3072, ffdhe4096, ffdhe6144, ffdhe8192 };

constexpr size_t dh_value_bytes(DhGroup group) {
  constexpr size_t bytes[] = {256, 384, 512, 768, 1024};
  return bytes[static_cast<size_t>(group)];
}
constexpr size_t dh_value_bytes_max = 1024;

// Of a private exponent: not below what RFC 7919 names for each group (225 to 400 bits).
constexpr size_t dh_exponent_bytes(DhGroup group) {
  constexpr size_t bytes[] = {32, 36, 42, 48, 52};
  return bytes[static_cast<size_t>(group)];
}

class DhKey {
 public:
  // `entropy`: dh_exponent_bytes() unpredictable bytes.
  DhKey(DhGroup group, Bytes entropy);

  DhGroup group() const { return group_; }
  Bytes public_value() const { return public_value_; }  // dh_value_bytes(), big-endian
  // The shared secret with its leading zeroes; nothing when the peer's value is not of the group's length, or not
  // within 2..p-2: those outside of it would fix the secret. (p is a safe prime: no other small subgroups.)
  std::optional<SecretBytes> shared_secret(Bytes peer_value) const;

 private:
  const DhGroup group_;
  SecretBytes exponent_;
  std::vector<uint8_t> public_value_;
};

}  // namespace basalt::crypto
