// SPDX-License-Identifier: Apache-2.0
#include "nvmf/transport/rdma/rdma_target_device.h"

#include <algorithm>

#include "nvmf/transport/rdma/rdma_target_connection.h"

namespace basalt::nvmf {

RdmaTargetDevice::~RdmaTargetDevice() {
  // The connections have given everything back.
  BASALT_ASSERT(posted_count_ == receives_.size());
  BASALT_ASSERT(free_cells_.size() == cell_buffers_.size() * (BufferPool::buffer_bytes_min / cell_bytes));
  queue_.reset();
  for (Buffer* buffer : cell_buffers_)
    reactor_.buffers().give(buffer);
  if (receive_memory_ == nullptr) return;
  memory.forget(receive_memory_);
  reactor_.buffers().arena().unmap(receive_memory_);
}

// The commands lie behind all the data, which is aligned so that a disk takes it from there.
Outcome RdmaTargetDevice::init(uint32_t depth, uint32_t in_capsule_bytes) {
  env::RdmaDevice& device = memory.device();
  depth = std::min(depth, device.limits().shared_receive_depth_max);
  if (depth == 0 || device.limits().pieces_max < 2) {
    return Error{Errc::unsupported, device.name() + ": has no shared receive queues"};
  }
  const size_t data_bytes = align_up(in_capsule_bytes, BufferPool::alignment_bytes);
  auto made = device.make_receive_queue(depth);
  if (!made) return made.error();
  receive_memory_ = reactor_.buffers().arena().map(depth * (data_bytes + sizeof(nvme::Command)));
  if (receive_memory_ == nullptr) return Error{Errc::no_memory, device.name() + ": no memory for receives"};
  uint32_t key = 0;
  if (memory.find(receive_memory_, depth * data_bytes, &key) != RdmaMemory::Answer::found) {
    return Error{Errc::no_memory, memory.why_refused()};
  }
  queue_ = std::move(made).value();
  receives_ = std::vector<Receive>(depth);
  low_count_ = depth / 4;
  auto* data = static_cast<char*>(receive_memory_);
  auto* commands = data + depth * data_bytes;
  for (size_t i = 0; i < depth; i++) {
    Receive& receive = receives_[i];
    receive.owner = this;
    receive.run = arrived;
    receive.parts[0] = {commands + i * sizeof(nvme::Command), sizeof(nvme::Command), key};
    receive.parts[1] = {data + i * data_bytes, in_capsule_bytes, key};
    receive.pieces = receive.parts;
    receive.piece_count = 2;
    give(&receive);
  }
  return success();
}

void RdmaTargetDevice::give(Receive* receive) {
  posted_count_++;
  queue_->post(receive);
}

void RdmaTargetDevice::arrived(Work* work) {
  auto* receive = static_cast<Receive*>(static_cast<env::RdmaReceive*>(static_cast<env::RdmaWork*>(work)));
  receive->owner->posted_count_--;
  if (receive->connection == nullptr) return receive->owner->give(receive);
  static_cast<RdmaTargetConnection*>(receive->connection->context)->received(receive);
}

void* RdmaTargetDevice::take_cell(uint32_t* key) {
  if (free_cells_.empty()) {
    Buffer* buffer = reactor_.buffers().take(BufferPool::buffer_bytes_min);
    if (buffer == nullptr) return nullptr;
    cell_buffers_.push_back(buffer);
    for (size_t at = 0; at < BufferPool::buffer_bytes_min; at += cell_bytes)
      free_cells_.push_back(static_cast<char*>(buffer->data) + at);
  }
  if (memory.find(free_cells_.back(), cell_bytes, key) != RdmaMemory::Answer::found) return nullptr;
  void* cell = free_cells_.back();
  free_cells_.pop_back();
  return cell;
}

}  // namespace basalt::nvmf
