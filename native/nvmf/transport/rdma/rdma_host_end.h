// SPDX-License-Identifier: Apache-2.0
// RdmaHostEnd: a host queue's connection and the memory that its adapter may use. A queue that is given up while it is
// connected leaves this behind: it closes the connection and goes when that has ended.
// Thread: the queue's reactor.
#pragma once

#include <memory>
#include <vector>

#include "env/rdma.h"
#include "nvme/spec.h"
#include "nvmf/transport/rdma/rdma_host.h"
#include "runtime/reactor.h"

namespace basalt::nvmf {

class RdmaHostQueue;

struct RdmaHostEnd {
  RdmaHostEnd(RdmaHostQueue* owner, Reactor& on);
  ~RdmaHostEnd();
  RdmaHostEnd(const RdmaHostEnd&) = delete;
  RdmaHostEnd& operator=(const RdmaHostEnd&) = delete;

  // The block: a command and room for a response per slot, and one response more.
  Outcome make_block(uint16_t slot_count);
  void post_receives();
  static void leave(std::unique_ptr<RdmaHostEnd> end);

  struct Receive : env::RdmaReceive {
    env::RdmaPiece piece;
    RdmaHostEnd* end = nullptr;
  };
  struct Changed : Work {
    RdmaHostEnd* end = nullptr;
  };
  static constexpr size_t cell_bytes = 64;
  static_assert(sizeof(nvme::Command) <= cell_bytes && sizeof(nvme::Completion) <= cell_bytes);

  RdmaHostQueue* queue;  // nullptr: it has gone
  Reactor& reactor;
  std::unique_ptr<RdmaHostEnd> self;  // while it is alone
  std::shared_ptr<RdmaHostDevice> device;
  Buffer* block = nullptr;
  uint32_t block_key = 0;
  std::vector<std::unique_ptr<env::RdmaWindow>> windows;
  std::vector<Receive> receives;
  std::unique_ptr<env::RdmaConnection> connection;
  bool has_queue_pair = false;
  Changed changed;
};

}  // namespace basalt::nvmf
