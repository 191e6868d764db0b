// SPDX-License-Identifier: Apache-2.0
#include "bdev/lvol/tag_pages.h"

namespace basalt::bdev::lvs {

TagPages::~TagPages() {
  while (dirty_.pop_front() != nullptr) {
  }
  while (lru_.pop_front() != nullptr) {
  }
}

TagPage* TagPages::pin(uint64_t index) {
  if (const auto found = pages_.find(index); found != pages_.end()) {
    TagPage* page = found->second.get();
    if (page->pin_count++ == 0 && !page->dirty) lru_.remove(page);
    return page;
  }
  if (pages_.size() >= count_max && !lru_.empty()) drop(lru_.front());
  auto& made = pages_[index];
  made = std::make_unique<TagPage>();
  made->index = index;
  made->owner = this;
  made->pin_count = 1;
  read(made.get());
  return made.get();
}

void TagPages::unpin(TagPage* page) {
  BASALT_ASSERT(page->pin_count > 0);
  if (--page->pin_count > 0 || page->failed) return;
  if (!page->dirty) {
    lru_.push_back(page);
    if (pages_.size() > count_max) drop(lru_.front());
  }
}

void TagPages::drop(TagPage* page) {
  lru_.remove(page);
  pages_.erase(page->index);
}

void TagPages::mark_dirty(TagPage* page) {
  BASALT_ASSERT(page->pin_count > 0 && page->loaded);
  if (page->dirty) return;
  page->dirty = true;
  dirty_.push_back(page);
}

void TagPages::take_dirty(std::vector<TagPage*>& out) {
  out.clear();
  while (TagPage* page = dirty_.pop_front()) {
    page->dirty = false;
    page->pin_count++;
    out.push_back(page);
  }
}

void TagPages::read(TagPage* page) {
  device_.prepare(page->io, IoType::read, area_.page_base_block(page->index), 1);
  page->iov = {page->memory.data(), block_bytes};
  page->io.iov = &page->iov;
  page->io.iov_count = 1;
  page->io.context = page;
  page->io.done = [](Io* io) {
    auto* page = static_cast<TagPage*>(io->context);
    page->owner->read_done(page, io->status);
  };
  device_.submit(&page->io);
}

// A page that is gone takes the tags of its blocks with it: they read as damaged until they are written again. That it
// is gone is no reason to refuse such a write.
void TagPages::read_done(TagPage* page, nvme::Status status) {
  bool writes = false;
  page->waiting.for_each([&](TagPageWaiter* waiter) { writes |= waiter->writes; });
  if (!status.ok() && status.type() == nvme::StatusType::media && writes) {
    std::memset(page->memory.data(), 0, block_bytes);
    status = nvme::status::success;
    page->loaded = true;
    mark_dirty(page);
  }
  page->loaded = status.ok();
  page->failed = !page->loaded;
  std::unique_ptr<TagPage> gone;
  if (page->failed) {
    gone = std::move(pages_.at(page->index));
    pages_.erase(page->index);
  }
  List<TagPageWaiter, &TagPageWaiter::page_node> waiting;
  waiting.splice_back(page->waiting);
  // Each has the page pinned. The last one may end the store, and the page with it.
  while (TagPageWaiter* waiter = waiting.pop_front())
    waiter->page_ready(waiter, status);
}

}  // namespace basalt::bdev::lvs
