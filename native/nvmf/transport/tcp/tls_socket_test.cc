// SPDX-License-Identifier: Apache-2.0
// TlsSocket over sockets that take a few bytes at a time, and only when the peer has read.
#include "nvmf/transport/tcp/tls_socket.h"

#include <algorithm>
#include <deque>
#include <utility>

#include "nvmf/transport/target_world_testing.h"
#include "nvmf/transport/tcp/tls_testing.h"

namespace basalt::nvmf {
namespace {

using basalt::testing::TargetWorld;

struct NarrowPipe {
  std::deque<uint8_t> bytes;
  size_t room_bytes = SIZE_MAX;
  Work* reader = nullptr;
  Work* writer = nullptr;
  size_t writable_count = 0;
  // Runs who waits for it, if there is something to do.
  bool turn() {
    bool some = false;
    if (!bytes.empty() && reader != nullptr) {
      Work* work = std::exchange(reader, nullptr);
      work->run(work);
      some = true;
    }
    if (bytes.size() < room_bytes && writer != nullptr) {
      Work* work = std::exchange(writer, nullptr);
      writable_count++;
      work->run(work);
      some = true;
    }
    return some;
  }
};

class NarrowSocket final : public env::StreamSocket {
 public:
  NarrowSocket(NarrowPipe& in, NarrowPipe& out) : in_(in), out_(out) {}
  ~NarrowSocket() override { disarm(); }
  env::Transfer try_recv(const Iovec* iov, size_t) override {
    const size_t take = std::min(iov->length_bytes, in_.bytes.size());
    if (take == 0) return {env::Transfer::State::would_block};
    std::copy_n(in_.bytes.begin(), take, static_cast<uint8_t*>(iov->base));
    in_.bytes.erase(in_.bytes.begin(), in_.bytes.begin() + static_cast<long>(take));
    return {env::Transfer::State::done, take};
  }
  env::Transfer try_send(const Iovec* iov, size_t) override {
    const size_t take = std::min(iov->length_bytes, out_.room_bytes - std::min(out_.room_bytes, out_.bytes.size()));
    if (take == 0) return {env::Transfer::State::would_block};
    const auto* from = static_cast<const uint8_t*>(iov->base);
    out_.bytes.insert(out_.bytes.end(), from, from + take);
    return {env::Transfer::State::done, take};
  }
  void arm_readable(Work* work) override { in_.reader = work; }
  void arm_writable(Work* work) override { out_.writer = work; }
  void disarm() override { in_.reader = out_.writer = nullptr; }
  Outcome connect_result() override { return success(); }
  std::string peer() const override { return "narrow"; }

 private:
  NarrowPipe& in_;
  NarrowPipe& out_;
};

struct OneKey final : crypto::TlsPskFinder {
  explicit OneKey(crypto::SharedTlsPsk known) : psk(std::move(known)) {}
  crypto::SharedTlsPsk find(std::string_view identity) override { return identity == psk->identity ? psk : nullptr; }
  crypto::SharedTlsPsk psk;
};

// Reads whenever its socket says that there is something, as a connection does.
struct Receiver : Work {
  explicit Receiver(TlsSocket& of) : socket(of) {
    run = [](Work* work) { static_cast<Receiver*>(work)->receive(); };
  }
  void receive() {
    uint8_t byte = 0;
    const Iovec iov{&byte, 1};
    const env::Transfer transfer = socket.try_recv(&iov, 1);
    ended = transfer.state == env::Transfer::State::closed || transfer.state == env::Transfer::State::failed;
    if (!ended) socket.arm_readable(this);
  }
  TlsSocket& socket;
  bool ended = false;
};

TEST(TlsSocket, AHandshakeFlightThatDoesNotFitIsSentPieceByPiece) {
  TargetWorld world;
  for (const size_t room_bytes : {size_t{1}, size_t{10}, size_t{100}}) {
    const auto psk = testing::tls_key_of(testing::tls_text_256)->psk("nqn.2026-01.test:host", "nqn.2026-01.test:v");
    NarrowPipe up, down;
    up.room_bytes = down.room_bytes = room_bytes;
    OneKey finder(psk);
    const auto context = crypto::TlsContext::make(crypto::TlsContext::Role::server).value();
    testing::TlsClient tls_client;
    TlsScratch scratch;
    TlsSocket client(world.host, std::make_unique<NarrowSocket>(down, up), tls_client.scratch, *tls_client.context,
                     psk);
    TlsSocket server(world.host, std::make_unique<NarrowSocket>(up, down), scratch, *context, finder);
    Receiver at_client(client), at_server(server);
    at_client.receive();
    at_server.receive();
    for (int i = 0; i < 10000 && (!client.established() || !server.established()); i++) {
      const bool some = up.turn() | down.turn();
      ASSERT_TRUE(some) << "nothing is left to happen";
    }
    EXPECT_TRUE(client.established() && server.established());
    EXPECT_FALSE(at_client.ended || at_server.ended);
    EXPECT_LE(down.writable_count, 1000u);
  }
  world.close();
}

}  // namespace
}  // namespace basalt::nvmf
