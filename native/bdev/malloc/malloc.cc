// SPDX-License-Identifier: Apache-2.0
#include "bdev/malloc/malloc.h"

#include <cstring>

#include "bdev/geometry.h"

namespace basalt::bdev {

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
  char* at = data_ + io->offset_blocks * info_.block_size_bytes;
  switch (io->type) {
    case IoType::read:
      iovec_copy_in(io->iov, io->iov_count, at);
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
  complete_later(io, nvme::status::success);
}

Task<Outcome> MallocBdev::close() {
  co_return success();
}

}  // namespace basalt::bdev
