// SPDX-License-Identifier: Apache-2.0
// Goal: a bdev that grows is followed by what stands on it, at once and without moving anything; a slot grows when
// told. Method: disks in memory that grow, under raid0 under slot; a byte array as the oracle.
#include "bdev/raid/raid0.h"
#include "bdev/slot/slot.h"
#include "bdev/testing/sim_fixture.h"

namespace basalt::bdev {
namespace {

constexpr uint32_t block_bytes = 4096;

class GrowingDisk final : public Bdev {
 public:
  GrowingDisk(Reactor& home, const std::string& name, uint64_t count_blocks) : Bdev(home) {
    info_.name = name;
    info_.product = "test";
    info_.block_size_bytes = block_bytes;
    grow(count_blocks);
  }
  void grow(uint64_t count_blocks) {
    bytes_.resize(count_blocks * block_bytes);
    set_size(count_blocks);
  }
  void submit(Io* io) override {
    const nvme::Status status = check(*io);
    uint8_t* at = bytes_.data() + io->offset_blocks * block_bytes;
    if (status.ok() && io->type == IoType::read) iovec_copy_in(io->iov, io->iov_count, at);
    if (status.ok() && io->type == IoType::write) iovec_copy_out(io->iov, io->iov_count, at);
    complete_later(io, status);
  }
  Task<Outcome> close() override { co_return success(); }

 private:
  std::vector<uint8_t> bytes_;
};

struct Counter final : SizeWatcher {
  int count = 0;
  uint64_t last_blocks = 0;
  bool leaves = false;
  void size_changed(Bdev& bdev) override {
    count++;
    last_blocks = bdev.count_blocks();
    if (leaves) bdev.unwatch_size(this);
  }
};

TEST(Size, WatchersHearOfANewSizeWhenItIsInForceAndMayLeaveMeanwhile) {
  SimFixture fixture;
  GrowingDisk disk(fixture.reactor, "disk", 8);
  Counter stays, leaves;
  leaves.leaves = true;
  disk.watch_size(&leaves);
  disk.watch_size(&stays);
  disk.grow(8);
  EXPECT_EQ(stays.count, 0) << "it is the same size";
  disk.grow(16);
  disk.grow(24);
  EXPECT_EQ(leaves.count, 1);
  EXPECT_EQ(leaves.last_blocks, 16u);
  EXPECT_EQ(stays.count, 2);
  EXPECT_EQ(stays.last_blocks, 24u);
  disk.unwatch_size(&stays);
}

TEST(Size, Raid0GrowsWithTheSmallestOfItsMembersAndMovesNothing) {
  SimFixture fixture;
  GrowingDisk a(fixture.reactor, "a", 9), b(fixture.reactor, "b", 8);
  Raid0Options options;
  options.name = "raid";
  options.strip_bytes = 4 * block_bytes;
  auto raid = std::move(
      Raid0Bdev::create(fixture.reactor, options, {Handle(a, fixture.reactor), Handle(b, fixture.reactor)}).value());
  Counter above;
  raid->watch_size(&above);
  ASSERT_EQ(raid->count_blocks(), 16u);
  std::vector<uint8_t> image;
  for (uint8_t block = 0; block < 16; block++)
    image.insert(image.end(), block_bytes, block + 1);
  ASSERT_TRUE(fixture.write(*raid, 0, image).ok());
  a.grow(20);
  EXPECT_EQ(above.count, 0) << "the other member has no more";
  EXPECT_EQ(fixture.io(*raid, IoType::read, 16, 1), nvme::status::lba_out_of_range.dnr());
  b.grow(18);
  EXPECT_EQ(raid->count_blocks(), 32u) << "whole strips only";
  EXPECT_EQ(above.count, 1);
  image.resize(size_t{32} * block_bytes);
  EXPECT_EQ(fixture.read(*raid, 0, 32), image);
  std::fill(image.begin() + 14 * block_bytes, image.begin() + 22 * block_bytes, 0xab);
  ASSERT_TRUE(fixture.write(*raid, 14, std::vector<uint8_t>(size_t{8} * block_bytes, 0xab)).ok());
  EXPECT_EQ(fixture.read(*raid, 0, 32), image);
  raid->unwatch_size(&above);
}

TEST(Size, AConcatGrowsWithItsLastMemberAndMovesNothing) {
  SimFixture fixture;
  std::vector<std::unique_ptr<GrowingDisk>> disks;
  std::vector<Handle> members;
  for (const uint64_t blocks : {10, 20, 30}) {
    disks.push_back(std::make_unique<GrowingDisk>(fixture.reactor, "d" + std::to_string(blocks), blocks));
    members.emplace_back(*disks.back(), fixture.reactor);
  }
  auto made = Raid0Bdev::create(fixture.reactor, {.name = "c", .uuid = {}, .concat = true}, members);
  ASSERT_TRUE(made.ok());
  Raid0Bdev& concat = **made;
  EXPECT_EQ(concat.info().product, "concat");
  EXPECT_EQ(concat.count_blocks(), 60u);
  std::vector<uint8_t> data(25 * block_bytes);
  for (size_t i = 0; i < data.size(); i++)
    data[i] = static_cast<uint8_t>(i / 512 + i);
  ASSERT_TRUE(fixture.write(concat, 8, data).ok()) << "over all three";
  EXPECT_EQ(fixture.read(*disks[1], 0, 20),
            std::vector<uint8_t>(data.begin() + 2 * block_bytes, data.begin() + 22 * block_bytes));
  disks[0]->grow(15);
  EXPECT_EQ(concat.count_blocks(), 60u) << "what follows would have to move";
  disks[2]->grow(40);
  EXPECT_EQ(concat.count_blocks(), 70u);
  EXPECT_EQ(fixture.read(concat, 8, 25), data);
  ASSERT_TRUE(fixture.write(concat, 65, std::vector<uint8_t>(5 * block_bytes, 7)).ok());
  EXPECT_EQ(fixture.read(*disks[2], 35, 5), std::vector<uint8_t>(5 * block_bytes, 7));
  ASSERT_TRUE(fixture.run(concat.close()).ok());
}

TEST(Size, ASlotGrowsWhenToldAndNoFurtherThanItsBacking) {
  SimFixture fixture;
  GrowingDisk disk(fixture.reactor, "disk", 16);
  SlotOptions options;
  options.name = "slot";
  options.count_blocks = 8;
  auto slot = std::move(SlotBdev::create(fixture.reactor, options).value());
  ASSERT_TRUE(fixture.run(slot->set(Handle(disk, fixture.reactor))).ok());
  EXPECT_EQ(slot->grow(17).error().code, Errc::invalid_argument);
  EXPECT_EQ(slot->grow(7).error().code, Errc::invalid_argument);
  EXPECT_EQ(slot->count_blocks(), 8u);
  EXPECT_TRUE(slot->grow(16).ok());
  EXPECT_EQ(fixture.read(*slot, 15, 1), std::vector<uint8_t>(block_bytes));
  ASSERT_TRUE(fixture.run(slot->set(Handle())).ok());
  EXPECT_TRUE(slot->grow(32).ok()) << "a standby's follows what the volume has become";
  EXPECT_EQ(fixture.run(slot->set(Handle(disk, fixture.reactor))).error().code, Errc::invalid_argument);
  EXPECT_TRUE(fixture.run(slot->close()).ok());
}

}  // namespace
}  // namespace basalt::bdev
