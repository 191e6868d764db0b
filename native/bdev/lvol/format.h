// SPDX-License-Identifier: Apache-2.0
// On-disk format of an lvstore, version 1: constants, structures and the sealing of metadata blocks.
// docs/on-disk/lvol.md describes it field by field; the two change together.
//
// All metadata I/O is in 4 KiB blocks. Each begins with a BlockHeader whose CRC32C covers the whole block, and says
// where the block belongs: a misdirected, foreign or outdated block is told from the right one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#include "base/result.h"
#include "base/uuid.h"

namespace basalt::bdev::lvs {

constexpr uint32_t block_bytes = 4096;
constexpr uint32_t format_version = 1;
// Feature bits. layers: parents, lvol flags, clusters with states but no place, records from snapshot on.
constexpr uint64_t incompatible_layers = 1;
// checksums: an area with the tags of data blocks, and lvols that use it.
constexpr uint64_t incompatible_checksums = 2;
constexpr uint64_t incompatible_known = incompatible_layers | incompatible_checksums;
constexpr uint32_t cluster_bytes_min = 64 << 10;
constexpr uint32_t cluster_bytes_max = 16 << 20;
constexpr uint32_t superblock_slot_count = 4;
constexpr uint32_t superblock_stride_blocks = 16;
constexpr uint32_t superblock_area_blocks = superblock_slot_count * superblock_stride_blocks;
constexpr uint32_t no_cluster = 0xffffffff;
constexpr uint32_t no_page = 0xffffffff;
constexpr size_t name_bytes_max = 63;

constexpr uint32_t block_magic = 0x4c545342;  // "BSTL"

enum class BlockType : uint16_t {
  superblock = 1,
  journal = 2,
  directory = 3,
  dirty_map = 4,
  lvol = 5,
  extents = 6,
  checksum_superblock = 7,  // these two in the checksum area (checksum_format.h)
  checksum_record = 8,
};

struct BlockHeader {
  uint32_t magic;
  uint32_t crc32c;  // of all 4096 bytes, this field taken as zero
  uint16_t type;
  uint16_t version;
  uint32_t length_bytes;  // of the payload in use
  uint8_t store_uuid[16];
  uint64_t address_blocks;  // its own place on the base, in 4 KiB blocks
  uint64_t generation;      // of the superblock with which it was written
  uint64_t owner;           // journal: sequence; lvol, extents: lvol id
  uint64_t index;           // directory, dirty map, extents: which part
};
static_assert(sizeof(BlockHeader) == 64 && offsetof(BlockHeader, store_uuid) == 16 &&
              offsetof(BlockHeader, owner) == 48);
constexpr uint32_t payload_bytes_max = block_bytes - sizeof(BlockHeader);

constexpr uint32_t directory_selector_offset_bytes = 512;
constexpr uint32_t directory_pages_max = (block_bytes - directory_selector_offset_bytes) * 8;

struct Superblock {
  BlockHeader header;
  uint32_t version;
  uint32_t clean;  // 1: closed in order (for people; loading does not depend on it)
  uint64_t compatible;
  uint64_t incompatible;
  uint64_t device_blocks;
  uint32_t cluster_bytes;
  uint32_t cluster_count;
  uint64_t journal_first_block;
  uint64_t directory_first_block;
  uint64_t pages_first_block;
  uint64_t data_first_block;
  uint32_t journal_blocks;
  uint32_t directory_pages;
  uint32_t page_count;
  uint32_t dirty_map_pages;
  uint64_t incarnation;             // grows with each load; journal blocks of other incarnations are not replayed
  uint64_t journal_start_sequence;  // the first that the pages do not contain
  uint32_t lvol_id_next;
  uint32_t name_length_bytes;
  char name[64];
  uint8_t reserved[512 - 64 - 176];
  uint8_t directory_selector[block_bytes - directory_selector_offset_bytes];  // bit d: directory page d is in slot B
};
static_assert(sizeof(Superblock) == block_bytes && offsetof(Superblock, name) == 176);
static_assert(offsetof(Superblock, directory_selector) == directory_selector_offset_bytes);

struct JournalBlock {
  BlockHeader header;
  uint64_t incarnation;
  uint64_t stable_sequence;  // this one and all before it were flushed when the block was written
  uint8_t records[payload_bytes_max - 16];
};
static_assert(sizeof(JournalBlock) == block_bytes);
constexpr uint32_t journal_block_records_bytes_max = payload_bytes_max - 16;

struct LvolPage {
  BlockHeader header;
  uint64_t size_bytes;
  uint8_t uuid[16];
  uint32_t flags;      // LayerFlags; 0 without incompatible_layers
  uint32_t parent_id;  // 0: none
  uint16_t name_length_bytes;
  uint16_t attribute_length_bytes;
  uint32_t reserved;
  char name[64];
  uint8_t attribute[1024];
  uint64_t overlap_blocks;  // the parent shows below this block only
  uint8_t unused[block_bytes - 64 - 40 - 64 - 1024 - 8];
};
static_assert(sizeof(LvolPage) == block_bytes && offsetof(LvolPage, name) == 104);
static_assert(offsetof(LvolPage, overlap_blocks) == 1192);

// read_only: never written again. snapshot: made by bdev_lvol_snapshot. hidden: deleted, but others still read it; it
// has no name and no uuid. With incompatible_checksums only - checksums: its data has tags; what is above it too. area:
// where the tags are; hidden and read-only, and nobody's.
enum LayerFlags : uint32_t {
  layer_read_only = 1,
  layer_snapshot = 2,
  layer_hidden = 4,
  layer_checksums = 8,
  layer_area = 16,
  layer_flags_known = 31,
};
// Layers below an lvol, hidden ones included.
constexpr uint32_t layer_depth_max = 64;

// Directory: two bits per page, where the page's current copy is.
enum class Slot : uint8_t { none = 0, a = 1, b = 2 };
constexpr uint32_t pages_per_directory = payload_bytes_max * 4;
constexpr uint32_t clusters_per_dirty_map = payload_bytes_max * 8;

// Extents: an array of entries, each an ExtentEntry and two bits of state per block of the cluster.
struct ExtentEntry {
  uint32_t physical;  // no_cluster: not allocated
  uint16_t kind;
  uint16_t reserved;
};
static_assert(sizeof(ExtentEntry) == 8);
enum class ExtentKind : uint16_t { none = 0, plain = 1, states = 2 };  // states: no place
enum class BlockState : uint8_t { parent = 0, data = 1, zero = 2 };

// Where everything is. Made once at creation, then read from the superblock.
struct Layout {
  uint64_t device_blocks = 0;
  uint32_t cluster_bytes = 0;
  uint32_t cluster_count = 0;
  uint64_t journal_first_block = 0;
  uint64_t directory_first_block = 0;
  uint64_t pages_first_block = 0;
  uint64_t data_first_block = 0;
  uint32_t journal_blocks = 0;
  uint32_t directory_pages = 0;
  uint32_t page_count = 0;
  uint32_t dirty_map_pages = 0;

