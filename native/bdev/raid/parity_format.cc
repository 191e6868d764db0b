// SPDX-License-Identifier: Apache-2.0
#include "bdev/raid/parity_format.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/bytes.h"
#include "base/crc32c.h"
#include "bdev/raid/codec.h"

namespace basalt::bdev::parity {
namespace {

constexpr uint64_t number_max = uint64_t{1} << 62;

// Of a page whose checksum field is at byte 8, taken as zero.
template <class Page>
uint32_t checksum(const Page& page) {
  static_assert(offsetof(Page, crc32c) == 8);
  const auto* bytes = reinterpret_cast<const uint8_t*>(&page);
  const uint8_t zero[4] = {};
  const uint32_t crc = crc32c(crc32c(0, bytes, 8), zero, 4);
  return crc32c(crc, bytes + 12, page_bytes - 12);
}

Outcome wrong(const std::string& field) {
  return Error{Errc::corrupt, "raid superblock: " + field};
}

}  // namespace

ParityLayout layout_of(const Superblock& superblock) {
  return {.data_count = superblock.data_count,
          .parity_count = superblock.parity_count,
          .block_bytes = superblock.block_bytes,
          .strip_blocks = superblock.strip_blocks,
          .strip_count = superblock.strip_count,
          .first_block = superblock.first_block};
}

void seal(Superblock* superblock) {
  superblock->magic = superblock_magic;
  superblock->version = format_version;
  superblock->crc32c = checksum(*superblock);
}

void seal(RecordHeader* header) {
  header->magic = record_magic;
  header->crc32c = checksum(*header);
}

PageState check(const Superblock& superblock) {
  if (superblock.magic != superblock_magic) return PageState::absent;
  return superblock.crc32c == checksum(superblock) ? PageState::valid : PageState::damaged;
}

Outcome judge(const Superblock& s, uint64_t device_blocks, uint32_t device_block_bytes) {
  if (s.version != format_version) {
    return Error{Errc::unsupported, "raid superblock: version " + std::to_string(s.version) + "; version " +
                                        std::to_string(format_version) + " is known"};
  }
  if ((s.incompatible & ~incompatible_known) != 0) {
    return Error{Errc::unsupported,
                 "raid superblock: incompatible features " + std::to_string(s.incompatible) + " are not known"};
  }
  if (s.block_bytes != device_block_bytes) return wrong("block size differs from the device's");
  if (s.member_blocks > device_blocks) {
    return wrong("the device has shrunk from " + std::to_string(s.member_blocks) + " to " +
                 std::to_string(device_blocks) + " blocks");
  }
  if (s.data_count < 1 || s.data_count > ParityCodec::data_count_max) return wrong("data_count");
  if (s.parity_count < 1 || s.parity_count > ParityCodec::parity_count_max) return wrong("parity_count");
  const uint32_t member_count = uint32_t{s.data_count} + s.parity_count;
  if (s.member >= member_count) return wrong("member");
  if (s.in_sync == 0 || (s.in_sync >> member_count) != 0) return wrong("in_sync");
  const uint32_t strip_blocks_max = (uint32_t{1} << 20) / s.block_bytes;
  if (s.strip_blocks == 0 || s.strip_blocks > strip_blocks_max) return wrong("strip_blocks");
  if (s.log_slot_count == 0 || s.log_slot_count > log_slot_count_max) return wrong("log_slot_count");
  if (s.log_slot_pages < 2 || s.log_slot_pages > 1024) return wrong("log_slot_pages");
  const uint64_t log_end_page = log_first_page + uint64_t{s.log_slot_count} * s.log_slot_pages;
  if (s.first_block < log_end_page * (page_bytes / s.block_bytes) || s.first_block >= s.member_blocks) {
    return wrong("first_block");
  }
  if (s.strip_count == 0 || s.strip_count > (s.member_blocks - s.first_block) / s.strip_blocks) {
    return wrong("strip_count");
  }
  if ((s.incompatible & incompatible_marks) != 0) {
    if ((s.away >> member_count) != 0) return wrong("away");
    if ((s.rebuilding >> member_count) != 0) return wrong("rebuilding");
    if (s.twin_place >= member_count) return wrong("twin_place");
    if (!is_power_of_two(s.mark_strips) || (s.strip_count - 1) / s.mark_strips >= mark_count_max)
      return wrong("mark_strips");
    for (const uint64_t left : s.left)
      if (left >= number_max) return wrong("left");
  }
  if (s.name_length_bytes > name_bytes_max) return wrong("name_length_bytes");
  // Numbers that only grow, by one at a time, and must not run over.
  for (const uint64_t number : {s.generation, s.epoch, s.log_tail}) {
    if (number >= number_max) return wrong("generation, epoch or log_tail");
  }
  return success();
}

bool valid_record(const RecordHeader& h, const Superblock& geometry) {
  if (h.magic != record_magic || h.crc32c != checksum(h)) return false;
  if (std::memcmp(h.uuid, geometry.uuid, sizeof(h.uuid)) != 0 || h.epoch > geometry.epoch) return false;
  const uint32_t k = geometry.data_count;
  const uint32_t n = k + geometry.parity_count;
  if (h.sequence >= number_max) return false;
  if (h.stripe >= geometry.strip_count || h.column_count == 0 || h.column >= geometry.strip_blocks ||
      h.column_count > geometry.strip_blocks - h.column) {
    return false;
  }
  if (h.role_count == 0 || h.first_role >= k || h.role_count > k - h.first_role) return false;
  if (h.zeroed_stripes != 0) {
    const bool whole = h.column == 0 && h.column_count == geometry.strip_blocks;
    return (whole || h.zeroed_stripes == 1) && h.zeroed_stripes <= geometry.strip_count - h.stripe &&
           h.first_role == 0 && h.role_count == k && h.payload_bytes == 0 && h.parity_role == 0 &&
           (h.parity_roles >> n) == 0;
  }
  if (h.parity_role < k || h.parity_role >= n) return false;
  if ((h.parity_roles >> n) != 0 || (h.parity_roles & ((1u << k) - 1)) != 0) return false;
  if ((h.parity_roles >> h.parity_role & 1) == 0) return false;
  const uint64_t bytes = (uint64_t{h.role_count} + 1) * h.column_count * geometry.block_bytes;
  return h.payload_bytes == bytes && bytes <= uint64_t{geometry.log_slot_pages - 1} * page_bytes;
}

bool same_write(const RecordHeader& one, const RecordHeader& other) {
  return one.epoch == other.epoch && one.sequence == other.sequence && one.stripe == other.stripe &&
         one.column == other.column && one.column_count == other.column_count && one.first_role == other.first_role &&
         one.role_count == other.role_count && one.parity_roles == other.parity_roles &&
         one.zeroed_stripes == other.zeroed_stripes;
}

uint32_t mark_strips_of(const Superblock& s, uint64_t region_bytes) {
  const uint64_t strip_bytes = uint64_t{s.strip_blocks} * s.block_bytes;
  uint64_t strips = std::bit_ceil(std::max<uint64_t>(region_bytes / strip_bytes, 1));
  while ((s.strip_count - 1) / strips >= mark_count_max)
    strips *= 2;
  return static_cast<uint32_t>(strips);
}

void forget_marks(Superblock* s) {
  std::memset(reinterpret_cast<uint8_t*>(s) + offsetof(Superblock, stay), 0, page_bytes - offsetof(Superblock, stay));
  s->incompatible &= ~incompatible_marks;
}

}  // namespace basalt::bdev::parity
