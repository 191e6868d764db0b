// SPDX-License-Identifier: Apache-2.0
#include "nvmf/transport/tcp/tcp_target_tls.h"

namespace basalt::nvmf {

void TcpConnection::begin_tls() {
  tls_ = std::make_unique<TlsEnd>(target_.tls_keys());
  auto socket = std::make_unique<TlsSocket>(reactor_, std::move(socket_), shard_.tls_scratch, *tls_context_, *tls_);
  tls_->socket = socket.get();
  securing_ = tls_.get();
  socket_ = std::move(socket);
}

// After a try to receive, while the handshake was still going on.
void TcpConnection::look_at_tls(const env::Transfer& transfer) {
  if (tls_->socket->established()) {
    queue_.proven(std::move(tls_->grant));
    securing_ = nullptr;
    half_open_node.unlink();
    shard_.proven_half_open.push_back(this);
    shard_.tls_established_count->fetch_add(1, std::memory_order_relaxed);
    reactor_.cancel(&timer_);
    reactor_.arm_after(&timer_, options_.initialize_timeout);
  } else if (transfer.state == env::Transfer::State::closed || transfer.state == env::Transfer::State::failed) {
    refuse_tls(false);
  }
}

// An alert says why the handshake failed: the connection stays for a moment, so that the host can read it. Nothing that
// still comes is looked at.
bool TcpConnection::lingers_with_alert() {
  using crypto::TlsFailure;
  if (tls_ == nullptr || tls_->socket->established()) return false;
  const TlsFailure failure = tls_->socket->session().failure();
  if (failure == TlsFailure::none || failure == TlsFailure::no_tls || failure == TlsFailure::wire) return false;
  reactor_.cancel(&timer_);
  reactor_.arm_after(&timer_, options_.linger);
  return true;
}

void TcpConnection::refuse_tls(bool timed_out) {
  securing_ = nullptr;
  using crypto::TlsFailure;
  const TlsFailure failure = tls_->socket->session().failure();
  TlsRefusal refusal = timed_out ? TlsRefusal::timeout : TlsRefusal::handshake;
  if (failure == TlsFailure::no_tls) refusal = TlsRefusal::plaintext;
  if (failure == TlsFailure::unknown_key || failure == TlsFailure::wrong_key) refusal = TlsRefusal::key;
  target_.tls_refused(socket_->peer(), refusal);
}

}  // namespace basalt::nvmf
