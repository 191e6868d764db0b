// SPDX-License-Identifier: Apache-2.0
// VerbsDevice: an adapter that one poller has opened: protection domain, completion queues, and the events that the
// adapter tells by itself (errors, ports that go down, its removal).
//
// Which work has completed: a work request's id is its connection, and what ended is the oldest of that connection's;
// that of a shared receive is the receive itself. So nothing may complete of a queue pair that is gone: after it has
// been destroyed, when the adapter adds nothing any more, the completion queues are emptied before anything of it is
// freed.
//
// Port loss: the connections of that port break at once instead of after their retries, so that other paths take over.
#pragma once

#include "env/linux/verbs_library.h"

#ifdef BASALT_HAS_VERBS

#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/list.h"
#include "env/linux/verbs_completions.h"
#include "env/linux/verbs_fd.h"
#include "env/rdma.h"

namespace basalt::env {

class VerbsConnection;
class VerbsRdma;

class VerbsDevice final : public RdmaDevice {
 public:
  // What a work request's id is, in its lowest bits.
  enum class Kind : uint8_t { request, receive, shared_receive };

  static Result<std::unique_ptr<VerbsDevice>> open(VerbsRdma& rdma, ibv_device* device);
  ~VerbsDevice() override;
  const std::string& name() const override { return name_; }
  const RdmaLimits& limits() const override { return limits_; }
  bool removed() const override { return removed_; }
  Result<std::unique_ptr<RdmaRegion>> register_memory(void* base, size_t length_bytes) override;
  Result<std::unique_ptr<RdmaWindow>> make_window() override;
  Result<std::unique_ptr<RdmaReceiveQueue>> make_receive_queue(uint32_t depth) override;

  bool is(const ibv_device* device) const { return device_ == device; }
  const VerbsLibrary& rdma_core() const;
  VerbsRdma& rdma() const { return rdma_; }
  ibv_pd* domain() const { return domain_; }
  uint8_t incoming_reads_max() const { return incoming_reads_max_; }
  uint8_t outgoing_reads_max() const { return outgoing_reads_max_; }
  bool is_infiniband(uint8_t port) const;

  // For regions, windows and shared queues.
  void add_region(ibv_mr* region) { regions_[region->lkey] = region; }
  void drop_region(uint32_t key) { regions_.erase(key); }
  ibv_mr* region(uint32_t key) const {
    const auto found = regions_.find(key);
    return found == regions_.end() ? nullptr : found->second;
  }
  void forget(const VerbsReceiveQueue* queue);

  // For connections.
  Result<VerbsCompletions*> completions_for(uint32_t entries, const VerbsReceiveQueue* shared, uint32_t shared_entries);
  void add(VerbsConnection& connection, uint32_t number);
  void drop(VerbsConnection& connection, uint32_t number, VerbsCompletions& completions, uint32_t entries);
  void note_removed();

  void poll();  // some of what has completed stands in line to run after it
  void arm();   // all of it does, and what comes later wakes the poller

 private:
  VerbsDevice(VerbsRdma& rdma, ibv_device* device);
  Outcome init();
  bool take(VerbsCompletions& completions);  // true: there may be more
  void resolve(const ibv_wc& completion);
  void break_failed();
  void read_completion_events();
  void read_async_events();
  void async_event(const ibv_async_event& event);
  template <class F>
  void break_connections(F&& which, RdmaConnection::Cause cause);

  VerbsRdma& rdma_;
  ibv_device* device_;
  std::string name_;
  ibv_context* context_ = nullptr;
  ibv_pd* domain_ = nullptr;
  ibv_comp_channel* channel_ = nullptr;
  RdmaLimits limits_;
  uint32_t completions_max_ = 0;
  uint8_t incoming_reads_max_ = 0;
  uint8_t outgoing_reads_max_ = 0;
  unsigned invalidated_flags_ = IBV_WC_WITH_INV;  // of a receive that came with an invalidation
  bool removed_ = false;
  std::unique_ptr<VerbsFd> channel_fd_;
  std::unique_ptr<VerbsFd> async_fd_;
  std::vector<std::unique_ptr<VerbsCompletions>> completions_;
  std::unordered_map<uint32_t, VerbsConnection*> connections_;  // by the queue pair's number
  std::vector<VerbsConnection*> failed_;                        // to be broken
  std::unordered_map<uint32_t, ibv_mr*> regions_;
};

}  // namespace basalt::env
#endif
