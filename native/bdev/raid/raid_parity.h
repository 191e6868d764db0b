// SPDX-License-Identifier: Apache-2.0
// raid5 and raid6: k data and m parity strips over k + m members, with one copy of each block that m losses survive.
// raid1 is the same with k = 1: every parity of one strip is that strip. All its writes are whole stripes.
//
// Owner: its home reactor, where its members live too.
//
// Invariants:
//  - a write or flush is acknowledged when every member of the recorded set has it. One that a member missed waits
//  until
//    the superblocks of the others say, durably, that the member has left
//  - a partial stripe changes in place only after a record of it is durable on every parity member of that stripe
//    (parity_log.cc), so that no later loss of up to m members changes a block that was not being written
//  - operations on one codeword are ordered by the range lock; rebuild, repair and scrub take part in it. A plain read
//    has one place to read from and needs no lock, but for that of a twin that has just been given it: a write that is
//    under way then may have reached the old member alone, and may have been read there
//  - a record's parity fits the data beside it on the media: what whole stripes left there unflushed is flushed first
//  - parity that may be wrong (after an unclean end, until made right) is never used to change parity, and never to
//    recover data while the data itself is there; after a crash it is made right, durably, before the data is shown
//  - a member joins the set when it and all others are flushed, and every record that it should have is in its log
//  - before the first write after a rest the superblocks say `not clean`
//  - a record has no epoch that a member of the set might not know: whoever opens some of them alone would not count it
//  - while a member is away, or a twin is made equal, a region is marked on all of the set before anything changes
//  there
//    (raid_parity_away.cc)
//
// Driven (parity_leg.h, docs/decisions/012): an orchestrator decides who is of the set, not the superblocks. Then
//  - a member of the set leaves when it was released, and not before; what it missed waits until then
//  - every write has a record, whole stripes too, or is stable in place where no parity is left: after the replay every
//    parity is right and nothing that was acknowledged is missing, whichever caches were lost. That of whole stripes
//    which become zeroes is on all members, since each of them may have the parity of some
//  - a member that takes over from another one (its twin) has all that this one has before that is said, and from then
//    on nothing is acknowledged without either; this one leaves when it was released, and its place is the twin's
//  - `clean` says that nothing was ever written: no member of the set says so when something was
//  - what is written while a member of it is away is marked first, durably, on all of the set; so is, as it leaves,
//  what
//    it may not have flushed. One that comes back to its place gets what is marked and what its own log names
//    (raid_parity_marks.cc), and is known by nothing else: whoever gets everything has no superblock until then
#pragma once

#include <array>
#include <bit>
#include <coroutine>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/framed_task.h"
#include "base/gate.h"
#include "bdev/child_io.h"
#include "bdev/handle.h"
#include "bdev/pace.h"
#include "bdev/raid/codec.h"
#include "bdev/raid/parity_format.h"
#include "bdev/raid/parity_layout.h"
#include "bdev/raid/parity_marks.h"
#include "bdev/raid/parity_seats.h"
#include "bdev/raid/unflushed_map.h"
#include "bdev/range_lock.h"
#include "bdev/region_map.h"
#include "bdev/scrub.h"

