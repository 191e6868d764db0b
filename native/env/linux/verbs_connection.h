// SPDX-License-Identifier: Apache-2.0
// VerbsConnection: a connection manager's id and a queue pair.
//   verbs_connection.cc (how it comes and ends)   verbs_requests.cc (what is posted)
//
// However it ends, by this side, by the peer, by a failed request or with the adapter: the queue pair is destroyed at
// once, so that the adapter touches no memory by it any more, and what had not completed runs as `flushed`. The id
// stays a little longer where the peer is to be told.
#pragma once

#include "base/assert.h"
#include "env/linux/verbs_memory.h"
#include "env/linux/verbs_rdma.h"

#ifdef BASALT_HAS_VERBS

namespace basalt::env {

class VerbsPending;

class VerbsConnection final : public RdmaConnection, VerbsListening {
 public:
  VerbsConnection(VerbsRdma& rdma, rdma_cm_id* id, std::string peer);            // that connects
  VerbsConnection(VerbsRdma& rdma, VerbsDevice& device, VerbsPending& request);  // that came in
  ~VerbsConnection() override;
  State state() const override { return state_; }
  Cause why() const override { return why_; }
  void arm_changed(Work* work) override;
  void disarm() override;
  RdmaDevice& device() override;
  std::span<const uint8_t> private_data() const override { return private_data_; }
  std::string peer() const override { return peer_; }
  Outcome make_queue_pair(const RdmaQueuePairOptions& options) override;
  void connect(std::span<const uint8_t> private_data) override;
  void accept(std::span<const uint8_t> private_data) override;
  void reject(std::span<const uint8_t> private_data) override;
  void post(RdmaRequest* request) override;
  void post_receive(RdmaReceive* receive) override;
  void close() override;

  // For its device.
  bool over() const { return state_ == State::broken || state_ == State::ended; }
  bool has(const ibv_qp* pair) const { return pair_ == pair; }
  uint8_t port() const { return port_; }
  RdmaRequest* oldest_request() { return requests_.pop(); }
  RdmaReceive* oldest_receive() { return receives_.pop(); }
  void break_with(Cause cause);
  void heard();  // a message came before the connection manager's last one

 private:
  // Work of a queue of the pair, oldest first; it ends in this order.
  template <class T>
  class Ring {
   public:
    void size(size_t depth) { entries_.resize(depth); }
    bool empty() const { return count_ == 0; }
    void push(T* item) {
      BASALT_ASSERT(count_ < entries_.size());
      entries_[(first_ + count_++) % entries_.size()] = item;
    }
    T* pop() {
      BASALT_ASSERT(count_ > 0);
      T* item = entries_[first_];
      first_ = (first_ + 1) % entries_.size();
      count_--;
      return item;
    }

   private:
    std::vector<T*> entries_;
    size_t first_ = 0;
    size_t count_ = 0;
  };
  struct Ended : Work {
    VerbsConnection* connection = nullptr;
  };

  void on_news(VerbsNews news) override;
  void become(State state);
  void address_resolved();
  void route_resolved();
  void answered();
  void rejected(int status);
  bool set_state(ibv_qp_state state);
  bool make_ready();
  rdma_conn_param parameters(std::span<const uint8_t> private_data) const;
  void tear_down(bool peer_knows);
  void end_pair();
  void end_id(bool peer_knows);
  // verbs_requests.cc
  bool describe(const RdmaRequest& request, ibv_send_wr* out);
  bool describe_bind(const RdmaRequest& request, ibv_send_wr* out);
  void refuse(RdmaRequest* request);
  void flush();

  VerbsRdma& rdma_;
  const VerbsLibrary& library_;
  rdma_cm_id* id_;
  VerbsDevice* device_ = nullptr;
  std::string peer_;
  State state_;
  State told_;
  Cause why_ = Cause::none;
  Work* watcher_ = nullptr;
  std::vector<uint8_t> private_data_;
  uint8_t port_ = 0;
  uint8_t incoming_reads_ = 0;  // under way at once
  uint8_t outgoing_reads_ = 0;
  bool has_pair_ = false;
  bool closing_ = false;
  bool was_established_ = false;
  RdmaQueuePairOptions options_;
  ibv_qp* pair_ = nullptr;
  uint32_t number_ = 0;
  VerbsCompletions* completions_ = nullptr;
  Ring<RdmaRequest> requests_;
  Ring<RdmaReceive> receives_;
  List<VerbsWindow, &VerbsWindow::node> windows_;  // that were bound for it
  Ended ended_;
};

}  // namespace basalt::env
#endif
