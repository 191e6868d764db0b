// SPDX-License-Identifier: Apache-2.0
// VerbsListener: an address that the connection manager listens on. VerbsPending: a request to connect; it may move to
// the thread of another poller, which takes it over with adopt().
// When the adapter of a listener's address goes, the listener hears nothing any more: it is made anew by its owner.
#pragma once

#include "env/linux/verbs_rdma.h"

#ifdef BASALT_HAS_VERBS

namespace basalt::env {

// Its id has nobody who hears of it until it is adopted: before it is accepted, the kernel tells nothing.
class VerbsPending final : public RdmaPending {
 public:
  VerbsPending(std::shared_ptr<VerbsChannel> channel, VerbsNews news);
  ~VerbsPending() override;  // refuses the peer

  // On the thread of that poller. False: it is gone already.
  bool move_to(VerbsRdma& rdma);
  rdma_cm_id* id() const { return news_.id; }
  rdma_cm_id* release() { return std::exchange(news_.id, nullptr); }
  VerbsNews& news() { return news_; }

 private:
  std::shared_ptr<VerbsChannel> channel_;  // that the id belongs to
  VerbsNews news_;
};

class VerbsListener final : public RdmaListener, VerbsListening {
 public:
  static constexpr size_t backlog_max = 128;

  VerbsListener(VerbsRdma& rdma, rdma_cm_id* id, Address address);
  ~VerbsListener() override;
  std::unique_ptr<RdmaPending> try_accept() override;
  void arm_acceptable(Work* work) override;
  const Address& address() const override { return address_; }

 private:
  void on_news(VerbsNews news) override;
  VerbsRdma& rdma_;
  rdma_cm_id* id_;  // nullptr: its adapter has gone
  const Address address_;
  Work* acceptor_ = nullptr;
  std::deque<std::unique_ptr<RdmaPending>> backlog_;
};

}  // namespace basalt::env
#endif