namespace basalt::bdev {

class Fan;

// For tests to catch; nothing else sets them.
struct RaidPlantedBugs {
  bool no_record = false;
  bool record_not_durable = false;
  bool no_flush_before_reuse = false;
  bool no_flush_before_record = false;  // of what whole stripes left in caches
  bool no_flush_before_clean = false;
  bool no_flush_before_join = false;   // of a rebuilt member, and of those that it was rebuilt from
  bool no_record_for_joining = false;  // a member gets records only when it is of the set
  bool keep_old_records = false;       // in the log of a member that comes back
  bool show_unsettled = false;         // reads do not wait until the parity of a torn stripe is right
  bool leave_after_replay = false;     // members that are not here
  bool skip_incomplete = false;        // a record that one of its members has lost counts as never made durable
  bool whole_stripes_ignore_log = false;
  bool trust_parity = false;                // after an unclean end parity is believed as it is
  bool no_marks = false;                    // what who is away misses is not marked
  bool clear_before_flush = false;          // marks are cleared though not all was flushed
  bool any_stay = false;                    // whoever says that it is of a place is believed
  bool leave_unasked = false;               // driven: a failed member leaves without the orchestrator's word
  bool whole_without_record = false;        // driven: whole stripes are written as ever
  bool zeroes_on_some = false;              // driven: zeroes are recorded on the parity members alone
  bool writes_over_zeroes = false;          // driven: zeroes below a write need not have left the log
  bool zeroes_of_one_stripe = false;        // driven: of stripes that become zeroes one is marked
  bool replay_one_after_the_other = false;  // driven: each record as it is, over what a newer one says
  bool twin_before_equal = false;           // driven: a twin counts as equal before anything was copied to it
  bool twin_without_writes = false;         // driven: a twin gets copies and records, but no writes in place
  bool twin_without_records = false;        // driven: or copies and writes, but no records
  bool grow_unzeroed = false;               // what is behind the old size is taken for zeroes
  bool grow_unsaid = false;                 // driven: a new size is in force before members know of it
  bool begin_unsaid = false;                // driven: copies of another leg are written before they say whose they are
  bool away_unmarked = false;               // driven: what is written while a member is away is not marked
  bool marks_not_durable = false;           // driven: marks are kept in memory alone
  bool marks_without_log = false;           // driven: a member that left is believed to have flushed all that it had
  bool marks_without_own = false;           // driven: what the log of one that comes back names is not marked
  bool record_epoch_early = false;          // records have an epoch that not all superblocks say yet
  bool marks_cleared_early = false;         // driven: when one of several that are away is back
  bool any_may_return = false;              // driven: what a superblock says of a place is believed, however old it is
  bool no_erasing = false;                  // driven: one that gets everything keeps its superblocks meanwhile

  bool any() const { return *this != RaidPlantedBugs{}; }
  bool operator==(const RaidPlantedBugs&) const = default;
};

struct RaidParityOptions {
  std::string name;
  Uuid uuid;
  uint32_t parity_count = 1;          // m: 1 is raid5, 2 raid6
  uint64_t strip_bytes = 64 * 1024;   // a power of two, 4 KiB to 256 KiB
  uint32_t log_slot_count = 32;       // partial stripes between two flushes of the members; 2 to 1024
  Duration rest = milliseconds(500);  // without writes: then the set is marked clean
  uint64_t mark_region_bytes = parity::mark_region_bytes;  // of each member; at least
  bool force = false;                                      // overwrite members that belong to a raid
  bool driven = false;
  std::string origin;         // driven: the leg that its members may be copies of; empty: they are not
  uint32_t data_count = 0;    // driven: k; otherwise the members that are not m
  uint64_t count_blocks = 0;  // that are needed; 0, if not driven: as many as the members have room for
  uint64_t grown_blocks = 0;  // driven: growing to so many was under way; 0: it was not
  RaidPlantedBugs bugs;
};

struct RaidParityEvents {
  std::function<void(const std::string& member, const std::string& reason)> member_failed;
  std::function<void(const std::string& member)> member_rebuilt;
  std::function<void(const std::string& member, uint64_t percent)> rebuild_progress;  // each tenth
  std::function<void(const std::string& member, const std::string& reason)> rebuild_failed;
  std::function<void(const std::string& member, uint64_t offset_blocks, uint64_t count_blocks)> repaired;  // its own
  std::function<void(const ScrubInfo& info)> scrub;  // begun, each tenth, ended
  // One took over from another one, which has left.
  std::function<void(const std::string& member, const std::string& instead_of)> member_exchanged;
  std::function<void()> set_changed;  // others serve now: what could not be had may be had
};

struct RaidParityStats {
  uint64_t full_stripe_count = 0;     // bands that needed no reading and no log
  uint64_t partial_stripe_count = 0;  // bands that went through the log
  uint64_t degraded_read_count = 0;
  uint64_t repaired_count = 0;  // read errors mended by rewriting
  uint64_t checkpoint_count = 0;
  uint64_t replayed_count = 0;  // log records, when it was loaded
};

enum class RaidMemberState : uint8_t { missing, in_sync, rebuilding, failed };
const char* to_string(RaidMemberState state);

struct RaidMemberInfo {
  std::string name;    // "" when missing
  uint32_t place = 0;  // which of its strips are data and which parity follows from it
  RaidMemberState state = RaidMemberState::missing;
  bool delta = false;           // it comes, or came, back: what is marked alone is rebuilt
  uint64_t rebuilt_blocks = 0;  // that it has, those that it had when it came among them
  uint64_t to_rebuild_blocks = 0;
  std::string instead_of;  // a twin: whose place it is to have
};

// Requests that are under way, from above and of background tasks, in two phases: who wants to know when those that are
// under way now have ended begins another phase.
class RequestPhases {
 public:
  bool begin() {
    count_[now_]++;
    return now_;
  }
  void end(bool phase) {
    if (--count_[phase] > 0) return;
    for (const std::coroutine_handle<> waiter : std::exchange(waiters_, {}))
      waiter.resume();
  }
  // One phase after the other: also those of who asked before.
  Task<void> drained() {
    while (count_[!now_] > 0)
      co_await Ended{*this};
    const bool before = now_;
    now_ = !before;
    while (count_[before] > 0)
      co_await Ended{*this};
  }

