// SPDX-License-Identifier: Apache-2.0
// Marks at rare events, so that a run of the simulator can tell which of them it has reached. A mark is a name of this
// list and one line at its place: `reach(Mark::gate_closed);`. Nothing counts unless a MarkTable is installed, which
// only tests do: without one a mark is a load and a branch, on paths that are rare.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace basalt {

// name, what happened. Alphabetical.
#define BASALT_MARKS(X)                                                                       \
  X(buffer_pool_empty, "a request waited for a buffer")                                       \
  X(checkpoint_during_io, "an lvstore wrote a checkpoint while requests were in flight")      \
  X(epoch_race_lost, "a would-be controller lost the race for an epoch")                      \
  X(fault_cache_lost, "a power cut lost what a disk had acknowledged and nobody had flushed") \
  X(fault_connection_cut, "a connection was cut with what was on its way")                    \
  X(fault_disk_failed, "a disk failed a request")                                             \
  X(fault_disk_full, "a disk had no space for a write")                                       \
  X(fault_disk_hung, "a disk did not answer")                                                 \
  X(fault_disk_slow, "a disk took its time")                                                  \
  X(fault_link_one_way, "bytes were held on their way while the other direction went")        \
  X(fault_link_partitioned, "bytes were held on their way, both ways")                        \
  X(fault_link_slow, "bytes took longer on their way than they usually do")                   \
  X(fault_packet_lost, "a packet was lost, and sent again")                                   \
  X(fault_peer_vanished, "a machine was gone and its peers were not told")                    \
  X(fault_sector_unreadable, "a sector could not be read")                                    \
  X(fault_write_elsewhere, "a disk put a write at another place and acknowledged it")         \
  X(fault_write_lost, "a disk acknowledged a write that it never made")                       \
  X(fault_write_torn, "of a write only a part was carried out")                               \
  X(fence_hit, "a replica refused a command of a lower epoch")                                \
  X(fenced, "a controller learned that its epoch is over")                                    \
  X(gate_closed, "a replica drained its old controller's commands for a new one")             \
  X(joining_member_failed, "a member failed while it was being copied or resynced")           \
  X(journal_wrapped, "an lvstore's journal began again at its start")                         \
  X(lease_refused_read, "a leg held back a read, because a lease had run out")                \
  X(leases_waited_out, "a takeover was incomplete, so the old read leases had to run out")    \
  X(lent_data_kept, "data that a bdev had lent was copied, because the socket was full")      \
  X(lost_member_swapped_out, "writes went on after the store had let a failed member go")     \
  X(member_lost_last, "every member of a leg had failed")                                     \
  X(old_copy_ended, "a host had the old copies of its changes ended before it resent them")   \
  X(parked_write, "a write waited for the removal of a failed member")                        \
  X(path_replay, "a host resent a request on another path")                                   \
  X(r2t_stalled, "a write waited for room before its data was asked for")                     \
  X(region_made_equal, "a dirty region was made equal before it was read")                    \
  X(reserve_exhausted, "an lvstore had no free cluster for a write")                          \
  X(resync_used, "a returning member was made equal by its marks instead of a full copy")     \
  X(scrub_rewrote, "a scrub rewrote blocks of a member")                                      \
  X(swap_outcome_unknown, "the store's answer to a swap was lost, and had to be found out")   \
  X(takeover_refused, "a takeover found that a higher epoch was there already")

enum class Mark : uint8_t {
#define BASALT_MARK_NAME(name, text) name,
  BASALT_MARKS(BASALT_MARK_NAME)
#undef BASALT_MARK_NAME
      count
};
constexpr size_t mark_count = static_cast<size_t>(Mark::count);
const char* mark_name(Mark mark);
const char* mark_text(Mark mark);

struct MarkTable {
  std::array<std::atomic<uint64_t>, mark_count> counts{};
  uint64_t count(Mark mark) const { return counts[static_cast<size_t>(mark)].load(std::memory_order_relaxed); }
};

// Any thread.
void reach(Mark mark);

// The whole process counts into `table` while this lives. One at a time.
class CountMarks {
 public:
  explicit CountMarks(MarkTable& table);
  ~CountMarks();
  static bool any();  // one lives
  CountMarks(const CountMarks&) = delete;
  CountMarks& operator=(const CountMarks&) = delete;
};

}  // namespace basalt
