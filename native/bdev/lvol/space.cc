// SPDX-License-Identifier: Apache-2.0
#include "bdev/lvol/space.h"

#include <cstring>

namespace basalt::bdev::lvs {

Space::Space(const Layout& layout, PageTable& pages)
    : pages_(pages),
      cluster_count_(layout.cluster_count),
      dirty_(layout.cluster_count / 64 + 1),
      held_(layout.cluster_count / 64 + 1),
      dirty_pages_(layout.dirty_map_pages),
      clean_count_(layout.cluster_count) {
  for (uint32_t i = 0; i < dirty_pages_.size(); i++) {
    dirty_pages_[i].type = BlockType::dirty_map;
    dirty_pages_[i].number = i;
    BASALT_ASSERT(pages_.claim(i));
  }
}

void Space::put(uint32_t cluster, bool dirty, bool held) {
  const bool was_dirty = get(dirty_, cluster);
  if (!get(held_, cluster)) (was_dirty ? to_zero_count_ : clean_count_)--;
  if (!held) (dirty ? to_zero_count_ : clean_count_)++;
  set(held_, cluster, held);
  if (dirty == was_dirty) return;
  set(dirty_, cluster, dirty);
  pages_.mark(dirty_pages_[cluster / clusters_per_dirty_map]);
}

uint32_t Space::take_reserved() {
  BASALT_ASSERT(reserve_count() > 0);
  const uint32_t cluster = reserve_[reserve_next_++];
  if (reserve_next_ == reserve_.size()) {
    reserve_.clear();
    reserve_next_ = 0;
  }
  BASALT_ASSERT(get(held_, cluster) && get(dirty_, cluster));
  mapped_count_++;
  return cluster;
}

bool Space::map(uint32_t cluster) {
  if (cluster >= cluster_count_ || get(held_, cluster)) return false;
  put(cluster, true, true);
  mapped_count_++;
  return true;
}

void Space::unmap(uint32_t cluster) {
  BASALT_ASSERT(get(held_, cluster) && mapped_count_ > 0);
  put(cluster, true, false);
  mapped_count_--;
}

Space::Run Space::find(bool dirty, uint32_t count_max, uint32_t& cursor) {
  const auto fits = [&](uint32_t cluster) { return !get(held_, cluster) && get(dirty_, cluster) == dirty; };
  for (uint32_t step = 0; step < cluster_count_; step++) {
    const uint32_t first = cursor + step < cluster_count_ ? cursor + step : cursor + step - cluster_count_;
    if (!fits(first)) continue;
    uint32_t count = 1;
    while (count < count_max && first + count < cluster_count_ && fits(first + count))
      count++;
    cursor = first + count < cluster_count_ ? first + count : 0;
    return {first, count};
  }
  return {};
}

Space::Run Space::find_clean(uint32_t count_max) {
  return clean_count_ == 0 ? Run{} : find(false, count_max, clean_cursor_);
}

Space::Run Space::find_to_zero(uint32_t count_max) {
  if (to_zero_count_ == 0) return {};
  const Run run = find(true, count_max, to_zero_cursor_);
  for (uint32_t i = 0; i < run.count; i++)
    put(run.first + i, true, true);
  return run;
}

void Space::hold_for_reserve(Run run) {
  for (uint32_t i = 0; i < run.count; i++)
    put(run.first + i, get(dirty_, run.first + i), true);
}

void Space::add_reserve(Run run) {
  // Those that were taken leave when there is no room behind the others: a reserve that is never empty would grow.
  if (reserve_next_ > 0 && reserve_.size() + run.count > reserve_.capacity()) {
    reserve_.erase(reserve_.begin(), reserve_.begin() + static_cast<std::ptrdiff_t>(reserve_next_));
    reserve_next_ = 0;
  }
  for (uint32_t i = 0; i < run.count; i++) {
    BASALT_ASSERT(get(dirty_, run.first + i) && get(held_, run.first + i));
    reserve_.push_back(run.first + i);
  }
}

void Space::zeroed(Run run) {
  for (uint32_t i = 0; i < run.count; i++) {
    BASALT_ASSERT(!get(dirty_, run.first + i));
    put(run.first + i, false, false);
  }
}

void Space::set_dirty(Run run, bool dirty) {
  for (uint32_t i = 0; i < run.count; i++)
    put(run.first + i, dirty, get(held_, run.first + i));
}

void Space::return_reserve() {
  while (reserve_next_ < reserve_.size())
    put(reserve_[reserve_next_++], false, false);
  reserve_.clear();
  reserve_next_ = 0;
}

void Space::set_all_dirty() {
  set_dirty({0, cluster_count_}, true);
}

void Space::write_page(uint32_t index, uint8_t* payload) const {
  const uint32_t first = index * clusters_per_dirty_map;
  for (uint32_t i = 0; i < clusters_per_dirty_map && first + i < cluster_count_; i++) {
    if (get(dirty_, first + i)) payload[i / 8] |= static_cast<uint8_t>(1u << i % 8);
  }
}

void Space::read_page(uint32_t index, const uint8_t* payload) {
  const uint32_t first = index * clusters_per_dirty_map;
  for (uint32_t i = 0; i < clusters_per_dirty_map && first + i < cluster_count_; i++) {
    set(dirty_, first + i, payload[i / 8] >> i % 8 & 1);
  }
}

void Space::recount() {
  clean_count_ = to_zero_count_ = 0;
  for (uint32_t i = 0; i < cluster_count_; i++) {
    if (!get(held_, i)) (get(dirty_, i) ? to_zero_count_ : clean_count_)++;
  }
}

}  // namespace basalt::bdev::lvs
