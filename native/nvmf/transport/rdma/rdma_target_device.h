// SPDX-License-Identifier: Apache-2.0
// RdmaTargetDevice: what the connections of one reactor share of one device: registrations, the shared receive queue
// with its memory, cells for responses. It goes with the last of them, so that an idle target pins nothing.
//
// Receives: a command without data gives its receive back at once; one with in-capsule data keeps it until it ends,
// because its data is used where it arrived. When few are left, such data is copied into a pool buffer instead (and
// counted). Where none can be had, a write that waits for other nodes is refused for now: it would hold a receive that
// another node may wait for.
//
// Thread: the reactor's.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "nvmf/transport/host_share.h"
#include "nvmf/transport/rdma/rdma_memory.h"
#include "runtime/reactor.h"

namespace basalt::nvmf {

class RdmaTargetConnection;

struct RdmaTargetStats {
  std::atomic<uint64_t> copied_bytes{0};      // in-capsule data, when receives were short
  std::atomic<uint64_t> in_place_bytes{0};    // payload that the adapter moved from or to where it is used
  std::atomic<uint64_t> refused_count{0};     // writes, for now, because receives and buffers were short
  std::atomic<uint64_t> rejected_count{0};    // connections, by a status
  std::atomic<uint64_t> wire_error_count{0};  // connections that ended by a failed request or a malformed capsule

  // What this side lacked; a peer hears "no resources".
  void note_lack(const std::string& what) {
    std::lock_guard guard(mutex_);
    last_lack_ = what;
  }
  std::string last_lack() const {
    std::lock_guard guard(mutex_);
    return last_lack_;
  }

 private:
  mutable std::mutex mutex_;
  std::string last_lack_;
};

class RdmaTargetDevice {
 public:
  struct Receive : env::RdmaReceive {
    RdmaTargetDevice* owner = nullptr;
    env::RdmaPiece parts[2];  // the command, its data
    const void* command() const { return parts[0].base; }
    void* data() const { return parts[1].base; }
  };
  static constexpr size_t cell_bytes = 64;

  RdmaTargetDevice(Reactor& reactor, env::RdmaDevice& device, RdmaTargetStats& stats)
      : memory(reactor.buffers().arena(), device), stats(stats), reactor_(reactor) {}
  ~RdmaTargetDevice();
  RdmaTargetDevice(const RdmaTargetDevice&) = delete;
  RdmaTargetDevice& operator=(const RdmaTargetDevice&) = delete;

  Outcome init(uint32_t depth, uint32_t in_capsule_bytes);
  env::RdmaReceiveQueue* receive_queue() { return queue_.get(); }
  void give(Receive* receive);  // posts it again
  bool short_of_receives() const { return posted_count_ < low_count_; }
  uint32_t posted_count() const { return posted_count_; }

  // A piece of registered memory for a response; nullptr: no buffers.
  void* take_cell(uint32_t* key);
  void give_cell(void* cell) { free_cells_.push_back(cell); }

  RdmaMemory memory;
  HostShares hosts;
  RdmaTargetStats& stats;

 private:
  static void arrived(Work* work);
  Reactor& reactor_;
  std::unique_ptr<env::RdmaReceiveQueue> queue_;
  std::vector<Receive> receives_;
  void* receive_memory_ = nullptr;
  uint32_t posted_count_ = 0;
  uint32_t low_count_ = 0;
  std::vector<Buffer*> cell_buffers_;
  std::vector<void*> free_cells_;
};

}  // namespace basalt::nvmf
