// SPDX-License-Identifier: Apache-2.0
// What the files of the leg share: one operation, the lists where operations wait, and the awaiters of its coroutines.
#pragma once

#include <coroutine>
#include <cstdlib>

#include "bdev/leg/leg.h"

namespace basalt::bdev {

// One request from above, from admission to its completion.
struct LegBdev::Op {
  LegBdev* leg = nullptr;
  Io* io = nullptr;
  RangeEntry range;
  bool locked = false;
  uint32_t waiting_count = 0;  // children in flight
  uint64_t missed = 0;         // write, flush: members that do not have it
  uint64_t got = 0;            // write, flush: members that have it
  uint64_t tried = 0;          // read: members that failed it
  nvme::Status status;         // the exact error that is not a member's failure
  ListNode node;               // in one of Lists
};

struct LegBdev::Lists {
  List<Op, &Op::node> parked_writes;  // done everywhere but on failed members of must_have
  List<Op, &Op::node> held_reads;     // no member to read from right now
  List<Op, &Op::node> lease_waits;    // data is there, a lease is not
  struct SettledWaiter {
    std::coroutine_handle<> coroutine;
    ListNode node;
  };
  List<SettledWaiter, &SettledWaiter::node> settled_waiters;
  // Lease renewals: one block read per slot, into memory that nobody looks at.
  struct Renewal {
    Io io;
    Iovec iov;
    LegBdev* leg = nullptr;
    uint32_t slot = 0;
    uint32_t refused_count = 0;  // answered, but not with success, one after the other
  };
  std::vector<std::unique_ptr<Renewal>> renewals;
  // What a task works with when the pool has no buffer left: the pool may be used up by requests that wait for that
  // task's range. One at a time, and it needs no other buffer to come to its end.
  Buffer spare;
  std::unique_ptr<char, decltype(&std::free)> spare_memory{nullptr, &std::free};
  List<SettledWaiter, &SettledWaiter::node> spare_waiters;
  std::unique_ptr<char[]> scratch;
};

struct LegBdev::Settled {
  LegBdev& leg;
  Lists::SettledWaiter waiter;
  explicit Settled(LegBdev& owner) : leg(owner) {}
  bool await_ready() const noexcept { return leg.fenced_ || !leg.waiting(); }
  void await_suspend(std::coroutine_handle<> coroutine) {
    waiter.coroutine = coroutine;
    leg.lists_->settled_waiters.push_back(&waiter);
  }
  void await_resume() const noexcept {}
};

struct LegBdev::SpareReturned {
  LegBdev& leg;
  Lists::SettledWaiter waiter;
  explicit SpareReturned(LegBdev& owner) : leg(owner) {}
  bool await_ready() const noexcept { return leg.lists_->spare_memory == nullptr; }
  void await_suspend(std::coroutine_handle<> coroutine) {
    waiter.coroutine = coroutine;
    leg.lists_->spare_waiters.push_back(&waiter);
  }
  void await_resume() const noexcept {}
};

struct LegBdev::LockAwaiter {
  LegBdev& leg;
  RangeEntry& entry;
  std::coroutine_handle<> coroutine;
  LockAwaiter(LegBdev& owner, RangeEntry& range) : leg(owner), entry(range) {}
  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> waiter) {
    coroutine = waiter;
    entry.exclusive = true;
    entry.context = this;
    entry.granted = [](RangeEntry* granted) { static_cast<LockAwaiter*>(granted->context)->coroutine.resume(); };
    return !leg.locks_.acquire(&entry);
  }
  void await_resume() const noexcept {}
};

// A member that answers so has lost its path, its device or its right to our trust; others are told exactly as they
// are.
inline bool is_member_failure(nvme::Status status) {
  return status.type() == nvme::StatusType::path || status.is(nvme::status::write_fault) ||
         status.is(nvme::status::internal_error) || status.is(nvme::status::aborted_sq_deletion) ||
         status.is(nvme::status::abort_requested) || status.is(nvme::status::namespace_not_ready) ||
         status.is(nvme::status::invalid_namespace) || status.is(nvme::status::transient_transport_error) ||
         status.is(nvme::status::data_transfer_error) || status.is(nvme::status::command_sequence_error);
}

template <class F>
void for_each_slot(uint64_t mask, F&& f) {
  for (; mask != 0; mask &= mask - 1)
    f(static_cast<uint32_t>(__builtin_ctzll(mask)));
}

}  // namespace basalt::bdev
