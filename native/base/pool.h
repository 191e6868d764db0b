// SPDX-License-Identifier: Apache-2.0
// Pool<T>: objects that are taken and given back without touching the heap once warm. Grows by chunks up to a maximum;
// when that is reached take() returns nullptr and the caller waits or answers busy. One thread. Objects keep their
// address and are constructed once, when their chunk is made, and reused as they were left.
#pragma once

#include <algorithm>
#include <cstddef>
#include <memory>
#include <vector>

#include "base/assert.h"

namespace basalt {

template <class T>
class Pool {
 public:
  explicit Pool(size_t count_max, size_t chunk_count = 64) : count_max_(count_max), chunk_count_(chunk_count) {}
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;
  ~Pool() { BASALT_ASSERT(free_.size() == count_); }

  T* take() {
    if (free_.empty() && !grow()) return nullptr;
    T* item = free_.back();
    free_.pop_back();
    return item;
  }
  void give(T* item) {
    BASALT_ASSERT(free_.size() < count_);
    free_.push_back(item);
  }
  size_t in_use() const { return count_ - free_.size(); }
  size_t count() const { return count_; }

 private:
  bool grow() {
    const size_t more = std::min(chunk_count_, count_max_ - count_);
    if (more == 0) return false;
    chunks_.push_back(std::make_unique<T[]>(more));
    free_.reserve(count_ + more);
    for (size_t i = more; i > 0; i--)
      free_.push_back(&chunks_.back()[i - 1]);
    count_ += more;
    return true;
  }

  const size_t count_max_;
  const size_t chunk_count_;
  size_t count_ = 0;
  std::vector<std::unique_ptr<T[]>> chunks_;
  std::vector<T*> free_;
};

}  // namespace basalt
