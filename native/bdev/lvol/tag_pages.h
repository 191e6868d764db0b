// SPDX-License-Identifier: Apache-2.0
// TagPages: the pages of a store's tags that are in memory. A page stays while somebody has it pinned or it is not
// written back; of the others as many as fit, the latest used.
//
// Thread: the store's reactor. Invariant: a page that is neither pinned nor dirty is in lru_, and is as on the base.
#pragma once

#include <memory>
#include <unordered_map>

#include "bdev/lvol/checksum_format.h"
#include "bdev/lvol/device.h"

namespace basalt::bdev::lvs {

// Who waits for a page to be read.
struct TagPageWaiter {
  ListNode page_node;
  bool writes = false;  // a page that cannot be read is begun anew for it
  void (*page_ready)(TagPageWaiter*, nvme::Status) = nullptr;
};

struct TagPage {
  uint64_t index = 0;
  bool loaded = false;
  bool failed = false;  // it could not be read, and is no page of the table any more
  bool dirty = false;
  uint32_t pin_count = 0;
  ListNode node;  // in lru_ or dirty_
  List<TagPageWaiter, &TagPageWaiter::page_node> waiting;
  BlockMemory memory{1};
  Io io;
  Iovec iov;
  class TagPages* owner = nullptr;
  uint32_t* tags() { return reinterpret_cast<uint32_t*>(memory.data()); }
};

class TagPages {
 public:
  TagPages(const Device& device, const ChecksumArea& area) : device_(device), area_(area) {}
  ~TagPages();

  // Pinned, and being read if it was not there: the caller joins page->waiting unless it is loaded.
  TagPage* pin(uint64_t index);
  void unpin(TagPage* page);
  void mark_dirty(TagPage* page);  // pinned
  // The dirty ones, clean from now on and pinned; instead of what is there.
  void take_dirty(std::vector<TagPage*>& out);
  size_t count() const { return pages_.size(); }
  uint64_t memory_bytes() const { return pages_.size() * (block_bytes + sizeof(TagPage)); }

 private:
  static constexpr size_t count_max = 2048;
  void read(TagPage* page);
  void read_done(TagPage* page, nvme::Status status);
  void drop(TagPage* page);

  const Device& device_;
  const ChecksumArea& area_;
  std::unordered_map<uint64_t, std::unique_ptr<TagPage>> pages_;
  List<TagPage, &TagPage::node> lru_;
  List<TagPage, &TagPage::node> dirty_;
};

}  // namespace basalt::bdev::lvs
