// SPDX-License-Identifier: Apache-2.0
// An adapter's objects over memory: regions, windows for peers, shared receive queues. Thread: the poller's.
#pragma once

#include "env/linux/verbs_device.h"

#ifdef BASALT_HAS_VERBS

namespace basalt::env {

// For this side only: peers reach memory by windows.
class VerbsRegion final : public RdmaRegion {
 public:
  VerbsRegion(VerbsDevice& device, ibv_mr* region) : device_(device), region_(region) { device_.add_region(region_); }
  ~VerbsRegion() override;
  uint32_t key() const override { return region_->lkey; }

 private:
  VerbsDevice& device_;
  ibv_mr* const region_;
};

class VerbsWindow final : public RdmaWindow {
 public:
  VerbsWindow(VerbsDevice& device, ibv_mw* window) : device_(device), window_(window) {}
  ~VerbsWindow() override {
    if (node.linked()) node.unlink();
    close();
  }
  uint32_t key() const override { return key_; }
  VerbsDevice& device() const { return device_; }

  // The adapter's object; made anew after close(). nullptr: there are no more.
  ibv_mw* open();
  // Whoever has a key of it reaches nothing any more. A window that is open keeps its queue pair from ending.
  void close();
  // The key of the next bind; posted() once the adapter has that bind.
  uint32_t next_key() { return key_ = ibv_inc_rkey(window_->rkey); }
  void posted() { window_->rkey = key_; }

  ListNode node;  // of the connection that it was bound for

 private:
  VerbsDevice& device_;
  ibv_mw* window_;
  uint32_t key_ = 0;
};

class VerbsReceiveQueue final : public RdmaReceiveQueue {
 public:
  VerbsReceiveQueue(VerbsDevice& device, ibv_srq* queue, uint32_t depth)
      : device_(device), queue_(queue), depth_(depth) {}
  ~VerbsReceiveQueue() override;
  void post(RdmaReceive* receive) override;
  ibv_srq* queue() const { return queue_; }
  uint32_t depth() const { return depth_; }

 private:
  VerbsDevice& device_;
  ibv_srq* const queue_;
  const uint32_t depth_;
};

constexpr size_t verbs_pieces_max = 16;
// Of a request or a receive; `out` has room for verbs_pieces_max.
int verbs_pieces(const RdmaWork& work, ibv_sge* out);

}  // namespace basalt::env
#endif
