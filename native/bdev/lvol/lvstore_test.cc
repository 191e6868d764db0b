// SPDX-License-Identifier: Apache-2.0
// The store's life: creation, names, lvols, attributes, space, errors of the base. Crashes: lvol_crash_test.cc.
#include "bdev/lvol/lvstore.h"

#include "bdev/lvol/crash_disk_test_util.h"

namespace basalt::bdev {
namespace {

using namespace test;  // NOLINT

constexpr uint64_t disk_bytes = 4 << 20;
constexpr uint32_t cluster_bytes = 64 << 10;
constexpr uint32_t cluster_blocks = cluster_bytes / 4096;

LvStoreOptions small_store() {
  return {.name = "pool", .uuid = {}, .cluster_bytes = cluster_bytes};
}

struct Fixture {
  explicit Fixture(uint64_t bytes = disk_bytes, uint32_t block_size_bytes = 512, uint64_t seed = 1)
      : world(seed), disk(world, bytes, block_size_bytes) {}
  ~Fixture() {
    if (store != nullptr) (void)close().ok();
    world.settle();
  }
  void create(LvStoreOptions options = small_store()) {
    auto made = run(world, LvStore::create(world.reactor, disk.handle(), options));
    ASSERT_TRUE(made.ok()) << made.error().message;
    store = std::move(*made);
  }
  Outcome load() {
    auto loaded = run(world, LvStore::load(world.reactor, disk.handle()));
    if (!loaded) return loaded.error();
    store = std::move(*loaded);
    return success();
  }
  Outcome close() {
    Outcome outcome = run(world, store->close());
    world.settle();
    store.reset();
    return outcome;
  }
  Lvol* lvol(const std::string& name, uint64_t size_bytes) {
    auto made = run(world, store->create_lvol({.name = name, .uuid = {}, .size_bytes = size_bytes}));
    EXPECT_TRUE(made.ok()) << made.error().message;
    return made.ok() ? *made : nullptr;
  }
  nvme::Status io(Bdev& bdev, IoType type, uint64_t offset = 0, uint32_t count = 0, uint8_t fill = 0,
                  bool fua = false) {
    return do_io(world, bdev, type, offset, count, fill, fua);
  }
  bool reads(Bdev& bdev, uint64_t offset, uint32_t count, uint8_t value) {
    return all_are(read_blocks(world, bdev, offset, count), value);
  }

