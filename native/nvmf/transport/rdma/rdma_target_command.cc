// SPDX-License-Identifier: Apache-2.0
// From capsule to response.
#include <cstring>

#include "nvmf/transport/rdma/rdma_target_connection.h"

namespace basalt::nvmf {

using nvme::DataDirection;
using Type = env::RdmaRequest::Type;

void RdmaTargetConnection::received(RdmaTargetDevice::Receive* receive) {
  if (closed_) {
    device_->give(receive);
  } else if (receive->status != env::RdmaStatus::success || receive->length_bytes < sizeof(nvme::Command)) {
    // Longer than the capsule that Identify allows (the adapter found that), or not even a command.
    device_->give(receive);
    wire_failed();
  } else {
    command_arrived(receive);
  }
}

void RdmaTargetConnection::command_arrived(RdmaTargetDevice::Receive* receive) {
  Slot* slot = take_slot();
  if (slot == nullptr) {
    device_->give(receive);
    return wire_failed();
  }
  Request& request = slot->request;
  std::memcpy(&request.command, receive->command(), sizeof(request.command));
  slot->outstanding = true;
  outstanding_count_++;
  cid_counts_[request.command.cid & 0xff]++;
  translate(slot);
  nvme::Status plan = queue_.transfer_plan(&request);
  if (cid_in_use(slot)) plan = nvme::status::command_id_conflict.dnr();
  const bool in_capsule =
      plan.ok() && request.data_bytes > 0 && request.command.sgl.type_subtype == nvme::sgl_data_block_offset;
  bool kept = false;
  if (in_capsule) plan = take_in_capsule_data(slot, receive, &kept);
  if (!kept) device_->give(receive);
  if (plan.is(nvme::status::internal_path_error)) {
    refuse_later(slot);
  } else if (!plan.ok()) {
    respond(slot, plan);
  } else if (request.data_bytes == 0 || in_capsule) {
    execute(slot);
  } else if (take_payload(slot)) {
    go_on(slot);
  } else {
    slot->state = SlotState::buffer_wait;
  }
}

// The target knows data in the capsule, and data that its transport moves. A host of this transport says by a keyed
// descriptor where such data is.
void RdmaTargetConnection::translate(Slot* slot) {
  nvme::SglDescriptor& sgl = slot->request.command.sgl;
  if (sgl.type_subtype == rdma::sgl_keyed || sgl.type_subtype == rdma::sgl_keyed_invalidate) {
    slot->keyed = rdma::decode_keyed(sgl);
    sgl = {};
    sgl.length_bytes = slot->keyed.length_bytes;
    sgl.type_subtype = nvme::sgl_transport_data_block;
  } else if (sgl.type_subtype == nvme::sgl_transport_data_block) {
    sgl.type_subtype = 0xff;  // not over RDMA
  }
}

nvme::Status RdmaTargetConnection::take_in_capsule_data(Slot* slot, RdmaTargetDevice::Receive* receive, bool* kept) {
  Request& request = slot->request;
  if (receive->length_bytes - sizeof(nvme::Command) < request.data_bytes) {
    return nvme::status::data_sgl_length_invalid.dnr();
  }
  RdmaTargetStats& stats = device_->stats;
  if (device_->short_of_receives()) {
    if (take_payload(slot)) {
      std::memcpy(slot->iov.base, receive->data(), request.data_bytes);
      stats.copied_bytes.fetch_add(request.data_bytes, std::memory_order_relaxed);
      return nvme::status::success;
    }
    (void)slot->payload.leave_line();
    // One that ends here may keep its receive: it gives it back whatever others do. One that waits for another node may
    // not: that node may wait for a receive of this one.
    if (queue_.buffer_use(request) != BufferUse::local) {
      stats.refused_count.fetch_add(1, std::memory_order_relaxed);
      return nvme::status::internal_path_error;
    }
  }
  slot->receive = receive;
  slot->iov = {receive->data(), request.data_bytes};
  request.iov_count = 1;
  stats.in_place_bytes.fetch_add(request.data_bytes, std::memory_order_relaxed);
  *kept = true;
  return nvme::status::success;
}

// False: in line; payload_ready() follows.
bool RdmaTargetConnection::take_payload(Slot* slot) {
  const Request& request = slot->request;
  const bool had = slot->payload.take(reactor_, {.share = share_,
                                                 .length_bytes = request.data_bytes,
                                                 .use = queue_.buffer_use(request),
                                                 .is_write = request.direction == DataDirection::host_to_controller});
  if (had) payload_came(slot);
  return had;
}

void RdmaTargetConnection::payload_ready(PayloadHold* hold) {
  Slot* slot = static_cast<Slot*>(hold->context);
  RdmaTargetConnection* self = slot->connection;
  if (self->closed_) {
    self->free_slot(slot);
    return self->maybe_gone();
  }
  self->payload_came(slot);
  self->go_on(slot);
}

void RdmaTargetConnection::payload_came(Slot* slot) {
  slot->iov = {slot->payload.buffer()->data, slot->request.data_bytes};
  slot->request.iov_count = 1;
}

void RdmaTargetConnection::go_on(Slot* slot) {
  if (slot->request.direction == DataDirection::host_to_controller) {
    fetch(slot);
  } else {
    execute(slot);
  }
}

// False: the machine does not let the buffer be registered.
bool RdmaTargetConnection::describe_data(Slot* slot) {
  slot->data_piece = {slot->iov.base, slot->request.data_bytes, 0};
  return device_->memory.find(slot->iov.base, slot->request.data_bytes, &slot->data_piece.key) ==
         RdmaMemory::Answer::found;
}

void RdmaTargetConnection::fetch(Slot* slot) {
  if (!describe_data(slot)) return respond(slot, nvme::status::data_transfer_error);
  slot->state = SlotState::fetching;
  slot->transfer.type = Type::read;
  slot->transfer.remote_address = slot->keyed.address;
  slot->transfer.remote_key = slot->keyed.key;
  post(slot, &slot->transfer);
}

void RdmaTargetConnection::execute(Slot* slot) {
  slot->state = SlotState::executing;
  queue_.execute(&slot->request);
}

void RdmaTargetConnection::finished(Request* request) {
  Slot* slot = slot_of(request);
  RdmaTargetConnection* self = slot->connection;
  if (self->closed_) {
    self->free_slot(slot);  // the queue's end follows and looks whether this was the last
    return;
  }
  if (self->half_open_ && self->queue_.connected()) self->associated();
  self->send_response(slot);
}

void RdmaTargetConnection::respond(Slot* slot, nvme::Status status) {
  slot->request.completion = {};
  queue_.fill_completion(&slot->request, status);
  send_response(slot);
}

// By a status of the path: a host sends it again, here or elsewhere, until it gives the path up; what is merely
// interrupted, Linux sends a few times only. At once, both of them: hence the while.
void RdmaTargetConnection::refuse_later(Slot* slot) {
  slot->state = SlotState::refused;
  slot->posted = reactor_.now();
  refused_.push_back(slot);
  if (!refusal_timer_.armed()) reactor_.arm_after(&refusal_timer_, options_.refusal_delay);
}

void RdmaTargetConnection::refuse_due() {
  while (Slot* slot = refused_.front()) {
    const Instant due = slot->posted + options_.refusal_delay;
    if (due > reactor_.now()) return reactor_.arm(&refusal_timer_, due);
    refused_.remove(slot);
    respond(slot, nvme::status::internal_path_error);
  }
}

// The data first: what is posted in order arrives in order.
void RdmaTargetConnection::send_response(Slot* slot) {
  Request& request = slot->request;
  slot->state = SlotState::sending;
  const bool with_data = request.direction == DataDirection::controller_to_host && request.data_bytes > 0 &&
                         slot->payload.buffer() != nullptr && (request.completion.status >> 1) == 0;
  if (with_data && describe_data(slot)) {
    slot->transfer.type = Type::write;
    slot->transfer.remote_address = slot->keyed.address;
    slot->transfer.remote_key = slot->keyed.key;
    device_->stats.in_place_bytes.fetch_add(request.data_bytes, std::memory_order_relaxed);
    post(slot, &slot->transfer);
  } else if (with_data) {
    request.completion.status = static_cast<uint16_t>(nvme::status::data_transfer_error.value << 1);
  }
  std::memcpy(slot->response, &request.completion, sizeof(request.completion));
  const bool invalidates = slot->keyed.invalidate && slot->keyed.length_bytes > 0;
  slot->send.type = invalidates ? Type::send_invalidate : Type::send;
  slot->send.remote_key = slot->keyed.key;
  answered(slot);
  post(slot, &slot->send);
}

void RdmaTargetConnection::post(Slot* slot, env::RdmaRequest* request) {
  slot->requests_out++;
  if (slot->wire_node.linked()) slot->wire_node.unlink();
  slot->posted = reactor_.now();
  on_the_wire_.push_back(slot);
  if (!stall_timer_.armed()) reactor_.arm_after(&stall_timer_, options_.transfer_timeout);
  connection_->post(request);
}

void RdmaTargetConnection::request_ran(Work* work) {
  auto* request = static_cast<env::RdmaRequest*>(static_cast<env::RdmaWork*>(work));
  Slot* slot = static_cast<Slot*>(request->context);
  RdmaTargetConnection* self = slot->connection;
  slot->requests_out--;
  if (slot->requests_out == 0) slot->wire_node.unlink();
  if (request->status != env::RdmaStatus::success && !self->closed_) self->wire_failed();
  if (slot->requests_out > 0) return;
  if (self->closed_) {
    self->free_slot(slot);
    return self->maybe_gone();
  }
  if (slot->state == SlotState::fetching) {
    self->device_->stats.in_place_bytes.fetch_add(slot->request.data_bytes, std::memory_order_relaxed);
    self->execute(slot);
  } else {
    self->free_slot(slot);
  }
}

void RdmaTargetConnection::wire_failed() {
  shard_.stats->wire_error_count.fetch_add(1, std::memory_order_relaxed);
  close();
}

}  // namespace basalt::nvmf
