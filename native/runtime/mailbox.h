// SPDX-License-Identifier: Apache-2.0
// Mailbox: Work sent to a reactor from any thread; many producers, one consumer, no locks. Work arrives in the order in
// which pushes ended. push() tells whether the mailbox may have been empty, so that the sender wakes a sleeper once.
#pragma once

#include <atomic>

#include "base/work.h"

namespace basalt {

class Mailbox {
 public:
  // Any thread. True when there was nothing in it before.
  bool push(Work* work) {
    Work* head = head_.load(std::memory_order_relaxed);
    do {
      work->next_work = head;
    } while (!head_.compare_exchange_weak(head, work, std::memory_order_seq_cst, std::memory_order_relaxed));
    return head == nullptr;
  }

  bool empty() const { return head_.load(std::memory_order_seq_cst) == nullptr; }

  // The owner: moves all that arrived into `queue`, oldest first. True when there was something.
  bool drain(WorkQueue& queue) {
    Work* newest = head_.exchange(nullptr, std::memory_order_acquire);
    if (newest == nullptr) return false;
    Work* oldest = nullptr;
    while (newest != nullptr) {
      Work* following = newest->next_work;
      newest->next_work = oldest;
      oldest = newest;
      newest = following;
    }
    while (oldest != nullptr) {
      Work* following = oldest->next_work;
      queue.push(oldest);
      oldest = following;
    }
    return true;
  }

 private:
  std::atomic<Work*> head_{nullptr};
};

}  // namespace basalt
