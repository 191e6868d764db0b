// SPDX-License-Identifier: Apache-2.0
#include "nvmf/transport/payload_hold.h"

namespace basalt::nvmf {

bool PayloadHold::take(Reactor& reactor, HostShare* share, uint32_t length_bytes, BufferUse use) {
  BASALT_ASSERT(buffer_ == nullptr && !waiting());
  reactor_ = &reactor;
  share_ = share;
  length_bytes_ = length_bytes;
  wanted_use_ = use;
  unwanted_ = false;
  return try_take();
}

bool PayloadHold::try_take() {
  if (share_ != nullptr && !share_->admits(length_bytes_)) {
    run = share_ready;
    share_->wait(this);
    return false;
  }
  buffer_ = reactor_->buffers().take(length_bytes_, wanted_use_);
  if (buffer_ == nullptr) {
    run = buffer_granted;
    reactor_->buffers().wait(this, length_bytes_, wanted_use_);
    return false;
  }
  came();
  return true;
}

void PayloadHold::came() {
  shared_bytes_ = share_ != nullptr ? buffer_->capacity_bytes : 0;
  if (shared_bytes_ > 0) share_->hold(shared_bytes_);
}

void PayloadHold::release() {
  if (buffer_ == nullptr) return;
  reactor_->buffers().give(std::exchange(buffer_, nullptr));
  if (shared_bytes_ > 0) share_freed(*reactor_, share_->give_back(std::exchange(shared_bytes_, 0)));
}

bool PayloadHold::leave_line() {
  if (node.linked()) node.unlink();
  unwanted_ = granted_;
  return granted_;
}

// The host's own share has room for one that waits there: it tries again from the reactor's queue. It may be another
// connection's.
void PayloadHold::share_freed(Reactor& reactor, BufferWaiter* waiter) {
  if (waiter == nullptr) return;
  of(waiter)->granted_ = true;
  reactor.defer(waiter);
}

void PayloadHold::share_ready(Work* work) {
  PayloadHold* self = of(work);
  self->granted_ = false;
  if (!self->unwanted_ && !self->try_take()) return;
  share_freed(*self->reactor_, self->share_->next());
  self->ready(self);
}

// Inside somebody's give(): only takes the buffer; the rest follows from the reactor's queue.
void PayloadHold::buffer_granted(Work* work) {
  PayloadHold* self = of(work);
  self->buffer_ = self->reactor_->buffers().take(self->length_bytes_, self->wanted_use_);
  BASALT_ASSERT(self->buffer_ != nullptr);
  self->came();
  self->granted_ = true;
  self->run = buffer_ready;
  self->reactor_->defer(self);
}

void PayloadHold::buffer_ready(Work* work) {
  PayloadHold* self = of(work);
  self->granted_ = false;
  self->ready(self);
}

}  // namespace basalt::nvmf
