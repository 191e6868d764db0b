// SPDX-License-Identifier: Apache-2.0
// Remnant: an association that was lost while changes (writes, zeroes, unmaps) had no answer. Copies of them may still
// lie unread in the old controller's sockets, or in its device, and would land after whatever is written later. So none
// of them is sent again, on any path, before one of these is true:
//  - another controller of the subsystem has reset the old one, or knows that it has ended (Cross-Controller Reset)
//  - the path that it would take became accessible by an ANA change after the loss, and its controller cannot tell: a
//    target makes that change only when what the old path had admitted is drained or fenced
//  - the old controller's keep-alive has run out there (two time-outs, three when any traffic counts) and its Command
//    Quiesce Time has passed, and nobody says that it still goes on
// What changes nothing (reads, flushes) need not wait.
// Thread: the controller's reactor.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/gate.h"
#include "nvmf/host/controller.h"
#include "nvmf/host/wake_up.h"

namespace basalt::bdev {

class NvmfController;
class NvmfPath;

struct Remnant {
  nvmf::HostController::Instance instance;
  Instant lost_at;
  Instant quiet_at;             // by time alone
  Instant seen_in_progress_at;  // somebody said that it goes on
  bool ended = false;
  std::vector<uint64_t> asking;   // associations that are being asked
  std::vector<uint64_t> unknown;  // associations that cannot tell
  nvmf::WakeUp wake;
};

class Remnants {
 public:
  explicit Remnants(NvmfController& set) : set_(set) {}

  // Of an association that has ended: begins to find out about it.
  std::shared_ptr<Remnant> add(const nvmf::HostController& lost);
  // Whether what was lost with it may go to `path` now; accessible_since: by an ANA change seen on this association.
  bool may_send(const Remnant& remnant, const NvmfPath& path, Instant accessible_since) const;
  void paths_changed();
  Task<void> close();
  size_t count() const { return remnants_.size(); }

 private:
  Task<void> settle(std::shared_ptr<Remnant> remnant);
  Task<void> ask(std::shared_ptr<Remnant> remnant, NvmfPath* path);
  void ask_all(const std::shared_ptr<Remnant>& remnant);
  bool is_quiet(const Remnant& remnant) const;

  NvmfController& set_;
  bool closing_ = false;
  std::vector<std::shared_ptr<Remnant>> remnants_;
  Gate gate_;
};

}  // namespace basalt::bdev
