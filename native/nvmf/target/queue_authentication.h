// SPDX-License-Identifier: Apache-2.0
// QueueAuthentication: where a queue stands with its authentication, and until when. Made when the queue connects and
// the host has to authenticate, or with the first message of a host that does so unasked.
//
// A queue that does not authenticate in time, or fails, is closed: an admin queue takes its controller along, an I/O
// queue goes alone (who guessed a controller identifier ends nobody's association).
// Thread: the target's home reactor.
#pragma once

#include <optional>

#include "base/list.h"
#include "nvmf/auth/controller_side.h"
#include "runtime/timer.h"

namespace basalt::nvmf {

class Target;
class TargetQueue;

class QueueAuthentication {
 public:
  QueueAuthentication(Target& target, TargetQueue& queue);
  ~QueueAuthentication();
  QueueAuthentication(const QueueAuthentication&) = delete;
  QueueAuthentication& operator=(const QueueAuthentication&) = delete;

  void begin(auth::ControllerSettings settings) { side_.emplace(std::move(settings)); }
  auth::ControllerSide* side() { return side_ ? &*side_ : nullptr; }
  // The host has succeeded: no deadline, no more a stranger.
  void succeeded();
  // It has not: the queue will be closed once the host has had time to read why.
  void failed();
  bool has_failed() const { return failed_; }

  ListNode node;  // the target's list of those who have yet to succeed

 private:
  struct Deadline : Timer {
    QueueAuthentication* owner = nullptr;
  };
  static void expired(Work* work);
  void leave_list();

  Target& target_;
  TargetQueue& queue_;
  std::optional<auth::ControllerSide> side_;
  bool failed_ = false;
  Deadline deadline_;
};

}  // namespace basalt::nvmf
