// SPDX-License-Identifier: Apache-2.0
// PayloadHold: the payload buffer of one command: taken from the reactor's pool within its host's share, or in line for
// one. The same for all transports.
//
//   if (hold.take(reactor, want)) { ... } else { hold.ready(&hold) follows, from the reactor's queue }
//
// Thread: the reactor's. Invariants: - ready() never runs inside take() or somebody's give()
//                                    - after leave_line() it runs only if leave_line() said so, and then without buffer
//                                      or with one, which is to be released
#pragma once

#include "memory/buffer_pool.h"
#include "nvmf/transport/host_share.h"
#include "runtime/reactor.h"

namespace basalt::nvmf {

struct PayloadWant {
  HostShare* share = nullptr;  // nullptr: nobody's
  uint32_t length_bytes = 0;
  BufferUse use = BufferUse::local;
  bool is_write = false;  // the host still has the data
};

class PayloadHold final : BufferWaiter {
 public:
  PayloadHold() = default;
  ~PayloadHold() { BASALT_ASSERT(buffer_ == nullptr && !waiting()); }
  PayloadHold(const PayloadHold&) = delete;
  PayloadHold& operator=(const PayloadHold&) = delete;

  void (*ready)(PayloadHold*) = nullptr;
  void* context = nullptr;

  bool take(Reactor& reactor, const PayloadWant& want);  // false: in line
  void release();
  // Wants it no more. True: ready() comes yet.
  bool leave_line();
  bool waiting() const { return node.linked() || granted_; }
  Buffer* buffer() const { return buffer_; }

 private:
  bool try_take();
  void came();
  static PayloadHold* of(Work* work) { return static_cast<PayloadHold*>(static_cast<BufferWaiter*>(work)); }
  static void share_freed(Reactor& reactor, BufferWaiter* waiter);
  static void share_ready(Work* work);
  static void buffer_granted(Work* work);
  static void buffer_ready(Work* work);

  Reactor* reactor_ = nullptr;
  PayloadWant want_;
  Buffer* buffer_ = nullptr;
  uint32_t shared_bytes_ = 0;  // counted in the host's share
  bool granted_ = false;       // out of line; goes on from the reactor's queue
  bool unwanted_ = false;
};

}  // namespace basalt::nvmf
