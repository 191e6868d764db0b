// SPDX-License-Identifier: Apache-2.0
// CRC32C (Castagnoli): NVMe/TCP digests and on-disk checksums. ISA-L does it, with run-time dispatch on x86-64 and
// arm64.
#pragma once

#include <cstddef>
#include <cstdint>

namespace basalt {

// Continues from `crc` (0 to start). The result is final as it stands: crc32c(0, "123456789", 9) == 0xe3069283.
uint32_t crc32c(uint32_t crc, const void* data, size_t length_bytes);

}  // namespace basalt
