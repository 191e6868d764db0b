// SPDX-License-Identifier: Apache-2.0
// SimRdma: one poller's door to a SimRdmaFabric, with the devices, connections and keys behind it.
//   sim_rdma.cc (door, devices, keys)   sim_rdma_connection.cc (how connections come and end)
//   sim_rdma_transfer.cc (requests)     sim_rdma_fabric.cc (faults, counts)
#pragma once

#include <deque>
#include <memory>

#include "env/sim/sim_rdma_fabric.h"

namespace basalt::env {

class SimRdma;

class SimRdmaDevice final : public RdmaDevice {
 public:
  SimRdmaDevice(SimRdma& rdma, std::string name);
  ~SimRdmaDevice() override;
  const std::string& name() const override { return name_; }
  const RdmaLimits& limits() const override { return limits_; }
  bool removed() const override { return removed_; }
  Result<std::unique_ptr<RdmaRegion>> register_memory(void* base, size_t length_bytes) override;
  Result<std::unique_ptr<RdmaWindow>> make_window() override;
  Result<std::unique_ptr<RdmaReceiveQueue>> make_receive_queue(uint32_t depth) override;

  SimRdma& rdma() { return rdma_; }
  bool covers(const RdmaPiece& piece) const;

 private:
  friend class SimRdmaFabric;
  friend class SimRdmaReceiveQueue;
  friend class SimRdmaRegion;
  struct Span {
    char* base;
    size_t length_bytes;
  };
  SimRdma& rdma_;
  const std::string name_;
  const RdmaLimits limits_;
  bool removed_ = false;
  std::map<uint32_t, Span> regions_;
  size_t receive_queue_count_ = 0;
};

class SimRdmaWindow final : public RdmaWindow {
 public:
  explicit SimRdmaWindow(SimRdmaDevice& device);
  ~SimRdmaWindow() override;
  uint32_t key() const override { return key_; }

 private:
  friend class SimRdmaConnection;
  friend class SimRdmaFabric;
  SimRdmaDevice& device_;
  uint32_t key_ = 0;
  uint32_t bound_key_ = 0;
  SimRdmaConnection* bound_to_ = nullptr;  // nullptr: closed
  char* base_ = nullptr;
  size_t length_bytes_ = 0;
  bool peer_writes_ = false;
};

class SimRdmaReceiveQueue final : public RdmaReceiveQueue {
 public:
  SimRdmaReceiveQueue(SimRdmaDevice& device, uint32_t depth);
  ~SimRdmaReceiveQueue() override;
  void post(RdmaReceive* receive) override;

 private:
  friend class SimRdmaConnection;
  SimRdmaDevice& device_;
  const uint32_t depth_;
  size_t user_count_ = 0;
  std::deque<RdmaReceive*> receives_;
};

// A request to connect, on its way to whoever accepts it.
class SimRdmaPending final : public RdmaPending {
 public:
  ~SimRdmaPending() override;
  SimRdmaFabric* fabric = nullptr;
  SimRdmaConnection* from = nullptr;
  std::shared_ptr<bool> from_lives;
  std::string from_node;
  std::string device;
  std::vector<uint8_t> private_data;
};

class SimRdmaListener final : public RdmaListener {
 public:
  SimRdmaListener(SimRdma& rdma, Address address);
  ~SimRdmaListener() override;
  std::unique_ptr<RdmaPending> try_accept() override;
  void arm_acceptable(Work* work) override;
  const Address& address() const override { return address_; }

 private:
  friend class SimRdmaConnection;
  friend class SimRdmaFabric;
  void arrive(std::unique_ptr<RdmaPending> pending);
  SimRdma& rdma_;
  const Address address_;
  Work* acceptor_ = nullptr;
  std::deque<std::unique_ptr<RdmaPending>> backlog_;
};

class SimRdmaConnection final : public RdmaConnection {
 public:
  SimRdmaConnection(SimRdma& rdma, Address address);                       // that connects
  SimRdmaConnection(SimRdma& rdma, std::unique_ptr<RdmaPending> pending);  // that came in
  ~SimRdmaConnection() override;
  State state() const override { return state_; }
  Cause why() const override { return why_; }
  void arm_changed(Work* work) override;
  void disarm() override;
  RdmaDevice& device() override;
  std::span<const uint8_t> private_data() const override { return private_data_; }
  std::string peer() const override { return peer_node_; }
  Outcome make_queue_pair(const RdmaQueuePairOptions& options) override;
  void connect(std::span<const uint8_t> private_data) override;
  void accept(std::span<const uint8_t> private_data) override;
  void reject(std::span<const uint8_t> private_data) override;
  void post(RdmaRequest* request) override;
  void post_receive(RdmaReceive* receive) override;
  void close() override;

