// SPDX-License-Identifier: Apache-2.0
// leg: a mirror over the replicas of one leg, driven by one controller at one epoch (the design's invariants 1 to 7).
//
// Owner: its home reactor, where its members live too. Every decision about who is in the set belongs to the
// orchestrator: the leg reports, waits, and is told.
//
// Invariants:
//  - a write or flush is acknowledged when every member of the set has it. One that a member missed waits until the
//    orchestrator's committed swap removed that member (remove_member), however long that takes
//  - while a join's swap may have been made (state `copied`), writes need the joining member too, reads do not use it
//  - overlapping operations are ordered by the range lock; resync, equalizing, repair and scrub take part in it
//  - a read is answered only while every member of the set holds an unexpired lease, by a clock read after the data
//  came
//  - a read of a dirty region is answered after the region was made equal on all members
//  - Reservation Conflict from any member fences the leg: everything ends with ANA Inaccessible, nothing is
//  acknowledged
//  - a member's failure is told when each member that would stay has answered a request that was sent since, or failed
//    too: after a pause the first failure seen may be that of the only one which has everything
//  - a region's mark is durable in the tail of every member that receives before any of them is sent data for it; it is
//    cleared only when the region is equal and flushed on all, and nobody whom the marks are kept for is out
//
// Marks live in a tail behind the leg's blocks on each member (leg_tail.h, docs/on-disk/leg.md, docs/decisions/005).
// Legs whose options name no size have none: then everything is dirty after an unclean takeover and every resync is
// full.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/gate.h"
#include "bdev/child_io.h"
#include "bdev/driven_leg.h"
#include "bdev/handle.h"
#include "bdev/leg/leg_tail.h"
#include "bdev/pace.h"
#include "bdev/range_lock.h"
#include "bdev/region_map.h"

namespace basalt::bdev {

// Bugs for tests to catch; nothing else sets them.
struct LegPlanted {
  bool ignore_lease = false;
  bool skip_marks = false;          // data goes out before its mark is durable
  bool clear_before_flush = false;  // marks are cleared although nothing was flushed
  bool ignore_own_marks = false;    // a resync asks only the survivors' marks
  bool ignore_order = false;        // overlapping writes go to the members as they come
  bool ack_before_flush = false;    // a flush is acknowledged, and nothing is flushed
  bool skip_vacate = false;         // the leg grows over what its tail was
  bool trust_absent = false;        // who was out while the tail moved is thought to have moved too
};

struct LegOptions {
  std::string name;
  Uuid uuid;
  uint64_t epoch = 0;
  Duration lease = milliseconds(300);  // at most 1 s
  bool all_dirty = false;              // unclean takeover: what the marks name, or everything where there are none
  uint64_t count_blocks = 0;           // members have a tail behind so many blocks; 0: no tails
  uint64_t grown_blocks = 0;           // growing to so many had begun; 0: it had not
  std::string identity;                // of the leg, for ever; with a tail
  std::vector<std::string> replicas;   // marks are kept for these while they are out; empty: for all that are known
  uint64_t mark_region_bytes_min = 1 << 20;
  Duration mark_rest = seconds(5);  // a mark is cleared after so long without a write, at most twice that
  LegPlanted planted;
};

struct LegStats {
  uint64_t mark_write_count = 0;  // batches that made marks durable
  uint64_t marks_cleared_count = 0;
  uint64_t repaired_blocks = 0;    // rewritten after read errors
  uint64_t hedged_read_count = 0;  // sent to a second member
  uint64_t hedge_won_count = 0;    // and answered by it
};

class LegBdev final : public DrivenLeg {
 public:
  static constexpr size_t member_slot_count = 64;
  static constexpr size_t member_count_max = 8;
  // Before what a refused write left is made equal; doubled each time that it could not be.
  static constexpr Duration clean_wait_min = milliseconds(100);
  static constexpr Duration clean_wait_max = seconds(10);

  static Result<std::unique_ptr<LegBdev>> create(Reactor& home, const LegOptions& options,
                                                 std::vector<LegMember> in_sync, LegEvents events);
  ~LegBdev() override;

  void submit(Io* io) override;
  Task<Outcome> close() override;  // fences, then waits for everything below

  // The committed swap removed the member: what waited for it goes on. The last member is never removed.
  Outcome remove_member(const std::string& name) override;
  // Starts double writes and the resync; `member_copied` follows.
  Outcome add_member(LegMember member) override;
  Outcome commit_member(const std::string& name) override;   // its swap was committed
  Outcome abandon_member(const std::string& name) override;  // joining is given up; its swap surely was not made
  void fence() override;
  // Marks are kept for these while they are out, and for no others any more.
  void keep_marks_for(const std::vector<std::string>& replicas) override;
  // The member's own connection found out that it is gone: counts as a failed request.
  void member_lost(const std::string& name) override;
  // Whether requests or tasks of this leg still refer to the bdev, also after it left the set.
  bool uses(const Bdev& member) const;
  // Resumes when nothing of the leg refers to the bdev any more. It must have left.
  Task<void> released(const Bdev& member) override;

