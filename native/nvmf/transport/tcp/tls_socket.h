// SPDX-License-Identifier: Apache-2.0
// TlsSocket: a stream socket that speaks TLS over another one. NVMe/TCP above it notices nothing: bytes go in and come
// out as they do with a plain socket, and the handshake happens inside the first calls.
//
// Sending: bytes that try_send() took are encrypted; what the socket below does not take of them stays here, and until
// it went nothing more is taken. Receiving: straight from the socket below into the library's buffer.
// Bounds: TlsScratch's size of unsent bytes; a peer that reads nothing and has us answer (key updates) is cut off.
// End: what was not sent yet goes with the socket, like what a plain socket was not given. Only when there is none the
// peer is told that it was an orderly end.
// Thread: the reactor's.
#pragma once

#include <memory>
#include <vector>

#include "crypto/tls_session.h"
#include "env/env.h"
#include "runtime/reactor.h"

namespace basalt::nvmf {

// Memory that the sockets of one reactor use in turn, inside their calls. Nothing until the first one does.
struct TlsScratch {
  static constexpr size_t sent_bytes_max = size_t{64} << 10;  // payload is encrypted until so much waits
  static constexpr size_t control_bytes_max = 4096;           // alerts, key updates
  static constexpr size_t output_bytes_max = sent_bytes_max + crypto::tls_wire_bytes_max + control_bytes_max;
  std::unique_ptr<uint8_t[]> output;
  std::unique_ptr<uint8_t[]> staging;  // one record's payload, gathered
  void prepare() {
    if (output) return;
    output.reset(new uint8_t[output_bytes_max]);
    staging.reset(new uint8_t[crypto::tls_record_bytes_max]);
  }
};

class TlsSocket final : public env::StreamSocket, crypto::TlsWire {
 public:
  // The scratch outlives the socket.
  TlsSocket(Reactor& reactor, std::unique_ptr<env::StreamSocket> under, TlsScratch& scratch,
            const crypto::TlsContext& context, crypto::SharedTlsPsk psk);  // client
  TlsSocket(Reactor& reactor, std::unique_ptr<env::StreamSocket> under, TlsScratch& scratch,
            const crypto::TlsContext& context, crypto::TlsPskFinder& finder);  // server
  ~TlsSocket() override;

  // Goes on with the handshake: done, would_block (the socket has to become readable), closed or failed.
  env::Transfer::State handshake();
  bool established() const { return session_.established(); }
  const crypto::TlsSession& session() const { return session_; }

  env::Transfer try_recv(const Iovec* iov, size_t count) override;
  env::Transfer try_send(const Iovec* iov, size_t count) override;
  void arm_readable(Work* work) override;
  void arm_writable(Work* work) override;
  void disarm() override;
  Outcome connect_result() override { return under_->connect_result(); }
  std::string peer() const override { return under_->peer(); }

 private:
  using Step = crypto::TlsSession::Step;
  Moved read(void* out, size_t room_bytes) override;
  Moved write(const void* bytes, size_t length_bytes) override;

  void set_up();
  Step read_pieces(const Iovec* iov, size_t count, size_t* total_bytes);
  bool drain();
  bool send_rest();
  bool send_output();
  void arm_below();
  void writable();

  struct Event : Work {
    TlsSocket* socket = nullptr;
  };
  struct Soon : Timer {
    TlsSocket* socket = nullptr;
  };
  Reactor& reactor_;
  std::unique_ptr<env::StreamSocket> under_;
  TlsScratch& scratch_;
  crypto::TlsSession session_;
  bool drained_ = true;  // nothing can be read before the socket below is readable again
  bool broken_ = false;
  size_t output_bytes_ = 0;    // in the scratch; none between calls
  std::vector<uint8_t> rest_;  // encrypted, and not taken by the socket below
  size_t rest_at_ = 0;
  bool below_armed_ = false;
  Work* reader_ = nullptr;  // runs soon, without the socket below
  Work* writer_ = nullptr;
  Event writable_event_;
  Soon soon_;
};

}  // namespace basalt::nvmf
