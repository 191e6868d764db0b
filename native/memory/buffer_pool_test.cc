// SPDX-License-Identifier: Apache-2.0
// Goal: the pool's last buffers stay for requests that end on this node, and nobody who may have a buffer waits for
// ever.
#include "memory/buffer_pool.h"

#include <gtest/gtest.h>

#include <vector>

namespace basalt {
namespace {

constexpr size_t big_bytes = BufferPool::buffer_bytes_max;

struct Taker : BufferWaiter {
  BufferPool* pool = nullptr;
  Buffer* taken = nullptr;
  Taker(BufferPool& from, BufferUse wanted) : pool(&from) {
    run = [](Work* work) {
      auto* self = static_cast<Taker*>(static_cast<BufferWaiter*>(work));
      self->taken = self->pool->take(big_bytes, self->use);
    };
    from.wait(this, big_bytes, wanted);
  }
};

class BufferPoolTest : public ::testing::Test {
 protected:
  std::vector<Buffer*> take_all(BufferUse use) {
    std::vector<Buffer*> all;
    while (Buffer* buffer = pool.take(big_bytes, use))
      all.push_back(buffer);
    return all;
  }
  Arena arena{size_t{64} << 20};
  BufferPool pool{arena, size_t{16} << 20};
};

TEST_F(BufferPoolTest, UpperRequestsLeaveTheLastBuffersOfASize) {
  const std::vector<Buffer*> upper = take_all(BufferUse::upper);
  EXPECT_EQ(upper.size(), 14u);
  Buffer* middle = pool.take(big_bytes, BufferUse::middle);
  ASSERT_NE(middle, nullptr);
  EXPECT_EQ(pool.take(big_bytes, BufferUse::middle), nullptr);
  Buffer* local = pool.take(big_bytes);
  ASSERT_NE(local, nullptr);
  EXPECT_EQ(pool.take(big_bytes), nullptr);
  pool.give(local);
  pool.give(middle);
  for (Buffer* buffer : upper)
    pool.give(buffer);
}

TEST_F(BufferPoolTest, EverySizeIsServedWhenAnotherHasUsedUpThePool) {
  const std::vector<Buffer*> upper = take_all(BufferUse::upper);
  for (size_t bytes = BufferPool::buffer_bytes_min; bytes < big_bytes; bytes *= 2) {
    Buffer* buffer = pool.take(bytes, BufferUse::upper);
    ASSERT_NE(buffer, nullptr) << bytes;
    pool.give(buffer);
  }
  for (Buffer* buffer : upper)
    pool.give(buffer);
}

// With the least memory, and one use after the other taking all that it may have.
TEST_F(BufferPoolTest, EveryUseFindsABufferOfEverySize) {
  for (size_t bytes = BufferPool::buffer_bytes_min; bytes <= big_bytes; bytes *= 2) {
    BufferPool least(arena, 0);
    std::vector<Buffer*> taken;
    for (const BufferUse use : {BufferUse::upper, BufferUse::middle, BufferUse::local}) {
      const size_t before = taken.size();
      while (Buffer* buffer = least.take(bytes, use))
        taken.push_back(buffer);
      EXPECT_GT(taken.size(), before) << bytes << " for " << static_cast<int>(use);
    }
    for (Buffer* buffer : taken)
      least.give(buffer);
  }
}

TEST_F(BufferPoolTest, WaitersThatMayHaveTheBufferPassThoseThatMayNot) {
  std::vector<Buffer*> held = take_all(BufferUse::upper);
  while (Buffer* buffer = pool.take(big_bytes))
    held.push_back(buffer);
  Taker upper(pool, BufferUse::upper);
  Taker local(pool, BufferUse::local);
  const auto give_one = [&] {
    pool.give(held.back());
    held.pop_back();
  };
  give_one();
  EXPECT_NE(local.taken, nullptr);
  EXPECT_EQ(upper.taken, nullptr);
  for (int i = 0; i < 2; i++) {
    give_one();
    EXPECT_EQ(upper.taken, nullptr) << "it would be one of the last two";
  }
  give_one();
  EXPECT_NE(upper.taken, nullptr);
  for (Buffer* buffer : {local.taken, upper.taken})
    pool.give(buffer);
  while (!held.empty())
    give_one();
}

}  // namespace
}  // namespace basalt
