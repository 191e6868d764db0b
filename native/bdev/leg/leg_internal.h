// SPDX-License-Identifier: Apache-2.0
// What the files of the leg share: one operation, the lists where operations wait, the tails' state, and the awaiters
// of its coroutines.
#pragma once

#include <coroutine>
#include <cstdlib>
#include <cstring>

#include "base/countdown.h"
#include "bdev/leg/leg.h"
#include "bdev/member_failure.h"

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
  uint64_t bad = 0;            // read: members that have it, unreadable
  Instant sent;                // read: to the member that it waits for
  ListNode reading;            // read: in that member's list, the oldest first
  nvme::Status status;         // the exact error that is not a member's failure
  ListNode node;               // in one of Lists
};

struct LegBdev::Lists {
  List<Op, &Op::node> parked_writes;                // done everywhere but on failed members of must_have
  List<Op, &Op::node> held_reads;                   // no member to read from right now
  List<Op, &Op::node> lease_waits;                  // data is there, a lease is not
  List<Op, &Op::node> early;                        // came before the leg was open
  List<Op, &Op::reading> reads[member_slot_count];  // in flight, by member
  List<Op, &Op::node> mark_waits;                   // writes whose marks are not durable yet; they hold their range
  struct SettledWaiter {
    std::coroutine_handle<> coroutine;
    ListNode node;
  };
  using Waiters = List<SettledWaiter, &SettledWaiter::node>;
  Waiters settled_waiters;
  Waiters tail_waiters;
  struct ReleaseWaiter : Work {
    std::coroutine_handle<> coroutine;
    const Bdev* member = nullptr;
    ListNode node;
  };
  List<ReleaseWaiter, &ReleaseWaiter::node> release_waiters;

  struct CleanTimer : Timer {
    LegBdev* leg = nullptr;
  } clean_timer;  // the next background pass over what is dirty

  static void resume_all(Waiters& waiters) {
    Waiters resumed;
    resumed.splice_back(waiters);
    while (SettledWaiter* waiter = resumed.pop_front())
      waiter->coroutine.resume();
  }

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
  Waiters spare_waiters;
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

struct LegBdev::TailsWritten {
  LegBdev& leg;
  Lists::SettledWaiter waiter;
  explicit TailsWritten(LegBdev& owner) : leg(owner) {}
  bool await_ready() const noexcept { return leg.fenced_; }
  void await_suspend(std::coroutine_handle<> coroutine) {
    waiter.coroutine = coroutine;
    leg.lists_->tail_waiters.push_back(&waiter);
  }
  void await_resume() const noexcept {}
};

struct LegBdev::Released {
  LegBdev& leg;
  Lists::ReleaseWaiter waiter;
  Released(LegBdev& owner, const Bdev& member) : leg(owner) { waiter.member = &member; }
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> coroutine) {
    waiter.coroutine = coroutine;
    leg.lists_->release_waiters.push_back(&waiter);
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

struct LegBdev::TailShape {
  uint64_t count_blocks;
  RegionMap::RegionSize region;
};

// The marks and the superblock as they shall be, and how far the members' tails have them.
struct LegBdev::Tail {
  explicit Tail(const TailShape& shape)
      : wanted(shape.count_blocks, shape.region), durable(wanted), touched(wanted), at_blocks(shape.count_blocks) {
    page_version.resize(leg_tail::mark_page_count(wanted), 1);
  }
  void take_marks(const Tail& from);  // of another shape

  RegionMap wanted;                    // what the tails shall say
  RegionMap durable;                   // of wanted: said by the tail of every member that receives
  RegionMap touched;                   // written since the last sweep
  std::vector<uint64_t> page_version;  // of wanted, by mark page
  uint64_t at_blocks;                  // where the tails begin
  leg_tail::Superblock superblock;     // without what is each member's own
  uint64_t superblock_version = 1;
  bool urgent = false;   // somebody waits: the next batch goes to stable media at once
  bool writing = false;  // write_tails() runs
  bool moving = false;   // no batch begins
  bool sweeping = false;
  uint64_t set_version = 0;  // grows with each change of the members
  struct SweepTimer : Timer {
    LegBdev* leg = nullptr;
  } sweep_timer;

  void want(uint64_t region) {
    if (wanted.has(region)) return;
    wanted.set(region);
    page_version[leg_tail::mark_page_of(region)]++;
  }
  void drop(uint64_t region) {
    wanted.clear(region);
    durable.clear(region);
    page_version[leg_tail::mark_page_of(region)]++;
  }
};

// A read that two members may be asked for. Each side has memory of its own, for it may end long after the answer.
struct LegBdev::HedgedRead : Timer {
  struct Side {
    Io io;
    Iovec iov;
    Buffer* buffer = nullptr;
    uint32_t slot = 0;
    Instant sent;
  };
  LegBdev* leg = nullptr;
  Op* op = nullptr;  // null: answered
  Side sides[2];
  uint32_t side_count = 0;
  uint32_t pending_count = 0;
};

// Page-aligned memory of a background task.
class TaskMemory {
 public:
  explicit TaskMemory(size_t length_bytes)
      : data_(static_cast<char*>(std::aligned_alloc(
                  BufferPool::alignment_bytes,
                  (length_bytes + BufferPool::alignment_bytes - 1) & ~size_t{BufferPool::alignment_bytes - 1})),
              &std::free) {
    BASALT_ASSERT(data_ != nullptr);
  }
  char* data() const { return data_.get(); }

 private:
  std::unique_ptr<char, decltype(&std::free)> data_;
};

// What one batch writes to one member's tail.
struct LegBdev::TailWrite {
  struct Run {  // neighbouring mark pages, one request
    uint64_t first_page;
    uint64_t page_count;
  };
  uint32_t slot = 0;
  TaskMemory memory;
  std::vector<Run> runs;
  bool superblock = false;  // in the memory behind the mark pages
  uint64_t generation = 0;
  Batch* batch = nullptr;
  explicit TailWrite(size_t length_bytes) : memory(length_bytes) {}
};

template <class F>
void for_each_slot(uint64_t mask, F&& f) {
  for (; mask != 0; mask &= mask - 1)
    f(static_cast<uint32_t>(__builtin_ctzll(mask)));
}

}  // namespace basalt::bdev
