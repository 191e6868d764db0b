// SPDX-License-Identifier: Apache-2.0
// SharedReservation: hosts' reservations on a namespace that several controllers serve. They are kept outside of this
// process (the volume's object in the store): here a command is judged and worked out, a keeper is asked to make the
// outcome durable, and what it says is taken into force.
//
// Invariants: - nothing is in force here that is not durable; a command that changes something succeeds only when what
//               it changed is durable, in force here, and what was admitted under rights that it took away has ended
//             - before the keeper has said for the first time what there is, I/O is answered with a path error
//             - one change is asked for at a time; a state that somebody else made meanwhile has the command judged
//             anew
//             - a command ends in time, with a status that says that it may be tried again, also when nobody answers:
//               what it asked for may then still become durable
//             - what says something about the state - a Report, a refusal - is said only after a read went through,
//             which
//               it does for the one controller that drives the volume
// Thread: the namespace's home reactor.
#pragma once

#include <coroutine>
#include <optional>
#include <utility>
#include <vector>

#include "base/time.h"
#include "ns/reservation_command.h"
#include "runtime/reactor.h"

namespace basalt::ns {

class Namespace;

// The outcome of a host's command that is to be made durable.
struct ReservationChange {
  Uuid id;
  uint64_t version = 0;  // that it would be: one more than what is in force
  HostId host;           // that asks
  ReservationState next;
  std::vector<Notice> notices;
};

class ReservationKeeper {
 public:
  virtual ~ReservationKeeper() = default;
  // Answered by Namespace::set_reservation() or refuse_change(), later; or never.
  virtual void asked(const Namespace& space, const ReservationChange& change) = 0;
};

struct KeptNotice {
  uint64_t version = 0;  // that it came about with
  Notice notice;
};

// What is durable.
struct KeptReservation {
  uint64_t version = 0;  // grows with each change; 0: there has been none
  Uuid change;           // that made it; zero: none
  ReservationState state;
  std::vector<KeptNotice> notices;  // the latest
};

// Told of what other hosts' commands did. On the namespace's home.
class ReservationWatcher {
 public:
  virtual ~ReservationWatcher() = default;
  virtual void reservation_notice(const Notice& notice) = 0;
};

struct SharedReservation {
  enum class Answer : uint8_t { none, made, other, refused, late, closed };
  struct LateTimer : Timer {
    SharedReservation* shared = nullptr;
  };
  // Commands of a host that lost its registration, admitted before: they end first.
  struct Leaving {
    HostId host;
    uint64_t admitted_count = 0;
  };

  bool known = false;
  uint64_t version = 0;
  Uuid change;
  std::optional<ReservationChange> asked;
  Answer answer = Answer::none;
  nvme::Status refusal;
  std::coroutine_handle<> waiter;
  LateTimer late_timer;
  std::vector<Leaving> leaving;

  void answered(Answer with) {
    if (!asked || answer != Answer::none) return;
    answer = with;
    if (waiter) std::exchange(waiter, {}).resume();
  }
  bool await_ready() const noexcept { return answer != Answer::none; }
  void await_suspend(std::coroutine_handle<> coroutine) noexcept { waiter = coroutine; }
  Answer await_resume() noexcept {
    asked.reset();
    return std::exchange(answer, Answer::none);
  }
};

}  // namespace basalt::ns
