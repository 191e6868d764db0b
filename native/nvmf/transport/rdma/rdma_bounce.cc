// SPDX-License-Identifier: Apache-2.0
#include "nvmf/transport/rdma/rdma_bounce.h"

namespace basalt::nvmf {

RdmaBounces::~RdmaBounces() {
  BASALT_ASSERT(!reserve_taken_ && line_.empty());
  if (reserve_ != nullptr) reactor_.buffers().give(reserve_);
}

bool RdmaBounce::take(RdmaBounces& from, uint32_t length_bytes) {
  BASALT_ASSERT(buffer_ == nullptr && length_bytes <= RdmaBounces::length_bytes_max);
  from_ = &from;
  buffer_ = from.reactor_.buffers().take(length_bytes, BufferUse::upper);
  if (buffer_ != nullptr) return true;
  if (from.reserve_taken_) {
    from.line_.push_back(this);
    return false;
  }
  from.reserve_taken_ = true;
  buffer_ = from.reserve_;
  return true;
}

void RdmaBounce::release() {
  if (buffer_ == nullptr) return;
  Buffer* buffer = std::exchange(buffer_, nullptr);
  RdmaBounces& from = *from_;
  if (buffer != from.reserve_) return from.reactor_.buffers().give(buffer);
  RdmaBounce* next = from.line_.pop_front();
  if (next == nullptr) {
    from.reserve_taken_ = false;
    return;
  }
  next->buffer_ = buffer;
  next->granted_ = true;
  next->run = [](Work* work) {
    auto* self = static_cast<RdmaBounce*>(work);
    self->granted_ = false;
    self->ready(self);
  };
  from.reactor_.defer(next);
}

bool RdmaBounce::leave_line() {
  if (node.linked()) node.unlink();
  return granted_;
}

}  // namespace basalt::nvmf
