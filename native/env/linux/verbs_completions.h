// SPDX-License-Identifier: Apache-2.0
// VerbsCompletions: one completion queue of an adapter, with as many queue pairs as it has room for: a queue that
// overflows is broken for ever, so everything that may complete into it has a reserved entry.
// Polled while the poller is awake; armed before it sleeps.
#pragma once

#include "env/linux/verbs_library.h"

#ifdef BASALT_HAS_VERBS

#include <vector>

namespace basalt::env {

class VerbsReceiveQueue;

class VerbsCompletions {
 public:
  VerbsCompletions(const VerbsLibrary& library, ibv_cq* queue, uint32_t capacity)
      : library_(library), queue_(queue), capacity_(capacity) {}
  ~VerbsCompletions() { library_.verbs.destroy_cq(queue_); }
  VerbsCompletions(const VerbsCompletions&) = delete;
  VerbsCompletions& operator=(const VerbsCompletions&) = delete;

  ibv_cq* queue() const { return queue_; }
  // Room for a queue pair: its own work, and all of a shared queue's receives (once; nullptr: none).
  bool reserve(uint32_t entries, const VerbsReceiveQueue* shared, uint32_t shared_entries);
  void release(uint32_t entries);
  void forget(const VerbsReceiveQueue* shared);
  bool unused() const { return user_count_ == 0; }

  int poll(ibv_wc* out, int count_max) { return ibv_poll_cq(queue_, count_max, out); }
  // It will be told on the adapter's channel that something has come.
  void arm() {
    if (armed_) return;
    armed_ = ibv_req_notify_cq(queue_, 0) == 0;
  }
  void told() { armed_ = false; }

 private:
  struct Shared {
    const VerbsReceiveQueue* queue;
    uint32_t entries;
  };
  const VerbsLibrary& library_;
  ibv_cq* const queue_;
  const uint32_t capacity_;
  uint32_t reserved_ = 0;
  uint32_t user_count_ = 0;
  std::vector<Shared> shared_;
  bool armed_ = false;
};

}  // namespace basalt::env
#endif
