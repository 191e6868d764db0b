// SPDX-License-Identifier: Apache-2.0
// ChecksumLogImage: what the log of checksummed writes says, from a copy of it in memory. Sees through holes: a record
// that has rotted, or cannot be read, takes with it what it alone said, and nothing of those behind it.
//
// What a hole may have hidden is told from what lies in place (judge()): data in place changes only under a stable
// record, and what was promised is in place. So a block of which a lost record may have said something newer is shown
// only when what is in place agrees with a tag; otherwise it reads as damaged. Nothing here reads or writes the base.
#pragma once

#include <map>
#include <vector>

#include "bdev/lvol/checksum_format.h"
#include "bdev/lvol/device.h"

namespace basalt::bdev::lvs {

struct ChecksumLogContents {
  // What one record says of one block of the base.
  struct Version {
    uint64_t sequence;
    uint32_t tag;
    const uint8_t* data;  // nullptr: it has rotted
  };
  std::map<uint64_t, std::vector<Version>> blocks;  // by the block; the oldest first
  // Of the last record, where its data is not whole: it may never have been acknowledged.
  std::map<uint64_t, uint32_t> perhaps;
  uint64_t lost_sequence = 0;  // the newest record that is lost, and may have named any block; 0: none
  uint64_t lost_count = 0;     // records that are not whole, but for one at the end
  uint64_t next_sequence = 0;
  uint64_t end_position = 0;

  enum class Verdict : uint8_t {
    as_it_is,  // neither data nor tag changes
    tag,       // the tag changes: either it fits what is in place, or the block reads as damaged
    write,     // the newest version goes there, with its tag
  };
  struct Judgement {
    Verdict verdict;
    uint32_t tag = 0;
  };
  // place: what the base holds there, nullptr: it cannot be read. page_tag: what the page of tags says.
  Judgement judge(uint64_t block, const uint8_t* place, uint32_t page_tag) const;

 private:
  static bool foreign(const std::vector<Version>& versions, const uint8_t* place, uint32_t page_tag);
};

class ChecksumLogImage {
 public:
  struct Start {
    Uuid store_uuid;
    uint64_t nonce;
    uint64_t generation;  // of the newest superblock
    uint64_t sequence;    // of the first record that may have to be carried out
    uint64_t position;    // where it is
  };
  explicit ChecksumLogImage(const ChecksumArea& area);

  uint8_t* block(uint64_t position) { return memory_.block(position % area_.log_blocks()); }
  void set_unreadable(uint64_t position) { unreadable_[position % area_.log_blocks()] = true; }
  // The contents point into the image.
  Result<ChecksumLogContents> read(const Start& start);

 private:
  bool readable(uint64_t position) const { return !unreadable_[position % area_.log_blocks()]; }
  const ChecksumRecord* record_at(const Start& start, uint64_t position);
  bool take(const ChecksumRecord& record, uint64_t position, ChecksumLogContents& out);

  const ChecksumArea& area_;
  BlockMemory memory_;
  std::vector<bool> unreadable_;
};

}  // namespace basalt::bdev::lvs
