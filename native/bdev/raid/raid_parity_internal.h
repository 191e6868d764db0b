// SPDX-License-Identifier: Apache-2.0
// What the files of RaidParityBdev share: a request, its bands, the memory they work in, and awaiters of its
// coroutines.
#pragma once

#include <array>
#include <bit>
#include <coroutine>
#include <cstdlib>
#include <map>
#include <optional>

#include "base/countdown.h"
#include "bdev/member_failure.h"
#include "bdev/raid/raid_parity.h"

namespace basalt::bdev {

// One request from above.
struct RaidParityBdev::Op {
  RaidParityBdev* raid = nullptr;
  Io* io = nullptr;
  ParityBands bands;
  uint32_t band_count = 0;  // in flight
  bool all_started = false;
  bool starting = false;
  uint32_t missed = 0;      // flush: members that do not have it
  bool phase = false;       // of RequestPhases
  bool followed = false;    // flush: the map of what is unflushed follows it
  bool gives_back = false;  // zeroes, and all members take them without data
  nvme::Status status;
  ListNode node;
};

// Room for one band at a time: strips by role, and the header pages of its log records.
struct RaidParityBdev::Workspace {
  Workspace(const ParityLayout& layout, uint32_t columns_max);
  uint8_t* strip(uint32_t role) const { return strips[role]; }
  parity::RecordHeader* header(uint32_t parity) const { return &headers[parity]; }

  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<uint8_t, Free> memory;
  std::array<uint8_t*, ParityCodec::strip_count_max> strips{};
  // When all data is written: parity alone, larger pieces.
  std::array<uint8_t*, ParityCodec::parity_count_max> wide_parity{};
  parity::RecordHeader* headers = nullptr;
};

struct RaidParityBdev::Band {
  RaidParityBdev* raid = nullptr;
  Op* op = nullptr;
  ParityBand shape;
  RangeEntry range;
  bool locked = false;
  Workspace* workspace = nullptr;
  uint32_t waiting_count = 0;
  nvme::Status status;
  ListNode node;  // in one of Lists
  // Writing.
  enum class Method : uint8_t { plain, full, zeroes, modify, rebuild, recover } method = Method::plain;
  enum class Stage : uint8_t { prepare, in_place, written } stage = Stage::prepare;
  uint32_t sources = 0;     // roles that are read
  uint32_t unreadable = 0;  // roles that gave a read error
  uint32_t parities = 0;    // roles of parity that are written
  uint32_t got = 0;         // members that have it
  uint32_t missed = 0;      // members that do not
  uint64_t sequence = 0;    // of its log record; 0: none
  bool counted = false;     // in write_count_
  uint64_t number = 0;      // of those that were counted
  std::array<uint8_t*, ParityCodec::parity_count_max> parity{};
  // Reading what is not there: the part that is being recovered.
  uint32_t part_column = 0;
  uint32_t part_count = 0;
  bool repair = false;  // the strip gave a read error: rewrite it
  const ParityCodec::Recovery* recovery = nullptr;
  struct Later : Work {
    Band* band = nullptr;
  } later;
};

struct RaidParityBdev::LogSlot {
  uint64_t sequence = 0;
  StripeRange stripes;
  uint32_t column = 0;
  uint32_t column_count = 0;
  bool applied = true;
  bool zeroes = false;  // on all members, and not on those of the parity alone
};

// Memory of requests for one Fan at a time.
struct FanMemory {
  explicit FanMemory(size_t max)
      : count_max(max),
        ios(std::make_unique<Io[]>(max)),
        iovs(std::make_unique<Iovec[]>(max)),
        handles(std::make_unique<Handle[]>(max)) {}
  const size_t count_max;
  std::unique_ptr<Io[]> ios;
  std::unique_ptr<Iovec[]> iovs;
  std::unique_ptr<Handle[]> handles;
};

struct RaidParityBdev::Lists {
  explicit Lists(uint32_t seat_count)
      : flush_fan(seat_count),
        superblock_fan(seat_count),
        superblock_pages(static_cast<parity::Superblock*>(
            std::aligned_alloc(parity::page_bytes, seat_count * sizeof(parity::Superblock)))) {
    BASALT_ASSERT(superblock_pages != nullptr);
  }
  // The keeper's: it does one thing at a time.
  FanMemory flush_fan;
  FanMemory superblock_fan;
  std::unique_ptr<parity::Superblock, Workspace::Free> superblock_pages;
  static constexpr size_t workspace_count = 16;
  List<Band, &Band::node> workspace_waits;
  bool waking = false;
  List<Band, &Band::node> parked;  // for failed members to leave the set
  // For a log slot, for the log to forget what lies under a full write, or for a flush of one below a partial write.
  List<Band, &Band::node> checkpoint_waits;
  List<Band, &Band::node> settle_waits;   // reads of stripes whose parity may be wrong
  List<Band, &Band::node> settle_parked;  // those that a failed member has to leave the set for
  List<Band, &Band::node> dirty_waits;    // for `not clean` to be on disk
  List<Band, &Band::node> mark_waits;     // for the mark of what they write
  List<Op, &Op::node> parked_flushes;
  struct TaskWaiter {
    std::coroutine_handle<> coroutine;
    ListNode node;
  };
  List<TaskWaiter, &TaskWaiter::node> task_waits;  // of background tasks: for the log or the set to be another
  bool log_is_waited_for() const { return !checkpoint_waits.empty() || !task_waits.empty(); }
  std::vector<std::unique_ptr<Workspace>> workspaces;
  std::vector<Workspace*> free_workspaces;
  std::unique_ptr<uint8_t, Workspace::Free> zeroes;
  std::map<std::pair<uint32_t, uint32_t>, ParityCodec::Recovery> recoveries;
  struct RestTimer : Timer {
    RaidParityBdev* raid = nullptr;
    uint64_t activity = 0;
  } rest_timer;
};

// For requests to members.
class PageMemory {
 public:
  explicit PageMemory(uint64_t count = 1)
      : pages_(static_cast<uint8_t*>(std::aligned_alloc(parity::page_bytes, count * parity::page_bytes))) {
    BASALT_ASSERT(pages_ != nullptr);
  }
  uint8_t* page(uint64_t index) const { return pages_.get() + index * parity::page_bytes; }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<uint8_t, Free> pages_;
};

// co_await: several requests at once; resumes with the statuses in `ios` when all have ended.
class Fan {
 public:
  explicit Fan(size_t count_max, RequestPhases* phases = nullptr)
      : own_(std::in_place, count_max), memory_(*own_), phases_(phases) {}
  Fan(FanMemory& memory, RequestPhases* phases) : memory_(memory), phases_(phases) {}
  Fan(const Fan&) = delete;
  Fan& operator=(const Fan&) = delete;

