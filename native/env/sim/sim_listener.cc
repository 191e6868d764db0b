// SPDX-License-Identifier: Apache-2.0
#include "env/sim/sim_listener.h"

namespace basalt::env {

SimListener::SimListener(SimPoller& poller, Address address) : poller_(poller), address_(std::move(address)) {
  poller_.node().world().listeners_.push_back(this);
}

SimListener::~SimListener() {
  poller_.forget(this);
  std::erase(poller_.node().world().listeners_, this);
}

std::unique_ptr<PendingSocket> SimListener::try_accept() {
  if (backlog_.empty()) return nullptr;
  auto pending = std::move(backlog_.front());
  backlog_.pop_front();
  return pending;
}

void SimListener::arm_acceptable(Work* work) {
  acceptor_ = work;
  notify();
}

bool SimListener::full() const {
  return backlog_.size() >= poller_.node().world().knobs().backlog_max;
}

void SimListener::arrive(std::unique_ptr<SimSocket> socket) {
  backlog_.push_back(std::make_unique<SimPending>(std::move(socket)));
  notify();
}

void SimListener::notify() {
  if (acceptor_ != nullptr && !backlog_.empty()) poller_.queue(std::exchange(acceptor_, nullptr), this);
}

SimListener* SimListener::find(SimWorld& world, const Address& address) {
  for (SimListener* listener : world.listeners_) {
    if (listener->node().crashed()) continue;
    const Address& bound = listener->address_;
    if (bound.family == address.family && bound.port == address.port &&
        (bound.host == address.host || listener->node().name() == address.host)) {
      return listener;
    }
  }
  return nullptr;
}

Result<std::unique_ptr<StreamListener>> SimPoller::listen(const Address& address) {
  Address bound = address;
  SimWorld& world = node_.world();
  if (bound.family == Address::Family::ip && bound.port == 0) bound.port = world.next_port_++;
  if (SimListener::find(world, bound) != nullptr)
    return Error{Errc::busy, "listen on " + bound.to_string() + ": in use"};
  return std::unique_ptr<StreamListener>(std::make_unique<SimListener>(*this, std::move(bound)));
}

}  // namespace basalt::env
