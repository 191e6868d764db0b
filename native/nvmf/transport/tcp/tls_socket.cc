// SPDX-License-Identifier: Apache-2.0
#include "nvmf/transport/tcp/tls_socket.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace basalt::nvmf {
namespace {

// In one call. Then others get their turn, however small the peer makes its records.
constexpr unsigned records_per_call_max = 64;
constexpr size_t sent_per_call_bytes_max = size_t{512} << 10;

env::Transfer::State to_state(crypto::TlsSession::Step step) {
  switch (step) {
    case crypto::TlsSession::Step::done:
      return env::Transfer::State::done;
    case crypto::TlsSession::Step::want_read:
    case crypto::TlsSession::Step::want_write:
      return env::Transfer::State::would_block;
    case crypto::TlsSession::Step::closed:
      return env::Transfer::State::closed;
    case crypto::TlsSession::Step::failed:
      break;
  }
  return env::Transfer::State::failed;
}

// Pieces one after the other, a record's worth at a time.
class Gather {
 public:
  Gather(const Iovec* iov, size_t count) : iov_(iov), count_(count) { skip_empty(); }
  bool empty() const { return count_ == 0; }
  // At most one record; in place when a piece is long enough or nothing follows it, else in `staging`.
  Iovec next(uint8_t* staging) const {
    const size_t first_bytes = std::min(iov_->length_bytes - at_bytes_, crypto::tls_record_bytes_max);
    auto* first = static_cast<uint8_t*>(iov_->base) + at_bytes_;
    if (first_bytes == crypto::tls_record_bytes_max || count_ == 1) return {first, first_bytes};
    size_t filled = 0;
    for (size_t i = 0, at = at_bytes_; i < count_ && filled < crypto::tls_record_bytes_max; i++, at = 0) {
      const size_t take = std::min(iov_[i].length_bytes - at, crypto::tls_record_bytes_max - filled);
      std::memcpy(staging + filled, static_cast<const uint8_t*>(iov_[i].base) + at, take);
      filled += take;
    }
    return {staging, filled};
  }
  void took(size_t count_bytes) {
    at_bytes_ += count_bytes;
    while (count_ > 0 && at_bytes_ >= iov_->length_bytes) {
      at_bytes_ -= iov_->length_bytes;
      iov_++;
      count_--;
    }
    skip_empty();
  }

 private:
  void skip_empty() {
    while (count_ > 0 && iov_->length_bytes == 0) {
      iov_++;
      count_--;
    }
  }
  const Iovec* iov_;
  size_t count_;
  size_t at_bytes_ = 0;
};

}  // namespace

TlsSocket::TlsSocket(Reactor& reactor, std::unique_ptr<env::StreamSocket> under, TlsScratch& scratch,
                     const crypto::TlsContext& context, crypto::SharedTlsPsk psk)
    : reactor_(reactor), under_(std::move(under)), scratch_(scratch), session_(context, *this, std::move(psk)) {
  set_up();
}

TlsSocket::TlsSocket(Reactor& reactor, std::unique_ptr<env::StreamSocket> under, TlsScratch& scratch,
                     const crypto::TlsContext& context, crypto::TlsPskFinder& finder)
    : reactor_(reactor), under_(std::move(under)), scratch_(scratch), session_(context, *this, finder) {
  set_up();
}

void TlsSocket::set_up() {
  scratch_.prepare();
  writable_event_.socket = this;
  writable_event_.run = [](Work* work) { static_cast<Event*>(work)->socket->writable(); };
  soon_.socket = this;
  soon_.run = [](Work* work) {
    Work* reader = std::exchange(static_cast<Soon*>(work)->socket->reader_, nullptr);
    reader->run(reader);
  };
}

TlsSocket::~TlsSocket() {
  reactor_.cancel(&soon_);
  if (broken_ || !rest_.empty()) return;
  session_.say_goodbye();
  (void)send_output();
}

// ---- the wire ------------------------------------------------------------------------------------------------------

crypto::TlsWire::Moved TlsSocket::read(void* out, size_t room_bytes) {
  const Iovec iov{out, room_bytes};
  const env::Transfer transfer = under_->try_recv(&iov, 1);
  switch (transfer.state) {
    case env::Transfer::State::done:
      return {State::done, transfer.count_bytes};
    case env::Transfer::State::would_block:
      return {State::would_block};
    case env::Transfer::State::closed:
      return {State::closed};
    case env::Transfer::State::failed:
      break;
  }
  broken_ = true;
  return {State::failed};
}

// All of it or nothing: payload is only encrypted while there is room, and more control messages than fit are too many.
crypto::TlsWire::Moved TlsSocket::write(const void* bytes, size_t length_bytes) {
  const size_t waiting_bytes = output_bytes_ + rest_.size() - rest_at_;
  if (waiting_bytes + length_bytes > TlsScratch::output_bytes_max) return {State::failed};
  std::memcpy(scratch_.output.get() + output_bytes_, bytes, length_bytes);
  output_bytes_ += length_bytes;
  return {State::done, length_bytes};
}

// ---- sending -------------------------------------------------------------------------------------------------------

