// SPDX-License-Identifier: Apache-2.0
// Hosts that stop moving what they have to move: the rest of a PDU, the data of an R2T, the answers. They hold buffers
// and slots, and would for ever. Looked at a few times per time-out, and only while there is something to wait for: an
// idle connection costs nothing.
#include "nvmf/transport/tcp/tcp_target_connection.h"

namespace basalt::nvmf {
namespace {
constexpr int64_t looks_per_timeout = 4;
}

void TcpConnection::watch_stalls() {
  if (stall_timer_.armed() || closed_) return;
  reactor_.arm_after(&stall_timer_, options_.transfer_timeout / looks_per_timeout);
}

// Since then, longer than the time-out and what the rate allows.
bool TcpConnection::overdue(const Since& since, uint64_t moved_bytes) const {
  const auto moved = static_cast<int64_t>(moved_bytes - since.moved_bytes);
  const Duration earned = nanoseconds(moved * (seconds(1).ns / options_.transfer_bytes_per_s_min));
  return reactor_.now() - since.when > options_.transfer_timeout + earned;
}

void TcpConnection::check_stalls() {
  const Instant now = reactor_.now();
  const bool inside = decoder_.inside_pdu() && pdu_count_ == pdu_seen_;
  if (!inside || inside_pdu_.when == Instant::never()) inside_pdu_ = {now, received_bytes_};
  pdu_seen_ = pdu_count_;
  if (!writable_armed_ || blocked_.when == Instant::never()) blocked_ = {now, sent_bytes_};
  if (stalled_ != nullptr) {  // input waits for us, not for the host
    inside_pdu_ = {now, received_bytes_};
    asked_.for_each([&](Slot* slot) { slot->asked = inside_pdu_; });
  }
  const Slot* oldest = asked_.front();
  if (overdue(inside_pdu_, received_bytes_) || overdue(blocked_, sent_bytes_) ||
      (oldest != nullptr && overdue(oldest->asked, received_bytes_))) {
    close();
    return;
  }
  if (decoder_.inside_pdu() || writable_armed_ || oldest != nullptr) {
    watch_stalls();
  } else {
    inside_pdu_ = blocked_ = {};
  }
}

}  // namespace basalt::nvmf
