// SPDX-License-Identifier: Apache-2.0
#include "runtime/reactor.h"

#include <gtest/gtest.h>

namespace basalt {
namespace {

// What the reactor asked of its poller, in order; the clock goes on by a microsecond at each look.
struct Asked {
  unsigned ways_given = 0;
  unsigned waits = 0;
  unsigned ways_given_before_first_wait = 0;
  unsigned stop_after_waits = 1;
  Reactor* reactor = nullptr;
};

class IdlePoller final : public env::Poller {
 public:
  explicit IdlePoller(Asked& asked) : asked_(asked) {}
  size_t poll() override { return 0; }
  void wait(Instant) override {
    if (asked_.waits++ == 0) asked_.ways_given_before_first_wait = asked_.ways_given;
    if (asked_.waits == asked_.stop_after_waits) asked_.reactor->stop();
  }
  void wake() override {}
  void give_way() override { asked_.ways_given++; }
  Result<std::unique_ptr<env::StreamListener>> listen(const env::Address&) override { return none(); }
  Result<std::unique_ptr<env::StreamSocket>> connect(const env::Address&) override { return none(); }
  std::unique_ptr<env::StreamSocket> adopt(std::unique_ptr<env::PendingSocket>) override { return nullptr; }
  Result<std::unique_ptr<env::BlockFile>> open(const env::FileOptions&) override { return none(); }
  std::string description() const override { return "idle"; }

 private:
  static Error none() { return {Errc::unsupported, "not in this test"}; }
  Asked& asked_;
};

class IdleEnv final : public env::Env {
 public:
  explicit IdleEnv(Asked& asked) : asked_(asked) {}
  Instant now() const override { return {now_ns_ += 1000}; }
  int64_t wall_ms() const override { return 0; }
  void random(void*, size_t) override {}
  Result<std::unique_ptr<env::Poller>> make_poller(const env::PollerOptions&) override {
    return std::unique_ptr<env::Poller>(std::make_unique<IdlePoller>(asked_));
  }
  std::unique_ptr<env::LoopHandle> start(env::Loop&, const env::LoopOptions&) override { return nullptr; }

 private:
  Asked& asked_;
  mutable int64_t now_ns_ = 0;
};

Asked run_idle(PollMode mode, Duration spin) {
  Asked asked;
  IdleEnv env(asked);
  Arena arena(size_t{1} << 20);
  ReactorOptions options;
  options.mode = mode;
  options.spin = spin;
  Reactor reactor(env, arena, options);
  asked.reactor = &reactor;
  EXPECT_TRUE(reactor.init().ok());
  reactor.run();
  return asked;
}

TEST(Reactor, WhileItLooksForWorkOthersMayHaveTheProcessor) {
  const Asked asked = run_idle(PollMode::adaptive, microseconds(100));
  EXPECT_EQ(asked.waits, 1u);
  EXPECT_GE(asked.ways_given_before_first_wait, 98u);
  EXPECT_LE(asked.ways_given_before_first_wait, 100u);
}

TEST(Reactor, SleepsAtOnceWhereItMayNotLook) {
  EXPECT_EQ(run_idle(PollMode::interrupt, microseconds(100)).ways_given, 0u);
  EXPECT_EQ(run_idle(PollMode::adaptive, Duration{}).ways_given, 0u);
}

}  // namespace
}  // namespace basalt
