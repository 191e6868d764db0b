// SPDX-License-Identifier: Apache-2.0
// Timer: intrusive; armed on a reactor, runs once when due. TimerHeap keeps the earliest on top; O(log n) arm and
// cancel.
#pragma once

#include <cstddef>
#include <vector>

#include "base/assert.h"
#include "base/time.h"
#include "base/work.h"

namespace basalt {

struct Timer : Work {
  Instant due;
  size_t heap_index = SIZE_MAX;
  bool armed() const { return heap_index != SIZE_MAX; }
  ~Timer() { BASALT_ASSERT(!armed()); }
};

class TimerHeap {
 public:
  void arm(Timer* timer, Instant due);
  void cancel(Timer* timer);  // not armed: nothing happens
  Instant next_due() const { return heap_.empty() ? Instant::never() : heap_.front()->due; }
  // Takes the earliest timer that is due at `now`, or nullptr.
  Timer* pop_due(Instant now);
  bool empty() const { return heap_.empty(); }

 private:
  void place(size_t index, Timer* timer);
  void sift_up(size_t index);
  void sift_down(size_t index);
  void remove_at(size_t index);
  std::vector<Timer*> heap_;
};

}  // namespace basalt
