// SPDX-License-Identifier: Apache-2.0
// Snapshots, clones and what changes an lvol's shape, one behaviour at a time. Random trees and power cuts:
// lvol_tree_crash_test.cc.
#include <algorithm>
#include <map>

#include "bdev/lvol/crash_disk_test_util.h"
#include "bdev/lvol/lvstore.h"
#include "bdev/lvol/sparse_disk_test_util.h"

namespace basalt::bdev {
namespace {

using namespace test;  // NOLINT

constexpr uint32_t cluster_bytes = 64 << 10;
constexpr uint32_t cluster_blocks = cluster_bytes / 4096;

struct Tree {
  explicit Tree(uint64_t bytes = 8 << 20) : world(1), disk(world, bytes) {
    LvStoreOptions options{.name = "pool", .uuid = {}, .cluster_bytes = cluster_bytes};
    auto made = run(world, LvStore::create(world.reactor, disk.handle(), options));
    EXPECT_TRUE(made.ok());
    store = std::move(*made);
    world.settle();
  }
  ~Tree() {
    close();
    world.settle();
  }
  void close() {
    if (store == nullptr) return;
    EXPECT_TRUE(run(world, store->close()).ok());
    world.settle();
    store.reset();
  }
  void reload() {
    close();
    auto loaded = run(world, LvStore::load(world.reactor, disk.handle()));
    ASSERT_TRUE(loaded.ok()) << loaded.error().message;
    store = std::move(*loaded);
  }
  void lvol(const std::string& name, uint64_t size_bytes = 1 << 20) {
    EXPECT_TRUE(run(world, store->create_lvol({.name = name, .uuid = {}, .size_bytes = size_bytes})).ok());
  }
  void snapshot(const std::string& of, const std::string& name) {
    auto made = run(world, store->snapshot_lvol(of, {.name = name, .uuid = {}}));
    EXPECT_TRUE(made.ok()) << made.error().message;
  }
  void clone(const std::string& of, const std::string& name) {
    auto made = run(world, store->clone_lvol(of, {.name = name, .uuid = {}}));
    EXPECT_TRUE(made.ok()) << made.error().message;
  }
  void remove(const std::string& name) {
    const Outcome outcome = run(world, store->delete_lvol(name));
    EXPECT_TRUE(outcome.ok()) << outcome.error().message;
    world.settle();
  }
  nvme::Status io(const std::string& name, IoType type, uint64_t offset, uint32_t count, uint8_t fill = 0) {
    return do_io(world, *store->find(name), type, offset, count, fill);
  }
  void write(const std::string& name, uint64_t offset, uint32_t count, uint8_t fill) {
    EXPECT_TRUE(io(name, IoType::write, offset, count, fill).ok());
  }
  bool reads(const std::string& name, uint64_t offset, uint32_t count, uint8_t value) {
    return all_are(read_blocks(world, *store->find(name), offset, count), value);
  }
  LvolSizes sizes(const std::string& name) {
    auto sizes = run(world, store->lvol_sizes(name));
    EXPECT_TRUE(sizes.ok());
    return sizes.ok() ? *sizes : LvolSizes{};
  }
  uint64_t free_clusters() { return store->stats().free_clusters; }

