// SPDX-License-Identifier: Apache-2.0
#include "bdev/bdev.h"

namespace basalt::bdev {

Task<Outcome> Bdev::set_attribute(std::string value) {
  (void)value;
  co_return Error{Errc::unsupported, info_.name + ": a " + info_.product + " bdev keeps no attribute"};
}

Task<Outcome> Bdev::snapshot(std::string name, std::function<bool()> may_begin) {
  (void)name;
  (void)may_begin;
  co_return Error{Errc::unsupported, info_.name + ": a " + info_.product + " bdev has no snapshots"};
}

Task<Outcome> Bdev::prepare_snapshot() {
  co_return Error{Errc::unsupported, info_.name + ": a " + info_.product + " bdev has no snapshots"};
}

void Bdev::set_size(uint64_t count_blocks) {
  if (count_blocks == info_.count_blocks) return;
  __atomic_store_n(&info_.count_blocks, count_blocks, __ATOMIC_RELEASE);
  for (SizeWatcher* watcher = size_watchers_.front(); watcher != nullptr;) {
    SizeWatcher* next = size_watchers_.next(watcher);  // it may leave meanwhile
    watcher->size_changed(*this);
    watcher = next;
  }
}

nvme::Status Bdev::check(const Io& io) {
  if (!info_.io_types.has(io.type)) return nvme::status::invalid_opcode.dnr();
  const auto type = static_cast<size_t>(io.type);
  if (io.type == IoType::flush) {
    stats_.count[type]++;
    return nvme::status::success;
  }
  if (io.count_blocks == 0) return nvme::status::invalid_field.dnr();
  if (io.offset_blocks >= info_.count_blocks || io.count_blocks > info_.count_blocks - io.offset_blocks) {
    return nvme::status::lba_out_of_range.dnr();
  }
  if (io.type == IoType::read || io.type == IoType::write) {
    const uint64_t length_bytes = uint64_t{io.count_blocks} * info_.block_size_bytes;
    if (length_bytes > io_bytes_max || io.iov_count > iov_count_max) return nvme::status::invalid_field.dnr();
    BASALT_ASSERT_SLOW(iovec_bytes(io.iov, io.iov_count) == length_bytes);
  }
  stats_.count[type]++;
  stats_.blocks[type] += io.count_blocks;
  return nvme::status::success;
}

}  // namespace basalt::bdev
