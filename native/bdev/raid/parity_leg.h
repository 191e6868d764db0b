// SPDX-License-Identifier: Apache-2.0
// ParityLegBdev: a leg of k data and m parity members, driven by one controller at one epoch (docs/decisions/012).
//
// A RaidParityBdev does the work; this adds what a member of a cluster asks for. Between the raid and each member there
// is a tap: it sees Reservation Conflict, counts what is in flight, and can be cut when the member left.
//
// Owner: its home reactor, where its members live too. Who is in the set is the orchestrator's decision.
//
// Invariants (beside those of DrivenLeg and of a driven raid):
//  - what a member of the set missed is acknowledged when the orchestrator's committed swap removed that member
//  - a read is answered while every member of the set, and every one whose joining swap may have been made, holds an
//    unexpired lease, by a clock read after the data came
//  - there are never fewer than k members in the set
//  - a member's failure is told when each of the set has answered a request that was sent since, or failed too
//  - one that takes over from another joins while that one serves, and that one is removed afterwards
//  - what cannot be had from the members that are left waits for the orchestrator, or for a fence
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/gate.h"
#include "bdev/child_io.h"
#include "bdev/driven_leg.h"
#include "bdev/raid/raid_parity.h"

namespace basalt::bdev {

struct ParityLegOptions {
  std::string name;
  Uuid uuid;
  uint64_t epoch = 0;
  Duration lease = milliseconds(300);  // at most 1 s
  std::string identity;                // of the leg, for ever; 1 to 63 bytes
  std::string origin;                  // that of the leg whose copies its members began as; empty: they began blank
  uint32_t data_count = 0;             // k, at least 2
  uint32_t parity_count = 0;           // m
  uint64_t count_blocks = 0;
  uint64_t grown_blocks = 0;     // growing to so many was under way; 0: it was not
  uint32_t log_slot_count = 64;  // partial stripes between two flushes of the members
  struct Planted {
    bool ignore_lease = false;
    RaidPlantedBugs raid;
  } planted;
};

class ParityLegBdev final : public DrivenLeg {
 public:
  // With this and the slots of the log a replica's size follows from the leg's: src/placement/leg-size.ts.
  static constexpr uint64_t strip_bytes = 16 * 1024;

  // On the members of the recorded set that were taken over, at least k. Has replayed their logs when it ends; those
  // that nothing was ever written to are formatted. fenced: one of them obeys another epoch.
  static Task<Result<std::unique_ptr<ParityLegBdev>>> open(Reactor& home, ParityLegOptions options,
                                                           std::vector<LegMember> in_sync, LegEvents events);
  ~ParityLegBdev() override;

  void submit(Io* io) override;
  Task<Outcome> close() override;  // fences, then waits for everything below

  Outcome remove_member(const std::string& name) override;
  Outcome add_member(LegMember member) override;
  Outcome commit_member(const std::string& name) override;
  Outcome abandon_member(const std::string& name) override;
  void fence() override;
  void keep_marks_for(const std::vector<std::string>&) override {}  // by places, not by names
  void member_lost(const std::string& name) override { raid_->member_lost(name); }
  Task<void> released(const Bdev& member) override;
  Task<Outcome> grow(uint64_t count_blocks) override;
  Task<bool> settle_all() override;
  Result<std::vector<std::string>> equal_members() const override;
  Outcome pace_resync(uint64_t bytes_per_s, bool paused) override;
  Outcome start_scrub(const ScrubOptions& options) override;
  void stop_scrub() override { raid_->stop_scrub(); }
  const ScrubInfo& scrub() const override { return raid_->scrub_info(); }

  uint64_t epoch() const override { return options_.epoch; }
  bool fenced() const override { return fenced_; }
  bool waiting() const override;
  std::vector<LegMemberInfo> members() const override;
  LegCounts counts() const override;

  const RaidParityBdev& raid() const { return *raid_; }
  size_t attachment_count() const { return slots_.size(); }  // those that requests may refer to yet

 private:
  class Tap;
  struct Op;
  struct Lists;
  // One for each member: what is in flight may refer to it for long after it has left.
  struct Slot;

  ParityLegBdev(Reactor& home, ParityLegOptions options, LegEvents events);

  // parity_leg.cc
  void forward(Op* op);
  static void forwarded_done(Io* io);
  void answer_read(Op* op);
  void finish(Op* op, nvme::Status status);
  void recheck();
  bool leases_valid();
  void renew(Slot& slot);
  static void renewal_done(Io* io);

  // parity_leg_members.cc
  RaidParityEvents raid_events();
  Slot& put(LegMember member, MemberState state);
  Slot* find(const std::string& name) const;
  void leave(Slot& slot);
  void tell_failures();
  void conflict();
  bool uses(const Bdev& member) const;
  void wake_released();
  LegMemberInfo info_of(const Slot& slot) const;
  bool is_done_with(const Slot& slot) const;
  template <class F>
  void for_each_of_set(F&& f);  // in_sync and copied

  ParityLegOptions options_;
  LegEvents events_;
  bool fenced_ = false;
  Instant failed_at_;         // the last member's failure
  uint64_t set_version_ = 0;  // grows with each change of the members
  uint32_t settling_count_ = 0;
  Gate gate_;  // operations, renewals
  std::unique_ptr<Pool<Op>> ops_;
  ChildIoPool children_{child_io_count_max};
  std::unique_ptr<Lists> lists_;
  std::vector<std::unique_ptr<Slot>> slots_;  // outlives the raid
  std::unique_ptr<RaidParityBdev> raid_;
};

}  // namespace basalt::bdev
