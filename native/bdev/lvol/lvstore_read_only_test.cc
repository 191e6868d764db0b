// SPDX-License-Identifier: Apache-2.0
// Goal: what load() refuses is opened to be read as far as it can be read for sure, the rest answers an exact error,
// and nothing is written. Method: images that are cut short or damaged, and bases that take no writes.
#include "bdev/lvol/checksum_store_test_util.h"

namespace basalt::bdev {
namespace {

using namespace test;  // NOLINT
using Store = ChecksumStore;
using Image = std::vector<uint8_t>;

struct Opened {
  explicit Opened(Image image) : world(60), disk(world, std::move(image)) {}
  // Why it is refused; nothing: it is not.
  std::optional<Errc> load() {
    auto loaded = run(world, LvStore::load(world.reactor, disk.handle()));
    if (!loaded.ok()) return loaded.error().code;
    (void)run(world, (*loaded)->close()).ok();
    world.settle();
    return std::nullopt;
  }
  bool inspect() {
    auto read = run(world, LvStore::inspect(world.reactor, disk.handle()));
    if (read.ok()) store = std::move(*read);
    return store != nullptr;
  }
  nvme::Status read(const char* name, uint64_t block, uint8_t expected) {
    TestIo io;
    io.start(*store->find(name), IoType::read, block, 1);
    while (!io.ended)
      world.reactor.turn();
    if (io.io.status.ok()) {
      EXPECT_TRUE(all_are(io.data, expected)) << name << " " << block;
    }
    return io.io.status;
  }
  World world;
  CrashDisk disk;
  std::unique_ptr<LvStore> store;
};

TEST(ReadOnly, of_a_device_that_has_shrunk_what_is_left_can_be_read) {
  Image image;
  uint64_t written = 0;
  {
    Store s(61);
    Lvol& lvol = s.make("a", false, 16 << 20);
    while (do_io(s.world, lvol, IoType::write, written, 16, 0x11).ok())
      written += 16;
    image = s.disk.bytes_now();
  }
  image.resize(image.size() * 6 / 10);
  Opened opened(std::move(image));
  EXPECT_EQ(opened.load(), Errc::corrupt);
  ASSERT_TRUE(opened.inspect());
  ASSERT_TRUE(opened.store->refusal());
  EXPECT_NE(opened.store->refusal()->message.find("the store was made for"), std::string::npos);
  uint64_t right = 0;
  uint64_t gone = 0;
  for (uint64_t block = 0; block < written; block++) {
    const nvme::Status status = opened.read("a", block, 0x11);
    right += status.ok() ? 1 : 0;
    gone += status.is(nvme::status::unrecovered_read_error) ? 1 : 0;
  }
  EXPECT_EQ(right + gone, written);
  EXPECT_GT(right, 100u);
  EXPECT_GT(gone, 100u);
  EXPECT_EQ(opened.disk.write_count + opened.disk.flush_count, 0u);
}

TEST(ReadOnly, beside_damaged_checksums_what_has_none_can_be_read) {
  Image image;
  {
    Store s(62);
    ASSERT_TRUE(do_io(s.world, s.make("sure", true), IoType::write, 0, 4, 0x22).ok());
    ASSERT_TRUE(do_io(s.world, s.make("plain", false), IoType::write, 0, 4, 0x33).ok());
    image = s.disk.bytes_now();
  }
  for (const size_t at : checksum_superblocks(image))
    image[at + 70] ^= 1;
  Opened opened(std::move(image));
  EXPECT_EQ(opened.load(), Errc::corrupt);
  ASSERT_TRUE(opened.inspect());
  EXPECT_TRUE(opened.read("plain", 3, 0x33).ok());
  EXPECT_TRUE(opened.read("sure", 3, 0x22).is(nvme::status::unrecovered_read_error)) << "nobody can verify it";
  EXPECT_TRUE(opened.read("sure", 9, 0).ok()) << "never written";
  EXPECT_TRUE(do_io(opened.world, *opened.store->find("plain"), IoType::write, 0, 1, 1)
                  .is(nvme::status::namespace_write_protected));
  EXPECT_EQ(opened.disk.write_count + opened.disk.flush_count, 0u);
}

// Also a thin base that is full, in the middle of the checkpoint after loading: what was there stays.
TEST(ReadOnly, a_base_that_takes_no_writes_refuses_to_load_and_can_be_read) {
  Image image;
  {
    Store s(63);
    ASSERT_TRUE(do_io(s.world, s.make("a", true), IoType::write, 0, 4, 0x22).ok());
    ASSERT_TRUE(do_io(s.world, s.make("plain", false), IoType::write, 0, 4, 0x33).ok());
    image = s.disk.bytes_now();
  }
  for (const nvme::Status with : {nvme::status::capacity_exceeded, nvme::status::namespace_write_protected}) {
    for (uint64_t taken = 0; taken < 4; taken++) {
      Opened opened(image);
      uint64_t writes = 0;
      opened.disk.fault = [&](const Io& io) -> std::optional<nvme::Status> {
        if (io.type != IoType::write || writes++ < taken) return std::nullopt;
        return with;
      };
      const std::optional<Errc> refused = opened.load();
      if (!refused) break;  // it needs fewer writes than these
      EXPECT_EQ(refused, Errc::io);
      opened.world.settle();
      ASSERT_TRUE(opened.inspect()) << taken;
      EXPECT_TRUE(opened.read("a", 2, 0x22).ok()) << taken;
      EXPECT_TRUE(opened.read("plain", 2, 0x33).ok()) << taken;
      opened.disk.fault = {};
      Store again(64, opened.disk.bytes_now());
      ASSERT_NE(again.store, nullptr) << taken;
      EXPECT_TRUE(all_are(read_blocks(again.world, *again.store->find("a"), 0, 4), 0x22));
    }
  }
}

TEST(ReadOnly, one_unreadable_superblock_sector_takes_its_slot_and_no_more) {
  Image image;
  {
    Store s(65);
    ASSERT_TRUE(do_io(s.world, s.make("a", true), IoType::write, 0, 4, 0x22).ok());
    ASSERT_TRUE(run(s.world, s.store->close()).ok());
    s.world.settle();
    s.store.reset();
    image = s.disk.bytes_now();
  }
  const auto bad_slot = [](uint64_t slot) {
    const uint64_t sector = slot * lvs::superblock_stride_blocks * 8 + 3;
    return [sector](const Io& io) -> std::optional<nvme::Status> {
      const bool hit =
          io.type == IoType::read && io.offset_blocks <= sector && sector < io.offset_blocks + io.count_blocks;
      return hit ? std::optional<nvme::Status>(nvme::status::unrecovered_read_error) : std::nullopt;
    };
  };
  uint64_t loaded = 0;
  for (uint64_t slot = 0; slot < lvs::superblock_slot_count; slot++) {
    Store s(66, image, [&](CrashDisk& disk) { disk.fault = bad_slot(slot); });
    ASSERT_NE(s.store, nullptr) << "nothing was written under the newest one but itself";
    loaded++;
    EXPECT_TRUE(all_are(read_blocks(s.world, *s.store->find("a"), 0, 4), 0x22));
  }
  EXPECT_EQ(loaded, uint64_t{lvs::superblock_slot_count});
}

}  // namespace
}  // namespace basalt::bdev
