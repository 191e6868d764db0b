// SPDX-License-Identifier: Apache-2.0
#include "nvmf/transport/rdma/rdma_host_end.h"

#include "nvmf/transport/rdma/rdma_host_queue.h"

namespace basalt::nvmf {

RdmaHostEnd::RdmaHostEnd(RdmaHostQueue* owner, Reactor& on) : queue(owner), reactor(on) {
  changed.end = this;
  changed.run = [](Work* work) {
    RdmaHostEnd* end = static_cast<Changed*>(work)->end;
    if (end->queue != nullptr) {
      end->queue->connection_changed();
    } else if (end->connection->state() == env::RdmaConnection::State::ended) {
      const auto last = std::move(end->self);
    } else {
      end->connection->arm_changed(&end->changed);
    }
  };
}

RdmaHostEnd::~RdmaHostEnd() {
  connection.reset();
  windows.clear();
  if (block != nullptr) reactor.buffers().give(block);
  device.reset();
}

Outcome RdmaHostEnd::make_block(uint16_t slot_count) {
  if (!device->bounces.ok()) return Error{Errc::no_memory, "no buffer to reserve"};
  const size_t cell_count = 2 * size_t{slot_count} + 1;
  block = reactor.buffers().take(cell_count * cell_bytes);
  if (block == nullptr) return Error{Errc::no_memory, "no buffer for the queue's capsules"};
  if (device->memory.find(block->data, cell_count * cell_bytes, &block_key) != RdmaMemory::Answer::found) {
    return Error{Errc::no_memory, device->memory.why_refused()};
  }
  auto* responses = static_cast<char*>(block->data) + slot_count * cell_bytes;
  receives = std::vector<Receive>(slot_count + size_t{1});
  for (size_t i = 0; i < receives.size(); i++) {
    Receive& receive = receives[i];
    receive.end = this;
    receive.piece = {responses + i * cell_bytes, cell_bytes, block_key};
    receive.pieces = &receive.piece;
    receive.piece_count = 1;
    receive.run = [](Work* work) {
      auto* arrived = static_cast<Receive*>(static_cast<env::RdmaReceive*>(static_cast<env::RdmaWork*>(work)));
      if (arrived->end->queue != nullptr) arrived->end->queue->received(arrived);
    };
  }
  return success();
}

void RdmaHostEnd::post_receives() {
  for (Receive& receive : receives)
    connection->post_receive(&receive);
}

void RdmaHostEnd::leave(std::unique_ptr<RdmaHostEnd> end) {
  if (end == nullptr || end->connection == nullptr || !end->has_queue_pair) return;
  if (end->connection->state() == env::RdmaConnection::State::ended) return;
  RdmaHostEnd& alone = *end;
  alone.queue = nullptr;
  alone.connection->disarm();
  alone.self = std::move(end);
  alone.connection->close();
  alone.connection->arm_changed(&alone.changed);
}

}  // namespace basalt::nvmf
