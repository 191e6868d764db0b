// SPDX-License-Identifier: Apache-2.0
#include "check/stamp.h"

#include <cstring>

#include "base/bytes.h"
#include "base/crc32c.h"

namespace basalt::check {
namespace {

// A sector: magic, volume, lba, writer, sequence (8 bytes each), a pattern made of them, CRC32C in the last 4 bytes.
constexpr uint64_t magic = 0x504d4154534c5342;  // "BSLSTAMP"
constexpr size_t words = sector_bytes / 8;

void write_sector(uint8_t* sector, const Stamp& stamp) {
  const uint64_t head[5] = {magic, stamp.volume, stamp.lba, stamp.writer, stamp.sequence};
  std::memcpy(sector, head, sizeof(head));
  for (size_t i = 5; i < words; i++)
    store_le<uint64_t>(sector + i * 8, (stamp.sequence * 0x9e3779b97f4a7c15 + stamp.lba) ^ i);
  store_le<uint32_t>(sector + sector_bytes - 4, crc32c(0, sector, sector_bytes - 4));
}

BlockValue read_sector(const uint8_t* sector) {
  BlockValue value;
  if (sector[0] == 0 && std::memcmp(sector, sector + 1, sector_bytes - 1) == 0) return value;
  value.kind = BlockKind::garbage;
  if (load_le<uint64_t>(sector) != magic) return value;
  if (load_le<uint32_t>(sector + sector_bytes - 4) != crc32c(0, sector, sector_bytes - 4)) return value;
  value.kind = BlockKind::stamp;
  value.stamp = {load_le<uint64_t>(sector + 8), load_le<uint64_t>(sector + 16), load_le<uint64_t>(sector + 24),
                 load_le<uint64_t>(sector + 32)};
  return value;
}

}  // namespace

void write_stamp(void* block, const Stamp& stamp) {
  auto* bytes = static_cast<uint8_t*>(block);
  write_sector(bytes, stamp);
  for (uint32_t at = sector_bytes; at < block_bytes; at += sector_bytes)
    std::memcpy(bytes + at, bytes, sector_bytes);
}

BlockValue read_stamp(const void* block) {
  const auto* bytes = static_cast<const uint8_t*>(block);
  BlockValue value = read_sector(bytes);
  // The usual block: eight times the same, which needs no second look at the CRC.
  if (std::memcmp(bytes, bytes + sector_bytes, block_bytes - sector_bytes) == 0) return value;
  bool garbage = value.kind == BlockKind::garbage;
  for (uint32_t at = sector_bytes; at < block_bytes; at += sector_bytes) {
    const BlockValue sector = read_sector(bytes + at);
    garbage |= sector.kind == BlockKind::garbage;
    if (value.kind != BlockKind::stamp && sector.kind == BlockKind::stamp) value.stamp = sector.stamp;
  }
  value.kind = garbage ? BlockKind::garbage : BlockKind::torn;
  return value;
}

std::string BlockValue::to_string() const {
  const std::string name = "w" + std::to_string(stamp.writer) + "#" + std::to_string(stamp.sequence);
  switch (kind) {
    case BlockKind::zero:
      return "zero";
    case BlockKind::stamp:
      return name;
    case BlockKind::torn:
      return "torn (" + name + " and others)";
    case BlockKind::garbage:
      return "garbage";
  }
  return "?";
}

}  // namespace basalt::check