  void add(const Handle& handle, IoType type, uint64_t offset_blocks, uint64_t count_blocks, void* data,
           bool fua = false) {
    BASALT_ASSERT(count_ < memory_.count_max);
    Io& io = memory_.ios[count_];
    io.iov = nullptr;
    io.iov_count = 0;
    io.status = {};
    io.type = type;
    io.fua = fua;
    io.offset_blocks = offset_blocks;
    io.count_blocks = static_cast<uint32_t>(count_blocks);
    if (data != nullptr) {
      memory_.iovs[count_] = {data, static_cast<size_t>(count_blocks) * handle.info().block_size_bytes};
      io.iov = &memory_.iovs[count_];
      io.iov_count = 1;
    }
    io.context = this;
    io.done = [](Io* done) {
      auto* fan = static_cast<Fan*>(done->context);
      if (--fan->waiting_count_ > 0) return;
      if (fan->phases_ != nullptr) fan->phases_->end(fan->phase_);
      fan->waiter_.resume();
    };
    memory_.handles[count_++] = handle;
  }
  size_t count() const { return count_; }
  nvme::Status status(size_t index) const { return memory_.ios[index].status; }

  bool await_ready() const noexcept { return count_ == 0; }
  void await_suspend(std::coroutine_handle<> waiter) {
    waiter_ = waiter;
    waiting_count_ = count_;
    if (phases_ != nullptr) phase_ = phases_->begin();
    for (size_t i = 0; i < count_; i++)
      memory_.handles[i].submit(&memory_.ios[i]);
  }
  void await_resume() const noexcept {}

 private:
  std::optional<FanMemory> own_;
  FanMemory& memory_;
  RequestPhases* const phases_;
  bool phase_ = false;
  size_t count_ = 0;
  size_t waiting_count_ = 0;
  std::coroutine_handle<> waiter_;
};

struct RaidParityBdev::Woken {
  RaidParityBdev& raid;
  Lists::TaskWaiter waiter{};
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> coroutine) {
    waiter.coroutine = coroutine;
    raid.lists_->task_waits.push_back(&waiter);
  }
  void await_resume() const noexcept {}
};

