// SPDX-License-Identifier: Apache-2.0
// A hand-driven NBD client for tests in the simulated world: it sends any bytes it is told to and reads only when
// asked.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "env/sim/sim_world.h"
#include "export/nbd/protocol.h"

namespace basalt::nbd {

using Bytes = std::vector<uint8_t>;

struct OptionReply {
  uint32_t option = 0;
  uint32_t type = 0;
  Bytes data;
};

struct SimpleReply {
  uint32_t error = 0;
  uint64_t cookie = 0;
};

class TestClient final : env::Loop {
 public:
  TestClient(env::SimNode& node, env::Poller& poller, const env::Address& address) : world_(node.world()) {
    auto connecting = poller.connect(address);
    EXPECT_TRUE(connecting.ok());
    socket_ = std::move(*connecting);
    loop_ = node.start(*this, {});
  }

  bool reading = true;

  void send(const Bytes& bytes) { out_.insert(out_.end(), bytes.begin(), bytes.end()); }
  void send(const std::string& bytes) { out_.insert(out_.end(), bytes.begin(), bytes.end()); }
  // Moves what can be moved in both directions, as the world turns.
  void run() override {}
  Instant deadline() const override { return Instant::never(); }
  bool turn() override {
    bool moved_any = false;
    while (socket_ != nullptr && sent_bytes_ < out_.size()) {
      const Iovec iov{out_.data() + sent_bytes_, out_.size() - sent_bytes_};
      const env::Transfer moved = socket_->try_send(&iov, 1);
      if (moved.state != env::Transfer::State::done) break;
      sent_bytes_ += moved.count_bytes;
      moved_any = true;
    }
    while (socket_ != nullptr && reading) {
      uint8_t bytes[65536];
      const Iovec iov{bytes, sizeof(bytes)};
      const env::Transfer moved = socket_->try_recv(&iov, 1);
      if (moved.state == env::Transfer::State::would_block) break;
      if (moved.state != env::Transfer::State::done) {
        socket_.reset();
        break;
      }
      in_.insert(in_.end(), bytes, bytes + moved.count_bytes);
      moved_any = true;
    }
    return moved_any;
  }
  bool all_sent() const { return sent_bytes_ == out_.size(); }
  size_t unsent_bytes() const { return out_.size() - sent_bytes_; }
  bool closed() const { return socket_ == nullptr; }
  bool wait_closed(Duration limit = seconds(1)) {
    return world_.run_until([&] { return closed(); }, limit);
  }
  Bytes receive(size_t count_bytes) {
    const bool there = world_.run_until(
        [&] { return in_.size() - taken_bytes_ >= count_bytes || (socket_ == nullptr && reading); }, seconds(60));
    EXPECT_TRUE(there && in_.size() - taken_bytes_ >= count_bytes)
        << "wanted " << count_bytes << " bytes, have " << in_.size() - taken_bytes_
        << (socket_ == nullptr ? ", closed" : "") << ", seed " << world_.seed();
    Bytes bytes(count_bytes);
    const size_t have = std::min(count_bytes, in_.size() - taken_bytes_);
    std::copy_n(in_.begin() + static_cast<int64_t>(taken_bytes_), have, bytes.begin());
    taken_bytes_ += have;
    return bytes;
  }
  size_t received_bytes() const { return in_.size() - taken_bytes_; }
  void disconnect() { socket_.reset(); }

  // ---- the protocol
  static std::string be16(uint16_t value) { return big_endian(value, 2); }
  static std::string be32(uint32_t value) { return big_endian(value, 4); }
  static std::string be64(uint64_t value) { return big_endian(value, 8); }
  static std::string info_data(const std::string& name, const std::vector<uint16_t>& kinds = {}) {
    std::string data = be32(static_cast<uint32_t>(name.size())) + name + be16(static_cast<uint16_t>(kinds.size()));
    for (uint16_t kind : kinds)
      data += be16(kind);
    return data;
  }

  void greet(uint32_t flags = handshake_fixed_newstyle | handshake_no_zeroes) {
    const Bytes greeting = receive(18);
    EXPECT_EQ(load_be64(greeting.data()), magic_init);
    EXPECT_EQ(load_be64(greeting.data() + 8), magic_option);
    EXPECT_EQ(load_be16(greeting.data() + 16), handshake_fixed_newstyle | handshake_no_zeroes);
    send(be32(flags));
  }
  static std::string option_bytes(uint32_t option, const std::string& data = {}) {
    return be64(magic_option) + be32(option) + be32(static_cast<uint32_t>(data.size())) + data;
  }
  void option(Option option, const std::string& data = {}) { send(option_bytes(static_cast<uint32_t>(option), data)); }
  OptionReply option_reply() {
    const Bytes header = receive(20);
    EXPECT_EQ(load_be64(header.data()), magic_option_reply);
    OptionReply reply{load_be32(header.data() + 8), load_be32(header.data() + 12), {}};
    reply.data = receive(load_be32(header.data() + 16));
    return reply;
  }
  // Until the option's last reply.
  std::vector<OptionReply> option_replies() {
    std::vector<OptionReply> replies;
    do {
      replies.push_back(option_reply());
    } while (replies.back().type == reply_info || replies.back().type == reply_server);
    return replies;
  }
  void go(const std::string& name = {}) {
    greet();
    option(Option::go, info_data(name));
    EXPECT_EQ(option_replies().back().type, reply_ack);
  }
  static std::string request_bytes(Command command, uint64_t cookie, uint64_t offset_bytes, uint32_t length_bytes,
                                   uint16_t flags = 0) {
    return be32(magic_request) + be16(flags) + be16(static_cast<uint16_t>(command)) + be64(cookie) +
           be64(offset_bytes) + be32(length_bytes);
  }
  void request(Command command, uint64_t cookie, uint64_t offset_bytes, uint32_t length_bytes, uint16_t flags = 0) {
    send(request_bytes(command, cookie, offset_bytes, length_bytes, flags));
  }
  SimpleReply reply() {
    const Bytes header = receive(simple_reply_bytes);
    EXPECT_EQ(load_be32(header.data()), magic_simple_reply);
    return {load_be32(header.data() + 4), load_be64(header.data() + 8)};
  }
  uint32_t ask(Command command, uint64_t offset_bytes, uint32_t length_bytes, uint16_t flags = 0,
               const Bytes& payload = {}) {
    request(command, ++last_cookie_, offset_bytes, length_bytes, flags);
    send(payload);
    const SimpleReply answer = reply();
    EXPECT_EQ(answer.cookie, last_cookie_);
    return answer.error;
  }
  uint32_t write(uint64_t offset_bytes, const Bytes& data, uint16_t flags = 0) {
    return ask(Command::write, offset_bytes, static_cast<uint32_t>(data.size()), flags, data);
  }
  Bytes read(uint64_t offset_bytes, uint32_t length_bytes) {
    EXPECT_EQ(ask(Command::read, offset_bytes, length_bytes), 0u);
    return receive(length_bytes);
  }

 private:
  static std::string big_endian(uint64_t value, size_t count_bytes) {
    std::string bytes;
    for (size_t i = count_bytes; i > 0; i--)
      bytes.push_back(static_cast<char>(value >> (8 * (i - 1))));
    return bytes;
  }
  env::SimWorld& world_;
  std::unique_ptr<env::LoopHandle> loop_;
  std::unique_ptr<env::StreamSocket> socket_;
  Bytes out_;
  size_t sent_bytes_ = 0;
  Bytes in_;
  size_t taken_bytes_ = 0;
  uint64_t last_cookie_ = 0;
};

}  // namespace basalt::nbd
