// SPDX-License-Identifier: Apache-2.0
// SecretBytes: key material in memory. It is never copied by accident, and overwritten before its memory is freed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

namespace basalt::crypto {

// Overwrites, in a way that the compiler does not leave out.
void erase(void* data, size_t length_bytes);

class SecretBytes {
 public:
  SecretBytes() = default;
  explicit SecretBytes(size_t length_bytes) : bytes_(new uint8_t[length_bytes]()), length_bytes_(length_bytes) {}
  ~SecretBytes() { clear(); }
  SecretBytes(SecretBytes&& other) noexcept { *this = std::move(other); }
  SecretBytes& operator=(SecretBytes&& other) noexcept {
    if (this == &other) return *this;
    clear();
    bytes_ = std::move(other.bytes_);
    length_bytes_ = std::exchange(other.length_bytes_, 0);
    return *this;
  }
  SecretBytes(const SecretBytes&) = delete;
  SecretBytes& operator=(const SecretBytes&) = delete;

  // Nothing when the text is no whole number of bytes in hexadecimal digits.
  static std::optional<SecretBytes> from_hex(std::string_view text);

  uint8_t* data() { return bytes_.get(); }
  const uint8_t* data() const { return bytes_.get(); }
  size_t size() const { return length_bytes_; }

  void clear() {
    if (bytes_) erase(bytes_.get(), length_bytes_);
    bytes_.reset();
    length_bytes_ = 0;
  }

 private:
  std::unique_ptr<uint8_t[]> bytes_;
  size_t length_bytes_ = 0;
};

}  // namespace basalt::crypto
