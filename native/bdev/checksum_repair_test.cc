// SPDX-License-Identifier: Apache-2.0
// Goal: a mirror and a parity raid repair what a checksummed lvol below them finds damaged. Method: lvols on memory
// disks whose bytes are changed behind their backs.
#include <list>

#include "bdev/leg/leg.h"
#include "bdev/lvol/lvstore.h"
#include "bdev/malloc/malloc.h"
#include "bdev/raid/raid_parity.h"
#include "bdev/testing/sim_fixture.h"

namespace basalt::bdev {
namespace {

constexpr uint64_t disk_blocks = 8192;
constexpr uint64_t lvol_blocks = 1024;

struct Disk {
  std::unique_ptr<MallocBdev> bdev;
  std::unique_ptr<LvStore> store;
  Lvol* lvol = nullptr;
};

class ChecksumRepair : public ::testing::Test, protected SimFixture {
 protected:
  Disk& add_disk() {
    Disk& disk = disks_.emplace_back();
    const std::string name = "d" + std::to_string(disks_.size());
    auto bdev = MallocBdev::create(reactor, {name, {}, 4096, disk_blocks});
    disk.bdev = std::move(*bdev);
    LvStoreOptions options;
    options.name = name;
    options.cluster_bytes = lvs::cluster_bytes_min;
    auto store = run(LvStore::create(reactor, Handle(*disk.bdev, reactor), options));
    disk.store = std::move(*store);
    LvolOptions lvol_options{.name = name, .uuid = {}, .size_bytes = lvol_blocks * 4096, .checksums = true};
    auto lvol = run(disk.store->create_lvol(lvol_options));
    disk.lvol = *lvol;
    return disk;
  }
  // One byte of each block below that is full of this.
  size_t damage(Disk& disk, uint8_t fill) {
    size_t count = 0;
    const std::vector<uint8_t> whole(4096, fill);
    for (uint64_t block = 0; block < disk_blocks; block++) {
      std::vector<uint8_t> data = read(*disk.bdev, block, 1);
      if (data != whole) continue;
      data[100] ^= 4;
      EXPECT_TRUE(write(*disk.bdev, block, data).ok());
      count++;
    }
    return count;
  }
  void TearDown() override {
    if (top_ != nullptr) {
      EXPECT_TRUE(run(top_->close()).ok());
      top_.reset();
    }
    for (Disk& disk : disks_) {
      EXPECT_TRUE(run(disk.store->close()).ok());
      disk.store.reset();
      EXPECT_TRUE(run(disk.bdev->close()).ok());
    }
  }
  LegBdev& make_mirror() {
    std::vector<LegMember> members;
    for (int i = 0; i < 2; i++)
      members.emplace_back(Handle(*add_disk().lvol, reactor));
    LegOptions options;
    options.name = "leg";
    options.epoch = 1;
    auto made = LegBdev::create(reactor, options, std::move(members), {});
    LegBdev& leg = **made;
    top_ = std::move(*made);
    return leg;
  }
  RaidParityBdev& make_raid(uint32_t parity_count) {
    std::vector<Handle> members;
    for (uint32_t i = 0; i < 2 + parity_count; i++)
      members.emplace_back(*add_disk().lvol, reactor);
    RaidParityOptions options;
    options.name = "raid";
    options.parity_count = parity_count;
    options.strip_bytes = 16 << 10;
    auto made = run(RaidParityBdev::create(reactor, options, std::move(members), {}));
    RaidParityBdev& raid = **made;
    top_ = std::move(*made);
    return raid;
  }
  std::vector<uint8_t> filled(uint8_t fill, uint32_t blocks = 1) {
    return std::vector<uint8_t>(size_t{blocks} * 4096, fill);
  }
  bool readable(Disk& disk, uint64_t block) {
    std::vector<uint8_t> data(4096);
    return io(*disk.lvol, IoType::read, block, 1, data.data()).ok();
  }

