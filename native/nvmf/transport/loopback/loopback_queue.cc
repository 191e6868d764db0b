// SPDX-License-Identifier: Apache-2.0
#include "nvmf/transport/loopback/loopback_queue.h"

namespace basalt::nvmf {

LoopbackHostQueue::LoopbackHostQueue(LoopbackTargetTransport& transport, Target& target,
                                     std::shared_ptr<LoopbackLink> link, const HostQueueOptions& options)
    : HostQueue(*link->reactor, options.qid),
      transport_(transport),
      link_(std::move(link)),
      target_queue_(target, *link_->reactor, *link_->listener,
                    {[](TargetQueue* queue) {
                       static_cast<LoopbackHostQueue*>(queue->context())
                           ->lose({Errc::closed, "the target closed the loopback connection"});
                     },
                     [](TargetQueue* queue) { static_cast<LoopbackHostQueue*>(queue->context())->drained(); }, this}),
      slot_count_(options.slot_count),
      slots_(std::make_unique<Slot[]>(options.slot_count)) {
  link_->queue = this;
  free_.reserve(slot_count_);
  for (uint16_t i = slot_count_; i > 0; i--) {
    slots_[i - 1].queue = this;
    free_.push_back(&slots_[i - 1]);
  }
}

LoopbackHostQueue::~LoopbackHostQueue() {
  BASALT_ASSERT(refused_count_ == 0);
  if (link_) leave();  // never used
}

void LoopbackHostQueue::leave() {
  link_->queue = nullptr;
  transport_.leave(link_);
  link_.reset();
}

void LoopbackHostQueue::unlisten() {
  lose({Errc::closed, "the target does not listen any more"});
}

void LoopbackHostQueue::start(HostCommand* command) {
  if (free_.empty()) {
    waiting_.push_back(command);
    return;
  }
  Slot* slot = free_.back();
  free_.pop_back();
  execute(slot, command);
}

void LoopbackHostQueue::execute(Slot* slot, HostCommand* command) {
  slot->command = command;
  nvme::Command& sqe = command->command;
  sqe.cid = static_cast<uint16_t>(slot - slots_.get());
  sqe.flags = static_cast<uint8_t>(0x40 | command->fuse);  // PSDT: SGL
  sqe.sgl = {};
  sqe.sgl.length_bytes = command->data_bytes;
  sqe.sgl.type_subtype = nvme::sgl_transport_data_block;
  Request& request = slot->request;
  request.command = sqe;
  request.finish = [](Request* done) {
    auto* queue = static_cast<LoopbackHostQueue*>(done->queue->context());
    queue->finished(&queue->slots_[done->command.cid]);
  };
  request.queue = &target_queue_;
  request.iov = nullptr;
  request.iov_count = 0;
  request.data_bytes = 0;
  nvme::Status status = target_queue_.transfer_plan(&request);
  if (status.ok() && request.data_bytes > 0 && !give_memory(slot)) status = nvme::status::data_transfer_error.dnr();
  if (!status.ok()) return refuse(slot, status);
  target_queue_.execute(&request);
}

// The submitter's memory, exactly as much as the command says.
bool LoopbackHostQueue::give_memory(Slot* slot) {
  const HostCommand* command = slot->command;
  Request& request = slot->request;
  if (request.direction != command->direction || request.data_bytes != command->data_bytes) return false;
  if (command->iov_offset_bytes == 0 && iovec_bytes(command->iov, command->iov_count) == command->data_bytes) {
    request.iov = const_cast<Iovec*>(command->iov);
    request.iov_count = command->iov_count;
    return true;
  }
  if (!slot->pieces) slot->pieces = std::make_unique<Iovec[]>(bdev::iov_count_max);
  const size_t used = iovec_slice(command->iov, command->iov_count, command->iov_offset_bytes, command->data_bytes,
                                  slot->pieces.get(), bdev::iov_count_max);
  request.iov = slot->pieces.get();
  request.iov_count = static_cast<uint16_t>(used);
  return used > 0;
}

// What the target does not take completes later, as everything does.
void LoopbackHostQueue::refuse(Slot* slot, nvme::Status status) {
  target_queue_.fill_completion(&slot->request, status);
  refused_count_++;
  slot->run = [](Work* work) {
    auto* refused = static_cast<Slot*>(work);
    LoopbackHostQueue* queue = refused->queue;
    queue->refused_count_--;
    queue->finished(refused);
    if (queue->ended_) queue->drained();
  };
  reactor().defer(slot);
}

void LoopbackHostQueue::finished(Slot* slot) {
  HostCommand* command = std::exchange(slot->command, nullptr);
  if (closed()) return;  // lost with the others, when all have ended
  command->completion = slot->request.completion;
  if (HostCommand* next = waiting_.pop_front()) {
    execute(slot, next);
  } else {
    free_.push_back(slot);
  }
  complete(command);
}

void LoopbackHostQueue::end_connection() {
  target_queue_.disconnect();
}

void LoopbackHostQueue::drained() {
  ended_ = true;
  if (refused_count_ > 0) return;
  leave();
  all_lost();
}

}  // namespace basalt::nvmf
