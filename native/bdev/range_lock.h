// SPDX-License-Identifier: Apache-2.0
// RangeLock: the order of overlapping operations on a mirror or a parity raid. First come, first served among those
// that overlap; reads share with reads; what does not overlap does not wait. Intrusive, no allocation. One reactor.
//
// Cost: acquire and release look at the entries that are in flight (tens), so nothing is kept per block.
#pragma once

#include <cstdint>

#include "base/list.h"

namespace basalt::bdev {

struct RangeEntry {
  uint64_t first_block = 0;
  uint64_t end_block = 0;
  bool exclusive = false;
  uint32_t blocker_count = 0;  // earlier entries that overlap and conflict
  void (*granted)(RangeEntry*) = nullptr;
  void* context = nullptr;
  ListNode node;          // in arrival order
  ListNode granted_node;  // freed by a release, granted() not called yet

  bool conflicts_with(const RangeEntry& other) const {
    return (exclusive || other.exclusive) && first_block < other.end_block && other.first_block < end_block;
  }
};

class RangeLock {
 public:
  // True: granted now (granted() is not called). False: granted() is called from the release that frees the range.
  bool acquire(RangeEntry* entry) {
    entry->blocker_count = 0;
    for (RangeEntry* earlier = entries_.front(); earlier != nullptr; earlier = entries_.next(earlier)) {
      if (entry->conflicts_with(*earlier)) entry->blocker_count++;
    }
    entries_.push_back(entry);
    return entry->blocker_count == 0;
  }

  void release(RangeEntry* entry) {
    BASALT_ASSERT(entry->blocker_count == 0);
    RangeEntry* later = entries_.next(entry);
    entries_.remove(entry);
    for (; later != nullptr; later = entries_.next(later)) {
      if (later->conflicts_with(*entry) && --later->blocker_count == 0) freed_.push_back(later);
    }
    // After the walk, since granted() may acquire and release; the outermost release calls them all, in order.
    if (granting_) return;
    granting_ = true;
    while (RangeEntry* freed = freed_.pop_front())
      freed->granted(freed);
    granting_ = false;
  }

  // Everything that is in flight or waits.
  template <class F>
  void for_each(F&& f) {
    entries_.for_each([&](RangeEntry* entry) { f(*entry); });
  }

  bool empty() const { return entries_.empty(); }

 private:
  List<RangeEntry, &RangeEntry::node> entries_;
  List<RangeEntry, &RangeEntry::granted_node> freed_;
  bool granting_ = false;
};

}  // namespace basalt::bdev