 private:
  friend class SimRdma;
  friend class SimRdmaFabric;
  friend class SimRdmaPending;
  struct Entry {
    RdmaRequest* request;
    Instant arrives;  // at the peer; then: when the answer is back
    Instant since;    // posted
    bool executed = false;
    uint32_t rnr_count = 0;
    RdmaStatus status = RdmaStatus::success;
    std::vector<uint8_t> data;  // of a read
  };
  const std::string& node() const;
  SimRdmaFabric& fabric() const;
  void become(State state);
  void resolve();
  void request_arrives(std::vector<uint8_t> private_data, Instant since);
  void accept_arrives(SimRdmaConnection* peer, std::shared_ptr<bool> peer_lives, std::vector<uint8_t> data,
                      Instant since);
  void answered_by_reject(Cause cause, std::vector<uint8_t> private_data);
  static void tell_end(SimRdmaFabric& fabric, const std::string& from, SimRdmaConnection* peer,
                       std::shared_ptr<bool> peer_lives, Instant since);
  void break_with(Cause cause);
  void killed(bool power_lost);
  bool over() const { return state_ == State::broken || state_ == State::ended; }
  // sim_rdma_transfer.cc
  void step_at(Instant when);
  void step();
  bool execute(Entry& entry);
  bool deliver(Entry& entry);
  RdmaStatus carry_out(Entry& entry);
  RdmaReceive* take_receive();
  bool covers_all(const RdmaWork& work) const;
  bool wait_for_peer(Entry& entry, Duration pause);
  void answer(Entry& entry, RdmaStatus status);
  void complete(RdmaWork* work, RdmaStatus status);
  void flush();

  SimRdma& rdma_;
  SimRdmaDevice* device_ = nullptr;
  const Address address_;
  std::string peer_node_;
  State state_ = State::resolving;
  State told_ = State::resolving;
  Cause why_ = Cause::none;
  Work* watcher_ = nullptr;
  std::vector<uint8_t> private_data_;
  std::unique_ptr<RdmaPending> pending_;
  SimRdmaConnection* peer_ = nullptr;  // nullptr: nobody answers
  bool has_queue_pair_ = false;
  bool closing_ = false;
  RdmaQueuePairOptions options_;
  SimRdmaReceiveQueue* shared_ = nullptr;
  size_t requests_out_ = 0;
  size_t receives_out_ = 0;
  std::deque<Entry> sends_;
  size_t executed_count_ = 0;
  bool stuck_ = false;  // a request has failed: none after it is carried out
  std::deque<RdmaReceive*> receives_;
  struct Ended : Work {
    SimRdmaConnection* connection = nullptr;
  } ended_;
  std::shared_ptr<bool> lives_ = std::make_shared<bool>(true);
};

class SimRdma final : public Rdma {
 public:
  SimRdma(SimRdmaFabric& fabric, std::string node) : fabric_(fabric), node_(std::move(node)) {}
  ~SimRdma() override;
  Result<std::unique_ptr<RdmaListener>> listen(const Address& address) override;
  Result<std::unique_ptr<RdmaConnection>> connect(const Address& address) override;
  std::unique_ptr<RdmaConnection> adopt(std::unique_ptr<RdmaPending> pending) override;

  size_t poll();
  SimRdmaFabric& fabric() const { return fabric_; }
  const std::string& node() const { return node_; }
  SimRdmaDevice* open(const std::string& name);
  // Runs at the next poll, and lowers `count` then.
  void queue(Work* work, const void* owner, size_t* count = nullptr) { ready_.push_back({work, owner, count}); }
  void forget(const void* owner);

 private:
  struct Ready {
    Work* work;
    const void* owner;
    size_t* count;
  };
  SimRdmaFabric& fabric_;
  const std::string node_;
  std::vector<std::unique_ptr<SimRdmaDevice>> devices_;
  std::deque<Ready> ready_;
};

}  // namespace basalt::env
