// SPDX-License-Identifier: Apache-2.0
// Work: an intrusive piece of work that a reactor runs once. The base of completions, messages between reactors and
// deferred steps, so that none of them allocates. A Work is in at most one queue at a time; its owner keeps it alive
// until `run` was called. `run` may free or requeue it.
#pragma once

#include <cstddef>

namespace basalt {

struct Work {
  Work* next_work = nullptr;
  void (*run)(Work*) = nullptr;
};

// FIFO of Work for one thread.
class WorkQueue {
 public:
  bool empty() const { return head_ == nullptr; }
  void push(Work* work) {
    work->next_work = nullptr;
    if (tail_ != nullptr) {
      tail_->next_work = work;
    } else {
      head_ = work;
    }
    tail_ = work;
  }
  Work* pop() {
    Work* work = head_;
    if (work != nullptr) {
      head_ = work->next_work;
      if (head_ == nullptr) tail_ = nullptr;
      work->next_work = nullptr;
    }
    return work;
  }

 private:
  Work* head_ = nullptr;
  Work* tail_ = nullptr;
};

}  // namespace basalt
