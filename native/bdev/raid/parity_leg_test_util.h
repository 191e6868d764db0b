// SPDX-License-Identifier: Apache-2.0
// For the tests of legs with parity: members in memory whose answers the test scripts, and one leg over them.
#pragma once

#include "bdev/leg/leg_test_util.h"
#include "bdev/raid/parity_leg.h"

namespace basalt::bdev {

inline constexpr uint64_t parity_leg_blocks = 64;

struct ParityLegRig {
  ParityLegRig(uint32_t data_count, uint32_t parity_count, uint32_t spare_count = 1) : k(data_count), m(parity_count) {
    for (uint32_t i = 0; i < k + m + spare_count; i++) {
      members.push_back(std::make_unique<ScriptedMember>(fixture.reactor, std::string(1, char('a' + i))));
      members.back()->grow(256);  // room for the log of a few slots
    }
  }
  ~ParityLegRig() {
    for (auto& member : members) {
      member->status = nvme::status::success;
      member->release();
    }
    if (leg == nullptr) return;
    EXPECT_TRUE(fixture.run(leg->close()).ok());
  }
  Handle handle(size_t index) { return Handle(*members[index], fixture.reactor); }
  ParityLegOptions options() const {
    ParityLegOptions made;
    made.name = "leg";
    made.identity = identity;
    made.origin = origin;
    made.epoch = 7;
    made.data_count = k;
    made.parity_count = m;
    made.count_blocks = leg_blocks;
    made.grown_blocks = grown_blocks;
    made.log_slot_count = 8;
    made.planted = planted;
    return made;
  }
  LegEvents events() {
    LegEvents made;
    made.member_failed = [this](const std::string& name, const std::string&) { failed.push_back(name); };
    made.member_copied = [this](const LegMemberInfo& info) { copied.push_back(info.name); };
    made.joining_failed = [this](const std::string& name, const std::string&) { joining_failed.push_back(name); };
    made.fenced = [this] { fenced_count++; };
    return made;
  }
  Outcome open(const std::vector<size_t>& in_sync) {
    std::vector<LegMember> set;
    for (const size_t index : in_sync)
      set.emplace_back(handle(index));
    auto opened = fixture.run(ParityLegBdev::open(fixture.reactor, options(), std::move(set), events()));
    if (!opened) return std::move(opened).error();
    leg = std::move(*opened);
    return success();
  }
  // The controller is gone: nothing that it still had in flight takes effect.
  void die() {
    uint64_t none = 0;
    for (auto& member : members)
      member->steps_left = &none;
    for (auto& member : members)
      member->release();
    EXPECT_TRUE(fixture.run(leg->close()).ok());
    leg.reset();
    for (auto& member : members) {
      member->steps_left = nullptr;
      member->status = member->write_status = member->flush_status = nvme::status::success;
    }
    failed.clear();
    copied.clear();
    joining_failed.clear();
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
  bool write(uint64_t block, uint8_t value, uint32_t count_blocks = 1) {
    PendingIo& op = start(IoType::write, block, value, count_blocks);
    return ends(op) && op.io.status.ok();
  }
  // -1: it was not answered with success, or is a mix.
  int read(uint64_t block) {
    PendingIo& op = start(IoType::read, block, 0xee);
    if (!ends(op) || !op.io.status.ok()) return -1;
    return all_zero_but(op.data, op.data[0]) ? op.data[0] : -1;
  }
  static bool all_zero_but(const std::vector<uint8_t>& data, uint8_t value) {
    return std::all_of(data.begin(), data.end(), [value](uint8_t byte) { return byte == value; });
  }
  void settle(Duration time = milliseconds(5)) { fixture.world.run_for(time); }

  SimFixture fixture;
  const uint32_t k;
  const uint32_t m;
  std::string identity = "volume/0";
  std::string origin;
  uint64_t leg_blocks = parity_leg_blocks;
  uint64_t grown_blocks = 0;
  ParityLegOptions::Planted planted;
  std::vector<std::unique_ptr<ScriptedMember>> members;
  std::unique_ptr<ParityLegBdev> leg;
  std::vector<std::unique_ptr<PendingIo>> pending;
  std::vector<std::string> failed, copied, joining_failed;
  int fenced_count = 0;
};

}  // namespace basalt::bdev
