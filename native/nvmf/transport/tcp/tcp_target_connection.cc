// SPDX-License-Identifier: Apache-2.0
#include "nvmf/transport/tcp/tcp_target_connection.h"

#include "nvmf/transport/tcp/tcp_target_tls.h"

namespace basalt::nvmf {

TcpConnection::TcpConnection(Target& target, Reactor& reactor, Listener& listener, Shard& shard,
                             std::atomic<size_t>& half_open_count, const TcpConnectionOptions& options,
                             std::unique_ptr<env::PendingSocket> pending, const crypto::TlsContext* tls)
    : target_(target),
      reactor_(reactor),
      listener_(listener),
      shard_(shard),
      half_open_count_(half_open_count),
      options_(options),
      pending_(std::move(pending)),
      tls_context_(tls),
      queue_(target, reactor, listener,
             {.close = [](TargetQueue* queue) { static_cast<TcpConnection*>(queue->context())->close(); },
              .drained =
                  [](TargetQueue* queue) {
                    auto* self = static_cast<TcpConnection*>(queue->context());
                    self->drained_ = true;
                    self->maybe_gone();
                  },
              .context = this}),
      decoder_(pdu::Role::target,
               {.capsule_data_bytes_max = options.in_capsule_bytes, .data_bytes_max = options.maxh2cdata_bytes}),
      receive_buffer_(new uint8_t[options.receive_bytes]) {
  batch_.reserve(pieces_max);
  for (Message* message : {&start_message, &gone_message})
    message->connection = this;
  for (Event* event : {&readable_event_, &writable_event_, &flush_event_})
    event->connection = this;
  start_message.run = [](Work* work) { static_cast<Message*>(work)->connection->start(); };
  gone_message.run = [](Work* work) {
    TcpConnection* self = static_cast<Message*>(work)->connection;
    self->on_gone(self);
  };
  readable_event_.run = [](Work* work) { static_cast<Event*>(work)->connection->readable(); };
  writable_event_.run = [](Work* work) {
    TcpConnection* self = static_cast<Event*>(work)->connection;
    self->writable_armed_ = false;
    self->schedule_flush();
  };
  flush_event_.run = [](Work* work) {
    TcpConnection* self = static_cast<Event*>(work)->connection;
    self->flush_scheduled_ = false;
    if (self->closed_) {
      self->maybe_gone();
    } else {
      self->flush();
    }
  };
  timer_.connection = stall_timer_.connection = this;
  timer_.run = timer_due;
  stall_timer_.run = [](Work* work) { static_cast<Deadline*>(work)->connection->check_stalls(); };
}

TcpConnection::~TcpConnection() {
  BASALT_ASSERT(in_use_count_ == 0 && !shard_node.linked() && !half_open_node.linked());
}

void TcpConnection::start() {
  shard_.connections.push_back(this);
  make_room();
  shard_.half_open.push_back(this);
  shard_.half_open_count++;
  socket_ = reactor_.poller().adopt(std::move(pending_));
  if (socket_ == nullptr) {
    close();
    return;
  }
  if (tls_context_ != nullptr) begin_tls();
  reactor_.arm_after(&timer_, tls_context_ != nullptr ? options_.tls_timeout : options_.initialize_timeout);
  socket_->arm_readable(&readable_event_);
}

// Hosts that connect and say nothing must not keep others out: the oldest of them gives way.
void TcpConnection::make_room() {
  if (shard_.half_open_count < shard_.half_open_max) return;
  auto& from = shard_.half_open.empty() ? shard_.proven_half_open : shard_.half_open;
  from.front()->close();
}

void TcpConnection::timer_due(Work* work) {
  TcpConnection* self = static_cast<Deadline*>(work)->connection;
  if (self->securing_ != nullptr) self->refuse_tls(true);
  self->close();
}

void TcpConnection::end_half_open() {
  if (!half_open_) return;
  half_open_ = false;
  half_open_count_.fetch_sub(1, std::memory_order_relaxed);
  half_open_node.unlink();
  shard_.half_open_count--;
}

// Connect has succeeded.
void TcpConnection::associated() {
  end_half_open();
  if (!failed_) reactor_.cancel(&timer_);
  share_ = shard_.hosts.join(queue_.hostnqn(), reactor_.buffers());
}

void TcpConnection::close() {
  if (closed_) return;
  closed_ = true;
  end_half_open();
  reactor_.cancel(&timer_);
  reactor_.cancel(&stall_timer_);
  socket_.reset();
  input_ = {};
  receiving_ = stalled_ = nullptr;
  batch_.clear();
  while (send_queue_.pop_front() != nullptr) {
  }
  while (sending_.pop_front() != nullptr) {
  }
  for (const auto& chunk : slot_chunks_) {
    for (size_t i = 0; i < slots_per_chunk; i++) {
      Slot& slot = chunk[i];
      if (slot.state == SlotState::free || slot.state == SlotState::executing) continue;
      if (!slot.payload.leave_line()) free_slot(&slot);
    }
  }
  queue_.disconnect();
}

void TcpConnection::maybe_gone() {
  if (!drained_ || in_use_count_ > 0 || flush_scheduled_) return;
  drained_ = false;  // once
  if (share_ != nullptr) shard_.hosts.leave(std::exchange(share_, nullptr));
  shard_.connections.remove(this);
  target_.home().post(&gone_message);
}

// Ends the association with a termination request; nothing that comes after the error is looked at.
void TcpConnection::fail(pdu::ProtocolError error) {
  if (failed_ || closed_) return;
  failed_ = true;
  input_ = {};
  const auto wrong = decoder_.wrong_header();
  control_bytes_ =
      pdu::encode_term_request(term_request_, pdu::Type::c2h_term_request, error, wrong.data(), wrong.size());
  control_ = term_request_;
  reactor_.cancel(&timer_);
  reactor_.arm_after(&timer_, options_.linger);
  schedule_flush();
}

// ---- slots ---------------------------------------------------------------------------------------------------------

TcpConnection::Slot* TcpConnection::take_slot() {
  // One command more than the host may have outstanding is an error of the host, not a reason to grow.
  if (in_use_count_ >= queue_.entries()) return nullptr;
  if (free_slots_.empty()) {
    auto chunk = std::make_unique<Slot[]>(slots_per_chunk);
    free_slots_.reserve(slot_count_ + slots_per_chunk);
    for (size_t i = slots_per_chunk; i > 0; i--) {
      Slot& slot = chunk[i - 1];
      slot.tag = static_cast<uint16_t>(slot_count_ + i - 1);
      slot.connection = this;
      slot.payload.context = &slot;
      slot.payload.ready = payload_ready;
      slot.request.finish = finished;
      slot.request.transport_context = &slot;
      slot.request.iov = &slot.iov;
      slot.request.borrows = true;
      free_slots_.push_back(&slot);
    }
    slot_chunks_.push_back(std::move(chunk));
    slot_count_ += slots_per_chunk;
  }
  Slot* slot = free_slots_.back();
  free_slots_.pop_back();
  in_use_count_++;
  slot->state = SlotState::receiving;
  slot->digest_failed = false;
  slot->received_bytes = 0;
  slot->lent = nullptr;
  slot->request.iov_count = 0;
  return slot;
}

void TcpConnection::free_slot(Slot* slot) {
  if (slot->asked_node.linked()) slot->asked_node.unlink();
  slot->payload.release();
  slot->state = SlotState::free;
  cid_counts_[slot->request.command.cid & 0xff]--;
  free_slots_.push_back(slot);
  in_use_count_--;
}

// Besides this slot.
bool TcpConnection::cid_in_use(const Slot* slot) const {
  const uint16_t cid = slot->request.command.cid;
  if (cid_counts_[cid & 0xff] < 2) [[likely]]
    return false;
  for (const auto& chunk : slot_chunks_) {
    for (size_t i = 0; i < slots_per_chunk; i++) {
      const Slot& other = chunk[i];
      if (&other != slot && other.state != SlotState::free && other.request.command.cid == cid) return true;
    }
  }
  return false;
}

// False: in line; go_on() or process() follows when a buffer came.
bool TcpConnection::get_buffer(Slot* slot) {
  const Request& request = slot->request;
  if (slot->payload.take(reactor_, {.share = share_,
                                    .length_bytes = request.data_bytes,
                                    .use = queue_.buffer_use(request),
                                    .is_write = request.direction == nvme::DataDirection::host_to_controller})) {
    buffer_came(slot);
    return true;
  }
  slot->state = SlotState::buffer_wait;
  return false;
}

void TcpConnection::buffer_came(Slot* slot) {
  slot->iov = {slot->payload.buffer()->data, slot->request.data_bytes};
  slot->request.iov_count = 1;
}

void TcpConnection::payload_ready(PayloadHold* hold) {
  Slot* slot = static_cast<Slot*>(hold->context);
  TcpConnection* self = slot->connection;
  if (self->closed_) {
    self->free_slot(slot);
    self->maybe_gone();
    return;
  }
  slot->state = SlotState::receiving;
  self->buffer_came(slot);
  self->resume(slot);
}

// A slot that waited has its buffer.
void TcpConnection::resume(Slot* slot) {
  if (stalled_ == slot) {
    stalled_ = nullptr;
    readable();
  } else {
    go_on(slot);
  }
}

void TcpConnection::finished(Request* request) {
  Slot* slot = slot_of(request);
  TcpConnection* self = slot->connection;
  if (self->closed_) {
    self->free_slot(slot);  // the queue's end follows and looks whether this was the last
    return;
  }
  if (self->half_open_ && self->queue_.connected()) self->associated();
  slot->state = SlotState::sending;
  slot->lent = request->io.lent;
  if (slot->lent != nullptr && self->writable_armed_) keep_lent(slot);  // nothing goes out in this turn
  self->queue_send(slot);
}

}  // namespace basalt::nvmf