  World world;
  CrashDisk disk;
  std::unique_ptr<LvStore> store;
};

TEST(LvStore, keeps_what_was_written_over_close_and_load) {
  for (uint32_t block_size_bytes : {512u, 4096u}) {
    Fixture f(disk_bytes, block_size_bytes);
    f.create();
    Lvol* lvol = f.lvol("a", 1 << 20);
    ASSERT_TRUE(f.io(*lvol, IoType::write, 3, 40, 0x5a).ok());
    EXPECT_TRUE(f.reads(*lvol, 3, 40, 0x5a));
    EXPECT_TRUE(f.reads(*lvol, 0, 3, 0));
    EXPECT_TRUE(f.reads(*lvol, 43, 200, 0));
    EXPECT_TRUE(f.close().ok());
    Outcome loaded = f.load();
    ASSERT_TRUE(loaded.ok()) << loaded.error().message;
    lvol = f.store->find("a");
    ASSERT_NE(lvol, nullptr);
    EXPECT_EQ(lvol->size_bytes(), 1u << 20);
    EXPECT_TRUE(f.reads(*lvol, 3, 40, 0x5a));
    EXPECT_TRUE(f.reads(*lvol, 0, 3, 0));
    EXPECT_TRUE(f.reads(*lvol, 43, 200, 0));
  }
}

TEST(LvStore, refuses_a_base_that_holds_something_unless_forced) {
  Fixture f;
  f.create();
  ASSERT_TRUE(f.close().ok());
  auto again = run(f.world, LvStore::create(f.world.reactor, f.disk.handle(), small_store()));
  ASSERT_FALSE(again.ok());
  EXPECT_EQ(again.error().code, Errc::exists);
  LvStoreOptions forced = small_store();
  forced.force = true;
  f.create(forced);
  ASSERT_TRUE(f.close().ok());

  Fixture foreign;
  foreign.disk.bytes_now()[70000] = 1;
  auto refused = run(foreign.world, LvStore::create(foreign.world.reactor, foreign.disk.handle(), small_store()));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Errc::exists);
  EXPECT_EQ(foreign.disk.write_count, 0u);
}

TEST(LvStore, refuses_wrong_names_sizes_and_duplicates_exactly) {
  Fixture f;
  f.create();
  const auto refusal = [&](LvolOptions options) {
    auto made = run(f.world, f.store->create_lvol(options));
    return made.ok() ? std::string("made") : errc_name(made.error().code);
  };
  const std::string invalid = errc_name(Errc::invalid_argument);
  const std::string exists = errc_name(Errc::exists);
  for (const std::string& name :
       {std::string(), std::string("-a"), std::string("a/b"), std::string(64, 'x'), std::string("a b")}) {
    EXPECT_EQ(refusal({.name = name, .uuid = {}, .size_bytes = 4096}), invalid) << name;
  }
  EXPECT_EQ(refusal({.name = "a", .uuid = {}, .size_bytes = 0}), invalid);
  EXPECT_EQ(refusal({.name = "a", .uuid = {}, .size_bytes = 4097}), invalid);
  Uuid uuid;
  uuid.bytes[0] = 7;
  EXPECT_EQ(refusal({.name = std::string(63, 'x'), .uuid = uuid, .size_bytes = 4096}), "made");
  EXPECT_EQ(refusal({.name = std::string(63, 'x'), .uuid = {}, .size_bytes = 4096}), exists);
  EXPECT_EQ(refusal({.name = "other", .uuid = uuid, .size_bytes = 4096}), exists);
  EXPECT_EQ(f.store->find(uuid), f.store->list().at(0));
  Outcome gone = run(f.world, f.store->delete_lvol("nobody"));
  ASSERT_FALSE(gone.ok());
  EXPECT_EQ(gone.error().code, Errc::not_found);
  LvStoreOptions odd = small_store();
  odd.cluster_bytes = 96 << 10;
  Fixture g;
  auto made = run(g.world, LvStore::create(g.world.reactor, g.disk.handle(), odd));
  ASSERT_FALSE(made.ok());
  EXPECT_EQ(made.error().code, Errc::invalid_argument);
}

TEST(LvStore, attributes_are_kept_and_bounded) {
  Fixture f;
  f.create();
  Lvol* lvol = f.lvol("a", 1 << 20);
  EXPECT_EQ(lvol->attribute(), "");
  EXPECT_TRUE(run(f.world, lvol->set_attribute("epoch 1")).ok());
  EXPECT_TRUE(run(f.world, lvol->set_attribute(std::string(1024, 'x'))).ok());
  Outcome refused = run(f.world, lvol->set_attribute(std::string(1025, 'x')));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Errc::invalid_argument);
  EXPECT_TRUE(f.close().ok());
  ASSERT_TRUE(f.load().ok());
  EXPECT_EQ(f.store->find("a")->attribute(), std::string(1024, 'x'));
}

TEST(LvStore, overwrites_write_data_only) {
  Fixture f;
  f.create();
  Lvol* lvol = f.lvol("a", 1 << 20);
  ASSERT_TRUE(f.io(*lvol, IoType::write, 0, 32, 1).ok());
  f.world.settle();
  const uint64_t before = f.disk.write_count;
  const uint64_t sequence = f.store->stats().journal_completed_sequence;
  for (int i = 0; i < 10; i++)
    ASSERT_TRUE(f.io(*lvol, IoType::write, static_cast<uint64_t>(i), 1, 2).ok());
  EXPECT_EQ(f.disk.write_count - before, 10u);
  EXPECT_EQ(f.store->stats().journal_completed_sequence, sequence);
}

TEST(LvStore, a_first_write_writes_its_own_blocks_and_one_journal_block) {
  Fixture f;
  f.create();
  Lvol* lvol = f.lvol("a", 1 << 20);
  ASSERT_TRUE(f.io(*lvol, IoType::write, 0, 1, 1).ok());  // fills the reserve, too
  f.world.settle();
  const uint64_t before = f.disk.write_count;
  ASSERT_TRUE(f.io(*lvol, IoType::write, cluster_blocks + 5, 1, 1).ok());
  EXPECT_EQ(f.disk.write_count - before, 2u);
}

