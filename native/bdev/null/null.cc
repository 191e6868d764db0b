// SPDX-License-Identifier: Apache-2.0
#include "bdev/null/null.h"

#include "bdev/geometry.h"

namespace basalt::bdev {

Result<std::unique_ptr<NullBdev>> NullBdev::create(Reactor& home, const NullOptions& options) {
  auto checked = check_geometry(options.block_size_bytes, options.count_blocks);
  if (!checked) return std::move(checked).error();
  std::unique_ptr<NullBdev> bdev(new NullBdev(home));
  bdev->info_.name = options.name;
  bdev->info_.product = "null";
  bdev->info_.uuid = options.uuid;
  bdev->info_.block_size_bytes = options.block_size_bytes;
  bdev->info_.count_blocks = options.count_blocks;
  return bdev;
}

void NullBdev::submit(Io* io) {
  const nvme::Status checked = check(*io);
  if (checked.ok() && io->type == IoType::read) iovec_zero(io->iov, io->iov_count);
  complete_later(io, checked);
}

Task<Outcome> NullBdev::close() {
  co_return success();
}

}  // namespace basalt::bdev
