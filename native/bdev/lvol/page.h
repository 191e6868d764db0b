// SPDX-License-Identifier: Apache-2.0
// Page: a piece of metadata that has its own 4 KiB page on disk: a part of the dirty map, an lvol, a window of extents.
// It is in the table's dirty list from its first change until a checkpoint has taken it. PageTable: which page numbers
// are in use, and in which of its two slots each one's current copy is.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/list.h"
#include "bdev/lvol/format.h"

namespace basalt::bdev::lvs {

struct Page {
  BlockType type = BlockType::extents;
  uint32_t number = no_page;
  ListNode dirty_node;
};

class PageTable {
 public:
  explicit PageTable(const Layout& layout) : layout_(layout), slots_(layout.page_count), used_(layout.page_count) {}

  bool take(uint32_t& number) {
    while (lowest_ < used_.size() && used_[lowest_])
      lowest_++;
    if (lowest_ == used_.size()) return false;
    number = lowest_;
    used_[number] = true;
    return true;
  }
  // A page that is gone: its number is free at once, its slot with the next checkpoint.
  void give(Page& page) {
    if (page.dirty_node.linked()) forget(page);
    used_[page.number] = false;
    if (slots_[page.number] != Slot::none) given_.push_back(page.number);
    if (page.number < lowest_) lowest_ = page.number;
    page.number = no_page;
  }
  bool claim(uint32_t number) {  // while loading
    if (used_[number]) return false;
    used_[number] = true;
    return true;
  }
  void mark(Page& page) {
    if (page.dirty_node.linked()) return;
    dirty_.push_back(&page);
    dirty_count_++;
  }
  Page* pop_dirty() {
    Page* page = dirty_.front();
    if (page != nullptr) forget(*page);
    return page;
  }
  size_t dirty_count() const { return dirty_count_ + given_.size(); }
  bool used(uint32_t number) const { return used_[number]; }
  size_t free_count() const { return static_cast<size_t>(std::count(used_.begin(), used_.end(), false)); }
  Slot slot(uint32_t number) const { return slots_[number]; }
  void set_slot(uint32_t number, Slot slot) { slots_[number] = slot; }
  // Instead of what is there.
  void take_given(std::vector<uint32_t>* into) {
    into->clear();
    into->swap(given_);
  }

  void write_directory(uint32_t directory, uint8_t* payload) const {
    const uint32_t first = directory * pages_per_directory;
    for (uint32_t i = 0; i < pages_per_directory && first + i < slots_.size(); i++) {
      payload[i / 4] |= static_cast<uint8_t>(static_cast<uint8_t>(slots_[first + i]) << (i % 4 * 2));
    }
  }
  bool read_directory(uint32_t directory, const uint8_t* payload) {
    const uint32_t first = directory * pages_per_directory;
    for (uint32_t i = 0; i < pages_per_directory && first + i < slots_.size(); i++) {
      const uint8_t slot = payload[i / 4] >> (i % 4 * 2) & 3;
      if (slot == 3) return false;
      slots_[first + i] = static_cast<Slot>(slot);
    }
    return true;
  }

 private:
  void forget(Page& page) {
    page.dirty_node.unlink();
    dirty_count_--;
  }
  const Layout& layout_;
  std::vector<Slot> slots_;
  std::vector<bool> used_;
  std::vector<uint32_t> given_;
  uint32_t lowest_ = 0;
  List<Page, &Page::dirty_node> dirty_;
  size_t dirty_count_ = 0;
};

}  // namespace basalt::bdev::lvs
