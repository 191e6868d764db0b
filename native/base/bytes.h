// SPDX-License-Identifier: Apache-2.0
// Little-endian loads and stores at any alignment: wire and disk formats are little-endian on every host. Alignment of
// numbers. Whether bytes are all zero.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace basalt {

template <class T>
inline T load_le(const void* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  static_assert(std::endian::native == std::endian::little, "big-endian hosts need a byte swap here");
  return value;
}

template <class T>
inline void store_le(void* to, T value) {
  static_assert(std::endian::native == std::endian::little, "big-endian hosts need a byte swap here");
  std::memcpy(to, &value, sizeof(T));
}

inline uint16_t load_be16(const void* from) {
  return __builtin_bswap16(load_le<uint16_t>(from));
}
inline uint32_t load_be32(const void* from) {
  return __builtin_bswap32(load_le<uint32_t>(from));
}
inline uint64_t load_be64(const void* from) {
  return __builtin_bswap64(load_le<uint64_t>(from));
}
inline void store_be16(void* to, uint16_t value) {
  store_le(to, __builtin_bswap16(value));
}
inline void store_be32(void* to, uint32_t value) {
  store_le(to, __builtin_bswap32(value));
}
inline void store_be64(void* to, uint64_t value) {
  store_le(to, __builtin_bswap64(value));
}

constexpr uint64_t align_up(uint64_t value, uint64_t alignment) {
  return (value + alignment - 1) / alignment * alignment;
}
constexpr uint64_t align_down(uint64_t value, uint64_t alignment) {
  return value / alignment * alignment;
}
// Of one byte at least.
inline bool all_zero(const void* data, size_t length_bytes) {
  const auto* bytes = static_cast<const uint8_t*>(data);
  return bytes[0] == 0 && std::memcmp(bytes, bytes + 1, length_bytes - 1) == 0;
}

constexpr bool is_power_of_two(uint64_t value) {
  return value != 0 && (value & (value - 1)) == 0;
}

}  // namespace basalt
