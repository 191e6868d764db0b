// SPDX-License-Identifier: Apache-2.0
// SHA-2 digests and HMAC over them. They cannot fail: a library without them stops the process.
// Thread: any; one Hmac belongs to one thread at a time.
#pragma once

#include <array>
#include <cstdint>

#include "crypto/bytes.h"

struct evp_mac_ctx_st;

namespace basalt::crypto {

enum class Hash : uint8_t { sha256, sha384, sha512 };

constexpr size_t digest_bytes_max = 64;
constexpr size_t digest_bytes(Hash hash) {
  return hash == Hash::sha256 ? 32 : (hash == Hash::sha384 ? 48 : 64);
}

// Erased when it goes, since it may be a key.
class Digest {
 public:
  explicit Digest(Hash hash) : length_bytes_(digest_bytes(hash)) {}
  Digest(const Digest&) = default;
  Digest& operator=(const Digest&) = default;
  ~Digest() { erase(bytes_.data(), bytes_.size()); }
  uint8_t* data() { return bytes_.data(); }
  const uint8_t* data() const { return bytes_.data(); }
  size_t size() const { return length_bytes_; }
  Bytes span() const { return {bytes_.data(), length_bytes_}; }

 private:
  std::array<uint8_t, digest_bytes_max> bytes_{};
  size_t length_bytes_;
};

Digest digest(Hash hash, Bytes data);

class Hmac {
 public:
  Hmac(Hash hash, Bytes key);  // the key may be empty
  ~Hmac();
  Hmac(const Hmac&) = delete;
  Hmac& operator=(const Hmac&) = delete;
  Hmac& add(Bytes data);
  Hmac& add(std::string_view text) { return add(as_bytes(text)); }
  Digest finish();  // once

 private:
  const Hash hash_;
  evp_mac_ctx_st* context_;
};

}  // namespace basalt::crypto
