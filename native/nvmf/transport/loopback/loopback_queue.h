// SPDX-License-Identifier: Apache-2.0
// LoopbackHostQueue: the host's queue and the target's queue of one loopback connection, on one reactor.
#pragma once

#include <memory>
#include <vector>

#include "nvmf/target/queue.h"
#include "nvmf/transport/loopback/loopback.h"

namespace basalt::nvmf {

class LoopbackHostQueue final : public HostQueue {
 public:
  LoopbackHostQueue(LoopbackTargetTransport& transport, Target& target, std::shared_ptr<LoopbackLink> link,
                    const HostQueueOptions& options);
  ~LoopbackHostQueue() override;
  void unlisten();  // the listener goes

 private:
  struct Slot : Work {
    LoopbackHostQueue* queue = nullptr;
    HostCommand* command = nullptr;
    Request request;
    std::unique_ptr<Iovec[]> pieces;  // only for commands that use a part of their iov
  };

  void start(HostCommand* command) override;
  void end_connection() override;
  void execute(Slot* slot, HostCommand* command);
  bool give_memory(Slot* slot);
  void refuse(Slot* slot, nvme::Status status);
  void finished(Slot* slot);
  void drained();
  void leave();

  LoopbackTargetTransport& transport_;
  std::shared_ptr<LoopbackLink> link_;
  TargetQueue target_queue_;
  const uint16_t slot_count_;
  std::unique_ptr<Slot[]> slots_;
  std::vector<Slot*> free_;
  List<HostCommand, &HostCommand::wait_node> waiting_;
  size_t refused_count_ = 0;  // completions that are deferred here
  bool target_drained_ = false;
  bool ended_ = false;
};

}  // namespace basalt::nvmf
