// SPDX-License-Identifier: Apache-2.0
// Overwrites and reads of an lvol, once warm, take nothing from the heap. Every operator new of this program is
// counted.
#include <cstdlib>
#include <new>

#include "bdev/lvol/crash_disk_test_util.h"
#include "bdev/lvol/lvstore.h"
#include "bdev/malloc/malloc.h"

namespace {
size_t allocation_count = 0;
}

void* operator new(size_t bytes) {
  allocation_count++;
  void* memory = std::malloc(bytes == 0 ? 1 : bytes);
  if (memory == nullptr) std::abort();
  return memory;
}
void operator delete(void* memory) noexcept {
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept {
  std::free(memory);
}

namespace basalt::bdev {
namespace {

using namespace test;  // NOLINT

TEST(LvAllocation, overwrites_and_reads_take_nothing_from_the_heap) {
  World world(1);
  auto base = MallocBdev::create(world.reactor, {"m", {}, 4096, 4096});
  ASSERT_TRUE(base.ok());
  LvStoreOptions options{.name = "pool", .uuid = {}, .cluster_bytes = 64 << 10};
  auto made = run(world, LvStore::create(world.reactor, Handle(**base, world.reactor), options));
  ASSERT_TRUE(made.ok());
  auto store = std::move(*made);
  auto lvol = run(world, store->create_lvol({.name = "a", .uuid = {}, .size_bytes = 4 << 20}));
  ASSERT_TRUE(lvol.ok());
  ASSERT_TRUE(do_io(world, **lvol, IoType::write, 0, 256, 1).ok());

  TestIo write;
  TestIo read;
  size_t before = 0;
  for (int round = 0; round < 2000; round++) {
    if (round == 1000) before = allocation_count;
    const auto offset = static_cast<uint64_t>(round) % 200;
    write.start(**lvol, IoType::write, offset, 20, static_cast<uint8_t>(round % 250 + 1));
    read.start(**lvol, IoType::read, 200 + offset % 20, 20);  // data and zeroes
    while (!write.ended || !read.ended)
      world.reactor.turn();
    ASSERT_TRUE(write.io.status.ok() && read.io.status.ok());
  }
  EXPECT_EQ(allocation_count - before, 0u);

  EXPECT_TRUE(run(world, store->close()).ok());
  world.settle();
  store.reset();
  EXPECT_TRUE(run(world, (*base)->close()).ok());
}

}  // namespace
}  // namespace basalt::bdev
