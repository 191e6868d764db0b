// SPDX-License-Identifier: Apache-2.0
// HostShare: what the connections of one host hold of their reactor's payload buffers, together. A host that takes
// buffers and gives none back (it does not read, or does not send what it was asked for) gets no more than half of
// them: its own commands wait in line here, other hosts' go on.
//
// Thread: the reactor's. Invariants: - held_bytes is what the host's commands hold, waiting ones hold nothing
//                                    - whoever is refused is in line, and runs when enough came back
#pragma once

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "base/list.h"
#include "memory/buffer_pool.h"

namespace basalt::nvmf {

class HostShare {
 public:
  HostShare(std::string hostnqn, size_t limit_bytes) : hostnqn_(std::move(hostnqn)), limit_bytes_(limit_bytes) {}
  ~HostShare() { BASALT_ASSERT(held_bytes_ == 0 && waiting_.empty()); }
  HostShare(const HostShare&) = delete;
  HostShare& operator=(const HostShare&) = delete;

  // False: the limit is reached. One request is always admitted.
  bool admits(size_t bytes) const { return held_bytes_ == 0 || held_bytes_ + bytes <= limit_bytes_; }
  void hold(size_t bytes) { held_bytes_ += bytes; }
  // The waiter that may try again now, taken out of line; or nullptr.
  BufferWaiter* give_back(size_t bytes) {
    held_bytes_ -= bytes;
    return waiting_.pop_front();
  }
  // The next one in line, when there may be room for it.
  BufferWaiter* next() { return held_bytes_ < limit_bytes_ ? waiting_.pop_front() : nullptr; }
  void wait(BufferWaiter* waiter) { waiting_.push_back(waiter); }

  size_t held_bytes() const { return held_bytes_; }
  size_t limit_bytes() const { return limit_bytes_; }

 private:
  friend class HostShares;
  const std::string hostnqn_;
  const size_t limit_bytes_;
  size_t held_bytes_ = 0;
  size_t user_count_ = 0;
  List<BufferWaiter, &BufferWaiter::node> waiting_;
};

// The shares of one reactor, each there while the host has a connection.
class HostShares {
 public:
  HostShare* join(const std::string& hostnqn, const BufferPool& buffers) {
    for (const auto& share : shares_) {
      if (share->hostnqn_ != hostnqn) continue;
      share->user_count_++;
      return share.get();
    }
    // The pool grows every class by one slab whatever its limit says.
    const size_t pool_bytes = std::max(buffers.bytes_max(), BufferPool::bytes_min);
    shares_.push_back(std::make_unique<HostShare>(hostnqn, pool_bytes / 2));
    shares_.back()->user_count_ = 1;
    return shares_.back().get();
  }
  void leave(HostShare* share) {
    if (--share->user_count_ > 0) return;
    std::erase_if(shares_, [&](const auto& each) { return each.get() == share; });
  }

 private:
  std::vector<std::unique_ptr<HostShare>> shares_;
};

}  // namespace basalt::nvmf