  // More blocks behind those that are there, while requests go on (leg_resize.cc). All members have room for them, are
  // in the set and equal, else: busy, no_space; nothing has changed then. The size that the leg has already: success.
  Task<Outcome> grow(uint64_t count_blocks) override;

  // For a leg that is to be given away: flushes all members, and takes the marks of what rests off their tails where
  // that may be. True: all members of the set are equal, and what was written before is stable on them.
  Task<bool> settle_all() override;

  // Whether all members of the set hold the same, but for what is in flight: their names then. busy, fenced: why not.
  Result<std::vector<std::string>> equal_members() const override;

  // Resync: 0 bytes/s is no limit. A paused one goes on from where it was, here or under the next controller.
  void set_resync(uint64_t bytes_per_s, bool paused);
  Outcome pace_resync(uint64_t bytes_per_s, bool paused) override {
    set_resync(bytes_per_s, paused);
    return success();
  }

  // Compares the members' blocks in the background.
  Outcome start_scrub(const ScrubOptions& options) override;
  void stop_scrub() override;
  const ScrubInfo& scrub() const override { return scrub_info_; }

  uint64_t epoch() const override { return options_.epoch; }
  bool fenced() const override { return fenced_; }
  bool waiting() const override { return (must_have_ & failed_) != 0; }
  std::vector<LegMemberInfo> members() const override;
  LegCounts counts() const override;
  const RegionMap& dirty() const { return dirty_; }
  // Whether every region is known to be equal on all members of the set.
  bool equal() const { return open_ && dirty_.empty(); }
  bool has_tails() const { return tail_ != nullptr; }
  uint64_t marked_count() const;
  uint64_t mark_region_count() const;
  const LegStats& stats() const { return leg_stats_; }

 private:
  struct Member {
    Handle handle;
    MemberState state = MemberState::empty;
    std::string replica;
    uint32_t distance = 0;
    uint32_t in_flight_count = 0;  // of this leg's requests; a slot is reused only when none is left
    uint32_t task_count = 0;       // coroutines that still refer to the slot
    bool renewing = false;
    std::string failure;    // why it counts as failed
    bool receives = false;  // joining: its tail is ready
    // Reads: how long they take of late, and until when the member counts as slow, or as one that may be again.
    Duration read_latency;
    Instant slow_until{0};
    Instant suspect_until{0};
    // Its tail: which version of what it has.
    bool tail_known = false;
    uint64_t stay = 0;
    uint64_t generation = 0;
    uint64_t superblock_written = 0;
    std::vector<uint64_t> page_written;
    // Its resync.
    Resync resync = Resync::none;
    std::unique_ptr<RegionMap> left;         // still to be copied to it
    std::unique_ptr<RegionMap> left_marked;  // the same, as its tail says
    uint64_t copied_blocks = 0;
    uint64_t to_copy_blocks = 0;
    uint64_t repaired_blocks = 0;
  };
  struct Op;
  struct Settled;        // co_await: nobody of must_have is failed, or the leg is fenced
  struct SpareReturned;  // co_await: the spare buffer came back
  struct LockAwaiter;    // co_await: a range, exclusively
  struct TailsWritten;   // co_await: the tails were written once more, or the leg opened or is fenced
  struct Released;       // co_await: perhaps nothing refers to a bdev any more
  struct Lists;
  struct TailShape;
  struct Tail;
  struct TailWrite;
  struct Batch;
  struct Copying;
  struct HedgedRead;

  LegBdev(Reactor& home, const LegOptions& options, const BdevInfo& geometry);

