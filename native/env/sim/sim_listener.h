// SPDX-License-Identifier: Apache-2.0
// SimListener: a listening socket of the simulated world. Nodes share one address space: every node's listeners are
// told apart by port; a host names a node or is a literal.
#pragma once

#include <deque>

#include "env/sim/sim_poller.h"

namespace basalt::env {

class SimListener final : public StreamListener {
 public:
  SimListener(SimPoller& poller, Address address);
  ~SimListener() override;
  std::unique_ptr<PendingSocket> try_accept() override;
  void arm_acceptable(Work* work) override;
  const Address& address() const override { return address_; }

  SimNode& node() { return poller_.node(); }
  bool full() const;  // nobody accepts: those who connect now have to try again
  void arrive(std::unique_ptr<SimSocket> socket);
  static SimListener* find(SimWorld& world, const Address& address);

 private:
  void notify();
  SimPoller& poller_;
  Address address_;
  Work* acceptor_ = nullptr;
  std::deque<std::unique_ptr<PendingSocket>> backlog_;
};

}  // namespace basalt::env
