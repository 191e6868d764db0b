// SPDX-License-Identifier: Apache-2.0
// The sending half of RdmaHostQueue: commands become a capsule, and a window over their data.
#include "nvmf/transport/rdma/rdma_host_queue.h"
#include "nvmf/transport/rdma/rdma_wire.h"

namespace basalt::nvmf {

using Type = env::RdmaRequest::Type;

void RdmaHostQueue::start(HostCommand* command) {
  if (free_.empty() || stalled_ != nullptr) {
    waiting_.push_back(command);
    return;
  }
  Slot* slot = free_.back();
  free_.pop_back();
  assign(slot, command);
}

void RdmaHostQueue::next_commands() {
  while (!closed() && stalled_ == nullptr && !free_.empty()) {
    HostCommand* command = waiting_.pop_front();
    if (command == nullptr) return;
    Slot* slot = free_.back();
    free_.pop_back();
    assign(slot, command);
  }
}

void RdmaHostQueue::assign(Slot* slot, HostCommand* command) {
  slot->command = command;
  slot->generation++;
  slot->answered = slot->sent = slot->window_open = false;
  nvme::Command& sqe = command->command;
  sqe.cid = static_cast<uint16_t>(slot->generation << slot_bits_ | slot->index);
  sqe.flags = static_cast<uint8_t>(0x40 | command->fuse);  // PSDT: SGL
  const bool writes = command->direction == nvme::DataDirection::host_to_controller;
  const bool io = qid() != 0 && sqe.opcode != static_cast<uint8_t>(nvme::AdminOpcode::fabrics);
  slot->way = DataWay::window;
  if (command->data_bytes == 0) {
    slot->way = DataWay::none;
  } else if (writes && io && command->data_bytes <= options_.capsule_data_bytes_max) {
    slot->way = DataWay::in_capsule;
  }
  slot->pieces[0] = {slot->capsule, sizeof(nvme::Command), end_->block_key};
  slot->piece_count = 1;
  if (slot->way == DataWay::none) return post(slot);
  bool refused = false;
  if (in_place(slot, &refused)) {
    stats_->in_place_bytes.fetch_add(command->data_bytes, std::memory_order_relaxed);
    return post(slot);
  }
  if (refused || command->data_bytes > RdmaBounces::length_bytes_max) return refuse(slot);
  if (slot->bounce.take(end_->device->bounces, command->data_bytes)) {
    use_bounce(slot);
  } else {
    stalled_ = slot;
  }
}

// The submitter's memory: registered, and in one piece for a window, or in few enough for a capsule.
bool RdmaHostQueue::in_place(Slot* slot, bool* refused) {
  const HostCommand* command = slot->command;
  const size_t room = std::min<size_t>(pieces_max, end_->connection->device().limits().pieces_max) - 1;
  Iovec parts[pieces_max];
  size_t count =
      iovec_slice(command->iov, command->iov_count, command->iov_offset_bytes, command->data_bytes, parts, room);
  if (count == 0) return false;
  size_t joined = 1;
  for (size_t i = 1; i < count; i++) {
    Iovec& last = parts[joined - 1];
    if (static_cast<char*>(last.base) + last.length_bytes == parts[i].base) {
      last.length_bytes += parts[i].length_bytes;
    } else {
      parts[joined++] = parts[i];
    }
  }
  count = joined;
  if (slot->way == DataWay::window && count > 1) return false;
  for (size_t i = 0; i < count; i++) {
    env::RdmaPiece& piece = slot->way == DataWay::window ? slot->window_piece : slot->pieces[1 + i];
    piece = {parts[i].base, static_cast<uint32_t>(parts[i].length_bytes), 0};
    const auto answer = end_->device->memory.find(piece.base, piece.length_bytes, &piece.key);
    if (answer == RdmaMemory::Answer::refused) *refused = true;
    if (answer != RdmaMemory::Answer::found) return false;
  }
  if (slot->way == DataWay::in_capsule) slot->piece_count = static_cast<uint16_t>(1 + count);
  return true;
}

void RdmaHostQueue::bounce_ready(Slot* slot) {
  if (closed()) {
    slot->bounce.release();
    return maybe_drained();
  }
  stalled_ = nullptr;
  use_bounce(slot);
  next_commands();
}

void RdmaHostQueue::use_bounce(Slot* slot) {
  const HostCommand* command = slot->command;
  void* data = slot->bounce.data();
  uint32_t key = 0;
  if (end_->device->memory.find(data, command->data_bytes, &key) != RdmaMemory::Answer::found) {
    slot->bounce.release();
    return refuse(slot);
  }
  const env::RdmaPiece piece{data, command->data_bytes, key};
  if (command->direction == nvme::DataDirection::host_to_controller) {
    Iovec parts[bdev_pieces_max];
    const size_t count = iovec_slice(command->iov, command->iov_count, command->iov_offset_bytes, command->data_bytes,
                                     parts, bdev_pieces_max);
    BASALT_ASSERT(count > 0);  // the submitter's pieces are fewer than its data
    iovec_copy_out(parts, count, data);
  } else {
    // A command that gives less than was asked for must not bring what others left here.
    std::memset(data, 0, command->data_bytes);
  }
  stats_->copied_bytes.fetch_add(command->data_bytes, std::memory_order_relaxed);
  if (slot->way == DataWay::window) {
    slot->window_piece = piece;
  } else {
    slot->pieces[1] = piece;
    slot->piece_count = 2;
  }
  post(slot);
}

void RdmaHostQueue::post(Slot* slot) {
  nvme::Command& sqe = slot->command->command;
  sqe.sgl = {};
  if (slot->way == DataWay::in_capsule) {
    sqe.sgl.length_bytes = slot->command->data_bytes;
    sqe.sgl.type_subtype = nvme::sgl_data_block_offset;
  } else if (slot->way == DataWay::window) {
    env::RdmaRequest& bind = slot->bind;
    bind.type = Type::bind;
    bind.window = end_->windows[slot->index].get();
    bind.peer_writes = slot->command->direction == nvme::DataDirection::controller_to_host;
    bind.pieces = &slot->window_piece;
    bind.piece_count = 1;
    slot->window_open = true;
    post_request(slot, &bind);
    sqe.sgl = rdma::encode_keyed({.address = reinterpret_cast<uint64_t>(slot->window_piece.base),
                                  .length_bytes = slot->command->data_bytes,
                                  .key = bind.window->key(),
                                  .invalidate = true});
  } else {
    sqe.sgl = rdma::encode_keyed({});
  }
  *slot->capsule = sqe;
  slot->send.type = Type::send;
  slot->send.pieces = slot->pieces;
  slot->send.piece_count = slot->piece_count;
  slot->sent = true;
  post_request(slot, &slot->send);
}

void RdmaHostQueue::post_request(Slot* slot, env::RdmaRequest* request) {
  slot->requests_out++;
  end_->connection->post(request);
}

void RdmaHostQueue::request_ran(Work* work) {
  auto* request = static_cast<env::RdmaRequest*>(static_cast<env::RdmaWork*>(work));
  Slot* slot = static_cast<Slot*>(request->context);
  RdmaHostQueue* queue = slot->queue;
  slot->requests_out--;
  if (queue->closed()) return;
  if (request->status != env::RdmaStatus::success) {
    // Flushed: the connection says why it broke.
    if (request->status == env::RdmaStatus::flushed) return;
    return queue->lose_connection(std::string("a request failed: ") + env::rdma_status_name(request->status));
  }
  if (request == &slot->invalidate) slot->window_open = false;
  queue->maybe_release(slot);
}

// The machine does not let the data be registered, or there is too much of it.
void RdmaHostQueue::refuse(Slot* slot) {
  deferred_count_++;
  slot->refused.run = [](Work* work) {
    Slot* refused = static_cast<Slot::Refused*>(work)->slot;
    RdmaHostQueue* queue = refused->queue;
    queue->deferred_count_--;
    if (queue->closed()) return queue->maybe_drained();
    refused->command->set_status(nvme::status::data_transfer_error);
    queue->release(refused);
  };
  reactor().defer(&slot->refused);
}

}  // namespace basalt::nvmf
