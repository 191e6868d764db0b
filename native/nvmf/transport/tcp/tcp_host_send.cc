// SPDX-License-Identifier: Apache-2.0
// The sending half of TcpHostQueue: capsules and H2CData gathered into one list of pieces, sent once per turn.
#include <algorithm>

#include "base/bytes.h"
#include "nvmf/transport/tcp/tcp_host_limits.h"
#include "nvmf/transport/tcp/tcp_host_queue.h"

namespace basalt::nvmf {

void TcpHostQueue::assign(Slot* slot, HostCommand* command) {
  slot->command = command;
  slot->generation++;
  slot->capsule_sent = slot->finished = slot->r2t_active = false;
  slot->sent_bytes = slot->received_bytes = slot->r2t_left_bytes = 0;

  nvme::Command& sqe = command->command;
  sqe.cid = static_cast<uint16_t>(slot->generation << slot_bits_ | slot->index);
  sqe.flags = static_cast<uint8_t>(0x40 | command->fuse);  // PSDT: SGL
  const bool writes = command->direction == nvme::DataDirection::host_to_controller;
  const bool small_always = qid() == 0 || sqe.opcode == static_cast<uint8_t>(nvme::AdminOpcode::fabrics);
  const uint32_t capsule_max = small_always ? tcp_host_admin_capsule_bytes_max : options_.capsule_data_bytes_max;
  slot->in_capsule = writes && command->data_bytes > 0 && command->data_bytes <= capsule_max;
  sqe.sgl = {};
  sqe.sgl.length_bytes = command->data_bytes;
  sqe.sgl.type_subtype = slot->in_capsule ? nvme::sgl_data_block_offset : nvme::sgl_transport_data_block;
  to_send_.push_back(slot);
  request_flush();
}

void TcpHostQueue::request_flush() {
  if (flush_queued_) return;
  flush_queued_ = true;
  reactor().at_turn_end(&flush_work_);
}

void TcpHostQueue::flush() {
  if (writable_armed_) return;
  while (!closed()) {
    if (batch_cursor_ == batch_count_) {
      batch_sent();
      if (closed() || !build_batch()) return;
    }
    const env::Transfer transfer = socket_->try_send(&batch_[batch_cursor_], batch_count_ - batch_cursor_);
    if (transfer.state == env::Transfer::State::would_block) {
      writable_armed_ = true;
      socket_->arm_writable(&writable_work_);
      return;
    }
    if (transfer.state != env::Transfer::State::done) return lose_connection("the connection broke while sending");
    for (size_t left = transfer.count_bytes; left > 0;) {
      Iovec& piece = batch_[batch_cursor_];
      const size_t take = std::min(left, piece.length_bytes);
      piece.base = static_cast<char*>(piece.base) + take;
      piece.length_bytes -= take;
      left -= take;
      if (piece.length_bytes == 0) batch_cursor_++;
    }
  }
}

// The pieces are the socket's now: headers may be written again, and answers that came early are handed on.
void TcpHostQueue::batch_sent() {
  batch_count_ = batch_cursor_ = 0;
  for (size_t i = 0; i < batch_slots_.size() && !closed(); i++) {
    Slot* slot = batch_slots_[i];
    slot->in_batch = false;
    if (slot->finished) release(slot);
  }
  batch_slots_.clear();
}

bool TcpHostQueue::build_batch() {
  Slot* slot = to_send_.front();
  while (slot != nullptr) {
    Slot* following = to_send_.next(slot);
    // One PDU of a slot per batch: it has one header. What is left goes into the next.
    if (!slot->in_batch) {
      if (!(slot->capsule_sent ? add_data(slot) : add_capsule(slot))) break;
      slot->in_batch = true;
      batch_slots_.push_back(slot);
      if (slot->r2t_left_bytes == 0) to_send_.remove(slot);
    }
    slot = following;
  }
  return batch_count_ > 0;
}

bool TcpHostQueue::add_capsule(Slot* slot) {
  if (batch_count_ + 2 > tcp_host_batch_iov_max) return false;
  HostCommand* command = slot->command;
  const uint32_t data_bytes = slot->in_capsule ? command->data_bytes : 0;
  const size_t header_at = batch_count_++;
  if (data_bytes > 0 && !add_payload(slot, 0, data_bytes)) {
    batch_count_ = header_at;
    return false;
  }
  const size_t header_bytes = pdu::encode_capsule_command(slot->header, digests_, command->command, data_bytes);
  batch_[header_at] = {slot->header, header_bytes};
  slot->capsule_sent = true;
  slot->sent_bytes = data_bytes;
  return true;
}

bool TcpHostQueue::add_data(Slot* slot) {
  if (batch_count_ + 2 > tcp_host_batch_iov_max) return false;
  const uint32_t length_bytes = std::min(slot->r2t_left_bytes, maxh2cdata_bytes_);
  const size_t header_at = batch_count_++;
  if (!add_payload(slot, slot->sent_bytes, length_bytes)) {
    batch_count_ = header_at;
    return false;
  }
  pdu::DataFields fields;
  fields.cccid = slot->command->command.cid;
  fields.ttag = slot->r2t_ttag;
  fields.offset_bytes = slot->sent_bytes;
  fields.length_bytes = length_bytes;
  fields.last = length_bytes == slot->r2t_left_bytes;
  batch_[header_at] = {slot->header, pdu::encode_h2c_data(slot->header, digests_, fields)};
  slot->sent_bytes += length_bytes;
  slot->r2t_left_bytes -= length_bytes;
  if (slot->r2t_left_bytes == 0) slot->r2t_active = false;
  return true;
}

// False: no room for its pieces in this batch (an empty batch has room for any command: iov_count_max pieces).
bool TcpHostQueue::add_payload(Slot* slot, uint32_t offset_bytes, uint32_t length_bytes) {
  const HostCommand* command = slot->command;
  const size_t room = tcp_host_batch_iov_max - batch_count_ - 1;
  const size_t used = iovec_slice(command->iov, command->iov_count, command->iov_offset_bytes + offset_bytes,
                                  length_bytes, &batch_[batch_count_], room);
  if (used == 0) {
    BASALT_ASSERT(batch_count_ > 1);  // the submitter's pieces are fewer than its data, or too many
    return false;
  }
  if (digests_.data) {
    store_le(slot->digest, pdu::data_digest(0, &batch_[batch_count_], used));
    batch_[batch_count_ + used] = {slot->digest, pdu::digest_bytes};
  }
  batch_count_ += used + (digests_.data ? 1 : 0);
  return true;
}

// The slot's command has its answer, and the socket has taken all of its bytes.
void TcpHostQueue::release(Slot* slot) {
  HostCommand* command = slot->command;
  slot->command = nullptr;
  if (HostCommand* next = waiting_.pop_front()) {
    assign(slot, next);
  } else {
    free_.push_back(slot);
  }
  complete(command);
}

}  // namespace basalt::nvmf
