// SPDX-License-Identifier: Apache-2.0
// Attachments: the namespaces that a node reaches over one association of a node link. Any number of volumes between
// two nodes share its connections; each attaches the namespaces that it needs and detaches them again.
//
// Every I/O command of such an association carries the attachment's number (as NSID), its tag, and an epoch. Who asks
// is (attachment, epoch): to the namespace's gate each pair is a host of its own, so that what is judged, drained and
// preempted there is what one volume sent under one epoch, whatever connection it came by. A command that was parked
// anywhere is judged when it reaches the gate: by then its number may be another attachment's (its tag is not), or its
// epoch may have been taken over (it is not the holder).
//
// Thread: changed on the target's home reactor; find() on any. What was taken out is freed after every reactor has
// passed a message. Invariants: - a number is one attachment's; it may be used again, a tag is never
//                               - only namespaces behind a one-writer gate are attached
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <vector>

#include "ns/namespace.h"
#include "nvme/spec.h"
#include "nvme/status.h"
#include "nvmf/target/ana.h"

namespace basalt::nvmf {

class Subsystem;

struct Attachment {
  uint32_t number = 0;
  uint64_t tag = 0;
  ns::HostId host;
  ns::Namespace* space = nullptr;
  const Subsystem* subsystem = nullptr;  // whose namespace it is
  const SubsystemListener* path = nullptr;
  // What it registered last; only a planted bug looks at it.
  mutable std::atomic<uint64_t> registered_epoch{0};

  // As which host its commands of an epoch appear to the gate.
  ns::HostId host_of(uint64_t epoch) const;
};

uint64_t tag_of(const ns::HostId& host);

class Attachments {
 public:
  using Taken = std::vector<std::unique_ptr<Attachment>>;

  Attachments(uint32_t count_max, bool planted_ignore_epoch);

  struct Found {
    nvme::Status status;
    ns::Namespace* space = nullptr;
    ns::HostId host;
    const SubsystemListener* path = nullptr;
  };
  Found find(const nvme::Command& command) const;
  void registered(const nvme::Command& command) const;

  const Attachment* at(uint32_t number) const;           // nullptr: none
  uint32_t add(std::unique_ptr<Attachment> attachment);  // its number; 0: there are too many
  void take(uint32_t number, Taken* out);
  // Those that `which` names, and their numbers.
  std::vector<uint32_t> take_all(const std::function<bool(const Attachment&)>& which, Taken* out);
  std::vector<uint32_t> numbers_of(const ns::Namespace& space) const;
  size_t count() const { return count_; }
  size_t most_count() const { return most_count_; }

 private:
  const uint32_t count_max_;
  const bool planted_ignore_epoch_;
  std::unique_ptr<std::atomic<Attachment*>[]> table_;
  std::vector<std::unique_ptr<Attachment>> held_;  // by number - 1
  uint32_t next_ = 0;
  size_t count_ = 0;
  size_t most_count_ = 0;
};

}  // namespace basalt::nvmf
