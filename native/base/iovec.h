// SPDX-License-Identifier: Apache-2.0
// Iovec: one piece of memory. The same layout as the operating system's iovec (env/linux asserts it), so that arrays
// of them reach the kernel without translation while no OS header leaves env/linux.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace basalt {

struct Iovec {
  void* base = nullptr;
  size_t length_bytes = 0;
};

inline uint64_t iovec_bytes(const Iovec* iov, size_t count) {
  uint64_t total = 0;
  for (size_t i = 0; i < count; i++)
    total += iov[i].length_bytes;
  return total;
}

// Writes into `out` (room for `out_max`) the pieces of `iov` that cover [offset, offset + length). Returns how many
// pieces were used, or 0 when they do not fit or the source is too short.
inline size_t iovec_slice(const Iovec* iov, size_t count, uint64_t offset_bytes, uint64_t length_bytes, Iovec* out,
                          size_t out_max) {
  size_t used = 0;
  for (size_t i = 0; i < count && length_bytes > 0; i++) {
    if (offset_bytes >= iov[i].length_bytes) {
      offset_bytes -= iov[i].length_bytes;
      continue;
    }
    const uint64_t room = iov[i].length_bytes - offset_bytes;
    const uint64_t take = room < length_bytes ? room : length_bytes;
    if (used == out_max) return 0;
    out[used++] = {static_cast<char*>(iov[i].base) + offset_bytes, static_cast<size_t>(take)};
    length_bytes -= take;
    offset_bytes = 0;
  }
  return length_bytes == 0 ? used : 0;
}

inline void iovec_copy_out(const Iovec* iov, size_t count, void* to) {
  char* out = static_cast<char*>(to);
  for (size_t i = 0; i < count; i++) {
    std::memcpy(out, iov[i].base, iov[i].length_bytes);
    out += iov[i].length_bytes;
  }
}

inline void iovec_copy_in(const Iovec* iov, size_t count, const void* from) {
  const char* in = static_cast<const char*>(from);
  for (size_t i = 0; i < count; i++) {
    std::memcpy(iov[i].base, in, iov[i].length_bytes);
    in += iov[i].length_bytes;
  }
}

inline void iovec_zero(const Iovec* iov, size_t count) {
  for (size_t i = 0; i < count; i++)
    std::memset(iov[i].base, 0, iov[i].length_bytes);
}

}  // namespace basalt
