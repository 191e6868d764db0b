// SPDX-License-Identifier: Apache-2.0
#include "nvmf/transport/payload_hold.h"

#include "base/probe.h"

namespace basalt::nvmf {

bool PayloadHold::take(Reactor& reactor, const PayloadWant& want) {
  BASALT_ASSERT(buffer_ == nullptr && !waiting());
  reactor_ = &reactor;
  want_ = want;
  unwanted_ = false;
  return try_take();
}

bool PayloadHold::try_take() {
  if (want_.share != nullptr && !want_.share->admits(want_.length_bytes)) {
    run = share_ready;
    want_.share->wait(this);
    return false;
  }
  buffer_ = reactor_->buffers().take(want_.length_bytes, want_.use);
  if (buffer_ == nullptr) {
    run = buffer_granted;
    reach(want_.is_write ? Mark::r2t_stalled : Mark::buffer_pool_empty);
    reactor_->buffers().wait(this, want_.length_bytes, want_.use);
    return false;
  }
  came();
  return true;
}

void PayloadHold::came() {
  shared_bytes_ = want_.share != nullptr ? buffer_->capacity_bytes : 0;
  if (shared_bytes_ > 0) want_.share->hold(shared_bytes_);
}

void PayloadHold::release() {
  if (buffer_ == nullptr) return;
  reactor_->buffers().give(std::exchange(buffer_, nullptr));
  if (shared_bytes_ > 0) share_freed(*reactor_, want_.share->give_back(std::exchange(shared_bytes_, 0)));
}

bool PayloadHold::leave_line() {
  const bool in_pool_line = node.linked() && run == buffer_granted;
  if (node.linked()) node.unlink();
  // It came to the pool's line out of the share's, maybe, and was to wake the next one there once it had its buffer.
  if (in_pool_line && want_.share != nullptr) share_freed(*reactor_, want_.share->next());
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
  share_freed(*self->reactor_, self->want_.share->next());
  self->ready(self);
}

// Inside somebody's give(): only takes the buffer; the rest follows from the reactor's queue.
void PayloadHold::buffer_granted(Work* work) {
  PayloadHold* self = of(work);
  self->buffer_ = self->reactor_->buffers().take(self->want_.length_bytes, self->want_.use);
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