 private:
  struct Ended {
    RequestPhases& phases;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiter) { phases.waiters_.push_back(waiter); }
    void await_resume() const noexcept {}
  };
  uint64_t count_[2] = {};
  bool now_ = false;
  std::vector<std::coroutine_handle<>> waiters_;
};

class RaidParityBdev final : public Bdev {
 public:
  static constexpr uint32_t band_memory_bytes = 256 * 1024;

  // Formats the members, in this order. Errc::exists: one carries a superblock already.
  static Task<Result<std::unique_ptr<RaidParityBdev>>> create(Reactor& home, RaidParityOptions options,
                                                              std::vector<Handle> members, RaidParityEvents events);
  // Finds out from superblocks what the members are; some may be missing. Replays the log. not_found: no superblock.
  // corrupt: damaged ones, two members for one place, another raid's member, a shrunken device. busy: too few members
  // to know that no newer set exists. Nothing is written in these cases. A member whose superblocks cannot be read is
  // as one that is missing (`member_failed` names it); one of which one can be read does not vouch for the set.
  // `accept_missing`: any k members will do. What others may have been given since without them is given up: who is not
  // here gets everything when it comes.
  static Task<Result<std::unique_ptr<RaidParityBdev>>> load(Reactor& home, std::string name,
                                                            std::vector<Handle> members, RaidParityEvents events,
                                                            const RaidPlantedBugs& bugs = {},
                                                            bool accept_missing = false);
  // A driven one, on members of the set that the orchestrator has on record: all that are not here have left it.
  // Blank members, and those that nothing was ever written to, are formatted; copies of `origin` are made its own; else
  // as load(). closed, io: a member failed. corrupt: they are not what the record says. Nothing that was written is
  // touched in these cases.
  static Task<Result<std::unique_ptr<RaidParityBdev>>> open_driven(Reactor& home, RaidParityOptions options,
                                                                   std::vector<Handle> members,
                                                                   RaidParityEvents events);
  // Whether a device tells of some raid.
  static Task<bool> carries(Handle device);
  ~RaidParityBdev() override;

  void submit(Io* io) override;
  Task<Outcome> close() override;  // nothing is in flight; marks the set clean when it is

