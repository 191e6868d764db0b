// SPDX-License-Identifier: Apache-2.0
#include "base/crc32c.h"

#include <isa-l/crc.h>

#include <algorithm>

namespace basalt {

uint32_t crc32c(uint32_t crc, const void* data, size_t length_bytes) {
  // ISA-L takes an int length and works on the inverted register.
  constexpr size_t chunk_bytes_max = size_t{1} << 30;
  auto* bytes = static_cast<unsigned char*>(const_cast<void*>(data));
  uint32_t state = ~crc;
  while (length_bytes > 0) {
    const size_t chunk_bytes = std::min(length_bytes, chunk_bytes_max);
    state = crc32_iscsi(bytes, static_cast<int>(chunk_bytes), state);
    bytes += chunk_bytes;
    length_bytes -= chunk_bytes;
  }
  return ~state;
}

}  // namespace basalt
