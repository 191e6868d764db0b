// SPDX-License-Identifier: Apache-2.0
// What the files of ParityLegBdev share: operations, the taps before the members, and who waits.
#pragma once

#include <coroutine>

#include "bdev/member_failure.h"
#include "bdev/raid/parity_leg.h"

namespace basalt::bdev {

// One request from above.
struct ParityLegBdev::Op {
  ParityLegBdev* leg = nullptr;
  Io* io = nullptr;
  Io below;                  // to the raid
  uint64_t set_version = 0;  // when it was sent there
  ListNode node;             // in one of Lists
};

struct ParityLegBdev::Lists {
  List<Op, &Op::node> held;         // the members that are left do not have it
  List<Op, &Op::node> lease_waits;  // data is there, a lease is not
  struct ReleaseWaiter : Work {
    std::coroutine_handle<> coroutine;
    const Bdev* member = nullptr;
    ListNode node;
  };
  List<ReleaseWaiter, &ReleaseWaiter::node> release_waiters;
  std::unique_ptr<char[]> scratch;  // of renewals: nobody looks at it
};

// Stands for the member towards the raid.
class ParityLegBdev::Tap final : public Bdev {
 public:
  Tap(ParityLegBdev& leg, const Handle& member) : Bdev(leg.home()), leg_(leg), member_(member) {
    info_ = member.info();
  }
  void submit(Io* io) override {
    if (cut_) return complete_later(io, nvme::status::host_path_error);
    ChildIo* child = leg_.children_.take();
    BASALT_ASSERT(child != nullptr);
    child->mirror(io, done, this);
    in_flight_count_++;
    member_.submit(child);
  }
  Task<Outcome> close() override { co_return success(); }
  // Nothing that is submitted from now on reaches the member.
  void cut() { cut_ = true; }
  const Handle& member() const { return member_; }
  uint32_t in_flight_count() const { return in_flight_count_; }

 private:
  static void done(Io* io) {
    auto* tap = static_cast<Tap*>(io->context);
    ParityLegBdev& leg = tap->leg_;
    ChildIo* child = ChildIo::of(io);
    Io* from = child->parent;
    const nvme::Status status = io->status;
    leg.children_.give(child);
    tap->in_flight_count_--;
    if (status.is(nvme::status::reservation_conflict)) leg.conflict();
    if (tap->cut_ && tap->in_flight_count_ == 0) leg.wake_released();
    complete_now(from, status);
  }

  ParityLegBdev& leg_;
  const Handle member_;
  uint32_t in_flight_count_ = 0;
  bool cut_ = false;
};

struct ParityLegBdev::Slot {
  ParityLegBdev* leg = nullptr;
  LegMember member;
  std::unique_ptr<Tap> tap;
  MemberState state = MemberState::empty;
  bool failed = false;
  bool told = false;  // of the set, and the orchestrator knows that it failed
  std::string failure;
  // A lease's renewal: one block read.
  bool renewing = false;
  uint32_t refused_count = 0;  // answered, but not with success, one after the other
  Io renewal;
  Iovec iov;

  explicit Slot(LegMember from) : member(std::move(from)) {}
  bool of_set() const { return state == MemberState::in_sync || state == MemberState::copied; }
};

// While this lives.
struct Counted {
  explicit Counted(uint32_t& count) : counted(count) { counted++; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  ~Counted() { counted--; }
  uint32_t& counted;
};

template <class F>
void ParityLegBdev::for_each_of_set(F&& f) {
  for (const auto& slot : slots_) {
    if (slot->of_set()) f(*slot);
  }
}

}  // namespace basalt::bdev