// co_await: a range of codewords, alone.
struct RaidParityBdev::RangeHeld {
  RaidParityBdev& raid;
  RangeEntry& entry;
  std::coroutine_handle<> coroutine;
  RangeHeld(RaidParityBdev& owner, RangeEntry& range) : raid(owner), entry(range) {}
  bool await_ready() const noexcept { return false; }
  bool await_suspend(std::coroutine_handle<> waiter) {
    coroutine = waiter;
    entry.exclusive = true;
    entry.context = this;
    entry.granted = [](RangeEntry* granted) { static_cast<RangeHeld*>(granted->context)->coroutine.resume(); };
    return !raid.locks_.acquire(&entry);
  }
  void await_resume() const noexcept {}
};

// Opening (raid_parity_open.cc).
namespace raid_open {

struct FoundSuperblock : parity::Superblock {
  uint8_t slot = 0;
  bool unsure = false;  // the other slot cannot be read, and may have held a newer one
};

// The newer valid superblock of a device. not_found: it has none; corrupt: only damaged ones, or nonsense; io: it
// cannot be read.
Task<Result<FoundSuperblock>> read_superblock(Handle device);
Outcome check_members(Reactor& home, const std::vector<Handle>& members);
std::string_view name_of(const parity::Superblock& superblock);
// In both each strip has its place.
bool same_geometry(const parity::Superblock& one, const parity::Superblock& other, bool of_one_size);
Result<parity::Superblock> geometry_of(const RaidParityOptions& options, const std::vector<Handle>& members);
// raid_parity_grow.cc. corrupt: they hold something else.
Outcome fit_size(const RaidParityOptions& options, std::vector<FoundSuperblock>& found);

// Which of the devices are what, as the newest superblock among them says.
struct Roles {
  const FoundSuperblock* newest = nullptr;
  std::vector<Handle> places;                                // of the set
  uint32_t seen = 0;                                         // of the set
  std::array<uint8_t, ParitySeats::seat_count_max> slots{};  // by place: where its superblock is
  uint32_t sure_count = 0;                                   // of those, that surely know no newer set
  std::vector<const parity::Superblock*> set_members;
  std::vector<Handle> returning;  // by place: not of the set, and what they lack is marked
  Handle twin;
  uint64_t log_tail = 1;
  bool clean = true;
};
struct TellOptions {
  bool driven = false;
  bool any_stay = false;
  bool accept_missing = false;
};
Result<Roles> tell_roles(const std::string& name, const std::vector<Handle>& members,
                         const std::vector<FoundSuperblock>& found, const TellOptions& options);

}  // namespace raid_open

// What a raid is put together from.
struct RaidParityBdev::Assembled {
  std::string name;
  std::vector<Handle> members;
  std::vector<raid_open::FoundSuperblock> found;  // theirs
  RaidPlantedBugs bugs;
  bool driven = false;
  bool accept_missing = false;
};

// What the workers of one rebuild share.
struct RaidParityBdev::Rebuild {
  uint32_t member;
  uint32_t attachment;                 // another one may have its seat by now
  std::optional<RegionMap> left;       // what it lacks; none: everything
  std::vector<uint64_t> bands_left{};  // not driven: that are not rebuilt yet, by region
  uint64_t unswept_blocks = 0;         // not driven
  uint64_t next_band = 0;              // of those that nobody has begun with
  uint64_t told_percent = 0;
  Countdown countdown{};
};

// Nobody else may drive these members: one that obeys another is lost, too.
inline bool raid_member_failed(nvme::Status status) {
  return is_member_failure(status) || status.is(nvme::status::reservation_conflict);
}

template <class F>
void for_each_bit(uint32_t mask, F&& f) {
  for (; mask != 0; mask &= mask - 1)
    f(static_cast<uint32_t>(std::countr_zero(mask)));
}

template <class F>
void RaidParityBdev::for_each_having(uint64_t stripe, uint32_t role, uint32_t members, F&& f) const {
  const uint32_t place = layout_.member_of(stripe, role);
  const uint32_t first = seats_.seat_of(place);
  if ((members >> first & 1) != 0) f(first);
  if (seats_.has_twin_at(place) && (members >> seats_.spare() & 1) != 0) f(seats_.spare());
}

}  // namespace basalt::bdev
