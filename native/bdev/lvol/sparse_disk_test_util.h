// SPDX-License-Identifier: Apache-2.0
// For tests of large stores: a disk of any size that keeps what is not zero in memory. No power cuts.
#pragma once

#include <array>
#include <unordered_map>

#include "bdev/lvol/crash_disk_test_util.h"

namespace basalt::bdev::test {

class SparseDisk final : public Bdev {
 public:
  SparseDisk(World& world, uint64_t size_bytes) : Bdev(world.reactor) {
    info_.name = "disk";
    info_.product = "test";
    info_.block_size_bytes = 4096;
    info_.count_blocks = size_bytes / 4096;
    info_.volatile_cache = true;
  }
  Handle handle() { return Handle(*this, home()); }
  Task<Outcome> close() override { co_return success(); }
  uint64_t blocks_read = 0;

  void submit(Io* io) override {
    const nvme::Status status = check(*io);
    if (status.ok() && io->type != IoType::flush) perform(*io);
    complete_later(io, status);
  }

 private:
  using Block = std::array<uint8_t, 4096>;
  void perform(Io& io) {
    std::vector<uint8_t> data(io.type == IoType::write ? size_t{io.count_blocks} * 4096 : 0);
    if (io.type == IoType::read) {
      data.resize(size_t{io.count_blocks} * 4096);
      blocks_read += io.count_blocks;
      for (uint32_t i = 0; i < io.count_blocks; i++) {
        const auto found = blocks_.find(io.offset_blocks + i);
        if (found != blocks_.end()) std::memcpy(data.data() + size_t{i} * 4096, found->second.data(), 4096);
      }
      iovec_copy_in(io.iov, io.iov_count, data.data());
    } else if (io.type == IoType::write) {
      iovec_copy_out(io.iov, io.iov_count, data.data());
      for (uint32_t i = 0; i < io.count_blocks; i++)
        std::memcpy(blocks_[io.offset_blocks + i].data(), data.data() + size_t{i} * 4096, 4096);
    } else if (io.count_blocks > blocks_.size()) {
      std::erase_if(blocks_, [&](const auto& entry) {
        return entry.first >= io.offset_blocks && entry.first - io.offset_blocks < io.count_blocks;
      });
    } else {
      for (uint32_t i = 0; i < io.count_blocks; i++)
        blocks_.erase(io.offset_blocks + i);
    }
  }
  std::unordered_map<uint64_t, Block> blocks_;
};

}  // namespace basalt::bdev::test
