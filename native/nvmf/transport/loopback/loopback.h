// SPDX-License-Identifier: Apache-2.0
// Loopback transport: host and target in one process, without bytes. A command goes to the target's queue as it is, and
// the target works in the submitter's own memory.
//
// LoopbackTargetTransport: listens; its addresses are names that mean something in this engine only.
// LoopbackHostTransport: connects to them. The queue lives on the host's reactor, which must be one of the target's.
//
// Closing a queue ends the association at once, but its commands complete as lost only when the target has let go of
// their memory.
// Thread: the registry is locked (control path only); a queue belongs to its reactor.
#pragma once

#include <memory>
#include <mutex>
#include <vector>

#include "nvmf/host/transport.h"
#include "nvmf/target/target.h"

namespace basalt::nvmf {

class LoopbackHostQueue;

// What the transport knows of a queue; outlives both.
struct LoopbackLink : Work {
  Reactor* reactor = nullptr;
  Listener* listener = nullptr;
  LoopbackHostQueue* queue = nullptr;  // the queue's reactor; nullptr: gone
  std::shared_ptr<LoopbackLink> self;  // while it travels as Work
};

class LoopbackTargetTransport final : public TargetTransport {
 public:
  explicit LoopbackTargetTransport(Target& target) : target_(target) {}
  ~LoopbackTargetTransport() override;

  const char* trtype() const override { return "LOOPBACK"; }
  Task<Outcome> listen(Listener* listener) override;
  Task<void> unlisten(Listener* listener) override;

 private:
  friend class LoopbackHostTransport;
  friend class LoopbackHostQueue;
  // Errc::unreachable when nobody listens there.
  Result<std::shared_ptr<LoopbackLink>> join(Reactor& reactor, const HostAddress& address);
  void leave(const std::shared_ptr<LoopbackLink>& link);
  size_t link_count(const Listener* listener);

  Target& target_;
  std::mutex mutex_;
  std::vector<Listener*> listeners_;
  std::vector<std::shared_ptr<LoopbackLink>> links_;
  unsigned next_number_ = 1;
};

class LoopbackHostTransport final : public HostTransport {
 public:
  explicit LoopbackHostTransport(LoopbackTargetTransport& target) : target_(target) {}
  const char* name() const override { return "LOOPBACK"; }
  Task<Result<std::unique_ptr<HostQueue>>> connect(Reactor& reactor, HostAddress address,
                                                   HostQueueOptions options) override;

 private:
  LoopbackTargetTransport& target_;
};

}  // namespace basalt::nvmf
