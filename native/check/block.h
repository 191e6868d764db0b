// SPDX-License-Identifier: Apache-2.0
// One block of one device: the part of the history that concerns it.
#pragma once

#include <map>
#include <utility>
#include <vector>

#include "check/checker.h"

namespace basalt::check {

// A write, a zeroing or a read, cut out of an operation.
struct Event {
  const Op* op = nullptr;
  int64_t invoked_ns = 0;
  int64_t completed_ns = never_ns;  // never for a write whose outcome is unknown
  BlockValue value;                 // read: what came back
  bool carried = false;             // it began before the power cut that this epoch follows
  bool is_read() const { return op->type == OpType::read; }
};

// What all blocks of a device share.
struct DeviceFacts {
  const History* history = nullptr;
  uint32_t device = 0;
  std::vector<const Op*> flushes;  // acknowledged ones, by invocation
  // For each power cut: what completed before this was flushed before the cut.
  std::vector<int64_t> flushed_until_ns;
};

class Block {
 public:
  Block(const DeviceFacts& facts, uint64_t lba) : facts_(&facts), lba_(lba) {}

  void add(const Op& op, const BlockValue& value) {
    // A write of unknown outcome has effect until for ever.
    const int64_t end = op.status == OpStatus::ok ? op.completed_ns : never_ns;
    if (op.type == OpType::write) writes_.emplace(std::pair(op.writer, op.sequence), events_.size());
    events_.push_back({&op, op.invoked_ns, end, value});
  }
  const std::vector<Event>& events() const { return events_; }
  uint64_t lba() const { return lba_; }
  const DeviceFacts& facts() const { return *facts_; }
  const History& history() const { return *facts_->history; }
  // The write of a stamp; nullptr: not to this block of this device.
  const Event* write_of(const BlockValue& value) const {
    if (value.kind != BlockKind::stamp) return nullptr;
    const auto found = writes_.find({value.stamp.writer, value.stamp.sequence});
    return found == writes_.end() ? nullptr : &events_[found->second];
  }
  // What a clone's block was when the clone was made; zero for a volume.
  BlockValue initial;
  Violation violation(const char* rule, const std::string& what, std::vector<const Op*> proof) const;

 private:
  const DeviceFacts* facts_;
  const uint64_t lba_;
  std::vector<Event> events_;
  std::map<std::pair<uint64_t, uint64_t>, size_t> writes_;
};

// The client of the reads that snapshots are; their `id` is the snapshot's index.
constexpr uint32_t snapshot_client = UINT32_MAX;

std::string seconds_text(int64_t ns);
Violation make_violation(const History& history, const char* rule, const std::string& what,
                         std::vector<const Op*> proof, uint64_t lba);

}  // namespace basalt::check
