// SPDX-License-Identifier: Apache-2.0
// RdmaBounce: the buffer of one command whose data cannot be used in place. RdmaBounces: where they come from: the
// reactor's pool, and when that has none left for requests of this kind, one reserved buffer, for which commands stand
// in line.
//
// Why not in line for the pool: those who hold its buffers may be the requests that wait here, or another node's that
// wait for this one. Whoever has the reserved buffer waits for its target only.
//
// Thread: the reactor's. Invariants: - ready() runs from the reactor's queue, never inside take() or release()
//                                    - after leave_line() it runs only if that said so
#pragma once

#include "base/list.h"
#include "runtime/reactor.h"

namespace basalt::nvmf {

class RdmaBounces;

class RdmaBounce final : Work {
 public:
  RdmaBounce() = default;
  ~RdmaBounce() { BASALT_ASSERT(buffer_ == nullptr && !node.linked()); }
  RdmaBounce(const RdmaBounce&) = delete;
  RdmaBounce& operator=(const RdmaBounce&) = delete;

  void (*ready)(RdmaBounce*) = nullptr;
  void* context = nullptr;

  bool take(RdmaBounces& from, uint32_t length_bytes);  // false: in line
  void release();
  // Wants it no more. True: ready() comes yet, with a buffer that is to be released.
  bool leave_line();
  void* data() const { return buffer_ == nullptr ? nullptr : buffer_->data; }

  ListNode node;

 private:
  friend class RdmaBounces;
  RdmaBounces* from_ = nullptr;
  Buffer* buffer_ = nullptr;
  bool granted_ = false;  // has the reserved buffer; goes on from the reactor's queue
};

class RdmaBounces {
 public:
  static constexpr size_t length_bytes_max = BufferPool::buffer_bytes_max;
  explicit RdmaBounces(Reactor& reactor) : reactor_(reactor), reserve_(reactor.buffers().take(length_bytes_max)) {}
  ~RdmaBounces();
  RdmaBounces(const RdmaBounces&) = delete;
  RdmaBounces& operator=(const RdmaBounces&) = delete;
  bool ok() const { return reserve_ != nullptr; }  // false: there was no buffer to reserve

 private:
  friend class RdmaBounce;
  Reactor& reactor_;
  Buffer* const reserve_;
  bool reserve_taken_ = false;
  List<RdmaBounce, &RdmaBounce::node> line_;
};

}  // namespace basalt::nvmf
