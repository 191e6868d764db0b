// SPDX-License-Identifier: Apache-2.0
// leg: a mirror over the replicas of one leg, driven by one controller at one epoch (the design's invariants 1 to 6).
//
// Owner: its home reactor, where its members live too. Every decision about who is in the set belongs to the
// orchestrator: the leg reports, waits, and is told.
//
// Invariants:
//  - a write or flush is acknowledged when every member of the set has it. One that a member missed waits until the
//    orchestrator's committed swap removed that member (remove_member), however long that takes
//  - while a join's swap may have been made (state `copied`), writes need the joining member too, reads do not use it
//  - overlapping operations are ordered by the range lock; resync and equalizing take part in it
//  - a read is answered only while every member of the set holds an unexpired lease, by a clock read after the data
//  came
//  - a read of a dirty region is answered after the region was made equal on all members
//  - Reservation Conflict from any member fences the leg: everything ends with ANA Inaccessible, nothing is
//  acknowledged
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/gate.h"
#include "bdev/child_io.h"
#include "bdev/handle.h"
#include "bdev/leg/dirty_map.h"
#include "bdev/leg/range_lock.h"

namespace basalt::bdev {

struct LegOptions {
  std::string name;
  Uuid uuid;
  uint64_t epoch = 0;
  Duration lease = milliseconds(300);  // at most 1 s
  bool all_dirty = false;              // after an unclean takeover
  bool planted_ignore_lease = false;   // a bug for the simulator to catch; nothing else sets it
};

enum class MemberState : uint8_t {
  empty,
  in_sync,  // in the recorded set
  joining,  // receives all writes, is being copied to
  copied,   // equal and flushed; the swap that makes it in-sync may have been made
};

struct LegMemberInfo {
  std::string name;
  MemberState state;
  bool failed;  // no longer used; waits for the orchestrator's word
  uint64_t copied_blocks;
};

// What the leg tells the orchestrator. Called on the home reactor, from completion contexts.
struct LegEvents {
  std::function<void(const std::string& member, const std::string& reason)> member_failed;
  std::function<void(const std::string& member)> member_copied;
  std::function<void(const std::string& member, const std::string& reason)> joining_failed;
  std::function<void()> fenced;
  std::function<void()> clean;
};

class LegBdev final : public Bdev {
 public:
  static constexpr size_t member_slot_count = 64;
  static constexpr size_t member_count_max = 8;

  static Result<std::unique_ptr<LegBdev>> create(Reactor& home, const LegOptions& options, std::vector<Handle> in_sync,
                                                 LegEvents events);
  ~LegBdev() override;

  void submit(Io* io) override;
  Task<Outcome> close() override;  // fences, then waits for everything below

  // The committed swap removed the member: what waited for it goes on. The last member is never removed.
  Outcome remove_member(const std::string& name);
  // Starts double writes and the full copy; `member_copied` follows.
  Outcome add_member(Handle member);
  Outcome commit_member(const std::string& name);   // its swap was committed
  Outcome abandon_member(const std::string& name);  // joining is given up; its swap surely was not made
  void fence();
  // The member's own connection found out that it is gone: counts as a failed request.
  void member_lost(const std::string& name);
  // Whether requests or tasks of this leg still refer to the bdev, also after it left the set.
  bool uses(const Bdev& member) const;

  uint64_t epoch() const { return options_.epoch; }
  bool fenced() const { return fenced_; }
  bool waiting() const { return (must_have_ & failed_) != 0; }
  std::vector<LegMemberInfo> members() const;
  const DirtyMap& dirty() const { return dirty_; }

 private:
  struct Member {
    Handle handle;
    MemberState state = MemberState::empty;
    uint64_t copied_blocks = 0;
    uint32_t in_flight_count = 0;  // of this leg's requests; a slot is reused only when none is left
    uint32_t task_count = 0;       // coroutines that still refer to the slot
    bool renewing = false;
  };
  struct Op;
  struct Settled;        // co_await: nobody of must_have is failed, or the leg is fenced
  struct SpareReturned;  // co_await: the spare buffer came back
  struct LockAwaiter;    // co_await: a range, exclusively
  struct Lists;

  LegBdev(Reactor& home, const LegOptions& options, const BdevInfo& geometry);

  // leg.cc
  static void op_granted(RangeEntry* entry);
  void start(Op* op);
  void finish(Op* op, nvme::Status status);
  // leg_write.cc
  void start_write(Op* op);
  static void write_child_done(Io* child);
  void write_ended(Op* op);
  bool settle_write(Op* op);
  // leg_read.cc
  void start_read(Op* op);
  static void read_child_done(Io* child);
  void answer_read(Op* op);
  bool leases_valid();
  void renew(uint32_t slot);
  static void renewal_done(Io* io);
  uint32_t choose_reader(uint64_t excluded) const;
  // leg_dirty.cc
  Task<void> equalize_then_read(Op* op);
  Task<bool> equalize(uint64_t region);
  Task<void> clean_in_background();
  Task<Buffer*> take_buffer(size_t bytes);
  void give_buffer(Buffer* buffer);
  // leg_members.cc
  uint32_t find(const std::string& name) const;
  void refresh_masks();
  void member_failed(uint32_t slot, nvme::Status status);
  void recheck();
  Task<void> copy_member(uint32_t slot);
  Task<bool> copy_chunk(uint32_t slot, uint64_t first_block, uint64_t end_block);
  Task<nvme::Status> member_io(uint32_t slot, Io& io);

  uint64_t bit(uint32_t slot) const { return uint64_t{1} << slot; }

  LegOptions options_;
  LegEvents events_;
  DirtyMap dirty_;
  RangeLock locks_;
  std::vector<Member> members_;
  // Slots as bit masks; refresh_masks() keeps them equal to the members' states.
  uint64_t in_sync_ = 0;    // of the recorded set
  uint64_t must_have_ = 0;  // in_sync | copied: who must have a write before it is acknowledged
  uint64_t receives_ = 0;   // must_have | joining
  uint64_t failed_ = 0;     // of receives_: broken, waiting for the orchestrator
  bool fenced_ = false;
  uint32_t next_reader_ = 0;
  uint32_t next_slot_ = 0;  // where the search for a joining member's slot begins
  Gate gate_;               // operations and background tasks
  std::unique_ptr<Pool<Op>> ops_;
  ChildIoPool children_{child_io_count_max};
  std::unique_ptr<Lists> lists_;
};

}  // namespace basalt::bdev
