// SPDX-License-Identifier: Apache-2.0
#include "runtime/timer.h"

#include <cstdint>

namespace basalt {

void TimerHeap::place(size_t index, Timer* timer) {
  heap_[index] = timer;
  timer->heap_index = index;
}

void TimerHeap::sift_up(size_t index) {
  Timer* timer = heap_[index];
  while (index > 0) {
    const size_t parent = (index - 1) / 2;
    if (heap_[parent]->due <= timer->due) break;
    place(index, heap_[parent]);
    index = parent;
  }
  place(index, timer);
}

void TimerHeap::sift_down(size_t index) {
  Timer* timer = heap_[index];
  for (;;) {
    size_t child = index * 2 + 1;
    if (child >= heap_.size()) break;
    if (child + 1 < heap_.size() && heap_[child + 1]->due < heap_[child]->due) child++;
    if (timer->due <= heap_[child]->due) break;
    place(index, heap_[child]);
    index = child;
  }
  place(index, timer);
}

void TimerHeap::arm(Timer* timer, Instant due) {
  if (timer->armed()) remove_at(timer->heap_index);
  timer->due = due;
  heap_.push_back(timer);
  timer->heap_index = heap_.size() - 1;
  sift_up(timer->heap_index);
}

void TimerHeap::cancel(Timer* timer) {
  if (timer->armed()) remove_at(timer->heap_index);
}

void TimerHeap::remove_at(size_t index) {
  heap_[index]->heap_index = SIZE_MAX;
  Timer* last = heap_.back();
  heap_.pop_back();
  if (index == heap_.size()) return;
  place(index, last);
  sift_up(index);
  sift_down(last->heap_index);
}

Timer* TimerHeap::pop_due(Instant now) {
  if (heap_.empty() || heap_.front()->due > now) return nullptr;
  Timer* timer = heap_.front();
  remove_at(0);
  return timer;
}

}  // namespace basalt
