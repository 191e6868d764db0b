// SPDX-License-Identifier: Apache-2.0
// UnflushedMap: where whole stripes were written since the last flush of all members.
//
// A whole stripe has no log record, so that a power cut may leave any part of it. A record of a partial write says what
// parity becomes, which fits only the data that it was computed from: before a partial write goes over such blocks,
// they are flushed.
//
// Owner: the raid's reactor. Blocks are those of the members. A bit for each, modulo the size of the map: two blocks
// that are so far apart that they share a bit cost a flush too many. One flush is followed at a time.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/assert.h"

namespace basalt::bdev {

class UnflushedMap {
 public:
  static constexpr uint64_t bit_count = uint64_t{1} << 18;

  UnflushedMap() : since_(bit_count / 64), before_(bit_count / 64) {}

  // All members have it, in their caches.
  void add(uint64_t first_block, uint64_t end_block) {
    any_since_ = true;
    for (uint64_t block = first_block; block < std::min(end_block, first_block + bit_count); block++)
      since_[block % bit_count / 64] |= uint64_t{1} << block % 64;
  }

  bool has(uint64_t first_block, uint64_t end_block) const {
    if (!any_since_ && !any_before_) return false;
    for (uint64_t block = first_block; block < std::min(end_block, first_block + bit_count); block++) {
      const uint64_t word = since_[block % bit_count / 64] | before_[block % bit_count / 64];
      if ((word >> block % 64 & 1) != 0) return true;
    }
    return false;
  }

  // All members are about to be flushed. False: another flush is followed already.
  bool flush_begins() {
    if (following_) return false;
    following_ = true;
    BASALT_ASSERT(!any_before_);
    since_.swap(before_);
    std::swap(any_since_, any_before_);
    return true;
  }

  // `all`: every member of the set was flushed.
  void flush_ended(bool all) {
    BASALT_ASSERT(following_);
    following_ = false;
    if (all) flush_count_++;
    if (!any_before_) return;
    for (size_t i = 0; i < before_.size(); i++) {
      if (!all) since_[i] |= before_[i];
      before_[i] = 0;
    }
    any_since_ |= !all;
    any_before_ = false;
  }

  uint64_t flush_count() const { return flush_count_; }  // that were followed and reached all

 private:
  std::vector<uint64_t> since_;   // the last flush began
  std::vector<uint64_t> before_;  // the flush that is followed began
  bool any_since_ = false;
  bool any_before_ = false;
  bool following_ = false;
  uint64_t flush_count_ = 0;
};

}  // namespace basalt::bdev
