// SPDX-License-Identifier: Apache-2.0
// On-disk format of a store's checksums (docs/on-disk/lvol.md, "Checksums"; decision 011): an area of whole clusters
// that belongs to a layer of its own. In it come two superblocks, a log, and one tag (CRC32C) for each 4 KiB block of
// the store's data area, by the block's place on the base.
#pragma once

#include <algorithm>
#include <vector>

#include "bdev/lvol/format.h"

namespace basalt::bdev::lvs {

constexpr uint32_t tags_per_page = block_bytes / 4;
constexpr uint32_t checksum_superblock_count = 2;
constexpr uint32_t checksum_record_blocks_max = 256;

// header.generation: the higher one counts. nonce: random for each time the store is loaded, so that no block of data
// in the log can pass for a record.
struct ChecksumSuperblock {
  BlockHeader header;
  uint64_t nonce;
  uint64_t tail_sequence;  // the first record that may have to be carried out again
  uint64_t tail_position;  // where it is: blocks since the log was made
  uint8_t unused[block_bytes - 64 - 24];
};
static_assert(sizeof(ChecksumSuperblock) == block_bytes && offsetof(ChecksumSuperblock, tail_position) == 80);

// One block, followed by the data of block_count blocks. header.owner: its sequence; header.index: its position.
struct ChecksumRecord {
  BlockHeader header;
  uint64_t nonce;
  uint32_t block_count;
  uint32_t data_crc32c;                         // of the CRC32Cs of the blocks of data that follow
  uint64_t blocks[checksum_record_blocks_max];  // where each belongs on the base
  uint32_t tags[checksum_record_blocks_max];    // what its tag becomes
  uint8_t unused[block_bytes - 64 - 16 - checksum_record_blocks_max * 12];
};
static_assert(sizeof(ChecksumRecord) == block_bytes && offsetof(ChecksumRecord, blocks) == 80);

// Where things are in the area, whose clusters may lie anywhere.
struct ChecksumArea {
  explicit ChecksumArea(const Layout& layout)
      : layout(layout),
        cluster_blocks(layout.cluster_blocks()),
        log_clusters(std::clamp<uint32_t>(layout.cluster_count / 256, 2, std::max(2u, 4096 / cluster_blocks))),
        page_count((uint64_t{layout.cluster_count} * cluster_blocks + tags_per_page - 1) / tags_per_page),
        cluster_count(log_clusters + static_cast<uint32_t>((page_count + cluster_blocks - 1) / cluster_blocks)) {}

  uint64_t log_blocks() const { return uint64_t{log_clusters} * cluster_blocks - checksum_superblock_count; }
  // A record lies in one cluster; the first one has the superblocks too.
  uint32_t chunk_blocks_max() const { return std::min(127u, cluster_blocks - 1 - checksum_superblock_count); }
  uint64_t area_block(uint64_t position) const { return checksum_superblock_count + position % log_blocks(); }
  uint32_t left_in_cluster(uint64_t position) const {
    return cluster_blocks - static_cast<uint32_t>(area_block(position) % cluster_blocks);
  }
  uint64_t base_block(uint64_t area_block) const {
    return layout.cluster_block(clusters[area_block / cluster_blocks]) + area_block % cluster_blocks;
  }
  uint64_t log_base_block(uint64_t position) const { return base_block(area_block(position)); }
  uint64_t page_base_block(uint64_t page) const { return base_block(uint64_t{log_clusters} * cluster_blocks + page); }
  uint64_t tag_index(uint64_t block) const { return block - layout.data_first_block; }
  bool holds(uint64_t block) const {
    return block >= layout.data_first_block &&
           block - layout.data_first_block < uint64_t{layout.cluster_count} * cluster_blocks;
  }

  const Layout& layout;
  const uint32_t cluster_blocks;
  const uint32_t log_clusters;
  const uint64_t page_count;
  const uint32_t cluster_count;
  std::vector<uint32_t> clusters;  // physical ones, in order
};

}  // namespace basalt::bdev::lvs
