// SPDX-License-Identifier: Apache-2.0
// Space: which physical clusters are whose.
//
// A cluster is `dirty` unless it is known to read as zeroes from stable media; that bit is kept on disk. It is `held`
// while an lvol maps it, or it lies in the reserve, or it is being zeroed; that is known from the rest.
//
//   clean, not held --reserve (durable)--> reserve --first write--> mapped --unmap, delete--> dirty, not held
//        ^------------------------- zeroed, flushed, recorded -------------------------------------|
//
// So whatever may have been written since the last known zeroing is dirty, on disk too, before it is written. What a
// crash leaves dirty and unmapped is zeroed before anyone gets it: no bytes of an old owner, and no leaks.
#pragma once

#include <cstdint>
#include <vector>

#include "base/assert.h"
#include "bdev/lvol/page.h"

namespace basalt::bdev::lvs {

class Space {
 public:
  struct Run {
    uint32_t first = 0;
    uint32_t count = 0;
  };

  Space(const Layout& layout, PageTable& pages);

  uint32_t cluster_count() const { return cluster_count_; }
  uint32_t reserve_count() const { return static_cast<uint32_t>(reserve_.size() - reserve_next_); }
  uint32_t clean_count() const { return clean_count_; }      // clean, not held
  uint32_t to_zero_count() const { return to_zero_count_; }  // dirty, not held
  uint32_t mapped_count() const { return mapped_count_; }
  uint32_t free_count() const { return cluster_count_ - mapped_count_; }  // now or soon

  bool dirty(uint32_t cluster) const { return get(dirty_, cluster); }
  bool held(uint32_t cluster) const { return get(held_, cluster); }

  uint32_t take_reserved();      // the reserve is not empty; the cluster is mapped afterwards
  bool map(uint32_t cluster);    // replay, load: false when it is mapped already or out of range
  void unmap(uint32_t cluster);  // now to be zeroed

  Run find_clean(uint32_t count_max);    // a run to reserve
  Run find_to_zero(uint32_t count_max);  // a run to zero; held until zeroed()
  void hold_for_reserve(Run run);
  void add_reserve(Run run);  // its record is stable
  void zeroed(Run run);       // its record is written
  // Applied from the journal: the dirty bits only.
  void set_dirty(Run run, bool dirty);
  void return_reserve();  // closing: never written, so clean again
  void set_all_dirty();

  Page* page(uint32_t index) { return &dirty_pages_[index]; }
  uint32_t page_count() const { return static_cast<uint32_t>(dirty_pages_.size()); }
  void write_page(uint32_t index, uint8_t* payload) const;
  void read_page(uint32_t index, const uint8_t* payload);
  void recount();  // after loading

 private:
  using Bits = std::vector<uint64_t>;
  static bool get(const Bits& bits, uint32_t i) { return bits[i / 64] >> (i % 64) & 1; }
  static void set(Bits& bits, uint32_t i, bool value) {
    const uint64_t mask = uint64_t{1} << (i % 64);
    bits[i / 64] = value ? bits[i / 64] | mask : bits[i / 64] & ~mask;
  }
  void put(uint32_t cluster, bool dirty, bool held);
  Run find(bool dirty, uint32_t count_max, uint32_t& cursor);

  PageTable& pages_;
  const uint32_t cluster_count_;
  Bits dirty_;
  Bits held_;
  std::vector<Page> dirty_pages_;
  std::vector<uint32_t> reserve_;
  size_t reserve_next_ = 0;
  uint32_t clean_count_ = 0;
  uint32_t to_zero_count_ = 0;
  uint32_t mapped_count_ = 0;
  uint32_t clean_cursor_ = 0;
  uint32_t to_zero_cursor_ = 0;
};

}  // namespace basalt::bdev::lvs
