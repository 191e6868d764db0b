// SPDX-License-Identifier: Apache-2.0
// Reach: the way in which a member reaches its replica under one identity: by an association of its own (own_reach.h),
// or by an attachment of a link that it shares with other members (link_reach.h). It is opened once; when it has ended,
// for whatever reason, it stays ended, and the member makes a new one.
//
// Invariants: - each has an identity of its own: a replica that obeys another one refuses what is left of this one
//             - when it has ended, every command completes as lost, then the listener is told: once, unless close()
//             came
//               first
// Thread: the member's.
#pragma once

#include <memory>
#include <string>

#include "bdev/nvmf/flight.h"

namespace basalt::bdev {

struct MemberOptions;

class Reach {
 public:
  class Listener {
   public:
    virtual ~Listener() = default;
    virtual void reach_lost(const Error& reason) = 0;
    virtual void reach_changed() = 0;  // the replica's size, or space() is gone
    virtual bool vouches() const = 0;
  };
  virtual ~Reach() = default;

  virtual Task<Outcome> open(Duration timeout) = 0;
  virtual void end(Error reason) = 0;
  virtual Task<void> close() = 0;  // afterwards it may be destroyed
  virtual bool live() const = 0;
  virtual bool shared() const = 0;

  // Of the replica; space() is nullptr when the namespace is gone.
  virtual const nvmf::HostNamespace* space() const = 0;
  virtual const nvmf::HostControllerInfo& info() const = 0;
  virtual const std::string& incarnation() const = 0;

  // What commands are sent under from here on.
  virtual void set_epoch(uint64_t epoch) = 0;
  // The address of each: the number that commands carry.
  virtual void submit(nvmf::HostCommand* command) = 0;  // only when live
  virtual void answered(nvmf::HostCommand* command) = 0;
  // An I/O command of the control path, awaited.
  virtual Task<nvmf::HostController::Answer> call(nvmf::HostController::Call call) = 0;
  // From now on: I/O that has waited longer ends the reach.
  virtual void set_command_timeout(Duration timeout) = 0;
  virtual void ask() = 0;  // whether the other side answers, now
};

}  // namespace basalt::bdev