  // A device takes the place of one that is not in the set; `member_rebuilt` or `rebuild_failed` follows. Who had that
  // place and left it gets what it missed; any other one, all.
  Outcome replace_member(uint32_t index, Handle device);
  // The same; the place that the device left, or the first one that nobody has. busy: there is none.
  Task<Outcome> add_member(Handle device);
  // A place that nobody has; member_count() when there is none.
  uint32_t free_place() const;
  // A device is made equal to one of the set, which serves meanwhile, and then has its place: when that one is released
  // if driven; else at once, durably, and `member_exchanged` follows. `member_rebuilt` or `rebuild_failed` comes
  // before; after the former nothing is acknowledged without both. busy: there is a twin already.
  Outcome add_twin(const Bdev& of, Handle device);
  // So many blocks at least, of which the new ones are zeroes. busy: a member has failed, is joining, or (not driven)
  // missing. no_space: members have no room for it; whoever drives it looks before. The size that it has: success.
  Task<Outcome> grow(uint64_t count_blocks);
  // As many as its members have room for, now.
  uint64_t count_blocks_max() const;
  // Of each member, for so many.
  uint64_t member_blocks_for(uint64_t count_blocks) const;
  // Something here may still send requests to the device.
  bool uses(const Bdev& device) const;
  // Whoever is not used any more has nothing in flight either.
  Task<void> drained();
  // Driven: whoever is behind this device leaves. What waits for it goes on.
  void release_member(const Bdev& device);
  // Driven: everything ends with internal_path_error, what waits as well.
  void fence();
  // Of rebuilds, and of the resync after an unclean end: what is written to one member. 0: no limit. Paused ones go on
  // from where they were.
  void set_resync(uint64_t bytes_per_s, bool paused) { resync_pace_.set(bytes_per_s, paused); }
  // Compares all strips of each stripe (raid_parity_scrub.cc). busy: a member is missing, or one runs already. It ends
  // before its time when a member leaves. scrub() returns at its end; busy: it was stopped before.
  Outcome start_scrub(const ScrubOptions& options);
  void stop_scrub();
  Task<Result<ScrubInfo>> scrub(ScrubOptions options);
  const ScrubInfo& scrub_info() const { return scrub_info_; }

  // The member's own connection found out that it is gone.
  void member_lost(const std::string& name);

  const ParityLayout& layout() const { return layout_; }
  uint32_t member_count() const { return layout_.member_count(); }
  // By seat (parity_seats.h): places, in their order, until one was taken over by a twin.
  uint32_t seat_count() const { return member_count() + 1; }
  RaidMemberInfo member(uint32_t seat) const;
  RaidMemberInfo member_at(uint32_t place) const { return member(seats_.seat_of(place)); }
  bool has_twin() const { return seats_.has_twin(); }
  RaidMemberInfo twin() const { return member(seats_.spare()); }
  bool offline() const { return offline_; }
  FrameMemory& frames() { return frames_; }  // of what the keeper does
  bool degraded() const { return static_cast<uint32_t>(std::popcount(in_sync_)) < member_count(); }
  bool resyncing() const { return resync_stripe_ < layout_.strip_count; }
  uint64_t resync_stripe() const { return resync_stripe_; }
  uint64_t epoch() const { return superblock_.epoch; }
  const RaidParityStats& parity_stats() const { return parity_stats_; }
  // Regions that a member which is away may lack.
  const RegionMap& marks() const { return marks_; }

 private:
  struct Op;
  struct Band;
  struct Workspace;
  struct LogSlot;
  struct Lists;
  struct RangeHeld;
  struct Growth;
  struct Rebuild;
  struct Scrubbing;
  struct Woken;  // co_await: whatever waits looks again

  RaidParityBdev(Reactor& home, const parity::Superblock& geometry, RaidParityEvents events);
  uint32_t member_of(uint64_t stripe, uint32_t role) const { return seats_.seat_of(layout_.member_of(stripe, role)); }
  uint32_t role_of(uint64_t stripe, uint32_t member) const { return layout_.role_of(stripe, seats_.place_of(member)); }
  uint32_t roles_of(uint64_t stripe, uint32_t members) const {
    return layout_.roles_of(stripe, seats_.places_of(members));
  }
  // Those of the members that have the role's place: one, or the twin besides.
  template <class F>
  void for_each_having(uint64_t stripe, uint32_t role, uint32_t members, F&& f) const;

