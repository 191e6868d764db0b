// SPDX-License-Identifier: Apache-2.0
// CutDisk: a disk in memory for tests of raids: completes in random order, fails on demand, has blocks that cannot be
// read, can hold requests back, and shares a power supply with others that is cut after so many writes and flushes.
// What was not flushed then may be lost, block by block.
#pragma once

#include <cstring>
#include <functional>
#include <map>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "bdev/bdev.h"

namespace basalt::bdev {

class CutDisk final : public Bdev {
 public:
  struct Power {
    uint64_t admitted = 0;  // writes and flushes that still get through
    bool cut = false;
  };
  static constexpr uint32_t block_bytes = 4096;

  CutDisk(Reactor& home, std::string name, uint64_t count_blocks)
      : CutDisk(home, std::move(name), std::vector<uint8_t>(count_blocks * block_bytes)) {}
  CutDisk(Reactor& home, std::string name, std::vector<uint8_t> contents) : Bdev(home), contents_(std::move(contents)) {
    info_.name = std::move(name);
    info_.product = "cut";
    info_.block_size_bytes = block_bytes;
    info_.count_blocks = contents_.size() / block_bytes;
    info_.volatile_cache = true;
  }

  void submit(Io* io) override {
    const nvme::Status checked = check(*io);
    if (!checked.ok()) return complete_later(io, checked);
    auto* request = new Request;
    request->disk = this;
    request->io = io;
    request->run = [](Work* work) { finish(static_cast<Request*>(work)); };
    random_ = random_ * 6364136223846793005u + 1442695040888963407u;
    home().arm_after(request, microseconds(static_cast<int64_t>(1 + (random_ >> 40) % 50)));
  }
  Task<Outcome> close() override { co_return success(); }

  std::vector<uint8_t>& contents() { return contents_; }
  // What is new was somebody else's.
  void grow(uint64_t count_blocks) {
    contents_.resize(count_blocks * block_bytes, 0xa5);
    set_size(count_blocks);
  }
  template <class Random>
  void lose_power(Random& random) {
    for (auto& [block, before] : unflushed_) {
      if (random() % 2 == 0) std::memcpy(&contents_[block * block_bytes], before.data(), block_bytes);
    }
    unflushed_.clear();
  }
  void keep_all() { unflushed_.clear(); }

  // Those that `holds` named come to their end now.
  void release() {
    holds = nullptr;
    for (Io* io : std::exchange(held_, {}))
      submit(io);
  }
  size_t held_count() const { return held_.size(); }

  std::function<bool(const Io&)> holds;  // requests that do not end until release()
  std::function<void(const Io&)> seen;
  bool fail_writes = false;
  std::set<uint64_t> bad_blocks;  // unreadable until they are written
  Power* power = nullptr;

 private:
  struct Request : Timer {
    CutDisk* disk = nullptr;
    Io* io = nullptr;
  };

  static void finish(Request* request) {
    CutDisk* disk = request->disk;
    Io* io = request->io;
    delete request;
    if (disk->seen) disk->seen(*io);
    if (disk->holds && disk->holds(*io)) return disk->held_.push_back(io);
    const bool changes = io->type != IoType::read;
    if (changes && disk->power != nullptr) {
      if (disk->power->admitted == 0) disk->power->cut = true;
      if (disk->power->cut) return complete_now(io, nvme::status::internal_path_error);
      disk->power->admitted--;
    }
    complete_now(io, disk->carry_out(*io));
  }

  nvme::Status carry_out(const Io& io) {
    const uint64_t end = io.offset_blocks + io.count_blocks;
    uint8_t* at = &contents_[io.offset_blocks * block_bytes];
    switch (io.type) {
      case IoType::flush:
        if (fail_writes) return nvme::status::write_fault;
        unflushed_.clear();
        return nvme::status::success;
      case IoType::read:
        for (uint64_t block = io.offset_blocks; block < end; block++) {
          if (bad_blocks.contains(block)) return nvme::status::unrecovered_read_error;
        }
        iovec_copy_in(io.iov, io.iov_count, at);
        return nvme::status::success;
      default:
        break;
    }
    if (fail_writes) return nvme::status::write_fault;
    for (uint64_t block = io.offset_blocks; block < end; block++) {
      bad_blocks.erase(block);
      if (io.fua) {
        unflushed_.erase(block);
      } else {
        unflushed_.try_emplace(block, &contents_[block * block_bytes], &contents_[block * block_bytes] + block_bytes);
      }
    }
    if (io.type == IoType::write) {
      iovec_copy_out(io.iov, io.iov_count, at);
    } else {
      std::memset(at, 0, size_t{io.count_blocks} * block_bytes);
    }
    return nvme::status::success;
  }

  std::vector<uint8_t> contents_;
  std::vector<Io*> held_;
  std::map<uint64_t, std::vector<uint8_t>> unflushed_;  // what was there at the last flush
  uint64_t random_ = 88172645463325252u;
};

template <class F>
void for_each_lost(uint32_t mask, F&& f) {
  for (; mask != 0; mask &= mask - 1)
    f(static_cast<uint32_t>(__builtin_ctz(mask)));
}

}  // namespace basalt::bdev
