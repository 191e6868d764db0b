// SPDX-License-Identifier: Apache-2.0
// The receiving half of TcpHostQueue: PDUs from the socket to the commands that they answer. All functions that return
// bool say whether the queue goes on.
#include <algorithm>

#include "nvmf/transport/tcp/tcp_host_limits.h"
#include "nvmf/transport/tcp/tcp_host_queue.h"

namespace basalt::nvmf {

void TcpHostQueue::receive() {
  size_t budget_bytes = tcp_host_receive_turn_bytes_max;
  while (budget_bytes > 0) {
    // Buffered bytes first (they were processed whole); then straight into place, with the buffer behind.
    Iovec pieces[tcp_host_direct_iov_max + 1];
    size_t count = 0;
    uint32_t direct_bytes = 0;
    if (data_slot_ != nullptr && decoder_.wants_data()) {
      const HostCommand* command = data_slot_->command;
      direct_bytes = decoder_.data_left_bytes();
      const uint64_t offset_bytes = command->iov_offset_bytes + data_offset_bytes_;
      // More pieces than fit: through the buffer.
      count =
          iovec_slice(command->iov, command->iov_count, offset_bytes, direct_bytes, pieces, tcp_host_direct_iov_max);
      if (count == 0) direct_bytes = 0;
    }
    pieces[count] = {input_.get(), tcp_host_input_bytes};
    const env::Transfer transfer = socket_->try_recv(pieces, count + 1);
    if (transfer.state == env::Transfer::State::would_block) break;
    if (transfer.state == env::Transfer::State::closed) return lose_connection("the target closed the connection");
    if (transfer.state == env::Transfer::State::failed) return lose_connection("the connection broke");
    const size_t received = transfer.count_bytes;
    const size_t placed = std::min<size_t>(received, direct_bytes);
    size_t left = placed;
    for (size_t i = 0; i < count && left > 0; i++) {
      const Iovec part{pieces[i].base, std::min(left, pieces[i].length_bytes)};
      decoder_.took_data(&part, 1);
      left -= part.length_bytes;
    }
    data_offset_bytes_ += static_cast<uint32_t>(placed);
    if (!process({input_.get(), received - placed})) return;
    budget_bytes -= std::min(budget_bytes, received);
    if (received < direct_bytes + tcp_host_input_bytes) break;
  }
  socket_->arm_readable(&readable_work_);
}

bool TcpHostQueue::process(std::span<const uint8_t> input) {
  for (;;) {
    switch (decoder_.push(input)) {
      case pdu::Event::need_more:
        return true;
      case pdu::Event::header:
        if (!begin_pdu()) return false;
        break;
      case pdu::Event::data:
        if (!take_chunk()) return false;
        break;
      case pdu::Event::complete:
        if (!end_pdu()) return false;
        break;
      case pdu::Event::failed:
        return violation("malformed PDU (error " + std::to_string(static_cast<int>(decoder_.error().fes)) + ", field " +
                         std::to_string(decoder_.error().fei) + ")");
    }
  }
}

bool TcpHostQueue::begin_pdu() {
  if (decoder_.type() == pdu::Type::c2h_data) return begin_data();
  return true;
}

TcpHostQueue::Slot* TcpHostQueue::find(uint16_t cid) {
  const auto index = static_cast<uint16_t>(cid & ((1u << slot_bits_) - 1));
  if (index >= options_.slot_count) return nullptr;
  Slot* slot = &slots_[index];
  if (slot->command == nullptr || slot->finished || !slot->capsule_sent || slot->command->command.cid != cid) {
    return nullptr;
  }
  return slot;
}

bool TcpHostQueue::begin_data() {
  const auto header = decoder_.header<pdu::Data>();
  Slot* slot = find(header.cccid);
  if (slot == nullptr) return violation("C2HData for a command that is not outstanding");
  if (slot->command->direction != nvme::DataDirection::controller_to_host) {
    return violation("C2HData for a command that reads nothing");
  }
  if (header.datao != slot->received_bytes) return violation("C2HData at a wrong offset");
  if (header.datal > slot->command->data_bytes - slot->received_bytes) {
    return violation("C2HData beyond the command's data");
  }
  data_slot_ = slot;
  data_offset_bytes_ = header.datao;
  return true;
}

bool TcpHostQueue::take_chunk() {
  if (decoder_.type() != pdu::Type::c2h_data) return true;  // the header quoted by a termination request
  const auto chunk = decoder_.chunk();
  const HostCommand* command = data_slot_->command;
  uint64_t skip = command->iov_offset_bytes + data_offset_bytes_;
  const uint8_t* from = chunk.data();
  size_t left = chunk.size();
  for (uint16_t i = 0; i < command->iov_count && left > 0; i++) {
    const Iovec& piece = command->iov[i];
    if (skip >= piece.length_bytes) {
      skip -= piece.length_bytes;
      continue;
    }
    const size_t take = std::min<size_t>(left, piece.length_bytes - skip);
    std::memcpy(static_cast<char*>(piece.base) + skip, from, take);
    from += take;
    left -= take;
    skip = 0;
  }
  BASALT_ASSERT(left == 0);
  data_offset_bytes_ += static_cast<uint32_t>(chunk.size());
  return true;
}

bool TcpHostQueue::end_pdu() {
  switch (decoder_.type()) {
    case pdu::Type::c2h_data: {
      Slot* slot = std::exchange(data_slot_, nullptr);
      if (!decoder_.data_digest_ok()) return violation("C2HData with a wrong data digest");
      slot->received_bytes += decoder_.data_bytes();
      if ((decoder_.flags() & pdu::flag_success) == 0) return true;
      nvme::Completion completion{};
      completion.cid = slot->command->command.cid;
      return take_response(completion);
    }
    case pdu::Type::capsule_response:
      return take_response(decoder_.header<pdu::CapsuleResponse>().completion);
    case pdu::Type::r2t:
      return take_r2t();
    case pdu::Type::c2h_term_request:
      return take_termination();
    default:
      return violation("unexpected PDU");
  }
}

bool TcpHostQueue::take_response(const nvme::Completion& completion) {
  Slot* slot = find(completion.cid);
  if (slot == nullptr) return violation("response to a command that is not outstanding");
  HostCommand* command = slot->command;
  command->completion = completion;
  const bool is_io = qid() != 0 && command->command.opcode != static_cast<uint8_t>(nvme::AdminOpcode::fabrics);
  if (is_io && command->status().ok() && command->direction != nvme::DataDirection::none) {
    const bool reads = command->direction == nvme::DataDirection::controller_to_host;
    const uint32_t moved_bytes = reads ? slot->received_bytes : slot->sent_bytes;
    if (moved_bytes != command->data_bytes) return violation("success reported for a transfer that is not complete");
  }
  finish(slot);
  return !closed();
}

bool TcpHostQueue::take_r2t() {
  const auto r2t = decoder_.header<pdu::R2t>();
  Slot* slot = find(r2t.cccid);
  if (slot == nullptr) return violation("R2T for a command that is not outstanding");
  const HostCommand* command = slot->command;
  if (command->direction != nvme::DataDirection::host_to_controller) {
    return violation("R2T for a command that writes nothing");
  }
  if (slot->r2t_active) return violation("a second R2T for a command: MAXR2T is one");
  if (r2t.r2to != slot->sent_bytes) return violation("R2T at a wrong offset");
  if (r2t.r2tl == 0 || r2t.r2tl > command->data_bytes - slot->sent_bytes) {
    return violation("R2T beyond the command's data");
  }
  slot->r2t_active = true;
  slot->r2t_ttag = r2t.ttag;
  slot->r2t_left_bytes = r2t.r2tl;
  to_send_.push_back(slot);
  request_flush();
  return true;
}

bool TcpHostQueue::take_termination() {
  const auto term = decoder_.header<pdu::TermRequest>();
  return violation("the target ended the connection (termination request, error " + std::to_string(term.fes) +
                   ", field " + std::to_string(term.fei_low) + ")");
}

void TcpHostQueue::finish(Slot* slot) {
  if (slot->send_node.linked()) to_send_.remove(slot);  // answered before all of its data was asked for or sent
  slot->finished = true;
  if (!slot->in_batch) release(slot);
}

}  // namespace basalt::nvmf