// What earlier calls left. False: the socket below failed.
bool TlsSocket::send_rest() {
  while (rest_at_ < rest_.size()) {
    const Iovec iov{rest_.data() + rest_at_, rest_.size() - rest_at_};
    const env::Transfer transfer = under_->try_send(&iov, 1);
    if (transfer.state == env::Transfer::State::would_block) return true;
    if (transfer.state != env::Transfer::State::done) return !(broken_ = true);
    rest_at_ += transfer.count_bytes;
  }
  std::vector<uint8_t>().swap(rest_);
  rest_at_ = 0;
  return true;
}

// What this call has put into the scratch: to the socket below, or behind the rest.
bool TlsSocket::send_output() {
  size_t at = 0;
  while (rest_.empty() && at < output_bytes_ && !broken_) {
    const Iovec iov{scratch_.output.get() + at, output_bytes_ - at};
    const env::Transfer transfer = under_->try_send(&iov, 1);
    if (transfer.state == env::Transfer::State::would_block) break;
    if (transfer.state == env::Transfer::State::done) {
      at += transfer.count_bytes;
    } else {
      broken_ = true;
    }
  }
  if (!broken_) rest_.insert(rest_.end(), scratch_.output.get() + at, scratch_.output.get() + output_bytes_);
  output_bytes_ = 0;
  return !broken_;
}

// To be called last by everything that may have written.
bool TlsSocket::drain() {
  if (!send_rest() || !send_output()) return false;
  if (!rest_.empty()) arm_below();
  return true;
}

env::Transfer::State TlsSocket::handshake() {
  const Step step = session_.handshake();
  const bool sent = drain();  // also the alert that says why it failed
  if (step == Step::done && !sent) return env::Transfer::State::failed;
  return to_state(step);
}

env::Transfer TlsSocket::try_send(const Iovec* iov, size_t count) {
  if (!established()) {
    const env::Transfer::State state = handshake();
    if (state != env::Transfer::State::done) return {state, 0};
  }
  if (!send_rest()) return {env::Transfer::State::failed, 0};
  Gather pieces(iov, count);
  size_t total_bytes = 0;
  while (rest_.empty() && !pieces.empty() && total_bytes < sent_per_call_bytes_max) {
    while (!pieces.empty() && output_bytes_ < TlsScratch::sent_bytes_max) {
      const Iovec record = pieces.next(scratch_.staging.get());
      size_t taken_bytes = 0;
      if (session_.write(record.base, record.length_bytes, &taken_bytes) != Step::done) {
        broken_ = true;
        return {env::Transfer::State::failed, 0};
      }
      pieces.took(taken_bytes);
      total_bytes += taken_bytes;
    }
    if (!send_output()) return {env::Transfer::State::failed, 0};
  }
  if (!rest_.empty()) arm_below();
  if (total_bytes == 0) return {env::Transfer::State::would_block, 0};
  return {env::Transfer::State::done, total_bytes};
}

void TlsSocket::arm_writable(Work* work) {
  BASALT_ASSERT(writer_ == nullptr);
  writer_ = work;
  arm_below();
}

void TlsSocket::arm_below() {
  if (std::exchange(below_armed_, true)) return;
  under_->arm_writable(&writable_event_);
}

void TlsSocket::writable() {
  below_armed_ = false;
  // A failure is told by the next try. Also of the handshake: nobody tries before its flight has been answered.
  (void)send_rest();
  if (!rest_.empty() && !broken_) {
    arm_below();
  } else if (Work* writer = std::exchange(writer_, nullptr)) {
    writer->run(writer);
  }
}

// ---- receiving -----------------------------------------------------------------------------------------------------

// done: the pieces are full, or it is enough for one call.
TlsSocket::Step TlsSocket::read_pieces(const Iovec* iov, size_t count, size_t* total_bytes) {
  unsigned record_count = 0;
  for (size_t i = 0; i < count; i++) {
    for (size_t at = 0; at < iov[i].length_bytes;) {
      if (++record_count > records_per_call_max) return Step::done;
      size_t moved_bytes = 0;
      const Step step = session_.read(static_cast<uint8_t*>(iov[i].base) + at, iov[i].length_bytes - at, &moved_bytes);
      at += moved_bytes;
      *total_bytes += moved_bytes;
      if (step == Step::want_read && !session_.wire_blocked()) continue;  // something else than data
      if (step != Step::done) return step;
    }
  }
  return Step::done;
}

env::Transfer TlsSocket::try_recv(const Iovec* iov, size_t count) {
  if (!established()) {
    const env::Transfer::State state = handshake();
    if (state != env::Transfer::State::done) return {state, 0};
  }
  size_t total_bytes = 0;
  const Step step = read_pieces(iov, count, &total_bytes);
  drained_ = step == Step::want_read;
  if (!drain() && total_bytes == 0) return {env::Transfer::State::failed, 0};
  if (total_bytes > 0) return {env::Transfer::State::done, total_bytes};  // an end is told by the next try
  return {step == Step::done ? env::Transfer::State::would_block : to_state(step), 0};
}

void TlsSocket::arm_readable(Work* work) {
  if (drained_) return under_->arm_readable(work);
  BASALT_ASSERT(reader_ == nullptr);
  reader_ = work;
  reactor_.arm(&soon_, reactor_.now() + nanoseconds(1));  // not in this turn
}

void TlsSocket::disarm() {
  reactor_.cancel(&soon_);
  reader_ = writer_ = nullptr;
  under_->disarm();
  below_armed_ = false;
  if (!rest_.empty() && !broken_) arm_below();
}

}  // namespace basalt::nvmf
