// SPDX-License-Identifier: Apache-2.0
// Goal: what malloc lends is there until the end of the turn. What every type does is in bdev/contract_test.cc.
#include "bdev/malloc/malloc.h"

#include "bdev/testing/sim_fixture.h"

namespace basalt::bdev {
namespace {

struct Borrower : Io {
  SimFixture* fixture = nullptr;
  MallocBdev* bdev = nullptr;
  bool closed = false;
  bool turn_ended = false;
  uint8_t seen = 0;
  struct TurnEnd : Work {
    Borrower* borrower = nullptr;
  } turn_end;
};

Task<void> close_at_once(Borrower* borrower) {
  EXPECT_TRUE((co_await borrower->bdev->close()).ok());
  borrower->closed = true;
}

TEST(Malloc, ClosesOnlyAfterTheTurnInWhichItLent) {
  SimFixture fixture;
  auto made = MallocBdev::create(fixture.reactor, {"m", {}, 4096, 16});
  ASSERT_TRUE(made.ok());
  ASSERT_TRUE(fixture.write(**made, 3, std::vector<uint8_t>(4096, 0x5a)).ok());

  Borrower borrower;
  borrower.fixture = &fixture;
  borrower.bdev = made->get();
  borrower.offset_blocks = 3;
  borrower.count_blocks = 1;
  borrower.borrows = true;
  borrower.turn_end.borrower = &borrower;
  borrower.turn_end.run = [](Work* work) {
    Borrower* self = static_cast<Borrower::TurnEnd*>(work)->borrower;
    self->turn_ended = true;
    EXPECT_FALSE(self->closed) << "the memory may be gone";
    self->seen = static_cast<const uint8_t*>(self->lent)[4095];
  };
  borrower.done = [](Io* io) {
    auto* self = static_cast<Borrower*>(io);
    EXPECT_NE(self->lent, nullptr);
    self->fixture->reactor.at_turn_end(&self->turn_end);
    spawn(close_at_once(self));
  };
  (*made)->submit(&borrower);
  EXPECT_TRUE(fixture.run_until([&] { return borrower.turn_ended && borrower.closed; }));
  EXPECT_EQ(borrower.seen, 0x5a);
}

}  // namespace
}  // namespace basalt::bdev
