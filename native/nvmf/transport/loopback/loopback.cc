// SPDX-License-Identifier: Apache-2.0
#include "nvmf/transport/loopback/loopback.h"

#include <algorithm>

#include "nvmf/transport/loopback/loopback_queue.h"

namespace basalt::nvmf {

LoopbackTargetTransport::~LoopbackTargetTransport() {
  BASALT_ASSERT(listeners_.empty() && links_.empty());
}

Task<Outcome> LoopbackTargetTransport::listen(Listener* listener) {
  std::lock_guard guard(mutex_);
  ListenAddress& address = listener->address;
  if (address.trsvcid == "0") address.trsvcid = std::to_string(next_number_++);
  for (const Listener* other : listeners_) {
    if (other->address == address) co_return Error{Errc::exists, "trsvcid: somebody listens there already"};
  }
  listeners_.push_back(listener);
  co_return success();
}

Task<void> LoopbackTargetTransport::unlisten(Listener* listener) {
  {
    std::lock_guard guard(mutex_);
    std::erase(listeners_, listener);
    for (const auto& link : links_) {
      if (link->listener != listener || link->self) continue;
      link->self = link;
      link->run = [](Work* work) {
        auto* arrived = static_cast<LoopbackLink*>(work);
        const auto keep = std::move(arrived->self);
        if (keep->queue != nullptr) keep->queue->unlisten();
      };
      link->reactor->post(link.get());
    }
  }
  while (link_count(listener) > 0)
    co_await sleep_for(target_.home(), milliseconds(1));
}

size_t LoopbackTargetTransport::link_count(const Listener* listener) {
  std::lock_guard guard(mutex_);
  return static_cast<size_t>(
      std::count_if(links_.begin(), links_.end(), [listener](const auto& link) { return link->listener == listener; }));
}

Result<std::shared_ptr<LoopbackLink>> LoopbackTargetTransport::join(Reactor& reactor, const HostAddress& address) {
  std::lock_guard guard(mutex_);
  for (Listener* listener : listeners_) {
    if (listener->address.traddr != address.traddr || listener->address.trsvcid != address.trsvcid) continue;
    auto link = std::make_shared<LoopbackLink>();
    link->reactor = &reactor;
    link->listener = listener;
    links_.push_back(link);
    return link;
  }
  return Error{Errc::unreachable, "traddr: nobody listens at " + address.to_string() + " in this engine"};
}

void LoopbackTargetTransport::leave(const std::shared_ptr<LoopbackLink>& link) {
  std::lock_guard guard(mutex_);
  std::erase(links_, link);
}

Task<Result<std::unique_ptr<HostQueue>>> LoopbackHostTransport::connect(Reactor& reactor, HostAddress address,
                                                                        HostQueueOptions options) {
  const auto& reactors = target_.target_.reactors();
  if (std::find(reactors.begin(), reactors.end(), &reactor) == reactors.end()) {
    co_return Error{Errc::invalid_argument, "the target does not run on this reactor"};
  }
  co_await hop(reactor);  // completes later, as other transports do
  if (options.tls) co_return Error{Errc::unsupported, "psk: goes with TCP only"};
  auto link = target_.join(reactor, address);
  if (!link) co_return link.error();
  std::unique_ptr<HostQueue> queue =
      std::make_unique<LoopbackHostQueue>(target_, target_.target_, std::move(link).value(), options);
  co_return std::move(queue);
}

}  // namespace basalt::nvmf