TEST(LvStore, concurrent_first_writes_share_journal_writes) {
  Fixture f;
  f.create();
  Lvol* lvol = f.lvol("a", 1 << 20);
  ASSERT_TRUE(f.io(*lvol, IoType::write, 0, 1, 1).ok());
  f.world.settle();
  const uint64_t before = f.disk.write_count;
  f.disk.held = true;
  std::vector<TestIo> ios(64);
  for (size_t i = 0; i < ios.size(); i++)
    ios[i].start(*lvol, IoType::write, 16 + i, 1, static_cast<uint8_t>(i + 1));
  f.disk.release();
  f.world.settle();
  for (size_t i = 0; i < ios.size(); i++) {
    EXPECT_TRUE(ios[i].ended && ios[i].io.status.ok());
    EXPECT_TRUE(f.reads(*lvol, 16 + i, 1, static_cast<uint8_t>(i + 1)));
  }
  EXPECT_LT(f.disk.write_count - before, 64u + 60u);
}

TEST(LvStore, two_writes_to_one_block_at_once_both_complete) {
  for (uint64_t seed = 0; seed < 50; seed++) {
    Fixture f(disk_bytes, 512, seed);
    f.create();
    Lvol* lvol = f.lvol("a", 1 << 20);
    TestIo first;
    TestIo second;
    first.start(*lvol, IoType::write, 7, 2, 0x11);
    second.start(*lvol, IoType::write, 7, 2, 0x22);
    f.world.settle();
    EXPECT_TRUE(first.ended && first.io.status.ok() && second.ended && second.io.status.ok());
    EXPECT_EQ(lvol->allocated_bytes(), cluster_bytes);
    const auto data = read_blocks(f.world, *lvol, 7, 2);
    EXPECT_TRUE(all_are(data, 0x11) || all_are(data, 0x22));
  }
}

TEST(LvStore, unmap_reads_zero_and_gives_clusters_back) {
  Fixture f;
  f.create();
  Lvol* lvol = f.lvol("a", 1 << 20);
  const uint64_t free_before = f.store->stats().free_clusters;
  ASSERT_TRUE(f.io(*lvol, IoType::write, 0, 64, 9).ok());
  EXPECT_EQ(f.store->stats().free_clusters, free_before - 4);
  ASSERT_TRUE(f.io(*lvol, IoType::unmap, 5, 50).ok());  // parts of clusters 0 and 3, all of 1 and 2
  EXPECT_TRUE(f.reads(*lvol, 0, 5, 9));
  EXPECT_TRUE(f.reads(*lvol, 5, 50, 0));
  EXPECT_TRUE(f.reads(*lvol, 55, 9, 9));
  EXPECT_EQ(lvol->allocated_bytes(), 2 * cluster_bytes);
  ASSERT_TRUE(f.io(*lvol, IoType::write, 20, 1, 4).ok());
  EXPECT_TRUE(f.reads(*lvol, 20, 1, 4));
  EXPECT_TRUE(f.reads(*lvol, 21, 30, 0));
  ASSERT_TRUE(f.io(*lvol, IoType::write_zeroes, 0, 256).ok());
  EXPECT_TRUE(f.reads(*lvol, 0, 256, 0));
  EXPECT_EQ(lvol->allocated_bytes(), 0u);
  f.world.settle();
  EXPECT_EQ(f.store->stats().free_clusters, free_before);
  EXPECT_EQ(f.store->stats().to_zero_clusters, 0u);
}

TEST(LvStore, unmapping_a_cluster_block_by_block_gives_it_back) {
  Fixture f;
  f.create();
  Lvol* lvol = f.lvol("a", 1 << 20);
  ASSERT_TRUE(f.io(*lvol, IoType::write, 0, cluster_blocks, 9).ok());
  for (uint32_t block = 0; block < cluster_blocks; block++) {
    EXPECT_EQ(lvol->allocated_bytes(), cluster_bytes);
    ASSERT_TRUE(f.io(*lvol, IoType::unmap, block, 1).ok());
  }
  EXPECT_EQ(lvol->allocated_bytes(), 0u);
  ASSERT_TRUE(f.io(*lvol, IoType::write, 1, 1, 8).ok());
  EXPECT_TRUE(f.reads(*lvol, 0, 1, 0));
  EXPECT_TRUE(f.reads(*lvol, 1, 1, 8));
}

