// SPDX-License-Identifier: Apache-2.0
// For the tests of leg: members in memory whose answers the test scripts, with a volatile cache that can be lost, on a
// simulated node in virtual time; and a fixture around one leg over them.
#pragma once

#include <algorithm>
#include <functional>
#include <map>
#include <set>

#include "bdev/leg/leg.h"
#include "bdev/testing/sim_fixture.h"

namespace basalt::bdev {

inline constexpr uint64_t test_blocks = 256;
inline constexpr uint32_t block_bytes = 4096;

// A replica as the controller sees it. Requests take effect when they are answered.
class ScriptedMember final : public Bdev {
 public:
  ScriptedMember(Reactor& home, const std::string& name, bool tail = false) : Bdev(home) {
    info_.name = name;
    info_.product = "scripted";
    info_.block_size_bytes = block_bytes;
    info_.count_blocks = test_blocks + (tail ? leg_tail::tail_bytes / block_bytes : 0);
    info_.volatile_cache = true;
    contents.resize(info_.count_blocks * block_bytes);
  }

  void submit(Io* io) override {
    const Instant sent = home().now();
    submitted_count++;
    const bool held_back = hold && io->offset_blocks >= hold_from_block;
    if ((held_back && (!hold_writes_only || io->type != IoType::read)) ||
        (hold_reads_only && io->type == IoType::read) || (holds && holds(*io))) {
      held_since_[io] = sent;
      return held.push_back(io);
    }
    answer(io, sent);
  }
  Task<Outcome> close() override { co_return success(); }
  Instant last_success_sent() const override { return last_success_; }

  void release() {
    hold = hold_reads_only = false;
    holds = nullptr;
    while (Io* io = held.pop_front())
      answer(io, held_since_[io]);
  }
  void release_first() {
    if (Io* io = held.pop_front()) answer(io, held_since_[io]);
  }
  void fail_held(nvme::Status with) {
    while (Io* io = held.pop_front())
      complete_later(io, with);
  }
  std::vector<uint8_t> block(uint64_t index) const {
    return {contents.begin() + static_cast<int64_t>(index * block_bytes),
            contents.begin() + static_cast<int64_t>((index + 1) * block_bytes)};
  }

  nvme::Status status = nvme::status::success;  // of everything
  nvme::Status flush_status = nvme::status::success;
  nvme::Status write_status = nvme::status::success;
  uint64_t bad_block = UINT64_MAX;
  bool hold = false;
  bool hold_writes_only = false;
  uint64_t hold_from_block = 0;
  bool hold_reads_only = false;
  std::function<bool(const Io& io)> holds;
  List<Io, &Io::node> held;
  std::vector<uint8_t> contents;
  uint64_t submitted_count = 0;
  uint64_t read_count = 0;
  uint64_t write_count = 0;  // of data
  uint64_t tail_write_count = 0;
  // Steps that the world still makes: a request that comes later is answered with a path error, and has no effect.
  uint64_t* steps_left = nullptr;
  // Told of each request that takes effect.
  std::function<void(const Io& io)> on_effect;

  // The process restarted, or the power went: what was not flushed is as it was where `lost` says so, and stays
  // elsewhere.
  void lose_cache(const std::function<bool(uint64_t block)>& lost = [](uint64_t) { return true; }) {
    for (const auto& [block, before] : unflushed_) {
      if (lost(block)) std::memcpy(contents.data() + block * block_bytes, before.data(), block_bytes);
    }
    unflushed_.clear();
  }
  bool flushed() const { return unflushed_.empty(); }
  void allow(IoTypes types) { info_.io_types = types; }
  // So many blocks of a leg have room now, with its tail.
  void grow(uint64_t leg_blocks) {
    contents.resize((leg_blocks + leg_tail::tail_bytes / block_bytes) * block_bytes);
    set_size(contents.size() / block_bytes);
  }
  // Contents that nobody wrote through a leg: an old life's.
  void fill(uint64_t block, uint8_t value, uint64_t count_blocks = 1) {
    std::memset(contents.data() + block * block_bytes, value, count_blocks * block_bytes);
    unflushed_.clear();
  }