  // raid_parity_open.cc
  Task<Outcome> open(bool clean, bool shrunk);
  void adopt(std::vector<Handle> members);
  struct Assembled;
  static Task<Result<std::unique_ptr<RaidParityBdev>>> assemble(Reactor& home, Assembled from, RaidParityEvents events);

  // raid_parity_marks.cc
  void shape_marks();
  bool is_away(uint32_t place) const { return (seats_.places_of(in_sync_) >> place & 1) == 0; }
  void look_who_is_away();
  bool are_marked(StripeRange stripes) const;
  bool is_marked(const Band& band) const;
  void wait_for_mark(Band* band);
  bool marks_are_waited_for() const;
  Task<uint32_t> put_marks(const RegionMap& marks, uint32_t members, bool all_pages);
  Task<void> write_marks();
  Task<void> begin_marks(uint32_t members);
  Task<void> find_marks();
  Task<Outcome> keep_marks_at_open();
  Task<bool> arrive(Rebuild& rebuild);
  bool may_return(const parity::Superblock& superblock) const;
  bool give_place(uint32_t member, uint32_t place);
  void give_unmarked_place(uint32_t member);
  Task<Result<std::vector<StripeRange>>> stripes_in_log(Handle device, uint64_t log_tail);
  Task<bool> erase_superblocks(Rebuild& rebuild, Handle device);
  Task<void> mark_own(const Rebuild& rebuild, std::vector<StripeRange> stripes);

  // raid_parity_driven.cc
  static Task<Result<std::unique_ptr<RaidParityBdev>>> format_driven(Reactor& home, RaidParityOptions options,
                                                                     Assembled from, RaidParityEvents events);
  static Task<Result<std::unique_ptr<RaidParityBdev>>> begin_copied(Reactor& home, RaidParityOptions options,
                                                                    Assembled from, RaidParityEvents events);
  static Task<Result<std::unique_ptr<RaidParityBdev>>> sealed(Result<std::unique_ptr<RaidParityBdev>> opened,
                                                              uint32_t rounds);

  // raid_parity.cc
  bool take_workspace(Band* band);
  bool members_give_back() const;
  void wake_workspace_waiters();
  void advance(Op* op);
  void finish(Op* op);
  void start_flush(Op* op);
  static void flush_child_done(Io* child);
  bool settle_flush(Op* op);

  // raid_parity_write.cc
  void start_write_band(Band* band);
  static void band_granted(RangeEntry* entry);
  void prepare(Band* band);
  void plan(Band* band);
  void read_sources(Band* band);
  static void source_child_done(Io* child);
  void sources_read(Band* band);
  void compute(Band* band);
  void compute_full(Band* band);
  void write_record(Band* band);
  void describe(const Band& band, uint32_t logged, parity::RecordHeader* header) const;
  void send_data_records(Band* band, uint32_t logged);
  void send_zero_records(Band* band, uint32_t logged);
  ChildIo* record_child(Band* band, uint32_t role, uint32_t member, uint32_t payload_bytes);
  static void record_child_done(Io* child);
  void write_in_place(Band* band);
  static void write_child_done(Io* child);
  void write_ended(Band* band);
  void resume_parked(Band* band);
  void finish_band(Band* band);
  void fail_band(Band* band, nvme::Status status);
  size_t data_pieces(const Band& band, uint32_t role, Iovec* out, size_t out_max) const;
  ChildIo* child_for(Band* band, uint32_t role, IoType type, IoDone done);
  void submit_child(Band* band, ChildIo* child);
  // What a child of a band said; the child is given back.
  struct Answer {
    RaidParityBdev* raid;
    Band* band;
    uint32_t member;  // nobody: one that has left
    uint32_t role;
    nvme::Status status;
  };
  static Answer take_answer(Io* child);
  // What a request to one that has left says is not about who has its seat now.
  uint32_t asked_member(const ChildIo& child) const {
    return child.attachment == attachments_[child.member] ? child.member : ParitySeats::nobody;
  }

