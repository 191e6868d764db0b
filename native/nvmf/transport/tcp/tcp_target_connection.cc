// SPDX-License-Identifier: Apache-2.0
#include "nvmf/transport/tcp/tcp_target_connection.h"

#include "base/probe.h"

namespace basalt::nvmf {

TcpConnection::TcpConnection(Target& target, Reactor& reactor, Listener& listener, Shard& shard,
                             std::atomic<size_t>& half_open_count, const TcpConnectionOptions& options,
                             std::unique_ptr<env::PendingSocket> pending)
    : target_(target),
      reactor_(reactor),
      listener_(listener),
      shard_(shard),
      half_open_count_(half_open_count),
      options_(options),
      pending_(std::move(pending)),
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
  timer_.connection = this;
  timer_.run = timer_due;
}

TcpConnection::~TcpConnection() {
  BASALT_ASSERT(in_use_count_ == 0 && !shard_node.linked());
}

void TcpConnection::start() {
  shard_.connections.push_back(this);
  socket_ = reactor_.poller().adopt(std::move(pending_));
  if (socket_ == nullptr) {
    close();
    return;
  }
  reactor_.arm_after(&timer_, options_.initialize_timeout);
  socket_->arm_readable(&readable_event_);
}

void TcpConnection::timer_due(Work* work) {
  static_cast<Deadline*>(work)->connection->close();
}

void TcpConnection::end_half_open() {
  if (!half_open_) return;
  half_open_ = false;
  half_open_count_.fetch_sub(1, std::memory_order_relaxed);
}

void TcpConnection::close() {
  if (closed_) return;
  closed_ = true;
  end_half_open();
  reactor_.cancel(&timer_);
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
      if (slot.state == SlotState::free || slot.state == SlotState::executing || slot.waiter.granted) continue;
      if (slot.state == SlotState::buffer_wait) reactor_.buffers().stop_waiting(&slot.waiter);
      free_slot(&slot);
    }
  }
  queue_.disconnect();
}

void TcpConnection::maybe_gone() {
  if (!drained_ || in_use_count_ > 0 || flush_scheduled_) return;
  drained_ = false;  // once
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
      slot.waiter.slot = &slot;
      slot.request.finish = finished;
      slot.request.transport_context = &slot;
      slot.request.iov = &slot.iov;
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
  slot->request.iov_count = 0;
  return slot;
}

void TcpConnection::free_slot(Slot* slot) {
  release_buffer(slot);
  slot->state = SlotState::free;
  free_slots_.push_back(slot);
  in_use_count_--;
}

void TcpConnection::release_buffer(Slot* slot) {
  if (slot->buffer == nullptr) return;
  Buffer* buffer = slot->buffer;
  slot->buffer = nullptr;
  reactor_.buffers().give(buffer);
}

// False: in line; go_on() or process() follows when a buffer came.
bool TcpConnection::get_buffer(Slot* slot) {
  const uint32_t length_bytes = slot->request.data_bytes;
  const BufferUse use = queue_.buffer_use(slot->request);
  slot->buffer = reactor_.buffers().take(length_bytes, use);
  if (slot->buffer == nullptr) {
    slot->state = SlotState::buffer_wait;
    const bool write = slot->request.direction == nvme::DataDirection::host_to_controller;
    reach(write ? Mark::r2t_stalled : Mark::buffer_pool_empty);
    slot->waiter.run = buffer_granted;
    reactor_.buffers().wait(&slot->waiter, length_bytes, use);
    return false;
  }
  slot->iov = {slot->buffer->data, length_bytes};
  slot->request.iov_count = 1;
  return true;
}

// Inside somebody's give(): only takes the buffer; the rest follows from the reactor's queue.
void TcpConnection::buffer_granted(Work* work) {
  Slot* slot = static_cast<Slot::Waiter*>(static_cast<BufferWaiter*>(work))->slot;
  TcpConnection* self = slot->connection;
  slot->buffer = self->reactor_.buffers().take(slot->request.data_bytes, slot->waiter.use);
  BASALT_ASSERT(slot->buffer != nullptr);
  slot->waiter.granted = true;
  slot->waiter.run = buffer_ready;
  self->reactor_.defer(&slot->waiter);
}

void TcpConnection::buffer_ready(Work* work) {
  Slot* slot = static_cast<Slot::Waiter*>(static_cast<BufferWaiter*>(work))->slot;
  TcpConnection* self = slot->connection;
  slot->waiter.granted = false;
  if (self->closed_) {
    self->free_slot(slot);
    self->maybe_gone();
    return;
  }
  slot->iov = {slot->buffer->data, slot->request.data_bytes};
  slot->request.iov_count = 1;
  slot->state = SlotState::receiving;
  if (self->stalled_ == slot) {
    self->stalled_ = nullptr;
    self->readable();
  } else {
    self->go_on(slot);
  }
}

void TcpConnection::finished(Request* request) {
  Slot* slot = slot_of(request);
  TcpConnection* self = slot->connection;
  if (self->closed_) {
    self->free_slot(slot);  // the queue's end follows and looks whether this was the last
    return;
  }
  if (self->half_open_ && self->queue_.connected()) {
    self->end_half_open();
    if (!self->failed_) self->reactor_.cancel(&self->timer_);
  }
  slot->state = SlotState::sending;
  self->queue_send(slot);
}

}  // namespace basalt::nvmf
