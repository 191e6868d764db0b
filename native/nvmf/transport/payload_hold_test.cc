// SPDX-License-Identifier: Apache-2.0
#include "nvmf/transport/payload_hold.h"

#include <gtest/gtest.h>

#include <vector>

#include "nvmf/transport/memory_net_testing.h"

namespace basalt::testing {
namespace {

constexpr uint32_t large = BufferPool::buffer_bytes_max;

class PayloadHolds : public ::testing::Test {
 protected:
  struct Waiting {
    nvmf::PayloadHold hold;
    bool is_ready = false;
    Waiting() {
      hold.context = &is_ready;
      hold.ready = [](nvmf::PayloadHold* each) { *static_cast<bool*>(each->context) = true; };
    }
  };
  PayloadHolds() {
    BASALT_ASSERT(reactor.init().ok());
    net.add(&reactor);
  }
  // What others hold, until the pool of that size is empty.
  void empty_the_pool() {
    while (Buffer* buffer = reactor.buffers().take(large))
      taken.push_back(buffer);
  }
  void give_one() {
    reactor.buffers().give(taken.back());
    taken.pop_back();
  }
  ~PayloadHolds() override {
    while (!taken.empty())
      give_one();
  }

  MemoryNet net{1};
  Arena arena{size_t{64} << 20};
  Reactor reactor{net, arena, {}};
  nvmf::HostShare share{"nqn.host", 2 * size_t{large}};
  std::vector<Buffer*> taken;
};

TEST_F(PayloadHolds, OfAHostAtItsLimitWaitForItsOwnBuffers) {
  Waiting first, second, third;
  const nvmf::PayloadWant want{&share, large};
  ASSERT_TRUE(first.hold.take(reactor, want));
  ASSERT_TRUE(second.hold.take(reactor, want));
  EXPECT_FALSE(third.hold.take(reactor, want));
  first.hold.release();
  EXPECT_TRUE(net.run_until([&] { return third.is_ready; }));
  second.hold.release();
  third.hold.release();
  EXPECT_EQ(share.held_bytes(), 0u);
}

TEST_F(PayloadHolds, ThatLeaveThePoolsLineWakeTheNextOfTheirHost) {
  Waiting holder, leaver, last;
  nvmf::HostShare one{"nqn.other", large};
  const nvmf::PayloadWant want{&one, large};
  ASSERT_TRUE(holder.hold.take(reactor, want));
  EXPECT_FALSE(leaver.hold.take(reactor, want));
  EXPECT_FALSE(last.hold.take(reactor, want));
  // The host's buffer comes back and goes to somebody else: who was first in the host's line is in the pool's now.
  empty_the_pool();
  holder.hold.release();
  empty_the_pool();
  net.run_for(milliseconds(1));
  EXPECT_FALSE(leaver.is_ready);
  leaver.hold.leave_line();
  net.run_for(milliseconds(1));
  give_one();
  EXPECT_TRUE(net.run_until([&] { return last.is_ready; }));
  last.hold.release();
}

}  // namespace
}  // namespace basalt::testing
