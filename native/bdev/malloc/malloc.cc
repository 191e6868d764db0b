// SPDX-License-Identifier: Apache-2.0
#include "bdev/malloc/malloc.h"

#include <algorithm>
#include <cstring>

#include "bdev/geometry.h"

namespace basalt::bdev {
namespace {

// The beginning of a block that is not in the cache; the processor fetches the rest by itself while it is copied.
constexpr uint64_t fetch_bytes_max = 1024;
constexpr uint64_t cache_line_bytes = 64;

void fetch(char* at, uint64_t length_bytes, IoType type) {
  const char* end = at + std::min(length_bytes, fetch_bytes_max);
  if (type == IoType::read) {
    for (; at < end; at += cache_line_bytes)
      __builtin_prefetch(at, 0);
  } else {
    for (; at < end; at += cache_line_bytes)
      __builtin_prefetch(at, 1);
  }
}

}  // namespace

MallocBdev::MallocBdev(Reactor& home, uint64_t size_bytes) : Bdev(home), arena_(size_bytes + Arena::slab_bytes) {
  carry_out_event_.bdev = this;
  carry_out_event_.run = [](Work* work) { static_cast<Event*>(work)->bdev->carry_out_all(); };
}

Result<std::unique_ptr<MallocBdev>> MallocBdev::create(Reactor& home, const MallocOptions& options) {
  auto checked = check_geometry(options.block_size_bytes, options.count_blocks);
  if (!checked) return std::move(checked).error();
  const uint64_t size_bytes = options.block_size_bytes * options.count_blocks;
  std::unique_ptr<MallocBdev> bdev(new MallocBdev(home, size_bytes));
  bdev->data_ = static_cast<char*>(bdev->arena_.map(size_bytes));
  if (bdev->data_ == nullptr) {
    return Error{Errc::no_memory, options.name + ": no memory for " + std::to_string(size_bytes) + " bytes"};
  }
  bdev->info_.name = options.name;
  bdev->info_.product = "malloc";
  bdev->info_.uuid = options.uuid;
  bdev->info_.block_size_bytes = options.block_size_bytes;
  bdev->info_.count_blocks = options.count_blocks;
  return bdev;
}

void MallocBdev::submit(Io* io) {
  const nvme::Status checked = check(*io);
  if (!checked.ok()) return complete_later(io, checked);
  if (io->type != IoType::flush) fetch(place_of(*io), uint64_t{io->count_blocks} * info_.block_size_bytes, io->type);
  if (waiting_.empty()) home().defer(&carry_out_event_);
  waiting_.push_back(io);
}

void MallocBdev::carry_out_all() {
  // What done() submits again waits for its own turn in the queue.
  List<Io, &Io::node> now;
  now.splice_back(waiting_);
  while (Io* io = now.pop_front())
    carry_out(io);
}

void MallocBdev::carry_out(Io* io) {
  char* at = place_of(*io);
  switch (io->type) {
    case IoType::read:
      if (io->borrows) {
        io->lent = at;
      } else {
        iovec_copy_in(io->iov, io->iov_count, at);
      }
      break;
    case IoType::write:
      iovec_copy_out(io->iov, io->iov_count, at);
      break;
    case IoType::flush:
      break;
    case IoType::write_zeroes:
    case IoType::unmap:
      std::memset(at, 0, uint64_t{io->count_blocks} * info_.block_size_bytes);
      break;
  }
  complete_now(io, nvme::status::success);
}

Task<Outcome> MallocBdev::close() {
  co_await hop(home());  // what this turn has lent is in use until its end
  co_return success();
}

}  // namespace basalt::bdev
