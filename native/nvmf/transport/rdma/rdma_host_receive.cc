// SPDX-License-Identifier: Apache-2.0
// The receiving half of RdmaHostQueue: responses to the commands that they answer.
#include "nvmf/transport/rdma/rdma_host_queue.h"

namespace basalt::nvmf {

void RdmaHostQueue::received(env::RdmaReceive* receive) {
  if (closed() || receive->status == env::RdmaStatus::flushed) return;
  if (receive->status != env::RdmaStatus::success) return lose_connection("a message longer than a response came");
  if (receive->length_bytes != sizeof(nvme::Completion)) {
    return lose_connection("a response of " + std::to_string(receive->length_bytes) + " bytes came");
  }
  nvme::Completion completion;
  std::memcpy(&completion, receive->pieces[0].base, sizeof(completion));
  const env::RdmaReceive seen = *receive;
  // Posted again first: whoever takes the slot next may be answered at once.
  end_->connection->post_receive(receive);
  take_response(completion, seen);
}

RdmaHostQueue::Slot* RdmaHostQueue::find(uint16_t cid) {
  const auto index = static_cast<uint16_t>(cid & ((1u << slot_bits_) - 1));
  if (index >= options_.slot_count) return nullptr;
  Slot* slot = &slots_[index];
  if (slot->command == nullptr || slot->answered || !slot->sent || slot->command->command.cid != cid) return nullptr;
  return slot;
}

void RdmaHostQueue::take_response(const nvme::Completion& completion, const env::RdmaReceive& receive) {
  Slot* slot = find(completion.cid);
  if (slot == nullptr) return lose_connection("a response to a command that is not outstanding");
  if (receive.invalidated) {
    if (!slot->window_open || receive.invalidated_key != slot->bind.window->key()) {
      return lose_connection("a response invalidated a key that is not its command's");
    }
    slot->window_open = false;
  }
  slot->command->completion = completion;
  slot->answered = true;
  if (slot->window_open) {
    slot->invalidate.type = env::RdmaRequest::Type::invalidate;
    slot->invalidate.window = slot->bind.window;
    post_request(slot, &slot->invalidate);
  }
  maybe_release(slot);
}

void RdmaHostQueue::maybe_release(Slot* slot) {
  if (!slot->answered || slot->window_open || slot->requests_out > 0) return;
  if (slot->bounce.data() != nullptr) copy_back(slot);
  release(slot);
}

void RdmaHostQueue::copy_back(Slot* slot) {
  const HostCommand* command = slot->command;
  if (command->direction == nvme::DataDirection::controller_to_host && command->status().ok()) {
    Iovec parts[bdev_pieces_max];
    const size_t count = iovec_slice(command->iov, command->iov_count, command->iov_offset_bytes, command->data_bytes,
                                     parts, bdev_pieces_max);
    BASALT_ASSERT(count > 0);
    iovec_copy_in(parts, count, slot->bounce.data());
  }
  slot->bounce.release();
}

void RdmaHostQueue::release(Slot* slot) {
  HostCommand* command = slot->command;
  slot->command = nullptr;
  slot->sent = false;
  free_.push_back(slot);
  // Those that waited go before what the completion may submit.
  next_commands();
  complete(command);
}

}  // namespace basalt::nvmf