  static Result<Layout> make(uint64_t device_blocks, uint32_t cluster_bytes);
  Outcome check() const;  // of one that was read: everything in order and inside the device

  uint32_t cluster_blocks() const { return cluster_bytes / block_bytes; }
  uint32_t entry_bytes() const { return static_cast<uint32_t>(sizeof(ExtentEntry)) + cluster_blocks() / 4; }
  uint32_t clusters_per_extents() const { return payload_bytes_max / entry_bytes(); }
  uint64_t superblock_block(uint64_t generation) const {
    return generation % superblock_slot_count * superblock_stride_blocks;
  }
  uint64_t journal_block(uint64_t sequence) const { return journal_first_block + sequence % journal_blocks; }
  uint64_t directory_block(uint32_t directory, bool slot_b) const {
    return directory_first_block + 2 * uint64_t{directory} + slot_b;
  }
  uint64_t page_block(uint32_t page, Slot slot) const {
    return pages_first_block + 2 * uint64_t{page} + (slot == Slot::b ? 1 : 0);
  }
  uint64_t cluster_block(uint32_t physical) const { return data_first_block + uint64_t{physical} * cluster_blocks(); }
};

struct BlockIdentity {
  BlockType type;
  Uuid store_uuid;
  uint64_t address_blocks;
  uint64_t generation;
  uint64_t owner = 0;
  uint64_t index = 0;
};

// What a block says of itself, whether it is intact or not.
inline const BlockHeader& header_of(const uint8_t* block) {
  return *reinterpret_cast<const BlockHeader*>(block);
}
inline Uuid uuid_of(const uint8_t* bytes) {
  Uuid uuid;
  std::memcpy(uuid.bytes.data(), bytes, 16);
  return uuid;
}

// Fills the header of a block whose payload is complete.
void seal_block(void* block, const BlockIdentity& identity, uint32_t length_bytes);
// Magic, CRC and length; nothing about where it belongs.
bool block_intact(const void* block);
// Intact, and the right block in the right place.
bool block_matches(const void* block, BlockType type, const Uuid& store_uuid, uint64_t address_blocks);

Error corrupt(const std::string& what);
// What a superblock says has to be known, and true of this device.
Outcome check_superblock(const Superblock& superblock, uint64_t device_blocks);
bool name_valid(const std::string& name);
Layout layout_of(const Superblock& superblock);
void layout_to(const Layout& layout, Superblock& superblock);

}  // namespace basalt::bdev::lvs
