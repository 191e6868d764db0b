// SPDX-License-Identifier: Apache-2.0
// DrivenLeg: a leg as the orchestrator sees it, whatever its redundancy: members that one controller drives at one
// epoch. Mirrors are `leg/` (LegBdev), k data and m parity members are `raid/parity_leg.h` (ParityLegBdev).
//
// Owner: its home reactor, where its members live too.
//
// Invariants of every kind (the design's 1 to 5):
//  - a write or flush that a member of the set missed waits until that member was removed by the orchestrator's word
//  - a read is answered under unexpired leases from every member of the set
//  - Reservation Conflict from any member fences the leg: everything ends with ANA Inaccessible
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "bdev/handle.h"
#include "bdev/scrub.h"

namespace basalt::bdev {

// A member as it is given to the leg.
struct LegMember {
  LegMember(Handle member_handle)  // NOLINT: a handle alone is a member known by its bdev's name
      : handle(member_handle), replica(member_handle.info().name) {}
  LegMember(Handle member_handle, std::string member_replica, uint32_t member_distance = 0)
      : handle(member_handle), replica(std::move(member_replica)), distance(member_distance) {}
  Handle handle;
  std::string replica;    // its lasting name, whatever the bdev is called this time
  uint32_t distance = 0;  // for reads: one more counts like one more request in flight
  // With parity: the bdev of the member that it takes over from. Both are driven until that one is removed.
  std::string instead_of = {};
};

enum class MemberState : uint8_t {
  empty,
  in_sync,  // in the recorded set
  joining,  // receives all writes, is being copied to
  copied,   // equal and flushed; the swap that makes it in-sync may have been made
};

enum class Resync : uint8_t { none, delta, full };

struct LegMemberInfo {
  std::string name;
  MemberState state;
  bool failed;  // no longer used; waits for the orchestrator's word
  Resync resync;
  uint64_t copied_blocks;              // by this resync
  uint64_t to_copy_blocks;             // in all
  uint64_t repaired_blocks;            // rewritten after read errors
  std::optional<uint32_t> place = {};  // with parity: which strips it has
};

struct LegCounts {
  uint64_t dirty_regions = 0;  // to be made equal before they are read
  uint64_t region_count = 0;
  uint64_t marked_regions = 0;
  uint64_t mark_region_count = 0;
  uint64_t hedged_reads = 0;
};

// What the leg tells the orchestrator. Called on the home reactor, from completion contexts.
struct LegEvents {
  std::function<void(const std::string& member, const std::string& reason)> member_failed;
  std::function<void(const LegMemberInfo& member)> member_copied;
  std::function<void(const LegMemberInfo& member)> resync_progress;
  std::function<void(const std::string& member, const std::string& reason)> joining_failed;
  std::function<void(const std::string& member, uint64_t offset_blocks, uint64_t count_blocks)> repaired;
  std::function<void(const ScrubInfo& info)> scrub;  // begun, each tenth, ended
  std::function<void()> fenced;
  std::function<void()> clean;
};

class DrivenLeg : public Bdev {
 public:
  using Bdev::Bdev;

  // The committed swap removed the member: what waited for it goes on. One that the rest cannot do without stays.
  virtual Outcome remove_member(const std::string& name) = 0;
  // Starts double writes and the resync; `member_copied` follows.
  virtual Outcome add_member(LegMember member) = 0;
  virtual Outcome commit_member(const std::string& name) = 0;   // its swap was committed
  virtual Outcome abandon_member(const std::string& name) = 0;  // joining is given up; its swap surely was not made
  virtual void fence() = 0;
  // Marks are kept for these while they are out, and for no others any more.
  virtual void keep_marks_for(const std::vector<std::string>& replicas) = 0;
  // The member's own connection found out that it is gone: counts as a failed request.
  virtual void member_lost(const std::string& name) = 0;
  // Resumes when nothing of the leg refers to the bdev any more. It must have left.
  virtual Task<void> released(const Bdev& member) = 0;

  // More blocks behind those that are there, while requests go on. The size that the leg has already: success.
  virtual Task<Outcome> grow(uint64_t count_blocks) = 0;
  // For a leg that is to be given away: flushes all members. True: all members of the set are equal, and what was
  // written before is stable on them.
  virtual Task<bool> settle_all() = 0;
  // Whether all members of the set are equal, or with parity fit each other, but for what is in flight: their names
  // then. busy, fenced: why not.
  virtual Result<std::vector<std::string>> equal_members() const = 0;

  // Resync: of what is written to one member; 0 bytes/s is no limit. A paused one goes on from where it was.
  virtual Outcome pace_resync(uint64_t bytes_per_s, bool paused) = 0;
  // Compares the members' blocks in the background.
  virtual Outcome start_scrub(const ScrubOptions& options) = 0;
  virtual void stop_scrub() = 0;
  virtual const ScrubInfo& scrub() const = 0;

  virtual uint64_t epoch() const = 0;
  virtual bool fenced() const = 0;
  virtual bool waiting() const = 0;  // a member of the set has failed
  virtual std::vector<LegMemberInfo> members() const = 0;
  virtual LegCounts counts() const = 0;
};

}  // namespace basalt::bdev
