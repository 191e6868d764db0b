// SPDX-License-Identifier: Apache-2.0
// Poller and sockets of the simulated world (files: sim_file.cc; listeners: sim_listener.h).
#pragma once

#include <deque>

#include "base/list.h"
#include "env/sim/sim_world.h"

namespace basalt::env {

class SimRdma;

class SimPoller final : public Poller {
 public:
  explicit SimPoller(SimNode& node);
  ~SimPoller() override;
  size_t poll() override;
  void wait(Instant) override;
  void wake() override {}
  Result<std::unique_ptr<StreamListener>> listen(const Address& address) override;
  Result<std::unique_ptr<StreamSocket>> connect(const Address& address) override;
  std::unique_ptr<StreamSocket> adopt(std::unique_ptr<PendingSocket> pending) override;
  Result<std::unique_ptr<BlockFile>> open(const FileOptions& options) override;
  Rdma* rdma() override;
  std::string description() const override { return "simulated"; }

  SimNode& node() { return node_; }
  // Runs at the next poll. A handle that is destroyed meanwhile takes its work out.
  void queue(Work* work, const void* owner) { ready_.push_back({work, owner}); }
  void forget(const void* owner);

 private:
  struct Ready {
    Work* work;
    const void* owner;
  };
  SimNode& node_;
  std::deque<Ready> ready_;
  std::unique_ptr<SimRdma> rdma_;  // from the first use of it
};

// One end of a connection. Bytes sent travel to the peer end and arrive in order after a delay; a lost packet is a
// longer delay. What a side has sent arrives also when its process is killed, unless that resets the connection.
class SimSocket final : public StreamSocket {
 public:
  SimSocket(SimNode& node, SimPoller* poller);
  ~SimSocket() override;
  Transfer try_recv(const Iovec* iov, size_t count) override;
  Transfer try_send(const Iovec* iov, size_t count) override;
  void arm_readable(Work* work) override;
  void arm_writable(Work* work) override;
  void disarm() override;
  Outcome connect_result() override;
  std::string peer() const override { return peer_node_; }

  SimNode& node() { return *node_; }
  const std::string& peer_node() const { return peer_node_; }
  uint16_t peer_port() const { return peer_port_; }  // where this end has connected to; 0: it was accepted
  void attach(SimPoller* poller) { poller_ = poller; }
  static void join(SimSocket& one, SimSocket& other);
  void begin_connect(const Address& address, Duration delay);
  void refuse();  // connecting failed
  void established();
  void reset();     // both ends; bytes on their way are lost
  void killed();    // this end's process: the kernel closes for it
  void vanished();  // this end's machine: nobody tells the peer
  void hold_sent(Instant until);
  void deliver_later();

 private:
  enum class State : uint8_t { connecting, refused, open, ended, broken };
  struct Segment {
    Instant arrives;
    std::vector<uint8_t> bytes;
    bool end = false;
  };
  void close_towards(SimSocket* other);
  void break_end();
  void deliver();
  void notify();
  void retransmit(Duration after);
  size_t unread_bytes() const { return input_.size() - input_at_; }
  // What the peer has not taken of what was sent to it.
  size_t sent_bytes() const;
  bool readable() const {
    return unread_bytes() > 0 || state_ == State::ended || state_ == State::broken || state_ == State::refused;
  }
  bool writable() const;
  SimNode* node_;
  SimPoller* poller_;
  std::string peer_node_;
  uint16_t peer_port_ = 0;
  SimSocket* other_ = nullptr;
  State state_ = State::connecting;
  std::vector<uint8_t> input_;
  size_t input_at_ = 0;             // the first unread byte
  std::deque<Segment> on_the_way_;  // towards this end
  size_t on_the_way_bytes_ = 0;
  Instant held_until_;  // nothing of it arrives before
  // The peer's machine has vanished: nothing answers, until it is up again and knows nothing of this connection.
  SimNode* vanished_peer_ = nullptr;
  size_t unanswered_bytes_ = 0;
  bool retransmitting_ = false;
  Work* reader_ = nullptr;
  Work* writer_ = nullptr;
  std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

class SimPending final : public PendingSocket {
 public:
  explicit SimPending(std::unique_ptr<SimSocket> socket) : socket_(std::move(socket)) {}
  std::unique_ptr<SimSocket> take() { return std::move(socket_); }

 private:
  std::unique_ptr<SimSocket> socket_;
};

}  // namespace basalt::env