TEST(LvStore, a_full_store_completes_writes_with_capacity_exceeded_and_changes_nothing) {
  Fixture f;
  f.create();
  Lvol* lvol = f.lvol("a", 64 << 20);
  const auto clusters = static_cast<uint32_t>(f.store->stats().total_clusters);
  for (uint32_t i = 0; i < clusters; i++)
    ASSERT_TRUE(f.io(*lvol, IoType::write, uint64_t{i} * cluster_blocks, 1, 3).ok()) << i;
  EXPECT_EQ(f.store->stats().free_clusters, 0u);
  const nvme::Status full = f.io(*lvol, IoType::write, uint64_t{clusters} * cluster_blocks - 2, 20, 4);
  EXPECT_EQ(full, nvme::status::capacity_exceeded);
  EXPECT_TRUE(f.reads(*lvol, uint64_t{clusters} * cluster_blocks - 2, 20, 0));
  ASSERT_TRUE(f.io(*lvol, IoType::write, 1, 15, 5).ok());  // allocated clusters stay writable
  ASSERT_TRUE(f.io(*lvol, IoType::unmap, 0, cluster_blocks).ok());
  // The freed cluster is being zeroed: the write waits for it instead of failing.
  ASSERT_TRUE(f.io(*lvol, IoType::write, uint64_t{clusters} * cluster_blocks, 1, 6).ok());
  EXPECT_TRUE(f.reads(*lvol, 0, 16, 0));
  EXPECT_EQ(f.io(*lvol, IoType::write, 0, 1, 6), nvme::status::capacity_exceeded);
}

TEST(LvStore, no_byte_of_a_deleted_lvol_is_ever_read) {
  Fixture f;
  f.create();
  Lvol* lvol = f.lvol("a", 8 << 20);
  const auto clusters = static_cast<uint32_t>(f.store->stats().total_clusters);
  for (uint32_t i = 0; i < clusters; i++)
    ASSERT_TRUE(f.io(*lvol, IoType::write, uint64_t{i} * cluster_blocks, cluster_blocks, 0xaa).ok());
  ASSERT_TRUE(run(f.world, f.store->delete_lvol("a")).ok());
  EXPECT_EQ(f.store->find("a"), nullptr);
  lvol = f.lvol("b", 8 << 20);
  for (uint32_t i = 0; i < clusters; i++) {
    ASSERT_TRUE(f.io(*lvol, IoType::write, uint64_t{i} * cluster_blocks + 3, 1, 0xbb).ok());
    EXPECT_TRUE(f.reads(*lvol, uint64_t{i} * cluster_blocks, 3, 0));
    EXPECT_TRUE(f.reads(*lvol, uint64_t{i} * cluster_blocks + 3, 1, 0xbb));
    EXPECT_TRUE(f.reads(*lvol, uint64_t{i} * cluster_blocks + 4, cluster_blocks - 4, 0));
  }
  f.world.settle();
  // Not even on the base: what is not mapped is zero there.
  size_t old_bytes = 0;
  for (uint8_t byte : f.disk.bytes_now())
    old_bytes += byte == 0xaa;
  EXPECT_LT(old_bytes, 4096u);  // CRCs and random uuids may contain some
}

TEST(LvStore, device_errors_reach_the_host_exactly) {
  Fixture f;
  f.create();
  Lvol* lvol = f.lvol("a", 1 << 20);
  ASSERT_TRUE(f.io(*lvol, IoType::write, 0, 4, 1).ok());
  f.world.settle();
  f.disk.fault = [](const Io& io) -> std::optional<nvme::Status> {
    if (io.type == IoType::read) return nvme::status::unrecovered_read_error.dnr();
    if (io.type == IoType::write) return nvme::status::compare_failure;
    return std::nullopt;
  };
  EXPECT_EQ(f.io(*lvol, IoType::read, 0, 4), nvme::status::unrecovered_read_error.dnr());
  EXPECT_EQ(f.io(*lvol, IoType::write, 0, 4, 2), nvme::status::compare_failure);
  f.disk.fault = {};
  EXPECT_FALSE(f.store->failed());
  EXPECT_TRUE(f.io(*lvol, IoType::write, 0, 4, 3).ok());
  EXPECT_EQ(f.io(*lvol, IoType::read, 255, 2), nvme::status::lba_out_of_range.dnr());
}

