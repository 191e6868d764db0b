// SPDX-License-Identifier: Apache-2.0
// Tests of raids in power cuts: what each block may hold afterwards, a raid to begin with, and one that is found again
// on disks whose power was cut.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "bdev/raid/raid_rig_test_util.h"

namespace basalt::bdev {

// Superblocks, log, and some stripes more than are written.
inline constexpr uint64_t raid_cut_member_blocks = 112;
inline constexpr uint32_t raid_cut_stripes = 4;

// A write of blocks (`forced`: stable when it ends), or a flush when there are none.
struct RaidStep {
  uint64_t block = 0;
  uint32_t count_blocks = 0;
  bool forced = false;
};

// The contents that each block may have after a power cut: what was last stable, and what was written since.
class Expectation {
 public:
  explicit Expectation(uint32_t count_blocks) : allowed_(count_blocks), whole_(count_blocks) {}

  bool carry_out(RaidRig& rig, const RaidStep& step) {
    if (step.count_blocks == 0) {
      if (!rig.fixture.io(*rig.raid, IoType::flush, 0, 0).ok()) return false;
      for (uint32_t block = 0; block < allowed_.size(); block++)
        settle(block);
      return true;
    }
    auto data = rig.fresh(step.count_blocks);
    for (uint32_t i = 0; i < step.count_blocks; i++) {
      const auto* block = &data[size_t{i} * RaidRig::block_bytes];
      allowed_[step.block + i].emplace_back(block, block + RaidRig::block_bytes);
      const uint64_t stripe_blocks = rig.raid->layout().stripe_blocks();
      const uint64_t first = (step.block + i) / stripe_blocks * stripe_blocks;
      if (step.block <= first && step.block + step.count_blocks >= first + stripe_blocks) whole_[step.block + i] = true;
    }
    const nvme::Status status =
        rig.fixture.io(*rig.raid, IoType::write, step.block, step.count_blocks, data.data(), step.forced);
    if (!status.ok()) return false;
    for (uint32_t i = 0; step.forced && i < step.count_blocks; i++)
      settle(step.block + i);
    return true;
  }

  // What is wrong, or "".
  std::string judge(const std::vector<uint8_t>& found, bool member_lost) const {
    for (uint32_t block = 0; block < allowed_.size(); block++) {
      // Whole stripes pay for no record: what was not flushed of them may be lost with a member (docs/decisions/006).
      if (whole_[block] && member_lost) continue;
      const auto* data = &found[size_t{block} * RaidRig::block_bytes];
      const bool known = std::any_of(allowed_[block].begin(), allowed_[block].end(), [&](const auto& version) {
        return std::equal(version.begin(), version.end(), data);
      });
      if (!known) {
        return "block " + std::to_string(block) + " holds none of the " + std::to_string(allowed_[block].size()) +
               " contents that it may have";
      }
    }
    return "";
  }

 private:
  void settle(uint64_t block) {
    allowed_[block] = {allowed_[block].back()};
    whole_[block] = false;
  }
  std::vector<std::vector<std::vector<uint8_t>>> allowed_;
  std::vector<bool> whole_;  // written as part of a whole stripe, and not stable since
};

inline std::vector<size_t> members_but(uint32_t lost, size_t count) {
  std::vector<size_t> left;
  for (size_t i = 0; i < count; i++) {
    if ((lost >> i & 1) == 0) left.push_back(i);
  }
  return left;
}

// A raid whose first stripes are written, flushed, and known to be right.
struct Settled {
  Settled(const RaidRig::Geometry& geometry, uint64_t seed, const RaidPlantedBugs& bugs,
          uint64_t mark_region_bytes = parity::mark_region_bytes)
      : rig(geometry, seed, raid_cut_member_blocks) {
    rig.bugs = bugs;
    rig.mark_region_bytes = mark_region_bytes;
    rig.create();
    count_blocks = static_cast<uint32_t>(rig.raid->layout().stripe_blocks() * raid_cut_stripes);
    expected = Expectation(count_blocks);
    EXPECT_TRUE(carry_out({0, count_blocks}));
    EXPECT_TRUE(carry_out({}));
    EXPECT_TRUE(rig.fixture.run_until([&] { return !rig.raid->resyncing(); }));
  }
  bool carry_out(const RaidStep& step) { return expected.carry_out(rig, step); }

  RaidRig rig;
  uint32_t count_blocks = 0;
  Expectation expected{0};
};

// The disks of a rig whose power was cut, and the raid that is found on some of them.
struct Revived {
  Revived(RaidRig& before, uint64_t seed, const std::vector<size_t>& members) : rig(before, seed) {
    rig.bugs = before.bugs;
    auto loaded = rig.load(members);
    if (loaded) {
      rig.raid = std::move(*loaded);
    } else {
      refused = loaded.error().message;
    }
  }
  std::vector<uint8_t> read(uint32_t count_blocks) { return rig.fixture.read(*rig.raid, 0, count_blocks); }
  std::string judge(const Expectation& expected, uint32_t count_blocks, bool member_lost) {
    return refused.empty() ? expected.judge(read(count_blocks), member_lost) : refused;
  }

  RaidRig rig;
  std::string refused;
};

inline parity::Superblock newest_superblock(CutDisk& disk) {
  parity::Superblock s[2];
  for (size_t i = 0; i < 2; i++)
    std::memcpy(&s[i], disk.contents().data() + size_t{parity::superblock_pages[i]} * parity::page_bytes, sizeof(s[i]));
  return s[0].generation > s[1].generation ? s[0] : s[1];
}

}  // namespace basalt::bdev
