// SPDX-License-Identifier: Apache-2.0
#include "nvmf/transport/tcp/tcp_host_queue.h"

#include <algorithm>
#include <bit>

#include "nvmf/transport/tcp/tcp_host_limits.h"

namespace basalt::nvmf {

// co_await Ready(queue, readiness): until the socket is ready, or a slice of time has passed (the caller looks at its
// deadline then).
class TcpHostQueue::Ready : Work {
 public:
  Ready(TcpHostQueue& queue, Readiness readiness) : queue_(queue), readiness_(readiness) {}
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter) {
    waiter_ = waiter;
    run = [](Work* work) { static_cast<Ready*>(work)->resume(true); };
    timer_.ready = this;
    timer_.run = [](Work* work) { static_cast<SliceTimer*>(work)->ready->resume(false); };
    queue_.reactor().arm(&timer_, std::min(queue_.options_.deadline, queue_.reactor().now() + milliseconds(50)));
    if (readiness_ == Readiness::readable) {
      queue_.socket_->arm_readable(this);
    } else {
      queue_.socket_->arm_writable(this);
    }
  }
  bool await_resume() const noexcept { return is_ready_; }

 private:
  struct SliceTimer : Timer {
    Ready* ready = nullptr;
  };
  void resume(bool is_ready) {
    is_ready_ = is_ready;
    queue_.reactor().cancel(&timer_);
    if (!is_ready) queue_.socket_->disarm();
    waiter_.resume();
  }
  TcpHostQueue& queue_;
  const Readiness readiness_;
  bool is_ready_ = false;
  SliceTimer timer_;
  std::coroutine_handle<> waiter_;
};

TcpHostQueue::TcpHostQueue(Reactor& reactor, const HostQueueOptions& options, pdu::Digests digests, std::string peer)
    : HostQueue(reactor, options.qid),
      options_(options),
      digests_(digests),
      peer_(std::move(peer)),
      decoder_(pdu::Role::host, {.capsule_data_bytes_max = 0, .data_bytes_max = tcp_host_data_bytes_max}),
      slots_(std::make_unique<Slot[]>(options.slot_count)),
      batch_(std::make_unique<Iovec[]>(tcp_host_batch_iov_max)),
      input_(std::make_unique<uint8_t[]>(tcp_host_input_bytes)) {
  BASALT_ASSERT(options.slot_count > 0 && options.slot_count <= 4095);
  slot_bits_ = static_cast<uint16_t>(std::bit_width(options.slot_count));
  free_.reserve(options.slot_count);
  for (uint16_t i = options.slot_count; i > 0; i--) {
    slots_[i - 1].index = static_cast<uint16_t>(i - 1);
    free_.push_back(&slots_[i - 1]);
  }
  batch_slots_.reserve(options.slot_count);
  for (QueueWork* work : {&flush_work_, &writable_work_, &readable_work_, &lost_work_})
    work->queue = this;
  flush_work_.run = [](Work* work) {
    TcpHostQueue* queue = static_cast<QueueWork*>(work)->queue;
    queue->flush_queued_ = false;
    queue->closed() ? queue->maybe_drained() : queue->flush();
  };
  writable_work_.run = [](Work* work) {
    TcpHostQueue* queue = static_cast<QueueWork*>(work)->queue;
    queue->writable_armed_ = false;
    queue->flush();
  };
  readable_work_.run = [](Work* work) { static_cast<QueueWork*>(work)->queue->receive(); };
  lost_work_.run = [](Work* work) {
    TcpHostQueue* queue = static_cast<QueueWork*>(work)->queue;
    queue->lost_work_ran_ = true;
    queue->maybe_drained();
  };
}

TcpHostQueue::~TcpHostQueue() {
  BASALT_ASSERT(!flush_queued_);
}

bool TcpHostQueue::expired() const {
  return options_.cancelled != nullptr && *options_.cancelled;
}

namespace {

Error tls_error(const std::string& peer, const crypto::TlsSession& session) {
  using crypto::TlsFailure;
  const std::string where = peer + ": TLS: ";
  switch (session.failure()) {
    case TlsFailure::refused:
      return {Errc::permission, where + "the target refuses this host's key (" + session.reason() + ")"};
    case TlsFailure::no_tls:
      return {Errc::permission, where + "the target answers in the clear: there is no TLS at that port"};
    case TlsFailure::none:
    case TlsFailure::wire:
      return {Errc::closed, where + "the target closed the connection during the handshake"};
    default:
      return {Errc::permission, where + session.reason()};
  }
}

}  // namespace

Task<Outcome> TcpHostQueue::secure(const crypto::TlsContext& tls) {
  tls_scratch_ = std::make_unique<TlsScratch>();
  auto made = std::make_unique<TlsSocket>(reactor(), std::move(socket_), *tls_scratch_, tls, options_.tls);
  TlsSocket& secured = *made;
  socket_ = std::move(made);
  for (;;) {
    const env::Transfer::State state = secured.handshake();
    if (state == env::Transfer::State::done) co_return success();
    if (state != env::Transfer::State::would_block) co_return tls_error(peer_, secured.session());
    (void)co_await Ready(*this, Readiness::readable);
    if (expired() || reactor().now() >= options_.deadline) {
      co_return Error{Errc::timed_out, peer_ + ": TLS: no end of the handshake in time"};
    }
  }
}

