// SPDX-License-Identifier: Apache-2.0
// Rig: a raid5 or raid6 over CutDisks on a simulated node, and what it should hold.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "bdev/raid/cut_disk_test_util.h"
#include "bdev/raid/raid_parity.h"
#include "bdev/testing/sim_fixture.h"

namespace basalt::bdev {

struct RaidRig {
  static constexpr uint32_t block_bytes = CutDisk::block_bytes;
  struct Geometry {
    uint32_t k;
    uint32_t m;
    uint64_t strip_bytes;
  };

  explicit RaidRig(const Geometry& geometry, uint64_t seed = 1, uint64_t member_blocks = 2048)
      : fixture(seed), geometry(geometry), random(seed) {
    for (uint32_t i = 0; i < geometry.k + geometry.m; i++)
      add_disk(member_blocks);
  }
  // The same disks in another life: what they hold is moved here, and the other one is over.
  RaidRig(RaidRig& before, uint64_t seed) : fixture(seed), geometry(before.geometry), random(seed) {
    for (const auto& disk : before.disks) {
      disks.push_back(std::make_unique<CutDisk>(fixture.reactor, disk->info().name, std::move(disk->contents())));
      disks.back()->bad_blocks = disk->bad_blocks;
    }
    mark_region_bytes = before.mark_region_bytes;
  }
  ~RaidRig() {
    if (raid == nullptr) return;
    EXPECT_TRUE(fixture.run(raid->close()).ok());
  }
  CutDisk& add_disk(uint64_t member_blocks) {
    disks.push_back(std::make_unique<CutDisk>(fixture.reactor, "d" + std::to_string(disks.size()), member_blocks));
    return *disks.back();
  }
  Handle handle(size_t index) { return Handle(*disks[index], fixture.reactor); }
  RaidParityEvents events() {
    RaidParityEvents e;
    e.member_failed = [this](const std::string& member, const std::string&) { failed.push_back(member); };
    e.member_rebuilt = [this](const std::string& member) { rebuilt.push_back(member); };
    e.member_exchanged = [this](const std::string& member, const std::string& old) {
      exchanged.push_back(member + " for " + old);
    };
    e.rebuild_failed = [this](const std::string& member, const std::string&) { rebuild_failures.push_back(member); };
    return e;
  }
  RaidParityOptions options() const {
    RaidParityOptions o;
    o.name = "r";
    o.parity_count = geometry.m;
    o.strip_bytes = geometry.strip_bytes;
    o.log_slot_count = 4;
    o.mark_region_bytes = mark_region_bytes;
    o.bugs = bugs;
    return o;
  }
  void create() {
    std::vector<Handle> members;
    for (size_t i = 0; i < geometry.k + geometry.m; i++)
      members.push_back(handle(i));
    auto made = fixture.run(RaidParityBdev::create(fixture.reactor, options(), members, events()));
    ASSERT_TRUE(made) << made.error().message;
    raid = std::move(*made);
    oracle.assign(raid->info().count_blocks * block_bytes, 0);
  }
  Result<std::unique_ptr<RaidParityBdev>> load(const std::vector<size_t>& indexes) {
    std::vector<Handle> members;
    for (const size_t index : indexes)
      members.push_back(handle(index));
    return fixture.run(RaidParityBdev::load(fixture.reactor, "r", members, events(), bugs));
  }
  // The power goes now: what was not flushed may be lost, of each disk and block by block. Nothing else happens here.
  void cut_power() {
    for (auto& disk : disks) {
      if (disk->power == nullptr) disk->power = &power;
      disk->power->cut = true;
      disk->lose_power(random);
    }
    close();
  }
  // Nothing else gets to the disks, and what got there stays.
  void kill() {
    for (auto& disk : disks) {
      if (disk->power == nullptr) disk->power = &power;
      disk->power->cut = true;
      disk->keep_all();
    }
    close();
  }
  void close() {
    ASSERT_TRUE(fixture.run(raid->close()).ok());
    raid.reset();
  }

  std::vector<uint8_t> fresh(size_t count_blocks) {
    std::vector<uint8_t> data(count_blocks * block_bytes);
    for (size_t at = 0; at < data.size(); at += 8) {
      const uint64_t value = random();
      std::memcpy(&data[at], &value, 8);
    }
    return data;
  }
  void write(uint64_t block, uint32_t count_blocks) {
    const auto data = fresh(count_blocks);
    const nvme::Status status = fixture.write(*raid, block, data);
    ASSERT_TRUE(status.ok()) << nvme::to_string(status);
    std::copy(data.begin(), data.end(), oracle.begin() + static_cast<int64_t>(block * block_bytes));
  }
  void zero(uint64_t block, uint32_t count_blocks, IoType type) {
    ASSERT_TRUE(fixture.io(*raid, type, block, count_blocks).ok());
    std::fill_n(oracle.begin() + static_cast<int64_t>(block * block_bytes), size_t{count_blocks} * block_bytes, 0);
  }
  void expect_all() {
    for (uint64_t block = 0; block < raid->info().count_blocks; block += 64) {
      const auto count = static_cast<uint32_t>(std::min<uint64_t>(64, raid->info().count_blocks - block));
      const auto data = fixture.read(*raid, block, count);
      ASSERT_TRUE(std::equal(data.begin(), data.end(), oracle.begin() + static_cast<int64_t>(block * block_bytes)))
          << "blocks from " << block;
    }
  }
  void random_step() {
    const uint64_t count_blocks = raid->info().count_blocks;
    const uint64_t block = random() % count_blocks;
    const auto count =
        static_cast<uint32_t>(1 + random() % std::min<uint64_t>(random() % 4 == 0 ? 200 : 12, count_blocks - block));
    switch (random() % 10) {
      case 0:
        return zero(block, count, IoType::write_zeroes);
      case 1:
        return zero(block, count, IoType::unmap);
      case 2:
        ASSERT_TRUE(fixture.io(*raid, IoType::flush, 0, 0).ok());
        return;
      case 3:
      case 4: {
        const auto data = fixture.read(*raid, block, count);
        ASSERT_TRUE(std::equal(data.begin(), data.end(), oracle.begin() + static_cast<int64_t>(block * block_bytes)))
            << "block " << block;
        return;
      }
      default:
        return write(block, count);
    }
  }
  void expect_clean_scrub() {
    ASSERT_TRUE(fixture.run_until([&] { return !raid->resyncing(); }));
    auto scrubbed = fixture.run(raid->scrub({.repair = false}));
    ASSERT_TRUE(scrubbed) << scrubbed.error().message;
    EXPECT_EQ(scrubbed->different_blocks, 0u);
    EXPECT_EQ(scrubbed->compared_blocks, raid->layout().count_blocks());
  }

  SimFixture fixture;
  const Geometry geometry;
  std::mt19937_64 random;
  std::vector<std::unique_ptr<CutDisk>> disks;
  std::unique_ptr<RaidParityBdev> raid;
  std::vector<uint8_t> oracle;
  RaidPlantedBugs bugs;
  uint64_t mark_region_bytes = parity::mark_region_bytes;
  std::vector<std::string> exchanged;
  CutDisk::Power power;
  std::vector<std::string> failed;
  std::vector<std::string> rebuilt;
  std::vector<std::string> rebuild_failures;
};

}  // namespace basalt::bdev