  std::list<Disk> disks_;
  std::unique_ptr<Bdev> top_;
};

TEST_F(ChecksumRepair, AMirrorAnswersWithTheOtherCopyAndRewritesTheDamagedOne) {
  LegBdev& leg = make_mirror();
  ASSERT_TRUE(write(leg, 10, filled(0x11, 20)).ok());
  ASSERT_TRUE(write(leg, 12, filled(0x22)).ok());
  ASSERT_GE(damage(disks_.front(), 0x22), 1u);
  ASSERT_FALSE(readable(disks_.front(), 12));
  for (int i = 0; i < 4; i++)  // whichever member is asked
    EXPECT_EQ(read(leg, 12, 1), filled(0x22));
  ASSERT_TRUE(run_until([&] { return leg.stats().repaired_blocks > 0; }));
  EXPECT_TRUE(run_until([&] { return readable(disks_.front(), 12); }));
  EXPECT_EQ(read(*disks_.front().lvol, 12, 1), filled(0x22));
}

TEST_F(ChecksumRepair, AScrubFindsAndRewritesADamagedCopyThatNobodyReads) {
  LegBdev& leg = make_mirror();
  ASSERT_TRUE(write(leg, 100, filled(0x22)).ok());
  ASSERT_GE(damage(disks_.back(), 0x22), 1u);
  auto found = run(disks_.back().store->scrub_lvol(disks_.back().lvol->name()));
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->bad_blocks, 1u);
  ScrubOptions options;
  options.repair = true;
  ASSERT_TRUE(leg.start_scrub(options).ok());
  ASSERT_TRUE(run_until([&] { return leg.scrub().state == ScrubState::finished; }));
  EXPECT_GT(leg.scrub().unreadable_blocks, 0u);
  EXPECT_EQ(leg.scrub().different_blocks, 0u);
  found = run(disks_.back().store->scrub_lvol(disks_.back().lvol->name()));
  ASSERT_TRUE(found.ok());
  EXPECT_EQ(found->bad_blocks, 0u);
  EXPECT_EQ(read(*disks_.back().lvol, 100, 1), filled(0x22));
}

TEST_F(ChecksumRepair, BothCopiesDamagedIsAnErrorAndNeverWrongData) {
  LegBdev& leg = make_mirror();
  ASSERT_TRUE(write(leg, 100, filled(0x22)).ok());
  damage(disks_.front(), 0x22);
  damage(disks_.back(), 0x22);
  std::vector<uint8_t> data(4096);
  EXPECT_TRUE(io(leg, IoType::read, 100, 1, data.data()).is(nvme::status::unrecovered_read_error));
  ASSERT_TRUE(write(leg, 100, filled(0x33)).ok());
  EXPECT_EQ(read(leg, 100, 1), filled(0x33));
}

TEST_F(ChecksumRepair, AParityRaidRebuildsADamagedBlockFromTheOthers) {
  RaidParityBdev& raid = make_raid(1);
  ASSERT_TRUE(write(raid, 0, filled(0x11, 64)).ok());
  ASSERT_TRUE(write(raid, 9, filled(0x22)).ok());
  size_t damaged = 0;
  for (Disk& disk : disks_)
    damaged += damage(disk, 0x22);
  ASSERT_GE(damaged, 1u);
  EXPECT_EQ(read(raid, 9, 1), filled(0x22));
  EXPECT_EQ(read(raid, 9, 1), filled(0x22));
}

// The block of one place stands in another one: whoever looked at parity alone could not tell which strip is wrong.
TEST_F(ChecksumRepair, AScrubOfAParityRaidMendsMisdirectedWritesThatNobodyReads) {
  for (uint32_t parity_count = 1; parity_count <= 2; parity_count++) {
    RaidParityBdev& raid = make_raid(parity_count);
    ASSERT_TRUE(write(raid, 0, filled(0x11, 64)).ok());
    for (uint8_t block = 0; block < 4; block++)
      ASSERT_TRUE(write(raid, block, filled(static_cast<uint8_t>(0x40 + block))).ok());
    Disk& disk = *std::next(disks_.begin(), raid.layout().member_of(0, 0));
    for (uint64_t block = 0; block < disk_blocks; block++) {
      if (read(*disk.bdev, block, 1) != filled(0x40)) continue;
      ASSERT_TRUE(write(*disk.bdev, block, filled(0x41)).ok());
    }
    const auto found = run(disk.store->scrub_lvol(disk.lvol->name()));
    ASSERT_TRUE(found.ok());
    ASSERT_EQ(found->bad_blocks, 1u);
    const auto scrubbed = run(raid.scrub({}));
    ASSERT_TRUE(scrubbed.ok());
    EXPECT_EQ(scrubbed->unreadable_blocks, 1u);
    EXPECT_EQ(scrubbed->different_blocks, 0u);
    EXPECT_EQ(scrubbed->repaired_blocks, 1u);
    const auto left = run(disk.store->scrub_lvol(disk.lvol->name()));
    ASSERT_TRUE(left.ok());
    EXPECT_EQ(left->bad_blocks, 0u);
    for (uint8_t block = 0; block < 4; block++)
      EXPECT_EQ(read(raid, block, 1), filled(static_cast<uint8_t>(0x40 + block)));
    TearDown();
    disks_.clear();
  }
}

}  // namespace
}  // namespace basalt::bdev