Task<Outcome> TcpHostQueue::handshake(std::unique_ptr<env::StreamSocket> socket, const crypto::TlsContext* tls) {
  socket_ = std::move(socket);
  const Error late{Errc::timed_out, peer_ + ": no connection in time"};
  for (;;) {
    const bool writable = co_await Ready(*this, Readiness::writable);
    if (writable) break;
    if (expired() || reactor().now() >= options_.deadline) co_return late;
  }
  Outcome connected = socket_->connect_result();
  if (!connected) co_return connected.error();
  if (tls != nullptr) {
    Outcome secured = co_await secure(*tls);
    if (!secured) co_return secured;
  }

  uint8_t request[pdu::encoded_header_bytes_max];
  const size_t request_bytes = pdu::encode_ic_request(request, digests_, 0);
  for (size_t sent = 0; sent < request_bytes;) {
    const Iovec rest{request + sent, request_bytes - sent};
    const env::Transfer transfer = socket_->try_send(&rest, 1);
    if (transfer.state == env::Transfer::State::done) {
      sent += transfer.count_bytes;
    } else if (transfer.state == env::Transfer::State::would_block) {
      (void)co_await Ready(*this, Readiness::writable);
      if (expired() || reactor().now() >= options_.deadline) co_return late;
    } else {
      co_return Error{Errc::closed, peer_ + ": closed the connection before ICReq was sent"};
    }
  }

  // Exactly the response: whatever follows it answers commands that were not sent yet.
  size_t received = 0;
  while (received < sizeof(pdu::IcResponse)) {
    const Iovec rest{input_.get() + received, sizeof(pdu::IcResponse) - received};
    const env::Transfer transfer = socket_->try_recv(&rest, 1);
    if (transfer.state == env::Transfer::State::done) {
      std::span<const uint8_t> piece(input_.get() + received, transfer.count_bytes);
      received += transfer.count_bytes;
      const pdu::Event event = decoder_.push(piece);
      if (event == pdu::Event::failed) {
        co_return Error{Errc::io, peer_ + ": answers ICReq with something else than a valid ICResp"};
      }
    } else if (transfer.state == env::Transfer::State::would_block) {
      (void)co_await Ready(*this, Readiness::readable);
      if (expired() || reactor().now() >= options_.deadline) {
        co_return Error{Errc::timed_out, peer_ + ": no ICResp in time"};
      }
    } else {
      co_return Error{Errc::closed, peer_ + ": closed the connection instead of sending ICResp"};
    }
  }
  std::span<const uint8_t> nothing;
  if (decoder_.push(nothing) != pdu::Event::complete) co_return Error{Errc::io, peer_ + ": malformed ICResp"};
  const auto response = decoder_.header<pdu::IcResponse>();
  if (response.digests != digests_.bits()) {
    co_return Error{Errc::unsupported, peer_ + ": does not agree to the digests that were asked for"};
  }
  // Capsules with data would need padding before it.
  if (response.cpda != 0) co_return Error{Errc::unsupported, peer_ + ": ICResp.CPDA is not 0"};
  maxh2cdata_bytes_ = response.maxh2cdata;
  decoder_.set_digests(digests_);
  connected_ = true;
  socket_->arm_readable(&readable_work_);
  co_return success();
}

void TcpHostQueue::start(HostCommand* command) {
  BASALT_ASSERT(connected_);
  if (free_.empty()) {
    waiting_.push_back(command);
    return;
  }
  Slot* slot = free_.back();
  free_.pop_back();
  assign(slot, command);
}

// Between two batches nothing but the slot refers to a command and its data. What is in one, the socket may be reading.
HostQueue::Replaced TcpHostQueue::replace(HostCommand* command, HostCommand* stand_in) {
  Slot& slot = slots_[command->command.cid & ((1u << slot_bits_) - 1)];
  BASALT_ASSERT(slot.command == command);
  if (slot.in_batch || slot.finished) return Replaced::no;
  if (slot.capsule_sent) {
    slot.command = stand_in;
    return Replaced::sent;
  }
  to_send_.remove(&slot);
  slot.command = nullptr;
  if (HostCommand* next = waiting_.pop_front()) {
    assign(&slot, next);
  } else {
    free_.push_back(&slot);
  }
  return Replaced::unsent;
}

// The socket goes at once: what it still held unsent is gone with it. Only then may a command run elsewhere.
void TcpHostQueue::end_connection() {
  socket_.reset();
  data_slot_ = nullptr;
  while (to_send_.pop_front() != nullptr) {
  }
  reactor().defer(&lost_work_);
}

void TcpHostQueue::maybe_drained() {
  if (!lost_work_ran_ || flush_queued_) return;
  for (uint16_t i = 0; i < options_.slot_count; i++)
    slots_[i].command = nullptr;
  all_lost();
}

bool TcpHostQueue::violation(const std::string& what) {
  lose({Errc::io, peer_ + " queue " + std::to_string(qid()) + ": " + what});
  return false;
}

void TcpHostQueue::lose_connection(const char* what) {
  std::string reason = peer_ + " queue " + std::to_string(qid()) + ": " + what;
  if (!termination_.empty()) reason += " after " + termination_;
  lose({Errc::closed, std::move(reason)});
}

}  // namespace basalt::nvmf
