// SPDX-License-Identifier: Apache-2.0
#include "nvmf/transport/rdma/rdma_target_connection.h"

#include <algorithm>

namespace basalt::nvmf {
namespace {
constexpr int64_t rdma_looks_per_timeout = 4;
constexpr uint32_t slots_per_entry = 2;      // one that executes, one whose answer is on its way
constexpr uint8_t target_rnr_retry_max = 6;  // not for ever: a host has a receive for every command that it has sent
}  // namespace

using State = env::RdmaConnection::State;
using rdma::RejectStatus;

Result<std::shared_ptr<RdmaTargetDevice>> RdmaTargetConnection::Shard::device(env::RdmaDevice& device,
                                                                              const RdmaConnectionOptions& options) {
  std::erase_if(devices, [](const auto& known) { return known.expired(); });
  for (const auto& known : devices) {
    auto shared = known.lock();
    if (&shared->memory.device() == &device) return shared;
  }
  auto made = std::make_shared<RdmaTargetDevice>(reactor, device, *stats);
  const Outcome outcome = made->init(options.receive_count, options.in_capsule_bytes);
  if (!outcome) return outcome.error();
  devices.push_back(made);
  return made;
}

RdmaTargetConnection::RdmaTargetConnection(Target& target, Reactor& reactor, Listener& listener, Shard& shard,
                                           std::atomic<size_t>& half_open_count, const RdmaConnectionOptions& options,
                                           std::unique_ptr<env::RdmaPending> pending)
    : target_(target),
      reactor_(reactor),
      listener_(listener),
      shard_(shard),
      half_open_count_(half_open_count),
      options_(options),
      pending_(std::move(pending)),
      queue_(target, reactor, listener,
             {.close = [](TargetQueue* queue) { static_cast<RdmaTargetConnection*>(queue->context())->close(); },
              .drained =
                  [](TargetQueue* queue) {
                    auto* self = static_cast<RdmaTargetConnection*>(queue->context());
                    self->drained_ = true;
                    self->maybe_gone();
                  },
              .context = this}) {
  start_message.connection = gone_message.connection = this;
  start_message.run = [](Work* work) { static_cast<Message*>(work)->connection->start(); };
  gone_message.run = [](Work* work) {
    RdmaTargetConnection* self = static_cast<Message*>(work)->connection;
    self->on_gone(self);
  };
  changed_.connection = this;
  changed_.run = [](Work* work) { static_cast<Event*>(work)->connection->connection_changed(); };
  timer_.connection = stall_timer_.connection = refusal_timer_.connection = this;
  timer_.run = [](Work* work) { static_cast<Deadline*>(work)->connection->close(); };
  stall_timer_.run = [](Work* work) { static_cast<Deadline*>(work)->connection->check_stalls(); };
  refusal_timer_.run = [](Work* work) { static_cast<Deadline*>(work)->connection->refuse_due(); };
}

RdmaTargetConnection::~RdmaTargetConnection() {
  BASALT_ASSERT(in_use_count_ == 0 && !shard_node.linked() && !half_open_node.linked() && connection_ == nullptr);
}

void RdmaTargetConnection::start() {
  shard_.connections.push_back(this);
  make_room();
  shard_.half_open.push_back(this);
  shard_.half_open_count++;
  reactor_.arm_after(&timer_, options_.connect_timeout);
  env::Rdma* rdma = reactor_.poller().rdma();
  connection_ = rdma == nullptr ? nullptr : rdma->adopt(std::move(pending_));
  if (connection_ == nullptr) {
    ended_ = true;
    return close();
  }
  connection_->context = this;
  connection_->arm_changed(&changed_);
  const RejectStatus refused = admit();
  if (refused == RejectStatus::none) return;
  shard_.stats->rejected_count.fetch_add(1, std::memory_order_relaxed);
  rdma::RejectData reason{};
  reason.recfmt = rdma::record_format;
  reason.status = static_cast<uint16_t>(refused);
  if (connection_->state() == State::requested) connection_->reject(rdma::private_bytes(reason));
  close();
}

// Judges the request and accepts it; or says why not.
RejectStatus RdmaTargetConnection::admit() {
  rdma::RequestData request;
  if (!rdma::read_private_data(connection_->private_data(), &request)) {
    return RejectStatus::invalid_private_data_length;
  }
  if (request.recfmt != rdma::record_format) return RejectStatus::invalid_recfmt;
  if (request.hsqsize == 0 || request.hsqsize >= queue_entries_max) return RejectStatus::invalid_hsqsize;
  if (request.hrqsize == 0) return RejectStatus::invalid_hrqsize;
  entries_max_ = static_cast<uint16_t>(request.hsqsize + 1);
  auto device = shard_.device(connection_->device(), options_);
  if (!device) {
    shard_.stats->note_lack(device.error().message);
    return RejectStatus::no_resources;
  }
  device_ = std::move(device).value();
  env::RdmaQueuePairOptions pair;
  pair.send_depth = 2 * slots_per_entry * entries_max_;  // data and answer
  pair.shared = device_->receive_queue();
  pair.rnr_retry_max = target_rnr_retry_max;
  const Outcome made = connection_->make_queue_pair(pair);
  if (!made) {
    shard_.stats->note_lack(made.error().message);
    return RejectStatus::no_resources;
  }
  rdma::AcceptData accepted{};
  accepted.recfmt = rdma::record_format;
  accepted.crqsize = entries_max_;
  connection_->accept(rdma::private_bytes(accepted));
  return RejectStatus::none;
}

void RdmaTargetConnection::connection_changed() {
  if (connection_->state() == State::ended) {
    ended_ = true;
    // Nothing of it runs any more: what was under way is given back.
    while (Slot* slot = on_the_wire_.front()) {
      slot->requests_out = 0;
      free_slot(slot);
    }
    return maybe_gone();
  }
  connection_->arm_changed(&changed_);
  if (connection_->state() == State::broken) close();
}

// Hosts that connect and say nothing must not keep others out: the oldest of them gives way.
void RdmaTargetConnection::make_room() {
  if (shard_.half_open_count >= shard_.half_open_max) shard_.half_open.front()->close();
}

void RdmaTargetConnection::end_half_open() {
  if (!half_open_) return;
  half_open_ = false;
  half_open_count_.fetch_sub(1, std::memory_order_relaxed);
  if (!half_open_node.linked()) return;
  half_open_node.unlink();
  shard_.half_open_count--;
}

// Connect has succeeded.
void RdmaTargetConnection::associated() {
  end_half_open();
  reactor_.cancel(&timer_);
  share_ = device_->hosts.join(queue_.hostnqn(), reactor_.buffers());
}

void RdmaTargetConnection::close() {
  if (closed_) return;
  closed_ = true;
  end_half_open();
  reactor_.cancel(&timer_);
  reactor_.cancel(&stall_timer_);
  reactor_.cancel(&refusal_timer_);
  while (Slot* slot = refused_.front())
    free_slot(slot);
  if (connection_ != nullptr) connection_->close();
  for (const auto& chunk : slot_chunks_) {
    for (size_t i = 0; i < slots_per_chunk; i++) {
      Slot& slot = chunk[i];
      if (slot.state == SlotState::buffer_wait && !slot.payload.leave_line()) free_slot(&slot);
    }
  }
  queue_.disconnect();
}

void RdmaTargetConnection::maybe_gone() {
  if (!drained_ || !ended_ || in_use_count_ > 0) return;
  drained_ = false;  // once
  if (share_ != nullptr) device_->hosts.leave(std::exchange(share_, nullptr));
  for (const auto& chunk : slot_chunks_) {
    for (size_t i = 0; i < slots_per_chunk; i++)
      device_->give_cell(chunk[i].response);
  }
  connection_.reset();
  device_.reset();
  shard_.connections.remove(this);
  target_.home().post(&gone_message);
}

// Looked at a few times per time-out, and only while something is on the wire. The adapter gives up on a peer that does
// not answer; this is for one that takes its time for ever.
void RdmaTargetConnection::check_stalls() {
  const Slot* oldest = on_the_wire_.front();
  if (oldest == nullptr) return;
  if (reactor_.now() - oldest->posted > options_.transfer_timeout) return wire_failed();
  reactor_.arm_after(&stall_timer_, options_.transfer_timeout / rdma_looks_per_timeout);
}

// ---- slots ---------------------------------------------------------------------------------------------------------

RdmaTargetConnection::Slot* RdmaTargetConnection::take_slot() {
  // One command more than the host may have outstanding is an error of the host, not a reason to grow.
  if (outstanding_count_ >= std::min(queue_.entries(), entries_max_)) return nullptr;
  if (in_use_count_ >= slots_per_entry * entries_max_) return nullptr;
  if (free_slots_.empty() && !add_slots()) return nullptr;
  Slot* slot = free_slots_.back();
  free_slots_.pop_back();
  in_use_count_++;
  slot->request.iov_count = 0;
  slot->keyed = {};
  slot->requests_out = 0;
  return slot;
}

bool RdmaTargetConnection::add_slots() {
  auto chunk = std::make_unique<Slot[]>(slots_per_chunk);
  for (size_t i = 0; i < slots_per_chunk; i++) {
    Slot& slot = chunk[i];
    uint32_t key = 0;
    slot.response = device_->take_cell(&key);
    if (slot.response == nullptr) {
      for (size_t k = 0; k < i; k++)
        device_->give_cell(chunk[k].response);
      return false;
    }
    slot.connection = this;
    slot.request.finish = finished;
    slot.request.transport_context = &slot;
    slot.request.iov = &slot.iov;
    slot.payload.context = &slot;
    slot.payload.ready = payload_ready;
    slot.response_piece = {slot.response, sizeof(nvme::Completion), key};
    slot.send.pieces = &slot.response_piece;
    slot.transfer.pieces = &slot.data_piece;
    for (env::RdmaRequest* request : {&slot.send, &slot.transfer}) {
      request->piece_count = 1;
      request->context = &slot;
      request->run = request_ran;
    }
  }
  for (size_t i = slots_per_chunk; i > 0; i--)
    free_slots_.push_back(&chunk[i - 1]);
  slot_chunks_.push_back(std::move(chunk));
  return true;
}

void RdmaTargetConnection::free_slot(Slot* slot) {
  BASALT_ASSERT(slot->requests_out == 0 && !slot->payload.waiting());
  if (slot->wire_node.linked()) slot->wire_node.unlink();
  slot->payload.release();
  if (slot->receive != nullptr) device_->give(std::exchange(slot->receive, nullptr));
  answered(slot);
  slot->state = SlotState::free;
  free_slots_.push_back(slot);
  in_use_count_--;
}

void RdmaTargetConnection::answered(Slot* slot) {
  if (!slot->outstanding) return;
  slot->outstanding = false;
  outstanding_count_--;
  cid_counts_[slot->request.command.cid & 0xff]--;
}

// Besides this slot.
bool RdmaTargetConnection::cid_in_use(const Slot* slot) const {
  const uint16_t cid = slot->request.command.cid;
  if (cid_counts_[cid & 0xff] < 2) [[likely]]
    return false;
  for (const auto& chunk : slot_chunks_) {
    for (size_t i = 0; i < slots_per_chunk; i++) {
      const Slot& other = chunk[i];
      if (&other != slot && other.outstanding && other.request.command.cid == cid) return true;
    }
  }
  return false;
}

}  // namespace basalt::nvmf