  // leg.cc
  static void op_granted(RangeEntry* entry);
  void admit(Op* op);
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
  uint32_t choose_reader(uint64_t excluded);
  void read_failed(Op* op, uint32_t slot, nvme::Status status);
  // leg_hedge.cc
  void note_read(uint32_t slot, Instant sent);
  bool is_slow(uint32_t slot);
  Duration slow_after(uint32_t slot) const;
  bool start_hedged_read(Op* op, uint32_t slot);
  bool hedge_side(HedgedRead* read, uint32_t slot);
  void hedge_due(HedgedRead* read);
  void hedge_side_done(HedgedRead* read, Io* io);
  // leg_repair.cc
  void repair_later(uint64_t first_block, uint64_t end_block, uint64_t bad);
  Task<void> repair(uint64_t first_block, uint64_t end_block, uint64_t bad);
  Task<bool> rewrite(uint32_t slot, Io& io);
  // leg_scrub.cc
  Task<void> run_scrub(ScrubOptions options);
  struct ScrubChunk;
  Task<void> scrub_chunk(ScrubChunk& chunk, const ScrubOptions& options);
  void compare(ScrubChunk& chunk);
  // leg_dirty.cc
  Task<void> equalize_then_read(Op* op);
  // What becomes of a member that has no room for the others' value.
  enum class Refusal : uint8_t { expels, leaves_dirty };
  Task<bool> equalize(uint64_t region, Refusal refusal);
  Task<void> clean_in_background(Refusal refusal);
  void clean_later();
  Task<Buffer*> take_buffer(size_t bytes);
  void give_buffer(Buffer* buffer);
  // leg_members.cc
  uint32_t find(const std::string& name) const;
  void put_member(uint32_t slot, const LegMember& member, MemberState state);
  void empty_slot(uint32_t slot);
  void refresh_masks();
  void member_failed(uint32_t slot, nvme::Status status) { member_failed(slot, nvme::to_string(status)); }
  void member_failed(uint32_t slot, const std::string& reason);
  void tell_failures();
  void recheck();
  void request_ended(uint32_t slot);
  void task_ended(uint32_t slot);
  void wake_released(uint32_t slot);
  LegMemberInfo info_of(uint32_t slot) const;
  Task<nvme::Status> member_io(uint32_t slot, Io& io);
  // leg_open.cc
  Task<void> open_tails();
  Task<leg_tail::Image> read_tail(uint32_t slot);
  Task<leg_tail::Image> read_tail(uint32_t slot, const RegionMap& shape, uint64_t at_blocks);
  void adopt_tails(std::vector<leg_tail::Image>& images);
  void opened();
  void forget_others(const std::vector<std::string>& replicas);
  leg_tail::RosterEntry& roster_entry(uint32_t slot);
  void roster_changed();
  // leg_marks.cc
  bool mark(uint64_t first_block, uint64_t end_block);
  bool mark_or_wait(Op* op);
  Task<bool> mark_for_task(uint64_t first_block, uint64_t end_block);
  void write_tails_soon(bool urgent);
  bool tails_behind() const;
  Task<void> write_tails();
  Task<void> write_tail(uint32_t slot, TailWrite& write);
  void collect_writes(Batch& batch);
  leg_tail::Superblock own_superblock(uint32_t slot, const leg_tail::Superblock& common);
  void batch_ended(const Batch& batch);
  void release_marked(nvme::Status refused);
  // leg_resize.cc
  TailShape shape_of(uint64_t count_blocks) const;
  Outcome may_grow(uint64_t count_blocks) const;
  Task<Outcome> move_tails(uint64_t count_blocks);
  template <class F>
  Task<void> on_all_in_sync(F&& task_of);
  Task<void> write_whole_tail(uint32_t slot, const Tail& tail, uint64_t at_blocks, nvme::Status& refused);
  Task<void> vacate(uint32_t slot, uint64_t at_blocks);
  Task<void> vacate_all(uint64_t at_blocks);
  Task<void> superblocks_written();
  void adopt_shape(const Tail& next, uint64_t count_blocks);
  bool tails_moved(const std::vector<leg_tail::Image>& here, const std::vector<leg_tail::Image>& grown) const;
  void forget_absent();
  // leg_sweep.cc
  void arm_sweep();
  bool may_clear() const;
  Task<void> sweep();
  Task<bool> flush_all();
  // leg_resync.cc
  Task<void> resync_member(uint32_t slot);
  bool copying_goes_on(uint32_t slot) const;
  Task<bool> prepare_member(uint32_t slot);
  void begin_resync(uint32_t slot, const leg_tail::Image& image);
  Task<void> copy_regions(uint32_t slot, Copying& copying);
  Task<bool> copy_region(uint32_t slot, uint64_t region, Copying& copying);
  Task<bool> copy_chunk(uint32_t slot, uint64_t first_block, uint64_t end_block);
  Task<bool> checkpoint_resync(uint32_t slot);
  void wake_paced();

  uint64_t bit(uint32_t slot) const { return uint64_t{1} << slot; }

  LegOptions options_;
  LegEvents events_;
  RegionMap dirty_;
  RangeLock locks_;
  std::vector<Member> members_;
  // Slots as bit masks; refresh_masks() keeps them equal to the members' states.
  uint64_t in_sync_ = 0;    // of the recorded set
  uint64_t must_have_ = 0;  // in_sync | copied: who must have a write before it is acknowledged
  uint64_t receives_ = 0;   // must_have | joining
  uint64_t failed_ = 0;     // broken, waiting for the orchestrator
  uint64_t told_ = 0;       // failed, of the set, and the orchestrator knows
  Instant failed_at_;       // the last failure
  bool fenced_ = false;
  bool open_ = false;  // it is known what is dirty
  bool growing_ = false;
  uint32_t next_reader_ = 0;
  uint32_t next_slot_ = 0;     // where the search for a joining member's slot begins
  uint32_t repair_count_ = 0;  // under way
  bool cleaning_ = false;      // a background pass runs
  Duration clean_wait_ = clean_wait_min;
  Pace resync_pace_{home()};
  Pace scrub_pace_{home()};
  ScrubInfo scrub_info_;
  bool scrub_runs_ = false;  // also one that was stopped, until it has ended
  LegStats leg_stats_;
  Gate gate_;  // operations and background tasks
  std::unique_ptr<Pool<Op>> ops_;
  std::unique_ptr<Pool<HedgedRead>> hedged_reads_;
  ChildIoPool children_{child_io_count_max};
  std::unique_ptr<Lists> lists_;
  std::unique_ptr<Tail> tail_;
};

}  // namespace basalt::bdev
