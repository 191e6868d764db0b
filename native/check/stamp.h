// SPDX-License-Identifier: Apache-2.0
// Stamps: what test writers fill a block with, so that each value is unique and its origin is readable. A block of 4
// KiB holds eight equal stamps of 512 bytes, so that tearing, misdirection and another volume's bytes show. Pure
// functions.
#pragma once

#include <compare>
#include <cstdint>
#include <string>

namespace basalt::check {

constexpr uint32_t block_bytes = 4096;
constexpr uint32_t sector_bytes = 512;

// Who wrote it. Retries of one logical write carry the same writer and sequence.
struct Stamp {
  uint64_t volume = 0;
  uint64_t lba = 0;
  uint64_t writer = 0;
  uint64_t sequence = 0;
  auto operator<=>(const Stamp&) const = default;
};

enum class BlockKind : uint8_t {
  zero,
  stamp,
  torn,     // sectors that are stamps or zeroes each, but not all the same
  garbage,  // a sector that is neither
};

struct BlockValue {
  BlockKind kind = BlockKind::zero;
  Stamp stamp;  // of the first sector that has one
  bool operator==(const BlockValue&) const = default;
  std::string to_string() const;
};

void write_stamp(void* block, const Stamp& stamp);
BlockValue read_stamp(const void* block);

}  // namespace basalt::check