  World world;
  CrashDisk disk;
  std::unique_ptr<LvStore> store;
};

template <class T>
std::string refusal(const Result<T>& result) {
  return result.ok() ? "done" : std::string(errc_name(result.error().code)) + ": " + result.error().message;
}

TEST(LvTree, a_snapshot_keeps_what_was_and_the_lvol_goes_on) {
  Tree t;
  t.lvol("a");
  EXPECT_TRUE(run(t.world, t.store->find("a")->set_attribute("epoch 4")).ok());
  t.write("a", 0, 40, 1);
  const Lvol* before = t.store->find("a");
  const Uuid uuid = before->uuid();
  t.snapshot("a", "s");
  EXPECT_EQ(t.store->find("a"), before);  // its users keep their handle
  EXPECT_EQ(t.store->find("a")->uuid(), uuid);
  t.write("a", 3, 2, 2);
  EXPECT_TRUE(t.io("a", IoType::unmap, 10, 20).ok());
  const auto check = [&] {
    EXPECT_TRUE(t.reads("s", 0, 40, 1));
    EXPECT_TRUE(t.reads("s", 40, 216, 0));
    EXPECT_TRUE(t.reads("a", 0, 3, 1));
    EXPECT_TRUE(t.reads("a", 3, 2, 2));
    EXPECT_TRUE(t.reads("a", 5, 5, 1));
    EXPECT_TRUE(t.reads("a", 10, 20, 0));  // unmapping over a parent gives zero
    EXPECT_TRUE(t.reads("a", 30, 10, 1));
    EXPECT_EQ(t.store->find("a")->attribute(), "epoch 4");
    EXPECT_TRUE(t.store->find("s")->is_snapshot());
    EXPECT_EQ(t.store->find("a")->base(), t.store->find("s"));
    EXPECT_EQ(t.store->find("s")->clones(), std::vector<const Lvol*>{t.store->find("a")});
  };
  check();
  t.reload();
  check();
}

struct Owner final : LvStoreOwner {
  bool refuses = false;
  std::vector<std::string> heard;
  Outcome snapshot_begins(LvStore&, const std::string& name) override {
    heard.push_back("begins " + name);
    if (refuses) return Error{Errc::exists, name};
    return success();
  }
  void snapshot_ended(LvStore&, const std::string& name, Lvol* made) override {
    heard.push_back((made != nullptr && made->name() == name ? "made " : "not made ") + name);
  }
};

TEST(LvTree, a_snapshot_asked_for_at_the_lvol_is_told_to_the_store_s_owner) {
  Tree t;
  t.lvol("a");
  t.write("a", 0, 8, 1);
  Owner owner;
  t.store->set_owner(&owner);
  EXPECT_TRUE(run(t.world, t.store->find("a")->prepare_snapshot()).ok());
  bool allowed = true;
  uint32_t asked = 0;
  const std::function<bool()> may_begin = [&] {
    asked++;
    return allowed;
  };
  EXPECT_TRUE(run(t.world, t.store->find("a")->snapshot("s1", may_begin)).ok());
  EXPECT_EQ(asked, 1u);
  t.write("a", 0, 8, 2);
  EXPECT_TRUE(t.reads("s1", 0, 8, 1));
  allowed = false;
  const Outcome fenced = run(t.world, t.store->find("a")->snapshot("s2", may_begin));
  ASSERT_FALSE(fenced.ok());
  EXPECT_EQ(fenced.error().code, Errc::fenced);
  allowed = true;
  const Outcome again = run(t.world, t.store->find("a")->snapshot("s1", may_begin));
  ASSERT_FALSE(again.ok());
  EXPECT_EQ(again.error().code, Errc::exists);
  EXPECT_EQ(asked, 2u);  // the name comes first
  owner.refuses = true;
  EXPECT_FALSE(run(t.world, t.store->find("a")->snapshot("s3", may_begin)).ok());
  EXPECT_EQ(owner.heard, (std::vector<std::string>{"begins s1", "made s1", "begins s2", "not made s2", "begins s1",
                                                   "not made s1", "begins s3"}));
  t.reload();
  EXPECT_TRUE(t.reads("s1", 0, 8, 1));
  EXPECT_TRUE(t.reads("a", 0, 8, 2));
  EXPECT_EQ(t.store->find("s2"), nullptr);
  EXPECT_EQ(t.store->list().size(), 2u);
}

TEST(LvTree, a_write_into_a_snapshotted_cluster_writes_its_own_blocks_only) {
  Tree t;
  t.lvol("a");
  t.write("a", 0, 64, 1);
  t.snapshot("a", "s");
  t.write("a", 0, 1, 2);  // the reserve is filled
  t.world.settle();
  const uint64_t writes = t.disk.write_count;
  const uint64_t reads = t.disk.read_count;
  t.write("a", cluster_blocks + 5, 1, 2);
  EXPECT_EQ(t.disk.write_count - writes, 2u);  // its block, and one of the journal
  EXPECT_EQ(t.disk.read_count, reads);
  t.write("a", cluster_blocks + 5, 1, 3);
  EXPECT_EQ(t.disk.write_count - writes, 3u);  // overwrites: data only
}

TEST(LvTree, snapshots_and_read_only_lvols_refuse_changes_with_write_protected) {
  Tree t;
  t.lvol("a");
  t.write("a", 0, 4, 1);
  t.snapshot("a", "s");
  for (IoType type : {IoType::write, IoType::unmap, IoType::write_zeroes})
    EXPECT_EQ(t.io("s", type, 0, 4), nvme::status::namespace_write_protected.dnr());
  EXPECT_TRUE(t.io("s", IoType::flush, 0, 0).ok());
  EXPECT_TRUE(run(t.world, t.store->set_read_only("a")).ok());
  EXPECT_EQ(t.io("a", IoType::write, 0, 4, 2), nvme::status::namespace_write_protected.dnr());
  t.reload();
  EXPECT_EQ(t.io("a", IoType::write, 0, 4, 2), nvme::status::namespace_write_protected.dnr());
  EXPECT_TRUE(t.reads("a", 0, 4, 1));
  EXPECT_EQ(refusal(run(t.world, t.store->snapshot_lvol("s", {.name = "x", .uuid = {}}))),
            "invalid_argument: s: is read-only");
  EXPECT_EQ(refusal(run(t.world, t.store->resize_lvol("a", 4096))), "invalid_argument: a: is read-only");
  t.clone("a", "b");
  t.write("b", 0, 1, 5);
  EXPECT_TRUE(t.reads("a", 0, 1, 1));
}

TEST(LvTree, a_clone_of_a_volume_is_a_cut_of_it) {
  Tree t;
  t.lvol("a");
  t.write("a", 0, 32, 1);
  t.clone("a", "b");
  t.write("a", 0, 1, 2);
  t.write("b", 1, 1, 3);
  EXPECT_TRUE(t.reads("a", 0, 1, 2) && t.reads("a", 1, 31, 1));
  EXPECT_TRUE(t.reads("b", 0, 1, 1) && t.reads("b", 1, 1, 3) && t.reads("b", 2, 30, 1));
  EXPECT_EQ(t.store->list().size(), 2u);  // what both share has no name
  EXPECT_EQ(t.store->stats().hidden_layers, 1u);
  t.remove("a");
  EXPECT_EQ(t.store->stats().hidden_layers, 0u);  // the only one that reads it has it now
  EXPECT_TRUE(t.reads("b", 0, 1, 1) && t.reads("b", 1, 1, 3) && t.reads("b", 2, 30, 1));
  EXPECT_EQ(t.store->find("b")->allocated_bytes(), 2 * cluster_bytes);
}

TEST(LvTree, deletion_in_any_order_frees_what_nobody_reads) {
  std::vector<std::string> names = {"a", "s1", "s2", "c"};
  do {
    Tree t;
    const uint64_t free = t.free_clusters();
    t.lvol("a");
    t.write("a", 0, 64, 1);
    t.snapshot("a", "s1");
    t.write("a", 8, 16, 2);
    t.clone("s1", "c");
    t.write("c", 0, 4, 3);
    t.snapshot("a", "s2");
    t.write("a", 0, 2, 4);
    std::map<std::string, std::vector<uint8_t>> held;
    for (const std::string& name : names)
      held[name] = read_blocks(t.world, *t.store->find(name), 0, 256);
    for (const std::string& name : names) {
      t.remove(name);
      held.erase(name);
      for (const auto& [left, data] : held)
        EXPECT_EQ(read_blocks(t.world, *t.store->find(left), 0, 256), data) << left << " after " << name;
      t.reload();
    }
    t.world.settle();
    EXPECT_EQ(t.free_clusters(), free);
  } while (std::next_permutation(names.begin(), names.end()));
}

TEST(LvTree, a_tree_of_depth_64_reads_through_and_a_deeper_one_is_refused_exactly) {
  World world(1);
  SparseDisk disk(world, uint64_t{1} << 30);
  const Handle handle = disk.handle();
  LvStoreOptions options{.name = "pool", .uuid = {}, .cluster_bytes = cluster_bytes};
  auto store = run(world, LvStore::create(world.reactor, handle, options)).value();
  ASSERT_TRUE(run(world, store->create_lvol({.name = "a", .uuid = {}, .size_bytes = 256 << 10})).ok());
  const auto fill = [](uint32_t level) { return static_cast<uint8_t>(level + 1); };
  for (uint32_t level = 0; level < lvs::layer_depth_max; level++) {
    ASSERT_TRUE(do_io(world, *store->find("a"), IoType::write, level, 1, fill(level)).ok());
    ASSERT_TRUE(run(world, store->snapshot_lvol("a", {.name = "s" + std::to_string(level), .uuid = {}})).ok());
  }
  const auto reads = [&](const std::string& name) {
    const auto data = read_blocks(world, *store->find(name), 0, lvs::layer_depth_max);
    for (uint32_t level = 0; level < lvs::layer_depth_max; level++)
      EXPECT_TRUE(data[level * 4096] == fill(level) && data[level * 4096 + 4095] == fill(level)) << level;
  };
  EXPECT_EQ(store->find("a")->depth(), lvs::layer_depth_max);
  const std::string too_deep = "unsupported: a: has 64 layers below it already, the most there may be";
  EXPECT_EQ(refusal(run(world, store->snapshot_lvol("a", {.name = "x", .uuid = {}}))), too_deep);
  EXPECT_EQ(refusal(run(world, store->clone_lvol("a", {.name = "x", .uuid = {}}))), too_deep);
  ASSERT_TRUE(run(world, store->close()).ok());
  world.settle();
  store.reset();
  store = run(world, LvStore::load(world.reactor, handle)).value();
  reads("a");
  ASSERT_TRUE(run(world, store->delete_lvol("s30")).ok());
  world.settle();
  ASSERT_TRUE(run(world, store->snapshot_lvol("a", {.name = "x", .uuid = {}})).ok());
  reads("x");
  ASSERT_TRUE(run(world, store->close()).ok());
  world.settle();
  store.reset();
}

TEST(LvTree, names_that_are_taken_or_wrong_are_refused) {
  Tree t;
  t.lvol("a");
  EXPECT_EQ(refusal(run(t.world, t.store->snapshot_lvol("a", {.name = "a", .uuid = {}}))),
            "exists: a: the name is taken");
  EXPECT_EQ(refusal(run(t.world, t.store->snapshot_lvol("b", {.name = "s", .uuid = {}}))),
            "not_found: b: no such lvol");
  EXPECT_EQ(refusal(run(t.world, t.store->clone_lvol("a", {.name = "-", .uuid = {}}))).substr(0, 16),
            "invalid_argument");
  t.lvol("b");
  EXPECT_EQ(refusal(run(t.world, t.store->rename_lvol("a", "b"))), "exists: b: the name is taken");
  EXPECT_TRUE(run(t.world, t.store->rename_lvol("a", "c")).ok());
  EXPECT_EQ(t.store->find("a"), nullptr);
  t.reload();
  EXPECT_NE(t.store->find("c"), nullptr);
  t.lvol("a");
}

TEST(LvTree, shrinking_frees_and_growing_again_reads_zero_also_over_a_snapshot) {
  Tree t;
  t.lvol("a");
  t.write("a", 0, 256, 1);
  t.snapshot("a", "s");
  t.write("a", 30, 40, 2);
  EXPECT_TRUE(run(t.world, t.store->resize_lvol("a", 35 * 4096)).ok());
  EXPECT_EQ(t.io("a", IoType::read, 35, 1), nvme::status::lba_out_of_range.dnr());
  EXPECT_EQ(t.store->find("a")->allocated_bytes(), 2 * cluster_bytes);
  EXPECT_TRUE(run(t.world, t.store->resize_lvol("a", 300 * 4096)).ok());
  const auto check = [&] {
    EXPECT_TRUE(t.reads("a", 0, 30, 1));
    EXPECT_TRUE(t.reads("a", 30, 5, 2));
    EXPECT_TRUE(t.reads("a", 35, 100, 0) && t.reads("a", 135, 164, 0));
    EXPECT_TRUE(t.store->find("s") == nullptr || t.reads("s", 0, 256, 1));
  };
  check();
  t.write("a", 299, 1, 3);
  t.reload();
  check();
  t.remove("s");
  check();
  EXPECT_TRUE(t.reads("a", 299, 1, 3));
}

TEST(LvTree, inflate_takes_everything_in_and_decouple_the_parent_only) {
  for (bool inflate : {true, false}) {
    Tree t;
    t.lvol("a");
    t.write("a", 0, 20, 1);
    t.snapshot("a", "s1");
    t.write("a", 10, 20, 2);
    EXPECT_TRUE(t.io("a", IoType::unmap, 2, 2).ok());
    t.snapshot("a", "s2");
    t.write("a", 25, 1, 3);
    const auto held = read_blocks(t.world, *t.store->find("a"), 0, 256);
    const Outcome outcome =
        inflate ? run(t.world, t.store->inflate_lvol("a")) : run(t.world, t.store->decouple_lvol("a"));
    ASSERT_TRUE(outcome.ok()) << outcome.error().message;
    EXPECT_EQ(read_blocks(t.world, *t.store->find("a"), 0, 256), held);
    EXPECT_EQ(t.store->find("a")->base(), inflate ? nullptr : t.store->find("s1"));
    t.reload();
    EXPECT_EQ(read_blocks(t.world, *t.store->find("a"), 0, 256), held);
    t.remove("s2");
    t.remove("s1");
    EXPECT_EQ(read_blocks(t.world, *t.store->find("a"), 0, 256), held);
  }
}

TEST(LvTree, inflate_without_room_says_so_and_keeps_what_was_copied) {
  Tree t(4 << 20);
  t.lvol("a", 2 << 20);
  const auto clusters = static_cast<uint32_t>(t.free_clusters());
  for (uint32_t i = 0; i < 20; i++)
    t.write("a", i * cluster_blocks, 1, 1);
  t.snapshot("a", "s");
  t.lvol("b", 4 << 20);
  for (uint32_t i = 0; i < clusters - 30; i++)
    t.write("b", i * cluster_blocks, 1, 2);
  EXPECT_EQ(refusal(run(t.world, t.store->inflate_lvol("a"))), "no_space: pool: is full");
  EXPECT_EQ(t.store->find("a")->allocated_bytes(), 10 * cluster_bytes);
  t.remove("b");
  EXPECT_TRUE(run(t.world, t.store->inflate_lvol("a")).ok());
  for (uint32_t i = 0; i < 20; i++)
    EXPECT_TRUE(t.reads("a", i * cluster_blocks, 1, 1));
}

// Writes took the clusters that were reserved, and then the journal failed: there will be no others. Whoever wants one
// waits under the control lock, where everybody else would wait for ever.
TEST(LvTree, inflate_and_decouple_end_when_the_store_has_failed) {
  for (const bool inflate : {true, false}) {
    Tree t;
    t.lvol("a");
    t.write("a", 0, 1, 1);
    t.snapshot("a", "s");
    t.lvol("b", 4 << 20);
    t.world.settle();
    t.disk.holds = [](const Io& io) { return io.type == IoType::write; };
    std::vector<TestIo> writes(4 << 20 >> 16);
    for (size_t i = 0; i < writes.size(); i++)
      writes[i].start(*t.store->find("b"), IoType::write, i * cluster_blocks, 1, 2);
    t.world.settle();
    t.disk.fault = [](const Io& io) -> std::optional<nvme::Status> {
      if (io.type == IoType::write) return nvme::status::capacity_exceeded;
      return std::nullopt;
    };
    t.disk.holds = {};
    t.disk.release();
    t.world.settle();
    t.disk.fault = {};
    for (const TestIo& write : writes)
      EXPECT_TRUE(write.ended);
    ASSERT_TRUE(t.store->failed());
    ASSERT_GT(t.free_clusters(), 0u);
    const Outcome outcome =
        inflate ? run(t.world, t.store->inflate_lvol("a")) : run(t.world, t.store->decouple_lvol("a"));
    EXPECT_EQ(refusal(outcome), "io: pool: the lvstore has failed or is closing");
    // The lock is free again.
    EXPECT_FALSE(run(t.world, t.store->create_lvol({.name = "c", .uuid = {}, .size_bytes = 1 << 20})).ok());
    EXPECT_FALSE(run(t.world, t.store->close()).ok());
    t.store.reset();
  }
}

TEST(LvTree, sizes_tell_what_a_deletion_frees) {
  Tree t;
  t.lvol("a");
  t.write("a", 0, 4 * cluster_blocks, 1);
  t.snapshot("a", "s");
  EXPECT_EQ(t.sizes("s").exclusive_bytes, 0u);
  EXPECT_EQ(t.sizes("s").shared_bytes, 4 * cluster_bytes);
  t.write("a", 0, cluster_blocks, 2);
  t.write("a", cluster_blocks, 1, 2);
  const LvolSizes sizes = t.sizes("s");
  EXPECT_EQ(sizes.exclusive_bytes, 1 * cluster_bytes);
  EXPECT_EQ(sizes.shared_bytes, 3 * cluster_bytes);
  EXPECT_EQ(t.sizes("a").exclusive_bytes, 2 * cluster_bytes);
  const uint64_t free = t.free_clusters();
  t.remove("s");
  EXPECT_GE(t.free_clusters(), free + 1);
}

TEST(LvTree, a_cluster_freed_under_a_read_is_not_used_again_before_the_read_ended) {
  Tree t;
  t.lvol("a");
  t.write("a", 0, cluster_blocks, 1);
  t.snapshot("a", "s1");
  t.write("a", 0, 1, 2);
  t.snapshot("a", "s2");
  // A read of what only s1 has is on its way to the base.
  const Io* kept = nullptr;
  t.disk.holds = [&](const Io& io) {
    if (kept == nullptr && io.type == IoType::read) kept = &io;
    return &io == kept;
  };
  TestIo read;
  read.start(*t.store->find("a"), IoType::read, 5, 1);
  t.world.settle();
  ASSERT_FALSE(read.ended);
  // s1 goes: its blocks are copied to s2, its cluster is free, but not zeroed under the read.
  EXPECT_TRUE(run(t.world, t.store->delete_lvol("s1")).ok());
  t.world.settle();
  EXPECT_EQ(t.store->stats().hidden_layers, 0u);
  t.disk.holds = {};
  t.disk.release();
  t.world.settle();
  EXPECT_TRUE(read.ended && all_are(read.data, 1));
  EXPECT_EQ(t.store->stats().to_zero_clusters, 0u);
  EXPECT_TRUE(t.reads("a", 0, 1, 2) && t.reads("a", 1, cluster_blocks - 1, 1));
}

TEST(LvTree, a_read_behind_a_write_that_waits_for_space_does_not_hold_the_space_up) {
  Tree t(4 << 20);
  t.lvol("a", 8 << 20);
  const auto clusters = static_cast<uint32_t>(t.free_clusters());
  for (uint32_t i = 0; i < clusters; i++)
    t.write("a", uint64_t{i} * cluster_blocks, 1, 1);
  t.world.settle();
  ASSERT_TRUE(t.io("a", IoType::unmap, 0, cluster_blocks).ok());
  // The freed cluster is still to be zeroed. The write waits for it, the unmap for the write, the read for the unmap.
  const uint64_t at = uint64_t{clusters} * cluster_blocks;
  TestIo write;
  TestIo unmap;
  TestIo read;
  write.start(*t.store->find("a"), IoType::write, at, 1, 7);
  unmap.start(*t.store->find("a"), IoType::unmap, at, 2);
  read.start(*t.store->find("a"), IoType::read, at, 1);
  t.world.settle();
  EXPECT_TRUE(write.ended && unmap.ended && read.ended);
}

TEST(LvTree, a_full_store_refuses_a_write_over_a_snapshot_and_changes_nothing) {
  Tree t(4 << 20);
  t.lvol("a", 8 << 20);
  const auto clusters = static_cast<uint32_t>(t.free_clusters());
  for (uint32_t i = 0; i < clusters; i++)
    t.write("a", uint64_t{i} * cluster_blocks, 1, 1);
  t.snapshot("a", "s");
  EXPECT_EQ(t.io("a", IoType::write, 0, 1, 2), nvme::status::capacity_exceeded);
  EXPECT_EQ(t.store->stats().refused_count, 1u);
  EXPECT_TRUE(t.reads("a", 0, 1, 1));
  EXPECT_TRUE(t.io("a", IoType::unmap, 0, cluster_blocks).ok());  // needs no cluster
  EXPECT_TRUE(t.reads("a", 0, 1, 0));
  t.remove("s");
  t.write("a", 0, 1, 2);
  EXPECT_TRUE(t.reads("a", 0, 1, 2) && t.reads("a", cluster_blocks, 1, 1));
}

}  // namespace
}  // namespace basalt::bdev
