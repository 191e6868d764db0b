// SPDX-License-Identifier: Apache-2.0
// On-disk format of raid5 and raid6 members, version 1; docs/on-disk/raid.md describes it field by field.
//
// In pages of 4 KiB from the beginning of a member: superblock A at page 0, marks from page 1 (raid_parity_marks.cc),
// superblock B at page 32, the log from page 64, strips after it. Superblocks are written in turn with a growing
// generation; the newer valid one counts. A log slot is a header page and a payload; what it is for: parity_log.cc.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/result.h"
#include "base/uuid.h"
#include "bdev/mark_pages.h"
#include "bdev/raid/codec.h"
#include "bdev/raid/parity_layout.h"

namespace basalt::bdev::parity {

constexpr uint32_t page_bytes = 4096;
constexpr uint32_t format_version = 1;
constexpr uint64_t superblock_magic = 0x44494152544c5342;  // "BSLTRAID"
constexpr uint64_t record_magic = 0x474f4c50544c5342;      // "BSLTPLOG"
constexpr uint32_t superblock_pages[2] = {0, 32};
constexpr uint32_t mark_first_page = 1;
constexpr uint32_t log_first_page = 64;
static_assert(mark_first_page + mark_pages::mark_page_count_max <= superblock_pages[1]);
constexpr uint32_t log_slot_count_max = 1024;
constexpr size_t name_bytes_max = 63;
constexpr uint32_t place_count_max = 20;
constexpr uint32_t mark_count_max = 16384;
constexpr uint64_t mark_region_bytes = uint64_t{1} << 20;
constexpr uint64_t incompatible_marks = 1;   // `stay` and what follows it mean something
constexpr uint64_t incompatible_zeroes = 2;  // the log may tell of stripes that become zeroes
constexpr uint64_t incompatible_known = incompatible_marks | incompatible_zeroes;

struct Superblock {
  uint64_t magic;
  uint32_t crc32c;  // of the page, this field taken as zero
  uint32_t version;
  uint64_t compatible;
  uint64_t incompatible;
  uint8_t uuid[16];  // of the raid
  uint64_t generation;
  uint64_t epoch;  // of the set: grows whenever `in_sync` changes
  uint64_t member_blocks;
  uint64_t strip_count;
  uint64_t first_block;
  uint32_t block_bytes;
  uint32_t strip_blocks;
  uint32_t log_slot_count;
  uint32_t log_slot_pages;
  uint64_t log_tail;  // records before this sequence number are done with
  uint32_t in_sync;   // members, as bits
  uint8_t data_count;
  uint8_t parity_count;
  uint8_t member;  // which one this is
  uint8_t clean;   // 1: every parity is right
  uint16_t name_length_bytes;
  uint8_t reserved0[6];
  char name[64];
  // Driven: the epoch up to which the rest is kept, and so this one's own. Older code keeps nothing, and lets it be.
  uint64_t kept_epoch;
  uint64_t marks_stay;  // of the mark pages that count
  uint64_t mark_region_stripes;
  // By place: the epoch at which who has it, or had it last, had come to it; 0: marks say nothing about it.
  uint64_t joined_epoch[ParityCodec::strip_count_max];
  uint64_t reserved2;
  // Not driven: members that are away, or are being made equal (raid_parity_away.cc).
  uint64_t stay;                    // which one this is of the devices that have had its place
  uint64_t stays[place_count_max];  // whose the places are
  uint64_t twin_stay;  // who is being made equal to the member of twin_place, to take over from it; 0: nobody
  uint64_t left[place_count_max];  // the epoch in force when the member of a place left
  uint32_t away;                   // places whose marks are kept
  uint32_t mark_strips;            // strips of a mark
  uint32_t rebuilding;             // of `away`: they are here, and come back by themselves
  uint8_t twin_place;
  uint8_t reserved1[291];
  uint8_t marks[mark_count_max / 8];
  uint8_t reserved[page_bytes - 3072];
};
static_assert(sizeof(Superblock) == page_bytes && offsetof(Superblock, generation) == 48 &&
              offsetof(Superblock, log_tail) == 104 && offsetof(Superblock, name) == 128 &&
              offsetof(Superblock, kept_epoch) == 192 && offsetof(Superblock, joined_epoch) == 216 &&
              offsetof(Superblock, stay) == 384 && offsetof(Superblock, stays) == 392 &&
              offsetof(Superblock, twin_stay) == 552 && offsetof(Superblock, left) == 560 &&
              offsetof(Superblock, away) == 720 && offsetof(Superblock, rebuilding) == 728 &&
              offsetof(Superblock, twin_place) == 732 && offsetof(Superblock, marks) == 1024);

// Of the superblock's set.
inline bool counts(const Superblock& s) {
  return (s.in_sync >> s.member & 1) != 0 && s.stay == s.stays[s.member];
}

struct RecordHeader {
  uint64_t magic;
  uint32_t crc32c;  // of the page, this field taken as zero
  uint32_t payload_crc32c;
  uint8_t uuid[16];
  uint64_t epoch;
  uint64_t sequence;
  uint64_t stripe;
  uint32_t column;
  uint32_t column_count;
  uint32_t payload_bytes;  // data of the roles, one after the other, then the parity of `parity_role`
  uint8_t first_role;
  uint8_t role_count;
  uint8_t parity_role;
  uint8_t reserved0;
  uint32_t parity_roles;  // all that got such a record, as bits
  // 0: what is above. Otherwise these columns of so many stripes become zeroes, data and parity; there is no payload,
  // and all members got the record: `parity_roles` are any roles, and `parity_role` is 0.
  uint32_t zeroed_stripes;
  uint8_t reserved[page_bytes - 80];
};
static_assert(sizeof(RecordHeader) == page_bytes && offsetof(RecordHeader, sequence) == 40 &&
              offsetof(RecordHeader, zeroed_stripes) == 76);

// That a record names.
inline StripeRange stripes_of(const RecordHeader& header) {
  return {header.stripe, header.zeroed_stripes == 0 ? 1 : header.zeroed_stripes};
}

// Seal: fills magic, version and checksum in.
// Of a superblock that is right.
ParityLayout layout_of(const Superblock& superblock);

void seal(Superblock* superblock);
void seal(RecordHeader* header);

enum class PageState : uint8_t { valid, absent, damaged };  // absent: it was never one (no magic)
PageState check(const Superblock& superblock);

// Whether the structure makes sense for a device of so many blocks; the error names the field.
Outcome judge(const Superblock& superblock, uint64_t device_blocks, uint32_t device_block_bytes);

// How many strips a mark is of, when it is of so many bytes at least.
uint32_t mark_strips_of(const Superblock& superblock, uint64_t region_bytes);

// As if there were no members that are away.
void forget_marks(Superblock* superblock);

// Whether a slot holds a record of this raid at all, in a shape that fits its geometry.
bool valid_record(const RecordHeader& header, const Superblock& geometry);

// Whether both are records of one write, on two of its parity members.
bool same_write(const RecordHeader& one, const RecordHeader& other);

}  // namespace basalt::bdev::parity
