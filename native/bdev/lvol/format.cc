// SPDX-License-Identifier: Apache-2.0
#include "bdev/lvol/format.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "base/crc32c.h"

namespace basalt::bdev::lvs {
namespace {

static_assert(std::endian::native == std::endian::little, "structures are laid over the bytes");

uint32_t block_crc(const void* block) {
  BlockHeader header;
  std::memcpy(&header, block, sizeof(header));
  header.crc32c = 0;
  const uint32_t crc = crc32c(0, &header, sizeof(header));
  return crc32c(crc, static_cast<const char*>(block) + sizeof(header), payload_bytes_max);
}

uint64_t divide_up(uint64_t value, uint64_t by) {
  return (value + by - 1) / by;
}

}  // namespace

Result<Layout> Layout::make(uint64_t device_blocks, uint32_t cluster_bytes) {
  if (!is_power_of_two(cluster_bytes) || cluster_bytes < cluster_bytes_min || cluster_bytes > cluster_bytes_max) {
    return Error{Errc::invalid_argument, "cluster_bytes: a power of two from 65536 to 16777216"};
  }
  Layout layout;
  layout.device_blocks = device_blocks;
  layout.cluster_bytes = cluster_bytes;
  const uint64_t cluster_blocks = cluster_bytes / block_bytes;
  const uint64_t clusters_at_most = device_blocks / cluster_blocks;
  if (clusters_at_most >= no_cluster) {
    return Error{Errc::invalid_argument, "cluster_bytes: too small for a device of this size"};
  }
  layout.journal_blocks = static_cast<uint32_t>(std::clamp<uint64_t>(device_blocks / 1024, 64, 4096));
  layout.dirty_map_pages =
      static_cast<uint32_t>(std::max<uint64_t>(1, divide_up(clusters_at_most, clusters_per_dirty_map)));
  const uint64_t page_count = layout.dirty_map_pages + std::max<uint64_t>(64, device_blocks / 512);
  const uint64_t directory_pages = divide_up(page_count, pages_per_directory);
  if (page_count >= no_page || directory_pages > directory_pages_max) {
    return Error{Errc::invalid_argument, "the device is larger than the format can describe"};
  }
  layout.page_count = static_cast<uint32_t>(page_count);
  layout.directory_pages = static_cast<uint32_t>(directory_pages);
  layout.journal_first_block = superblock_area_blocks;
  layout.directory_first_block = layout.journal_first_block + layout.journal_blocks;
  layout.pages_first_block = layout.directory_first_block + 2 * directory_pages;
  layout.data_first_block = align_up(layout.pages_first_block + 2 * page_count, cluster_bytes_min / block_bytes);
  if (layout.data_first_block + cluster_blocks > device_blocks) {
    return Error{Errc::invalid_argument, "the device is too small for an lvstore with this cluster size"};
  }
  layout.cluster_count = static_cast<uint32_t>((device_blocks - layout.data_first_block) / cluster_blocks);
  return layout;
}

Outcome Layout::check() const {
  const Error wrong{Errc::corrupt, "lvstore: the superblock's layout contradicts itself"};
  if (!is_power_of_two(cluster_bytes) || cluster_bytes < cluster_bytes_min || cluster_bytes > cluster_bytes_max)
    return wrong;
  // Bounds first, so that the sums below cannot overflow.
  const uint64_t blocks_max = uint64_t{1} << 51;
  for (uint64_t value :
       {device_blocks, journal_first_block, directory_first_block, pages_first_block, data_first_block}) {
    if (value > blocks_max) return wrong;
  }
  if (cluster_count == 0 || cluster_count == no_cluster || journal_blocks < 8 || journal_blocks > 1u << 20)
    return wrong;
  if (page_count == no_page || dirty_map_pages == 0 || dirty_map_pages > page_count) return wrong;
  if (directory_pages > directory_pages_max || directory_pages != divide_up(page_count, pages_per_directory))
    return wrong;
  if (uint64_t{dirty_map_pages} * clusters_per_dirty_map < cluster_count) return wrong;
  const bool ordered = journal_first_block >= superblock_area_blocks &&
                       directory_first_block >= journal_first_block + journal_blocks &&
                       pages_first_block >= directory_first_block + 2 * uint64_t{directory_pages} &&
                       data_first_block >= pages_first_block + 2 * uint64_t{page_count} &&
                       device_blocks >= data_first_block + uint64_t{cluster_count} * cluster_blocks();
  if (!ordered) return wrong;
  return success();
}

void seal_block(void* block, const BlockIdentity& identity, uint32_t length_bytes) {
  BlockHeader header{};
  header.magic = block_magic;
  header.type = static_cast<uint16_t>(identity.type);
  header.version = format_version;
  header.length_bytes = length_bytes;
  std::memcpy(header.store_uuid, identity.store_uuid.bytes.data(), 16);
  header.address_blocks = identity.address_blocks;
  header.generation = identity.generation;
  header.owner = identity.owner;
  header.index = identity.index;
  std::memcpy(block, &header, sizeof(header));
  header.crc32c = block_crc(block);
  std::memcpy(block, &header, sizeof(header));
}

bool block_intact(const void* block) {
  BlockHeader header;
  std::memcpy(&header, block, sizeof(header));
  return header.magic == block_magic && header.length_bytes <= payload_bytes_max && header.crc32c == block_crc(block);
}

bool block_matches(const void* block, BlockType type, const Uuid& store_uuid, uint64_t address_blocks) {
  if (!block_intact(block)) return false;
  BlockHeader header;
  std::memcpy(&header, block, sizeof(header));
  return header.type == static_cast<uint16_t>(type) && header.address_blocks == address_blocks &&
         std::memcmp(header.store_uuid, store_uuid.bytes.data(), 16) == 0;
}

Error corrupt(const std::string& what) {
  return {Errc::corrupt, "lvstore: " + what};
}

// What a superblock says has to be known and true of this device.
Outcome check_superblock(const Superblock& superblock, uint64_t device_blocks) {
  if (superblock.version != format_version || superblock.header.version != format_version) {
    return Error{Errc::unsupported, "lvstore: format version " + std::to_string(superblock.version) +
                                        " is not known; nothing was changed"};
  }
  if ((superblock.incompatible & ~incompatible_known) != 0) {
    return Error{Errc::unsupported, "lvstore: it uses features that are not known; nothing was changed"};
  }
  Outcome sound = layout_of(superblock).check();
  if (!sound) return sound;
  if (superblock.device_blocks > device_blocks) {
    return corrupt("the device has " + std::to_string(device_blocks) +
                   " blocks of 4096 bytes, the store was made for " + std::to_string(superblock.device_blocks));
  }
  if (superblock.name_length_bytes > name_bytes_max || superblock.lvol_id_next == 0 ||
      superblock.journal_start_sequence == 0) {
    return corrupt("the superblock contradicts itself");
  }
  if (!name_valid(std::string(superblock.name, superblock.name_length_bytes)))
    return corrupt("the store's name is not a name");
  return success();
}

bool name_valid(const std::string& name) {
  const auto alphanumeric = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  if (name.empty() || name.size() > name_bytes_max || !alphanumeric(name[0])) return false;
  return std::all_of(name.begin(), name.end(),
                     [&](char c) { return alphanumeric(c) || c == '_' || c == '.' || c == '-'; });
}

Layout layout_of(const Superblock& superblock) {
  Layout layout;
  layout.device_blocks = superblock.device_blocks;
  layout.cluster_bytes = superblock.cluster_bytes;
  layout.cluster_count = superblock.cluster_count;
  layout.journal_first_block = superblock.journal_first_block;
  layout.directory_first_block = superblock.directory_first_block;
  layout.pages_first_block = superblock.pages_first_block;
  layout.data_first_block = superblock.data_first_block;
  layout.journal_blocks = superblock.journal_blocks;
  layout.directory_pages = superblock.directory_pages;
  layout.page_count = superblock.page_count;
  layout.dirty_map_pages = superblock.dirty_map_pages;
  return layout;
}

void layout_to(const Layout& layout, Superblock& superblock) {
  superblock.device_blocks = layout.device_blocks;
  superblock.cluster_bytes = layout.cluster_bytes;
  superblock.cluster_count = layout.cluster_count;
  superblock.journal_first_block = layout.journal_first_block;
  superblock.directory_first_block = layout.directory_first_block;
  superblock.pages_first_block = layout.pages_first_block;
  superblock.data_first_block = layout.data_first_block;
  superblock.journal_blocks = layout.journal_blocks;
  superblock.directory_pages = layout.directory_pages;
  superblock.page_count = layout.page_count;
  superblock.dirty_map_pages = layout.dirty_map_pages;
}

}  // namespace basalt::bdev::lvs
