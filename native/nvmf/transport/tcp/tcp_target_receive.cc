// SPDX-License-Identifier: Apache-2.0
// From bytes to commands with their data. Small payloads come with everything else into the receive buffer and are
// copied once into 4 KiB-aligned pool memory; what is left of a payload when the receive buffer is used up goes from
// the socket straight to its place, with the next bytes behind it into the receive buffer.
#include <cstring>

#include "nvmf/transport/tcp/tcp_target_connection.h"

namespace basalt::nvmf {

using nvme::DataDirection;
using pdu::Fes;

namespace {
constexpr uint32_t fei_plen = 4;
constexpr uint32_t fei_sgl_length = 8 + 24 + 8;
}  // namespace

void TcpConnection::readable() {
  if (closed_) return;
  size_t budget_bytes = options_.receive_bytes_per_turn;
  for (;;) {
    process();
    if (closed_ || stalled_ != nullptr) return;
    if (budget_bytes == 0) break;
    size_t capacity_bytes = 0;
    const env::Transfer transfer = receive(&capacity_bytes);
    if (transfer.state == env::Transfer::State::would_block) break;
    if (transfer.state != env::Transfer::State::done) {
      if (!lingers_with_alert()) close();
      return;
    }
    budget_bytes -= std::min(budget_bytes, transfer.count_bytes);
    // A short receive emptied the socket: what comes later is the poller's to tell.
    if (transfer.count_bytes < capacity_bytes) budget_bytes = 0;
  }
  if (decoder_.inside_pdu()) watch_stalls();
  socket_->arm_readable(&readable_event_);
}

env::Transfer TcpConnection::receive(size_t* capacity_bytes) {
  Iovec iov[2];
  size_t count = 0;
  size_t direct_bytes = 0;
  if (receiving_ != nullptr && receiving_->payload.buffer() != nullptr && decoder_.wants_data() && !failed_) {
    direct_bytes = decoder_.data_left_bytes();
    iov[count++] = {static_cast<char*>(receiving_->payload.buffer()->data) + receiving_->received_bytes, direct_bytes};
  }
  iov[count++] = {receive_buffer_.get(), options_.receive_bytes};
  *capacity_bytes = direct_bytes + options_.receive_bytes;
  const env::Transfer transfer = socket_->try_recv(iov, count);
  if (securing_ != nullptr) [[unlikely]]
    look_at_tls(transfer);
  if (transfer.state != env::Transfer::State::done) return transfer;
  received_bytes_ += transfer.count_bytes;
  const size_t direct_taken = std::min(direct_bytes, transfer.count_bytes);
  if (direct_taken > 0) {
    const Iovec taken{iov[0].base, direct_taken};
    decoder_.took_data(&taken, 1);
    receiving_->received_bytes += static_cast<uint32_t>(direct_taken);
  }
  if (!failed_) input_ = {receive_buffer_.get(), transfer.count_bytes - direct_taken};
  return transfer;
}

void TcpConnection::process() {
  while (!closed_ && !failed_ && stalled_ == nullptr) {
    switch (decoder_.push(input_)) {
      case pdu::Event::need_more:
        return;
      case pdu::Event::header:
        header_arrived();
        break;
      case pdu::Event::data:
        data_arrived(decoder_.chunk());
        break;
      case pdu::Event::complete:
        pdu_ended();
        break;
      case pdu::Event::failed:
        fail(decoder_.error());
        return;
    }
  }
}

void TcpConnection::header_arrived() {
  receiving_ = nullptr;
  switch (decoder_.type()) {
    case pdu::Type::capsule_command:
      command_arrived();
      break;
    case pdu::Type::h2c_data:
      data_header_arrived();
      break;
    case pdu::Type::h2c_term_request:
      close();
      break;  // the host has given up; there is nothing to answer
    default:
      break;
  }
}

void TcpConnection::initialize() {
  const auto request = decoder_.header<pdu::IcRequest>();
  digests_ = pdu::Digests::from_bits(request.digests);
  decoder_.set_digests(digests_);
  initialized_ = true;
  control_bytes_ = pdu::encode_ic_response(ic_response_, digests_, options_.maxh2cdata_bytes);
  control_ = ic_response_;
  reactor_.cancel(&timer_);
  reactor_.arm_after(&timer_, options_.connect_timeout);
  schedule_flush();
}

void TcpConnection::command_arrived() {
  Slot* slot = take_slot();
  if (slot == nullptr) {
    close();
    return;
  }
  Request& request = slot->request;
  request.command = decoder_.header<pdu::CapsuleCommand>().command;
  cid_counts_[request.command.cid & 0xff]++;
  slot->plan = queue_.transfer_plan(&request);
  if (cid_in_use(slot)) slot->plan = nvme::status::command_id_conflict.dnr();
  receiving_ = slot;
  if (!slot->plan.ok()) return;  // in-capsule data, if any, is dropped as it comes

  const uint32_t capsule_bytes = decoder_.data_bytes();
  const bool to_controller = request.direction == DataDirection::host_to_controller;
  const bool in_capsule = to_controller && request.command.sgl.type_subtype == nvme::sgl_data_block_offset;
  if (!in_capsule) {
    if (capsule_bytes > 0) fail({Fes::invalid_header_field, fei_plen});
    return;
  }
  if (capsule_bytes != request.data_bytes) {
    fail({Fes::invalid_header_field, fei_sgl_length});
    return;
  }
  if (capsule_bytes > 0 && !get_buffer(slot)) stalled_ = slot;
}

void TcpConnection::data_header_arrived() {
  const auto header = decoder_.header<pdu::Data>();
  Slot* slot = nullptr;
  if (header.ttag < slot_count_) slot = &slot_chunks_[header.ttag / slots_per_chunk][header.ttag % slots_per_chunk];
  if (slot == nullptr || slot->state != SlotState::data_wait || header.cccid != slot->request.command.cid) {
    fail({Fes::sequence_error, 0});
    return;
  }
  const uint32_t left_bytes = slot->request.data_bytes - slot->received_bytes;
  if (header.datao != slot->received_bytes || header.datal > left_bytes) {
    fail({Fes::transfer_out_of_range, 0});
    return;
  }
  const bool last = (header.common.flags & pdu::flag_last) != 0;
  if (last != (header.datal == left_bytes)) {
    fail({Fes::sequence_error, 0});
    return;
  }
  receiving_ = slot;
}

void TcpConnection::data_arrived(std::span<const uint8_t> bytes) {
  Slot* slot = receiving_;
  if (slot == nullptr || slot->payload.buffer() == nullptr) return;
  std::memcpy(static_cast<char*>(slot->payload.buffer()->data) + slot->received_bytes, bytes.data(), bytes.size());
  slot->received_bytes += static_cast<uint32_t>(bytes.size());
}

void TcpConnection::pdu_ended() {
  pdu_count_++;
  Slot* slot = receiving_;
  receiving_ = nullptr;
  switch (decoder_.type()) {
    case pdu::Type::ic_request:
      initialize();
      break;
    case pdu::Type::capsule_command:
      capsule_ended(slot);
      break;
    case pdu::Type::h2c_data:
      h2c_data_ended(slot);
      break;
    default:
      break;
  }
}

void TcpConnection::capsule_ended(Slot* slot) {
  const Request& request = slot->request;
  if (!slot->plan.ok()) {
    respond(slot, slot->plan);
  } else if (!decoder_.data_digest_ok()) {
    respond(slot, nvme::status::transient_transport_error);
  } else if (request.data_bytes > 0 && slot->payload.buffer() == nullptr) {
    if (get_buffer(slot)) go_on(slot);
  } else {
    execute(slot);
  }
}

// A command that moves data has its buffer now.
void TcpConnection::go_on(Slot* slot) {
  if (failed_) {
    free_slot(slot);
  } else if (slot->request.direction == DataDirection::host_to_controller) {
    send_r2t(slot);
  } else {
    execute(slot);
  }
}

void TcpConnection::h2c_data_ended(Slot* slot) {
  if (!decoder_.data_digest_ok()) slot->digest_failed = true;
  if (slot->received_bytes < slot->request.data_bytes) return;
  slot->asked_node.unlink();
  if (slot->digest_failed) {
    respond(slot, nvme::status::transient_transport_error);
  } else {
    execute(slot);
  }
}

void TcpConnection::execute(Slot* slot) {
  slot->state = SlotState::executing;
  queue_.execute(&slot->request);
}

}  // namespace basalt::nvmf