  // raid_parity_read.cc
  void start_read_band(Band* band);
  void read_strip(Band* band);
  bool lock_for_read(Band* band, bool exclusive, void (*granted)(RangeEntry*));
  static void read_child_done(Io* child);
  void recover(Band* band);
  static void read_granted(RangeEntry* entry);
  void recover_part(Band* band);
  static void recover_child_done(Io* child);
  void recovered_part(Band* band);
  static void repair_child_done(Io* child);
  void part_ended(Band* band);
  const ParityCodec::Recovery* recovery_for(uint32_t present, uint32_t wanted);
  nvme::Status why_unrecoverable() const;

  // parity_log.cc
  enum class Logged : uint8_t { anything, zeroes };
  bool log_has(const ParityBand& band, Logged what) const;
  bool slot_free() const;
  Task<bool> blank_log(uint32_t member);
  struct FoundRecord;
  Task<nvme::Status> read_slot(uint32_t member, uint32_t index, uint8_t* slot, bool* readable);
  Task<nvme::Status> replay();
  Task<bool> complete(FoundRecord& record);
  using FoundRecords = std::map<uint64_t, FoundRecord>;  // by sequence
  bool superseded(const FoundRecord& record, const FoundRecords& found, uint64_t stripe, uint32_t role,
                  uint32_t column);
  struct ReplayedPiece;
  void replayed_pieces(const FoundRecord& record, const FoundRecords& found, uint64_t stripe, uint32_t role,
                       uint8_t* strip, std::vector<ReplayedPiece>* pieces);
  Task<nvme::Status> replay_record(FoundRecord& record, const FoundRecords& found);
  Task<nvme::Status> replay_zeroes(const FoundRecord& record, const FoundRecords& found);
  Task<nvme::Status> replay_pieces(uint64_t stripe, const std::vector<ReplayedPiece>& pieces);

  // raid_parity_keeper.cc: everything durable about the set is written by one coroutine at a time.
  void kick_keeper();
  FramedSpawn keep();
  FramedTask<bool> keep_once();
  uint32_t succeeded(const Fan& fan, uint32_t members);
  FramedTask<uint32_t> write_superblocks(uint32_t members);  // those that have it
  Task<void> shrink();
  Task<void> join();
  void no_longer_joining(uint32_t members);
  enum class Flush : uint8_t { when_wanted, always };
  FramedTask<bool> checkpoint(Flush flush);
  FramedTask<void> set_clean(bool clean);
  void arm_rest();
  static void rested(Work* timer);
  void wake_all();
  void wake_tasks();
  void wake_background();

  // raid_parity_away.cc
  void note_failed(uint32_t seat);
  void mark_leaving(uint32_t leaving);
  void describe_away();
  FramedTask<void> write_missed();
  Task<void> enrol();
  Task<void> sweep();
  bool is_who_left(uint32_t seat, const parity::Superblock& found) const;
  Task<void> recognize(const Rebuild& rebuild);
  Task<bool> begin_marked(uint64_t stripe);
  void adopt_away(const std::vector<const parity::Superblock*>& set_members, uint32_t missing, bool clean);
  void adopt_twin(uint32_t place, uint64_t stay);
  void inherit_place(uint32_t place, uint64_t stay);
  void resume_rebuilds(const std::vector<Handle>& returning, Handle twin);
  // Who is counted on when it comes back, and gets nothing now.
  uint32_t absent() const { return counted_ & ~(joining_ & ~failed_); }

  // raid_parity_grow.cc
  Task<void> carry_out_growth();
  Outcome may_grow() const;
  Task<Outcome> zero_behind(uint64_t strip_count);
  Task<Outcome> lengthen(const Growth& growth);

