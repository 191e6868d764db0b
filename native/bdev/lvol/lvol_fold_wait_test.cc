// SPDX-License-Identifier: Apache-2.0
// How long others wait while a deleted snapshot is folded into the lvol that they write, on a disk that takes its time.
#include <algorithm>
#include <deque>

#include "bdev/lvol/lvstore.h"
#include "bdev/lvol/sparse_disk_test_util.h"

namespace basalt::bdev {
namespace {

using namespace test;  // NOLINT

constexpr uint32_t fold_cluster_blocks = 16;
constexpr uint32_t fold_cluster_count = 64;
constexpr int64_t io_ms = 5;
// A copy reads, writes, flushes and writes the journal: that, for a few clusters.
constexpr int64_t longest_wait_ms = 4 * 4 * io_ms;

// Each request takes io_ms of a time that advance() moves.
class SlowDisk final : public Bdev {
 public:
  SlowDisk(World& world, uint64_t size_bytes) : Bdev(world.reactor), disk_(world, size_bytes) { info_ = disk_.info(); }
  Handle handle() { return Handle(*this, home()); }
  Task<Outcome> close() override { co_return success(); }
  void submit(Io* io) override {
    if (!slow) return disk_.submit(io);
    pending_.push_back({io, now_ms + io_ms});
  }
  bool advance() {
    if (pending_.empty()) return false;
    now_ms = pending_.front().due_ms;
    while (!pending_.empty() && pending_.front().due_ms == now_ms) {
      Io* io = pending_.front().io;
      pending_.pop_front();
      disk_.submit(io);
    }
    return true;
  }
  bool slow = false;
  int64_t now_ms = 0;

 private:
  struct Pending {
    Io* io;
    int64_t due_ms;
  };
  SparseDisk disk_;
  std::deque<Pending> pending_;
};

class LvolFoldWait : public ::testing::Test {
 protected:
  LvolFoldWait() : world_(1), disk_(world_, 64 << 20) {
    auto made = run(world_, LvStore::create(world_.reactor, disk_.handle(),
                                            {.name = "pool", .uuid = {}, .cluster_bytes = fold_cluster_blocks * 4096}));
    EXPECT_TRUE(made.ok());
    store_ = std::move(*made);
    for (const char* name : {"a", "b"})
      EXPECT_TRUE(
          run(world_, store_->create_lvol(
                          {.name = name, .uuid = {}, .size_bytes = fold_cluster_count * fold_cluster_blocks * 4096}))
              .ok());
    // The lvol has a place of its own for every cluster, and still reads three runs of each from the snapshot.
    for (const uint32_t block : {0, 3, 6})
      write_each(block, 1);
    EXPECT_TRUE(run(world_, store_->snapshot_lvol("a", {.name = "s", .uuid = {}})).ok());
    write_each(1, 2);
    world_.settle();
  }
  ~LvolFoldWait() override {
    disk_.slow = false;
    while (disk_.advance())
      world_.settle();
    EXPECT_TRUE(run(world_, store_->close()).ok());
    world_.settle();
    store_.reset();
  }
  Lvol& lvol() { return *store_->find("a"); }
  void write_each(uint32_t block, uint8_t fill) {
    for (uint32_t cluster = 0; cluster < fold_cluster_count; cluster++)
      EXPECT_TRUE(do_io(world_, lvol(), IoType::write, uint64_t{cluster} * fold_cluster_blocks + block, 1, fill).ok());
  }
  template <class F>
  bool passes_until(F&& condition) {
    for (;;) {
      world_.settle();
      if (condition()) return true;
      if (!disk_.advance()) return false;
    }
  }
  void begin_folding() {
    disk_.slow = true;
    std::optional<Outcome> deleted;
    spawn(keep_value(store_->delete_lvol("s"), &deleted));
    ASSERT_TRUE(passes_until([&] { return deleted.has_value(); }));
    ASSERT_TRUE(deleted->ok());
    ASSERT_TRUE(folding());
  }
  bool folding() const { return store_->stats().hidden_layers > 0; }

  World world_;
  SlowDisk disk_;
  std::unique_ptr<LvStore> store_;
};

TEST_F(LvolFoldWait, a_write_waits_for_no_more_than_a_few_copied_clusters) {
  begin_folding();
  int64_t longest_ms = 0;
  uint32_t writes = 0;
  for (; folding(); writes++) {
    const uint64_t cluster = writes * 29 % fold_cluster_count;
    const int64_t start_ms = disk_.now_ms;
    TestIo io;
    io.start(lvol(), IoType::write, cluster * fold_cluster_blocks + 10, 1, 3);
    ASSERT_TRUE(passes_until([&] { return io.ended; }));
    ASSERT_TRUE(io.io.status.ok());
    longest_ms = std::max(longest_ms, disk_.now_ms - start_ms);
  }
  EXPECT_GT(writes, 10u);
  EXPECT_LE(longest_ms, longest_wait_ms);
  disk_.slow = false;
  while (disk_.advance())
    world_.settle();
  for (uint32_t cluster = 0; cluster < fold_cluster_count; cluster++) {
    const uint64_t first = uint64_t{cluster} * fold_cluster_blocks;
    for (const uint32_t block : {0, 3, 6})
      EXPECT_TRUE(all_are(read_blocks(world_, lvol(), first + block, 1), 1));
    EXPECT_TRUE(all_are(read_blocks(world_, lvol(), first + 1, 1), 2));
    EXPECT_TRUE(all_are(read_blocks(world_, lvol(), first + 7, 1), 0));
  }
}

TEST_F(LvolFoldWait, a_snapshot_waits_for_no_more_than_a_few_copied_clusters) {
  begin_folding();
  for (const char* source : {"b", "a"}) {
    ASSERT_TRUE(folding());
    const int64_t start_ms = disk_.now_ms;
    std::optional<Outcome> prepared;
    spawn(keep_value(store_->prepare_snapshot(source), &prepared));
    ASSERT_TRUE(passes_until([&] { return prepared.has_value(); }));
    EXPECT_TRUE(prepared->ok());
    std::optional<Result<Lvol*>> made;
    spawn(keep_value(store_->snapshot_lvol(source, {.name = std::string("cut-") + source, .uuid = {}}), &made));
    ASSERT_TRUE(passes_until([&] { return made.has_value(); }));
    EXPECT_TRUE(made->ok());
    EXPECT_LE(disk_.now_ms - start_ms, longest_wait_ms) << source;
  }
  ASSERT_TRUE(passes_until([&] { return !folding(); }));
}

}  // namespace
}  // namespace basalt::bdev
