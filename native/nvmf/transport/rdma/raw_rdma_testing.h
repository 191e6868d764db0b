// SPDX-License-Identifier: Apache-2.0
// RawRdma: one end of an RDMA connection that a test uses by hand: memory, one window over all of it, messages.
#pragma once

#include <cstring>
#include <deque>
#include <vector>

#include "nvmf/transport/memory_net_testing.h"
#include "nvmf/transport/rdma/rdma_wire.h"

namespace basalt::testing {

class RawRdma {
 public:
  using State = env::RdmaConnection::State;
  using Type = env::RdmaRequest::Type;
  static constexpr size_t memory_bytes = 64 << 10;
  static constexpr size_t message_bytes = 16 << 10;

  struct Message {
    std::vector<uint8_t> bytes;
    env::RdmaStatus status;
    bool invalidated;
    uint32_t key;
  };

  RawRdma(MemoryNet& net, Reactor& reactor) : net_(net), reactor_(reactor), memory(memory_bytes) {}
  ~RawRdma() { end(); }
  void end() {
    if (connection) {
      connection->close();
      BASALT_ASSERT(net_.run_until([&] { return connection->state() == State::ended; }, seconds(1)));
    }
    connection.reset();
    window.reset();
    region.reset();
    receives_.clear();
    requests_.clear();
    messages.clear();
  }

  // Connects with this private data, and waits for what comes of it.
  State connect(uint16_t port, std::span<const uint8_t> private_data, unsigned receive_count = 32) {
    connection = reactor_.poller().rdma()->connect({.host = "127.0.0.1", .port = port}).value();
    BASALT_ASSERT(net_.run_until([&] { return connection->state() == State::resolved; }));
    prepare(receive_count);
    connection->connect(private_data);
    BASALT_ASSERT(net_.run_until([&] { return connection->state() != State::connecting; }));
    return connection->state();
  }
  State connect(uint16_t port, uint16_t entries = 32, unsigned receive_count = 32) {
    nvmf::rdma::RequestData request{};
    request.hrqsize = entries;
    request.hsqsize = static_cast<uint16_t>(entries - 1);
    return connect(port, nvmf::rdma::private_bytes(request), receive_count);
  }
  void take(env::RdmaListener& listener) {
    std::unique_ptr<env::RdmaPending> pending;
    BASALT_ASSERT(net_.run_until([&] { return (pending = listener.try_accept()) != nullptr; }));
    connection = reactor_.poller().rdma()->adopt(std::move(pending));
  }
  void prepare(unsigned receive_count) {
    env::RdmaDevice& device = connection->device();
    region = device.register_memory(memory.data(), memory.size()).value();
    window = device.make_window().value();
    const Outcome made = connection->make_queue_pair({.send_depth = 512, .receive_depth = 512, .rnr_retry_max = 3});
    BASALT_ASSERT(made.ok());
    for (unsigned i = 0; i < receive_count; i++) {
      auto receive = std::make_unique<Receive>();
      receive->raw = this;
      receive->place.resize(message_bytes);
      receive->place_region = device.register_memory(receive->place.data(), message_bytes).value();
      receive->piece = {receive->place.data(), message_bytes, receive->place_region->key()};
      receive->pieces = &receive->piece;
      receive->piece_count = 1;
      receive->run = arrived;
      connection->post_receive(receive.get());
      receives_.push_back(std::move(receive));
    }
  }

  // Posts a request over memory[offset, +length); what it came to is in status_of().
  size_t post(Type type, size_t offset, uint32_t length, uint32_t remote_key = 0, uint64_t remote_address = 0) {
    auto request = std::make_unique<Posted>();
    request->type = type;
    request->remote_key = remote_key;
    request->remote_address = remote_address;
    request->window = window.get();
    request->piece = {memory.data() + offset, length, region->key()};
    request->pieces = &request->piece;
    request->piece_count = type == Type::invalidate ? 0 : 1;
    request->peer_writes = peer_writes;
    request->run = [](Work* work) {
      static_cast<Posted*>(static_cast<env::RdmaRequest*>(static_cast<env::RdmaWork*>(work)))->ran = true;
    };
    connection->post(request.get());
    requests_.push_back(std::move(request));
    return requests_.size() - 1;
  }
  env::RdmaStatus wait(size_t request) {
    BASALT_ASSERT(net_.run_until([&] { return requests_[request]->ran; }));
    return requests_[request]->status;
  }
  // Opens memory[offset, +length) to the peer; returns the key.
  uint32_t open(size_t offset, uint32_t length, bool writes) {
    peer_writes = writes;
    const size_t bind = post(Type::bind, offset, length);
    BASALT_ASSERT(wait(bind) == env::RdmaStatus::success);
    return window->key();
  }
  // Sends a message that lies at memory[0..]; `tail` follows the command.
  void send(const nvme::Command& command, std::span<const uint8_t> tail = {}) {
    std::memcpy(memory.data() + send_at_, &command, sizeof(command));
    if (!tail.empty()) std::memcpy(memory.data() + send_at_ + sizeof(command), tail.data(), tail.size());
    post(Type::send, send_at_, static_cast<uint32_t>(sizeof(command) + tail.size()));
    send_at_ = (send_at_ + 64) % 2048;
  }
  bool has_message() const { return !messages.empty(); }
  // The next response. False: none came before the connection ended or time ran out.
  bool response(nvme::Completion* out) {
    net_.run_until([&] { return has_message() || over(); }, seconds(10));
    if (messages.empty()) return false;
    last = messages.front();
    messages.pop_front();
    if (last.bytes.size() != sizeof(*out)) return false;
    std::memcpy(out, last.bytes.data(), sizeof(*out));
    return true;
  }
  bool over() const { return connection->state() == State::broken || connection->state() == State::ended; }
  bool wait_over(Duration limit = seconds(60)) {
    return net_.run_until([&] { return over(); }, limit);
  }
  uint64_t address(size_t offset) const { return reinterpret_cast<uint64_t>(memory.data() + offset); }

 private:
  struct Posted : env::RdmaRequest {
    env::RdmaPiece piece;
    bool ran = false;
  };
  struct Receive : env::RdmaReceive {
    RawRdma* raw = nullptr;
    env::RdmaPiece piece;
    std::vector<uint8_t> place;
    std::unique_ptr<env::RdmaRegion> place_region;
  };
  static void arrived(Work* work) {
    auto* receive = static_cast<Receive*>(static_cast<env::RdmaReceive*>(static_cast<env::RdmaWork*>(work)));
    if (receive->status == env::RdmaStatus::flushed) return;
    RawRdma* raw = receive->raw;
    raw->messages.push_back({{receive->place.begin(), receive->place.begin() + receive->length_bytes},
                             receive->status,
                             receive->invalidated,
                             receive->invalidated_key});
    if (receive->status == env::RdmaStatus::success) raw->connection->post_receive(receive);
  }

  MemoryNet& net_;
  Reactor& reactor_;
  size_t send_at_ = 0;
  std::vector<std::unique_ptr<Posted>> requests_;
  std::vector<std::unique_ptr<Receive>> receives_;

 public:
  std::vector<uint8_t> memory;  // messages at its start; data from 32 KiB on
  bool peer_writes = false;
  std::deque<Message> messages;
  Message last;
  std::unique_ptr<env::RdmaRegion> region;
  std::unique_ptr<env::RdmaWindow> window;
  std::unique_ptr<env::RdmaConnection> connection;
};

}  // namespace basalt::testing
