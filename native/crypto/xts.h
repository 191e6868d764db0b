// SPDX-License-Identifier: Apache-2.0
// XtsCipher: AES-XTS (IEEE 1619) over data units of a disk. The tweak of a unit is its number, as 128 bits
// little-endian.
//
// Thread: one at a time (its contexts hold the tweak of the unit at hand).
// Invariants: - the key schedules live in the two contexts only, which OpenSSL overwrites when they are freed
//             - encrypt() and decrypt() allocate nothing
// XTS hides what is in a unit. It does not tell when somebody changed it: there is no authentication.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/result.h"
#include "crypto/secret_bytes.h"

struct evp_cipher_ctx_st;

namespace basalt::crypto {

class XtsCipher {
 public:
  static constexpr size_t unit_bytes_min = 16;

  // Two keys of one length, 16 or 32 bytes each (AES-128 or AES-256), that differ from each other.
  static Result<XtsCipher> create(const SecretBytes& data_key, const SecretBytes& tweak_key);
  ~XtsCipher();
  XtsCipher(XtsCipher&& other) noexcept;
  XtsCipher& operator=(XtsCipher&& other) noexcept;
  XtsCipher(const XtsCipher&) = delete;
  XtsCipher& operator=(const XtsCipher&) = delete;

  // One data unit; `from` and `to` are the same memory or do not overlap. False: OpenSSL refused, which it has no
  // reason to.
  [[nodiscard]] bool encrypt(uint64_t unit, const void* from, void* to, size_t length_bytes);
  [[nodiscard]] bool decrypt(uint64_t unit, const void* from, void* to, size_t length_bytes);
  size_t key_bits() const { return key_bits_; }

 private:
  XtsCipher() = default;
  void free_contexts();

  evp_cipher_ctx_st* encrypting_ = nullptr;
  evp_cipher_ctx_st* decrypting_ = nullptr;
  size_t key_bits_ = 0;
};

}  // namespace basalt::crypto
