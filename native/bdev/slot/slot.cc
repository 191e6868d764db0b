// SPDX-License-Identifier: Apache-2.0
#include "bdev/slot/slot.h"

#include "bdev/geometry.h"

namespace basalt::bdev {
namespace {
constexpr Duration drain_poll_interval = microseconds(200);
}

Result<std::unique_ptr<SlotBdev>> SlotBdev::create(Reactor& home, const SlotOptions& options) {
  auto checked = check_geometry(options.block_size_bytes, options.count_blocks);
  if (!checked) return std::move(checked).error();
  std::unique_ptr<SlotBdev> bdev(new SlotBdev(home));
  bdev->info_.name = options.name;
  bdev->info_.product = "slot";
  bdev->info_.uuid = options.uuid;
  bdev->info_.block_size_bytes = options.block_size_bytes;
  bdev->info_.count_blocks = options.count_blocks;
  bdev->info_.volatile_cache = true;
  return bdev;
}

void SlotBdev::submit(Io* io) {
  const nvme::Status checked = check(*io);
  if (!checked.ok()) return complete_later(io, checked);
  if (holding_) return held_.push_back(io);
  pass(io);
}

void SlotBdev::pass(Io* io) {
  if (!backing_) return complete_later(io, nvme::status::ana_inaccessible);
  ChildIo* child = children_.take();
  BASALT_ASSERT(child != nullptr);
  child->mirror(io, child_done, this);
  backing_.submit(child);
}

void SlotBdev::child_done(Io* io) {
  auto* slot = static_cast<SlotBdev*>(io->context);
  Io* parent = ChildIo::of(io)->parent;
  const nvme::Status status = io->status;
  slot->children_.give(ChildIo::of(io));
  complete_now(parent, status);
}

Task<bool> SlotBdev::drained(Instant deadline) {
  while (children_.in_use() > 0) {
    if (home().now() >= deadline) co_return false;
    co_await sleep_for(home(), drain_poll_interval);
  }
  co_return true;
}

Task<Outcome> SlotBdev::set(Handle backing) {
  if (backing) {
    const BdevInfo& below = backing.info();
    if (below.block_size_bytes != info_.block_size_bytes || below.count_blocks < info_.count_blocks) {
      co_return Error{Errc::invalid_argument, info_.name + ": " + below.name + " does not fit: needs " +
                                                  std::to_string(info_.count_blocks) + " blocks of " +
                                                  std::to_string(info_.block_size_bytes)};
    }
  }
  if (backing_) {
    // Hold what arrives while the old backing drains: it sees the new one, or none.
    holding_ = true;
    co_await drained(Instant::never());
  }
  backing_ = backing;
  release_held();
  co_return success();
}

Outcome SlotBdev::grow(uint64_t count_blocks) {
  auto checked = check_geometry(info_.block_size_bytes, count_blocks);
  if (!checked) return checked;
  if (count_blocks < info_.count_blocks) {
    return Error{Errc::invalid_argument, "num_blocks: " + info_.name + " has " + std::to_string(info_.count_blocks) +
                                             " blocks and does not shrink"};
  }
  if (backing_ && backing_.info().count_blocks < count_blocks) {
    return Error{Errc::invalid_argument, "num_blocks: " + backing_.info().name + " behind " + info_.name + " has " +
                                             std::to_string(backing_.info().count_blocks) + " blocks"};
  }
  set_size(count_blocks);
  return success();
}

Task<Outcome> SlotBdev::quiesce(Duration timeout) {
  holding_ = true;
  const bool done = co_await drained(home().now() + timeout);
  if (done) co_return success();
  release_held();
  co_return Error{Errc::timed_out, info_.name + ": requests are still in flight below"};
}

void SlotBdev::resume() {
  release_held();
}

void SlotBdev::release_held() {
  holding_ = false;
  List<Io, &Io::node> going;
  going.splice_back(held_);
  while (Io* io = going.pop_front())
    pass(io);
}

Task<Outcome> SlotBdev::close() {
  Outcome cleared = co_await set(Handle());
  co_return cleared;
}

}  // namespace basalt::bdev
