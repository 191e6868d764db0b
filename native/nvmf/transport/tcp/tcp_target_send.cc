// SPDX-License-Identifier: Apache-2.0
// Sending: once per turn, everything that became ready, from where it lies. A partial send is a cursor in the batch of
// pieces; slots are given back as the cursor passes their end, because the host may use their place at once.
//
// Data that a bdev has lent goes out in the turn in which it was lent. What the socket did not take by then is copied
// to the slot's own buffer.
#include <cstring>

#include "base/bytes.h"
#include "base/probe.h"
#include "nvmf/transport/tcp/tcp_target_connection.h"

namespace basalt::nvmf {

void TcpConnection::respond(Slot* slot, nvme::Status status) {
  slot->request.completion = {};
  queue_.fill_completion(&slot->request, status);
  slot->state = SlotState::sending;
  queue_send(slot);
}

void TcpConnection::send_r2t(Slot* slot) {
  slot->state = SlotState::r2t_queued;
  queue_send(slot);
}

void TcpConnection::queue_send(Slot* slot) {
  send_queue_.push_back(slot);
  schedule_flush();
}

void TcpConnection::schedule_flush() {
  if (flush_scheduled_ || writable_armed_ || closed_) return;
  flush_scheduled_ = true;
  reactor_.at_turn_end(&flush_event_);
}

void TcpConnection::append(const void* bytes, size_t length_bytes) {
  batch_.push_back({const_cast<void*>(bytes), length_bytes});
  queued_bytes_ += length_bytes;
}

void TcpConnection::append_response(Slot* slot) {
  const Request& request = slot->request;
  const nvme::Completion& completion = request.completion;
  const bool with_data = request.direction == nvme::DataDirection::controller_to_host && request.data_bytes > 0 &&
                         slot->payload.buffer() != nullptr && (completion.status >> 1) == 0;
  // The flag stands for a response without a result.
  const bool implied = with_data && completion.dw0 == 0 && completion.dw1 == 0;
  if (!with_data) slot->lent = nullptr;
  if (with_data) {
    const pdu::DataFields fields{
        .cccid = request.command.cid, .length_bytes = request.data_bytes, .last = true, .success = implied};
    append(slot->header, pdu::encode_c2h_data(slot->header, digests_, fields));
    const Iovec data{slot->lent != nullptr ? const_cast<void*>(slot->lent) : slot->iov.base, request.data_bytes};
    slot->data_piece = batch_.size();
    append(data.base, data.length_bytes);
    if (digests_.data) {
      store_le<uint32_t>(slot->digest, pdu::data_digest(0, &data, 1));
      append(slot->digest, sizeof(slot->digest));
    }
  }
  if (!implied) append(slot->response, pdu::encode_capsule_response(slot->response, digests_, completion));
}

// False: there is nothing to send.
bool TcpConnection::fill_batch() {
  batch_.clear();
  batch_first_ = 0;
  if (control_bytes_ > 0) {
    append(control_, control_bytes_);
    control_bytes_ = 0;
  }
  while (!failed_ && batch_.size() + pieces_per_slot_max <= pieces_max) {
    Slot* slot = send_queue_.pop_front();
    if (slot == nullptr) break;
    if (slot->state == SlotState::r2t_queued) {
      const pdu::R2tFields fields{.cccid = slot->request.command.cid,
                                  .ttag = slot->tag,
                                  .offset_bytes = 0,
                                  .length_bytes = slot->request.data_bytes};
      append(slot->header, pdu::encode_r2t(slot->header, digests_, fields));
    } else {
      append_response(slot);
    }
    slot->send_end = queued_bytes_;
    sending_.push_back(slot);
  }
  return !batch_.empty();
}

void TcpConnection::flush() {
  constexpr int batches_per_turn_max = 4;
  for (int i = 0; i < batches_per_turn_max; i++) {
    if (batch_first_ == batch_.size() && !fill_batch()) return;
    const env::Transfer transfer = socket_->try_send(batch_.data() + batch_first_, batch_.size() - batch_first_);
    if (transfer.state == env::Transfer::State::done) {
      sent(transfer.count_bytes);
    } else if (transfer.state != env::Transfer::State::would_block) {
      close();
      return;
    }
    if (batch_first_ < batch_.size()) {  // the socket is full
      keep_all_lent();
      writable_armed_ = true;
      socket_->arm_writable(&writable_event_);
      watch_stalls();
      return;
    }
  }
  keep_all_lent();
  if (control_bytes_ > 0 || !send_queue_.empty()) schedule_flush();
}

void TcpConnection::sent(size_t count_bytes) {
  sent_bytes_ += count_bytes;
  while (count_bytes > 0) {
    Iovec& piece = batch_[batch_first_];
    if (count_bytes < piece.length_bytes) {
      piece.base = static_cast<char*>(piece.base) + count_bytes;
      piece.length_bytes -= count_bytes;
      break;
    }
    count_bytes -= piece.length_bytes;
    batch_first_++;
  }
  while (Slot* slot = sending_.front()) {
    if (slot->send_end > sent_bytes_) break;
    sending_.pop_front();
    if (slot->state == SlotState::r2t_queued) {
      slot->state = SlotState::data_wait;
      slot->asked = {reactor_.now(), received_bytes_};
      asked_.push_back(slot);
      watch_stalls();
    } else {
      free_slot(slot);
    }
  }
}

void TcpConnection::keep_lent(Slot* slot) {
  reach(Mark::lent_data_kept);
  std::memcpy(slot->iov.base, slot->lent, slot->request.data_bytes);
  slot->lent = nullptr;
}

void TcpConnection::keep_all_lent() {
  sending_.for_each([this](Slot* slot) {
    if (slot->lent == nullptr || slot->data_piece < batch_first_) return;  // not lent, or sent
    Iovec& rest = batch_[slot->data_piece];
    rest.base = static_cast<char*>(slot->iov.base) + (slot->request.data_bytes - rest.length_bytes);
    keep_lent(slot);
  });
  send_queue_.for_each([](Slot* slot) {
    if (slot->lent != nullptr) keep_lent(slot);
  });
}

}  // namespace basalt::nvmf