  // raid_parity_members.cc
  void member_failed(uint32_t member, nvme::Status status);
  Outcome check_device(const Handle& device) const;
  void begin_rebuild(uint32_t member, Handle device);
  Task<void> rebuild(uint32_t member);
  bool rebuild_goes_on(const Rebuild& rebuild) const;
  void begin_counting(Rebuild& rebuild);
  bool next_band(Rebuild& rebuild, ParityBand* band) const;
  void band_rebuilt(Rebuild& rebuild, const ParityBand& band);
  void region_rebuilt(Rebuild& rebuild, const ParityBand& band);
  uint32_t rebuild_worker_count() const;
  Task<void> rebuild_bands(Rebuild& rebuild);
  Task<nvme::Status> rebuild_band(const Rebuild& rebuild, ParityBand band, Workspace& workspace);
  void suspect_from(uint64_t stripe);
  void start_resync();
  Task<void> resync();
  void settled(uint64_t stripe);
  void settle_and_read(Band* band);
  bool settle_later(uint64_t epoch_before) const;
  Task<void> settle_waiting();
  Task<bool> settle_stripe(uint64_t stripe, Workspace& workspace);
  // More members than data strips: parity can be compared with something.
  bool redundant(uint32_t members) const { return static_cast<uint32_t>(std::popcount(members)) > layout_.data_count; }
  Task<nvme::Status> check_band(ParityBand band, bool rewrite, Workspace& workspace, bool* differed);
  Task<nvme::Status> check_locked(ParityBand band, bool rewrite, Workspace& workspace, bool* differed);

  // raid_parity_scrub.cc
  Outcome begin_scrub(const ScrubOptions& options);
  bool scrub_goes_on() const;
  Task<void> run_scrub(ScrubOptions options);
  Task<bool> scrub_band(Scrubbing& work, ParityBand band);
  void find_wrong(Scrubbing& work, const ParityBand& band, uint32_t unreadable);
  void recover_row(const ParityCodec::Recovery& recovery, const Workspace& space, uint32_t column, uint8_t* out) const;
  uint32_t odd_one_out(Scrubbing& work, uint32_t column);
  Task<bool> repair_rows(Scrubbing& work, ParityBand band);
  struct Rewritten {
    uint32_t first_column;  // of what is in the workspace
    uint32_t roles;
  };
  Task<bool> rewrite(Scrubbing& work, ParityBand band, Rewritten which);
  Task<bool> rewrite_now(Scrubbing& work, ParityBand band, Rewritten which);

  bool mirrors() const { return layout_.data_count == 1; }
  bool logs_all() const { return driven_ && !bugs_.whole_without_record; }
  // Those that get what is written.
  uint32_t receiving() const { return (in_sync_ | (joining_ & ~arriving_)) & ~failed_; }
  bool usable(uint32_t member) const { return ((in_sync_ & ~failed_) >> member & 1) != 0; }
  // Those that the record may name: a twin's joining swap may have been made.
  uint32_t set() const { return in_sync_ | second_; }
  // Those that have failed and need nobody's word, or have it.
  uint32_t may_leave() const {
    const uint32_t held = driven_ && !bugs_.leave_unasked ? set() & ~released_ : 0;
    return failed_ & (in_sync_ | joining_) & ~held;
  }
  // A member that has failed is still of the recorded set.
  bool broken() const { return ((in_sync_ | copied_) & failed_) != 0; }
  // Whether parity of this stripe may be wrong.
  bool suspect(uint64_t stripe) const { return stripe >= resync_stripe_ && (settled_.empty() || !settled_[stripe]); }
  uint64_t strip_bands() const { return (layout_.strip_blocks + columns_max_ - 1) / columns_max_; }
  uint64_t page_factor() const { return parity::page_bytes / layout_.block_bytes; }