 private:
  void answer(Io* io, Instant sent) {
    if (steps_left != nullptr && *steps_left == 0) return complete_later(io, nvme::status::host_path_error);
    nvme::Status result = status;
    if (io->type == IoType::flush && result.ok()) result = flush_status;
    if (!info_.io_types.has(io->type)) result = nvme::status::invalid_opcode;
    const bool covers_bad = io->offset_blocks <= bad_block && bad_block < io->offset_blocks + io->count_blocks;
    if (io->type == IoType::read && covers_bad) result = nvme::status::unrecovered_read_error;
    if (io->type == IoType::write && result.ok()) result = write_status;
    if (result.ok()) {
      if (steps_left != nullptr && io->type != IoType::read) --*steps_left;
      take_effect(io);
      last_success_ = std::max(last_success_, sent);
      if (on_effect) on_effect(*io);
    }
    complete_later(io, result);
  }
  void take_effect(Io* io) {
    uint8_t* at = contents.data() + io->offset_blocks * block_bytes;
    const size_t length_bytes = size_t{io->count_blocks} * block_bytes;
    switch (io->type) {
      case IoType::read:
        iovec_copy_in(io->iov, io->iov_count, at);
        read_count++;
        return;
      case IoType::flush:
        unflushed_.clear();
        return;
      case IoType::write:
        remember(*io);
        iovec_copy_out(io->iov, io->iov_count, at);
        break;
      case IoType::write_zeroes:
      case IoType::unmap:
        remember(*io);
        std::memset(at, 0, length_bytes);
        break;
    }
    if (bad_block >= io->offset_blocks && bad_block < io->offset_blocks + io->count_blocks) bad_block = UINT64_MAX;
    if (io->type == IoType::write) (io->offset_blocks < test_blocks ? write_count : tail_write_count)++;
  }
  // What the range held at the last flush, unless the write is stable at once.
  void remember(const Io& io) {
    for (uint64_t block = io.offset_blocks; block < io.offset_blocks + io.count_blocks; block++) {
      const uint8_t* at = contents.data() + block * block_bytes;
      if (io.fua) {
        unflushed_.erase(block);
      } else if (!unflushed_.contains(block)) {
        unflushed_.try_emplace(block, at, at + block_bytes);
      }
    }
  }
  std::map<uint64_t, std::vector<uint8_t>> unflushed_;  // what was there at the last flush
  std::map<const Io*, Instant> held_since_;
  Instant last_success_{0};
};

struct PendingIo {
  Io io;
  Iovec iov;
  std::vector<uint8_t> data;
  bool done = false;
};

class LegFixture : public ::testing::Test {
 protected:
  explicit LegFixture(bool tails = false)
      : a(fixture.reactor, "a", tails), b(fixture.reactor, "b", tails), c(fixture.reactor, "c", tails) {}

  void make(std::vector<ScriptedMember*> in_sync, bool all_dirty = false) {
    LegOptions options;
    options.name = "leg";
    options.epoch = 7;
    options.lease = milliseconds(300);
    options.all_dirty = all_dirty;
    std::vector<LegMember> handles;
    for (ScriptedMember* member : in_sync)
      handles.emplace_back(Handle(*member, fixture.reactor));
    make(options, std::move(handles));
  }
  void make(const LegOptions& options, std::vector<LegMember> members) {
    clean_count = 0;
    LegEvents events;
    events.member_failed = [this](const std::string& member, const std::string&) { failed.push_back(member); };
    events.member_copied = [this](const LegMemberInfo& member) {
      copied.push_back(member.name);
      last_copied = member;
    };
    events.joining_failed = [this](const std::string& member, const std::string&) { joining_failed.push_back(member); };
    events.fenced = [this] { fenced_count++; };
    events.clean = [this] { clean_count++; };
    auto made = LegBdev::create(fixture.reactor, options, std::move(members), std::move(events));
    ASSERT_TRUE(made.ok());
    leg = std::move(made).value();
  }
  // The controller is gone: nothing that it still had in flight takes effect.
  void die() {
    uint64_t none = 0;
    for (ScriptedMember* member : {&a, &b, &c})
      member->steps_left = &none;
    for (ScriptedMember* member : {&a, &b, &c})
      member->release();
    EXPECT_TRUE(fixture.run(leg->close()).ok());
    leg.reset();
    for (ScriptedMember* member : {&a, &b, &c}) {
      member->steps_left = nullptr;
      member->status = member->write_status = member->flush_status = nvme::status::success;
    }
    failed.clear();
    copied.clear();
    joining_failed.clear();
  }
  void TearDown() override {
    for (ScriptedMember* member : {&a, &b, &c}) {
      member->status = nvme::status::success;
      member->release();
    }
    if (leg == nullptr) return;
    EXPECT_TRUE(fixture.run(leg->close()).ok());
  }

  PendingIo& start(IoType type, uint64_t block, uint8_t value = 0, uint32_t count_blocks = 1) {
    pending.push_back(std::make_unique<PendingIo>());
    PendingIo& op = *pending.back();
    op.data.assign(size_t{count_blocks} * block_bytes, value);
    op.iov = {op.data.data(), op.data.size()};
    op.io.type = type;
    op.io.offset_blocks = block;
    op.io.count_blocks = count_blocks;
    op.io.iov = &op.iov;
    op.io.iov_count = 1;
    op.io.context = &op;
    op.io.done = [](Io* io) { static_cast<PendingIo*>(io->context)->done = true; };
    leg->submit(&op.io);
    return op;
  }
  bool ends(PendingIo& op, Duration limit = seconds(5)) {
    return fixture.run_until([&] { return op.done; }, limit);
  }
  void settle(Duration time = milliseconds(5)) { fixture.world.run_for(time); }

  SimFixture fixture;
  ScriptedMember a;
  ScriptedMember b;
  ScriptedMember c;
  std::unique_ptr<LegBdev> leg;
  std::vector<std::unique_ptr<PendingIo>> pending;
  std::vector<std::string> failed, copied, joining_failed;
  LegMemberInfo last_copied{};
  int fenced_count = 0;
  int clean_count = 0;
};

}  // namespace basalt::bdev
