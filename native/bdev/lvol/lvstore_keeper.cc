// SPDX-License-Identifier: Apache-2.0
// The keeper: a task that runs while there is something to do. It zeroes what was freed and keeps a reserve of clusters
// whose use is already recorded durably, so that a first write waits for neither. space.h has the states.
#include <algorithm>

#include "base/probe.h"
#include "bdev/lvol/lvstore.h"

namespace basalt::bdev {
namespace {

constexpr uint64_t zero_run_bytes_max = uint64_t{64} << 20;

uint32_t reserve_target(uint32_t cluster_count) {
  return std::clamp<uint32_t>(cluster_count / 16, 32, 256);
}
static_assert(lvs::clusters_per_write_max <= 32);

}  // namespace

// Clusters for a first write: at once, later, or not at all because the store is full, or has failed: nobody fills its
// reserve any more, so who waited would wait for ever.
LvStore::Admission LvStore::admit(Op* op, uint32_t cluster_count, bool retried) {
  if (failed()) return Admission::refused;
  if (cluster_count > space_.free_count()) {
    reach(Mark::reserve_exhausted);
    return Admission::refused;
  }
  if (cluster_count <= space_.reserve_count() && (retried || space_waiters_.empty())) return Admission::granted;
  if (retried) {
    space_waiters_.push_front(op);
  } else {
    space_waiters_.push_back(op);
  }
  kick_keeper();
  return Admission::queued;
}

// To a coroutine that was refused one.
Error LvStore::no_cluster_for_it() const {
  if (failed()) return {Errc::io, name_ + ": the lvstore has failed or is closing"};
  return {Errc::no_space, name_ + ": is full"};
}

void LvStore::wake_space_waiters() {
  while (Op* op = space_waiters_.pop_front()) {
    if (op->io == nullptr) {
      retry_coroutine(op);
    } else {
      op->lvol->write_start(op, true);
    }
    if (op->space_node.linked()) return;
  }
}

// A read that began before a cluster was freed may still be on its way there.
FramedTask<void> LvStore::reads_passed() {
  const bool old_phase = read_phase_;
  read_phase_ = !old_phase;
  while (reads_in_flight_[old_phase] > 0)
    co_await reads_ended_.wait();
}

bool LvStore::reserve_low() const {
  return !space_waiters_.empty() || space_.reserve_count() < reserve_target(space_.cluster_count()) / 2;
}

void LvStore::kick_keeper() {
  if (keeping_ || closing_ || failed()) return;
  const bool reserves = reserve_low() && space_.clean_count() > 0;
  if (!reserves && space_.to_zero_count() == 0) return;
  keeping_ = true;
  background_count_++;
  keep_space();
}

FramedSpawn LvStore::keep_space() {
  // Later: the one who kicks may be in submit(), and must not see its Io completed there.
  co_await hop(reactor_);
  while (!failed() && (!closing_ || !space_waiters_.empty())) {
    bool worked = false;
    if (reserve_low() && space_.clean_count() > 0) {
      worked = co_await reserve_run();
    } else if (space_.to_zero_count() > 0) {
      worked = co_await zero_run();
    }
    wake_space_waiters();
    if (!worked) break;
  }
  wake_space_waiters();
  keeping_ = false;
  background_left();
}

// One request.
FramedTask<nvme::Status> LvStore::device_io(IoType type, uint64_t offset_blocks, uint64_t count_blocks,
                                            uint8_t* memory) {
  BASALT_ASSERT(count_blocks * device_.factor() <= UINT32_MAX);
  Io io;
  Iovec iov{memory, static_cast<size_t>(count_blocks * lvs::block_bytes)};
  device_.prepare(io, type, offset_blocks, count_blocks);
  if (memory != nullptr) {
    io.iov = &iov;
    io.iov_count = 1;
  }
  const nvme::Status status = co_await io_wait(device_.handle(), io);
  co_return status;
}

FramedTask<nvme::Status> LvStore::flush_device() {
  const nvme::Status status = co_await device_io(IoType::flush, 0, 0, nullptr);
  co_return status;
}

FramedTask<bool> LvStore::reserve_run() {
  const uint32_t target = reserve_target(space_.cluster_count());
  const uint32_t have = space_.reserve_count();
  const lvs::Space::Run run = space_.find_clean(have < target ? target - have : lvs::clusters_per_write_max);
  if (run.count == 0) co_return false;
  space_.hold_for_reserve(run);
  uint8_t bytes[16];
  const lvs::Record record{
      .type = lvs::RecordType::reserve, .cluster = run.first, .count = run.count, .uuid = {}, .text = {}};
  lvs::JournalEntry entry;
  entry.records = bytes;
  entry.length_bytes = lvs::encode_record(record, bytes);
  nvme::Status status = co_await lvs::journal_wait(journal_, entry);
  if (!status.ok()) co_return false;
  const uint64_t sequence = journal_.completed_sequence();
  if (!bugs_.reuse_early) {
    status = co_await flush_device();
    if (!status.ok()) fail();
    if (failed()) co_return false;
    journal_.flushed(sequence);
  }
  space_.add_reserve(run);
  co_return true;
}

FramedTask<bool> LvStore::zero_run() {
  const auto count_max = static_cast<uint32_t>(std::max<uint64_t>(1, zero_run_bytes_max / layout_.cluster_bytes));
  const lvs::Space::Run run = space_.find_to_zero(count_max);
  if (run.count == 0) co_return false;
  co_await reads_passed();
  // What freed the clusters has to be stable first: after a power cut, an lvol whose deletion was lost is whole.
  uint64_t sequence = journal_.completed_sequence();
  nvme::Status status = nvme::status::success;
  if (!journal_.all_stable() && !bugs_.reuse_early) status = co_await flush_device();
  if (status.ok() && !bugs_.reuse_early) journal_.flushed(sequence);
  if (status.ok() && !bugs_.log_outlives_cluster) status = co_await forget_checksums();
  if (status.ok() && !bugs_.reuse_unzeroed) {
    status = co_await device_io(IoType::write_zeroes, layout_.cluster_block(run.first),
                                uint64_t{run.count} * layout_.cluster_blocks(), nullptr);
  }
  sequence = journal_.completed_sequence();
  if (status.ok() && !bugs_.reuse_early) status = co_await flush_device();
  if (!status.ok()) fail();
  if (failed()) co_return false;
  if (!bugs_.reuse_early) journal_.flushed(sequence);
  uint8_t bytes[16];
  const lvs::Record record{
      .type = lvs::RecordType::clean, .cluster = run.first, .count = run.count, .uuid = {}, .text = {}};
  lvs::JournalEntry entry;
  entry.records = bytes;
  entry.length_bytes = lvs::encode_record(record, bytes);
  status = co_await lvs::journal_wait(journal_, entry);
  if (!status.ok()) co_return false;
  space_.zeroed(run);
  co_return true;
}

}  // namespace basalt::bdev