  RaidParityEvents events_;
  parity::Superblock superblock_{};  // as it was written last, but for `member`
  uint64_t epoch_of_all_ = 0;        // the newest one that all of its set say, durably
  ParityLayout layout_;
  ParityCodec codec_;
  Duration rest_ = milliseconds(500);
  RaidPlantedBugs bugs_;
  uint32_t columns_max_ = 0;
  uint32_t full_columns_max_ = 0;
  ParitySeats seats_;
  std::vector<Handle> members_;  // by seat; empty when missing
  // Bits are seats.
  uint32_t in_sync_ = 0;  // of the recorded set
  uint32_t second_ = 0;   // of copied_: the twin, that is equal, of a member of in_sync_
  uint32_t failed_ = 0;   // of in_sync_ or joining_: broken, will leave
  uint32_t joining_ = 0;  // receives all writes, is being rebuilt
  uint32_t arriving_ =
      0;  // of joining_: gets nothing yet, nor has it a place for good; what it lacks is being found out
  uint32_t logging_ = 0;  // of joining_: its log is blank and gets records
  uint32_t copied_ = 0;   // of joining_: equal; flushes count it, and the set that holds it may be on disk
  // Not driven (raid_parity_away.cc):
  uint32_t counted_ = 0;     // not of the set, and what they lack is marked
  uint32_t known_ = 0;       // of joining_: it is decided what they lack
  uint32_t want_enrol_ = 0;  // of joining_: new ones, of which the superblocks do not tell
  bool want_missed_ = false;
  bool want_sweep_ = false;
  bool exchanged_ = false;  // superblocks may say that the place is the twin's
  std::array<uint64_t, ParitySeats::seat_count_max> stays_{};
  std::array<uint8_t, ParitySeats::seat_count_max> good_slots_{};  // where the last superblock is
  ParityMarks missed_;
  std::vector<uint64_t> rebuilt_blocks_;
  std::vector<uint64_t> to_rebuild_blocks_;
  uint32_t delta_ = 0;                      // of joining_: gets what is marked
  std::vector<const Bdev*> arriving_from_;  // devices whose rebuild may look at them yet
  std::vector<uint32_t> attachments_;       // by member: which one has the seat, of those that have come to it
  uint64_t resync_stripe_ = 0;              // parity is right before it
  bool resync_runs_ = false;
  uint64_t resync_next_ = 0;  // the stripe that it looks at next
  // After an unclean end, or when the resync had to leave a stripe as it is: stripes from resync_stripe_ on whose
  // parity is right. How many coroutines make others so.
  std::vector<bool> settled_;
  uint32_t settler_count_ = 0;
  bool driven_ = false;
  // Driven: members that were given their places while writes were under way, and until those have ended; how many
  // those are, and the number of the last of them.
  uint32_t handed_ = 0;
  uint64_t handed_write_count_ = 0;
  uint64_t handed_until_ = 0;
  uint32_t released_ = 0;  // driven: of in_sync_ or joining_, and of failed_: the orchestrator has let them go
  bool offline_ = false;   // more than m members are gone, or it was fenced
  bool keeper_runs_ = false;
  bool closing_ = false;
  bool may_write_ = false;  // `not clean` is on the disks of the set
  bool want_checkpoint_ = false;
  bool want_flush_ = false;  // with the checkpoint, though it may find no record that is done with
  uint64_t woken_at_flush_ = 0;
  bool want_dirty_ = false;
  bool want_clean_ = false;
  uint32_t want_join_ = 0;  // members whose rebuild has ended
  bool grows_ = false;
  Growth* growth_ = nullptr;  // that is wanted
  uint64_t write_count_ = 0;  // bands being written
  uint64_t activity_ = 0;     // grows with every write
  uint64_t next_sequence_ = 1;
  uint64_t durable_tail_ = 1;  // records before it are done with, durably
  std::vector<LogSlot> slots_;
  UnflushedMap unflushed_;
  // Driven. Durable on all of the set, but for members that have failed; in stripes.
  RegionMap marks_{1, RegionMap::RegionSize{1}};
  std::vector<StripeRange> stripes_to_mark_;
  bool tracked_ = false;  // somebody is away that can come back by marks
  Pace resync_pace_{home()};
  Pace scrub_pace_{home()};
  ScrubInfo scrub_info_;
  bool scrub_runs_ = false;  // also one that was stopped, until it has ended
  RaidParityStats parity_stats_;
  RangeLock locks_;
  Gate gate_;
  RequestPhases phases_;
  std::unique_ptr<Pool<Op>> ops_;
  std::unique_ptr<Pool<Band>> bands_;
  ChildIoPool children_{child_io_count_max};
  std::unique_ptr<Lists> lists_;
  FrameMemory frames_;
};

}  // namespace basalt::bdev