TEST(LvStore, a_failed_journal_write_stops_writes_and_leaves_reads) {
  Fixture f;
  f.create();
  Lvol* lvol = f.lvol("a", 1 << 20);
  ASSERT_TRUE(f.io(*lvol, IoType::write, 0, 4, 1).ok());
  f.world.settle();
  const uint64_t journal_end = (64 + 64) * 8;
  f.disk.fault = [&](const Io& io) -> std::optional<nvme::Status> {
    if (io.type == IoType::write && io.offset_blocks < journal_end) return nvme::status::internal_error;
    return std::nullopt;
  };
  EXPECT_EQ(f.io(*lvol, IoType::write, 9, 1, 2), nvme::status::internal_error);
  f.disk.fault = {};
  EXPECT_TRUE(f.store->failed());
  EXPECT_EQ(f.io(*lvol, IoType::write, 0, 1, 2), nvme::status::write_fault);
  EXPECT_EQ(f.io(*lvol, IoType::flush), nvme::status::write_fault);
  EXPECT_EQ(f.io(*lvol, IoType::unmap, 0, 1), nvme::status::write_fault);
  EXPECT_TRUE(f.reads(*lvol, 0, 4, 1));
  EXPECT_TRUE(f.reads(*lvol, 9, 1, 0));
  EXPECT_FALSE(f.close().ok());
  ASSERT_TRUE(f.load().ok());
  EXPECT_TRUE(f.reads(*f.store->find("a"), 0, 4, 1));
}

TEST(LvStore, a_failed_flush_is_never_retried) {
  Fixture f;
  f.create();
  Lvol* lvol = f.lvol("a", 1 << 20);
  ASSERT_TRUE(f.io(*lvol, IoType::write, 0, 4, 1).ok());
  f.world.settle();
  f.disk.fault = [](const Io& io) -> std::optional<nvme::Status> {
    if (io.type == IoType::flush) return nvme::status::internal_error;
    return std::nullopt;
  };
  EXPECT_EQ(f.io(*lvol, IoType::flush), nvme::status::internal_error);
  f.disk.fault = {};
  const uint64_t flushes = f.disk.flush_count;
  EXPECT_EQ(f.io(*lvol, IoType::flush), nvme::status::write_fault);
  EXPECT_EQ(f.disk.flush_count, flushes);
  EXPECT_TRUE(f.reads(*lvol, 0, 4, 1));
  EXPECT_FALSE(f.close().ok());
}

TEST(LvStore, the_journal_wraps_many_times_with_checkpoints_in_between) {
  Fixture f;
  f.create();
  Lvol* lvol = f.lvol("a", 1 << 20);
  for (int round = 0; round < 300; round++) {
    const uint64_t block = static_cast<uint64_t>(round) % 200;
    ASSERT_TRUE(f.io(*lvol, IoType::write, block, 1, static_cast<uint8_t>(round % 250 + 1)).ok());
    if (round % 3 != 0) {
      ASSERT_TRUE(f.io(*lvol, IoType::unmap, block, 1).ok());
    }
  }
  EXPECT_GT(f.store->stats().checkpoint_count, 8u);
  EXPECT_TRUE(f.close().ok());
  ASSERT_TRUE(f.load().ok());
  lvol = f.store->find("a");
  for (int round = 100; round < 300; round++) {
    const uint8_t expected = round % 3 == 0 ? static_cast<uint8_t>(round % 250 + 1) : 0;
    EXPECT_TRUE(f.reads(*lvol, static_cast<uint64_t>(round) % 200, 1, expected)) << round;
  }
}

TEST(LvStore, an_idle_store_writes_nothing) {
  Fixture f;
  f.create();
  Lvol* lvol = f.lvol("a", 1 << 20);
  ASSERT_TRUE(f.io(*lvol, IoType::write, 0, 4, 1).ok());
  f.world.settle();
  EXPECT_FALSE(f.world.reactor.turn());
  EXPECT_EQ(f.world.reactor.deadline(), Instant::never());
}

TEST(LvStore, a_store_made_without_clearing_zeroes_each_cluster_before_its_use) {
  Fixture f;
  std::fill(f.disk.bytes_now().begin() + (1 << 20), f.disk.bytes_now().end(), 0xcc);
  LvStoreOptions options = small_store();
  options.clear = false;
  f.create(options);
  Lvol* lvol = f.lvol("a", 8 << 20);
  const auto clusters = static_cast<uint32_t>(f.store->stats().total_clusters);
  for (uint32_t i = 0; i < clusters; i++) {
    ASSERT_TRUE(f.io(*lvol, IoType::write, uint64_t{i} * cluster_blocks + 3, 1, 0xbb).ok());
    EXPECT_TRUE(f.reads(*lvol, uint64_t{i} * cluster_blocks + 4, cluster_blocks - 4, 0));
  }
  size_t old_bytes = 0;
  for (uint8_t byte : f.disk.bytes_now())
    old_bytes += byte == 0xcc;
  EXPECT_LT(old_bytes, 4096u);
}

}  // namespace
}  // namespace basalt::bdev
