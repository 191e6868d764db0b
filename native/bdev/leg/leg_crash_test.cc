// SPDX-License-Identifier: Apache-2.0
// Goal: whatever step a controller dies at, whichever members are lost, lose their caches and return, the leg's members
// give every acknowledged byte, never a value that was superseded, and are equal in the end (invariants 1 and 7).
// Method: a controller with a budget of steps (requests that take effect on a member) over members with volatile
// caches; takeovers choose the set as the orchestrator does. Every budget in turn for one history, then random ones.
// The leg may grow once; the orchestrator's record of that (from what size to what size, and that it is done) survives.
// Oracle: per block, the values that a read may give.
#include <random>

#include "bdev/leg/leg_test_util.h"
#include "testing/rounds.h"

namespace basalt::bdev {
namespace {

constexpr uint64_t region_blocks = 16;
constexpr uint64_t small_hot_blocks = 48;  // three regions
constexpr uint64_t hot_blocks = 72;        // of a grown leg: the others lie where the tail was
constexpr uint64_t tail_blocks = leg_tail::tail_bytes / block_bytes;
constexpr uint64_t grown_blocks = test_blocks + tail_blocks + 32;
constexpr size_t member_count = 2;
constexpr uint64_t seeds_of_a_run = testing::rounds_here({.plain = 1500, .asan = 500, .tsan = 60});

// What a block may hold. Values are unique; 0 is "zeroes".
struct BlockOracle {
  std::set<uint32_t> now = {0};    // what a read may give
  std::set<uint32_t> since = {0};  // what it may give when every cache was lost
  uint32_t writing_count = 0;
};

class Machine {
 public:
  Machine(uint64_t seed, const LegPlanted& planted) : random_(seed), planted_(planted), blocks_(hot_blocks) {
    for (size_t i = 0; i < member_count; i++) {
      members_.push_back(std::make_unique<ScriptedMember>(fixture_.reactor, std::string(1, char('a' + i)), true));
      members_[i]->steps_left = &steps_left_;
    }
    in_set_ = {true, true};
  }
  ~Machine() {
    if (leg_ != nullptr) crash();
  }

  // One controller's life, with at most so many steps.
  void live(uint64_t steps, int actions) {
    steps_left_ = steps;
    begin();
    act_on(actions);
    if (steps_left_ > 0 && below(2) == 0) settle(milliseconds(static_cast<int64_t>(below(400))));
  }
  void crash() {
    steps_left_ = 0;
    EXPECT_TRUE(fixture_.run(leg_->close()).ok());
    leg_.reset();
    for (const auto& op : ops_)
      EXPECT_TRUE(op->done);
    ops_.clear();
    for (BlockOracle& block : blocks_)
      block.writing_count = 0;
  }
  // Caches that are lost, members that are out of reach, and whom the next controller takes over.
  void take_over(const std::vector<bool>& lost, std::vector<bool> reached) {
    std::vector<bool> kept(member_count), next(member_count);
    bool any_kept = false;
    for (size_t i = 0; i < member_count; i++) {
      if (lost[i]) {
        const uint64_t pattern = random_();
        members_[i]->lose_cache([&](uint64_t block) { return (pattern >> block % 64 & 1) != 0; });
      }
      kept[i] = in_set_[i] && reached[i] && !lost[i];
      any_kept |= kept[i];
    }
    // Nobody in reach is known to have its cache: the orchestrator waits for the others.
    if (!any_kept) reached.assign(member_count, true);
    for (size_t i = 0; i < member_count; i++)
      kept[i] = in_set_[i] && reached[i] && !lost[i];
    any_kept = std::find(kept.begin(), kept.end(), true) != kept.end();
    for (size_t i = 0; i < member_count; i++)
      next[i] = any_kept ? kept[i] : in_set_[i];
    if (!any_kept) {
      for (BlockOracle& block : blocks_)
        block.now = block.since;
    }
    in_set_ = next;
  }
  void take_over_at_random() {
    std::vector<bool> lost, reached;
    for (size_t i = 0; i < member_count; i++) {
      lost.push_back(below(3) == 0);
      reached.push_back(below(4) != 0);
    }
    take_over(lost, reached);
  }
  // All come back; every block is read from every member.
  void end_well() {
    steps_left_ = 1'000'000;
    begin();
    for (size_t i = 0; i < member_count; i++) {
      if (!in_set_[i]) join(i);
    }
    read_all();
    finish_growing();
    read_all();
    settle(seconds(3));
    if (!leg_->equal() || leg_->marked_count() != 0) problem = "the leg does not come to rest";
    for (size_t i = 1; i < member_count && problem.empty(); i++) {
      const bool equal =
          std::equal(members_[0]->contents.begin(), members_[0]->contents.begin() + served_blocks_ * block_bytes,
                     members_[i]->contents.begin());
      if (!equal) problem = "members differ in the end";
    }
    crash();
  }
  void begin() {
    LegOptions options;
    options.name = "leg";
    options.identity = "volume/0";
    options.epoch = ++epoch_;
    options.count_blocks = served_blocks_;
    options.grown_blocks = growing_to_blocks_;
    options.all_dirty = epoch_ > 1;
    options.mark_region_bytes_min = region_blocks * block_bytes;
    options.mark_rest = milliseconds(20);
    options.replicas = {"a", "b"};
    options.planted = planted_;
    std::vector<LegMember> members;
    for (size_t i = 0; i < member_count; i++) {
      members_[i]->status = nvme::status::success;
      if (in_set_[i]) members.emplace_back(Handle(*members_[i], fixture_.reactor));
    }
    LegEvents events;
    events.member_copied = [this](const LegMemberInfo& info) {
      copied_ = info.name;
      (info.resync == Resync::delta ? delta_count : full_count)++;
    };
    auto made = LegBdev::create(fixture_.reactor, options, std::move(members), std::move(events));
    ASSERT_TRUE(made.ok());
    leg_ = std::move(made).value();
  }

  size_t below(size_t n) { return random_() % n; }
  void act_on(int actions) {
    for (int i = 0; i < actions && steps_left_ > 0 && problem.empty(); i++)
      act();
  }
  // The orchestrator has recorded that the leg grows; it is told to.
  void begin_growing() {
    for (const auto& member : members_)
      member->grow(grown_blocks);
    growing_to_blocks_ = grown_blocks;
    spawn(grow_once());
  }

  std::string problem;
  uint64_t delta_count = 0;
  uint64_t full_count = 0;
  uint64_t steps_left_ = 0;
  bool may_grow = false;
  uint64_t served_blocks_ = test_blocks;

 private:
  struct Op {
    Io io;
    Iovec iov;
    std::vector<uint32_t> data;
    Machine* machine = nullptr;
    uint32_t value = 0;
    uint64_t first = 0;  // of the hot blocks
    bool done = false;
    std::vector<std::set<uint32_t>> snapshot;  // a flush: what was there when it began
    uint32_t first_value = 0;                  // a flush: values from here on came later
  };

  // What is known to have ended is recorded, if the controller lives to do so.
  Task<void> grow_once() {
    growing_now_ = true;
    const uint64_t epoch = epoch_;
    auto growing = leg_->grow(grown_blocks);
    const Outcome outcome = co_await growing;
    growing_now_ = false;
    if (!outcome || steps_left_ == 0 || epoch != epoch_ || below(4) == 0) co_return;
    served_blocks_ = grown_blocks;
    growing_to_blocks_ = 0;
  }
  void finish_growing() {
    for (int tries = 0; growing_to_blocks_ != 0 && problem.empty(); tries++) {
      if (!growing_now_) spawn(grow_once());
      settle(milliseconds(200));
      if (tries == 100) problem = "the leg does not grow";
    }
  }
  void read_all() {
    for (uint64_t block = 0; block < usable_blocks(); block++) {
      for (int i = 0; i < 4; i++)
        read(block);
    }
  }
  uint64_t usable_blocks() const { return served_blocks_ > test_blocks ? hot_blocks : small_hot_blocks; }
  static uint64_t address_of(uint64_t hot_block) {
    return hot_block < small_hot_blocks ? hot_block : test_blocks + hot_block - small_hot_blocks;
  }

  void act() {
    if (may_grow && !growing_now_ && served_blocks_ == test_blocks && below(8) == 0) return begin_growing();
    switch (below(12)) {
      case 0:
        return settle(milliseconds(static_cast<int64_t>(below(60))));
      case 1:
        return flush();
      case 2:
        return read(below(usable_blocks()));
      case 3:
        return lose_or_join();
      case 4:
        return settle(microseconds(static_cast<int64_t>(below(30))));
      default:
        return write();
    }
  }

  void write() {
    const size_t kind = below(8);
    const IoType type = kind == 0 ? IoType::unmap : kind == 1 ? IoType::write_zeroes : IoType::write;
    Op& op = make(type, below(usable_blocks()), 1 + below(6));
    op.io.fua = below(4) == 0;
    op.value = type == IoType::write ? ++last_value_ : 0;
    for (uint64_t i = 0; i < op.io.count_blocks; i++) {
      op.data[i * block_bytes / 4] = op.value;
      BlockOracle& block = blocks_[op.first + i];
      block.now.insert(op.value);
      block.since.insert(op.value);
      block.writing_count++;
    }
    submit(op);
    if (below(3) != 0) wait(op);
  }
  void write_ended(Op& op) {
    for (uint64_t i = 0; i < op.io.count_blocks; i++) {
      BlockOracle& block = blocks_[op.first + i];
      block.writing_count--;
      // Others in flight there may be before or after it: nothing is known then.
      if (!op.io.status.ok() || block.writing_count > 0) continue;
      block.now = {op.value};
      if (op.io.fua) block.since = {op.value};
    }
  }
  void flush() {
    Op& op = make(IoType::flush, 0, 0);
    for (const BlockOracle& block : blocks_)
      op.snapshot.push_back(block.now);
    op.first_value = last_value_ + 1;
    flushing_++;
    touched_.assign(hot_blocks, false);
    submit(op);
    wait(op);
    flushing_--;
    if (!op.done || !op.io.status.ok()) return;
    for (uint64_t i = 0; i < hot_blocks; i++) {
      // Nobody wrote there meanwhile: what it may hold is what it may hold for ever.
      if (!touched_[i] && blocks_[i].writing_count == 0) blocks_[i].since = op.snapshot[i];
    }
  }
  void read(uint64_t at) {
    Op& op = make(IoType::read, at, 1);
    const bool busy = blocks_[at].writing_count > 0;
    submit(op);
    wait(op);
    if (!op.done || !op.io.status.ok()) {
      if (steps_left_ > 0 && !leg_->waiting()) problem = "a read is not answered";
      return;
    }
    const uint32_t value = op.data[0];
    BlockOracle& block = blocks_[at];
    if (!block.now.contains(value)) {
      problem = "block " + std::to_string(at) + " gives " + std::to_string(value);
      return;
    }
    // A value once read is kept.
    if (!busy && block.writing_count == 0) block.now = {value};
  }
  void lose_or_join() {
    const size_t i = below(member_count);
    const size_t other = 1 - i;
    if (!in_set_[i]) return join(i);
    if (!in_set_[other] || below(2) == 0) return;
    ScriptedMember& member = *members_[i];
    member.status = nvme::status::host_path_error;
    leg_->member_lost(member.info().name);
    if (below(2) == 0) write();
    if (steps_left_ == 0) return;  // it died before the swap
    if (!leg_->remove_member(member.info().name).ok()) return;
    in_set_[i] = false;
    fixture_.run_until([&] { return !leg_->uses(member); }, seconds(1));
    member.status = nvme::status::success;
    if (below(2) == 0) member.lose_cache();
  }
  void join(size_t i) {
    ScriptedMember& member = *members_[i];
    member.status = nvme::status::success;
    copied_.clear();
    if (!leg_->add_member(Handle(member, fixture_.reactor)).ok()) return;
    if (below(3) == 0) write();
    fixture_.run_until([&] { return !copied_.empty() || steps_left_ == 0; }, seconds(20));
    if (copied_.empty() || steps_left_ == 0) {
      if (steps_left_ > 0) problem = "a resync does not end";
      return;
    }
    in_set_[i] = true;
    if (!leg_->commit_member(member.info().name).ok()) problem = "a copied member cannot be committed";
  }

  Op& make(IoType type, uint64_t block, uint64_t count) {
    count = std::min(count, (block < small_hot_blocks ? small_hot_blocks : hot_blocks) - block);
    ops_.push_back(std::make_unique<Op>());
    Op& op = *ops_.back();
    op.machine = this;
    op.data.resize(std::max<uint64_t>(count, 1) * block_bytes / 4);
    op.iov = {op.data.data(), op.data.size() * 4};
    op.io.type = type;
    op.first = block;
    op.io.offset_blocks = address_of(block);
    op.io.count_blocks = static_cast<uint32_t>(count);
    op.io.iov = &op.iov;
    op.io.iov_count = 1;
    op.io.context = &op;
    op.io.done = [](Io* io) {
      Op* op = static_cast<Op*>(io->context);
      op->done = true;
      if (op->io.type != IoType::read && op->io.type != IoType::flush) op->machine->write_ended(*op);
    };
    if (type != IoType::read && type != IoType::flush && flushing_ > 0) {
      for (uint64_t i = 0; i < count; i++)
        touched_[block + i] = true;
    }
    return op;
  }
  void submit(Op& op) { leg_->submit(&op.io); }
  void wait(Op& op) {
    fixture_.run_until([&] { return op.done || steps_left_ == 0; }, seconds(5));
    if (!op.done && steps_left_ > 0 && !leg_->waiting()) problem = "a request does not end";
  }
  void settle(Duration time) { fixture_.world.run_for(time); }

  std::mt19937_64 random_;
  LegPlanted planted_;
  SimFixture fixture_;
  std::vector<std::unique_ptr<ScriptedMember>> members_;
  std::vector<bool> in_set_;
  std::vector<BlockOracle> blocks_;
  std::vector<bool> touched_ = std::vector<bool>(hot_blocks);
  std::unique_ptr<LegBdev> leg_;
  std::vector<std::unique_ptr<Op>> ops_;
  std::string copied_;
  uint64_t epoch_ = 0;
  uint64_t growing_to_blocks_ = 0;
  bool growing_now_ = false;
  uint32_t last_value_ = 0;
  int flushing_ = 0;
};

uint64_t base_seed() {
  const char* text = std::getenv("BASALT_SEED");
  return text == nullptr ? 20261121 : std::strtoull(text, nullptr, 0);
}

std::string run(uint64_t seed, const LegPlanted& planted, uint64_t* deltas = nullptr, uint64_t* fulls = nullptr,
                bool may_grow = false) {
  Machine machine(seed, planted);
  machine.may_grow = may_grow;
  const size_t lives = 2 + machine.below(4);
  for (size_t life = 0; life < lives && machine.problem.empty(); life++) {
    machine.live(5 + machine.below(60), 30);
    machine.crash();
    if (machine.problem.empty()) machine.take_over_at_random();
  }
  if (machine.problem.empty()) machine.end_well();
  if (deltas != nullptr) *deltas += machine.delta_count;
  if (fulls != nullptr) *fulls += machine.full_count;
  return machine.problem;
}

// One history, cut at every step, with every loss of members and caches afterwards.
TEST(LegCrash, EveryStepOfAWritingControllerCanBeItsLast) {
  uint64_t state_count = 0;
  for (uint64_t steps = 1; steps <= 40; steps += testing::cut_stride) {
    for (unsigned lost = 0; lost < 4; lost++) {
      for (unsigned reached = 1; reached < 4; reached++) {
        Machine machine(base_seed(), {});
        machine.live(steps, 30);
        machine.crash();
        machine.take_over({(lost & 1) != 0, (lost & 2) != 0}, {(reached & 1) != 0, (reached & 2) != 0});
        machine.end_well();
        ASSERT_EQ(machine.problem, "") << "seed " << base_seed() << " steps " << steps << " lost " << lost
                                       << " reached " << reached;
        state_count++;
      }
    }
  }
  RecordProperty("states", static_cast<int>(state_count));
}

TEST(LegCrash, RandomLivesOfControllersKeepEveryAcknowledgedByte) {
  uint64_t deltas = 0, fulls = 0;
  for (uint64_t seed = base_seed(); seed < base_seed() + seeds_of_a_run; seed++)
    ASSERT_EQ(run(seed, {}, &deltas, &fulls), "") << "seed " << seed;
  EXPECT_GT(deltas, fulls) << "most returns are delta resyncs";
}

// One growth, cut at every step, with every loss of members and caches afterwards, and once more.
TEST(LegCrash, EveryStepOfAGrowingControllerCanBeItsLast) {
  uint64_t grown_count = 0;
  uint64_t tried_count = 0;
  for (uint64_t steps = 20; steps <= 60; steps += testing::cut_stride) {
    for (unsigned lost = 0; lost < 4; lost++) {
      for (unsigned reached = 1; reached < 4; reached++) {
        Machine machine(base_seed() + lost * 4 + reached, {});
        machine.live(20, 6);
        machine.crash();
        machine.steps_left_ = steps - 19;
        machine.begin();
        machine.begin_growing();
        machine.act_on(12);
        machine.crash();
        machine.take_over({(lost & 1) != 0, (lost & 2) != 0}, {(reached & 1) != 0, (reached & 2) != 0});
        machine.live(1 + machine.below(20), 8);
        machine.crash();
        machine.take_over({(lost & 2) != 0, (lost & 1) != 0}, {(reached & 2) != 0, (reached & 1) != 0});
        machine.end_well();
        ASSERT_EQ(machine.problem, "") << "seed " << base_seed() << " steps " << steps << " lost " << lost
                                       << " reached " << reached;
        grown_count += machine.served_blocks_ == grown_blocks ? 1 : 0;
        tried_count++;
      }
    }
  }
  EXPECT_EQ(grown_count, tried_count) << "every leg ends grown";
}

TEST(LegCrash, RandomLivesOfGrowingLegsKeepEveryAcknowledgedByte) {
  for (uint64_t seed = base_seed(); seed < base_seed() + seeds_of_a_run * 2 / 5; seed++)
    ASSERT_EQ(run(seed, {}, nullptr, nullptr, true), "") << "seed " << seed;
}

uint64_t caught_count(const LegPlanted& planted, bool may_grow = false) {
  uint64_t caught = 0;
  for (uint64_t seed = base_seed(); seed < base_seed() + 1500 && caught == 0; seed++)
    caught += run(seed, planted, nullptr, nullptr, may_grow).empty() ? 0 : 1;
  return caught;
}

TEST(LegCrash, EachPlantedBugIsCaught) {
  EXPECT_EQ(caught_count({.skip_marks = true}), 1u);
  EXPECT_EQ(caught_count({.clear_before_flush = true}), 1u);
  EXPECT_EQ(caught_count({.ignore_own_marks = true}), 1u);
  EXPECT_EQ(caught_count({.skip_vacate = true}, true), 1u);
  EXPECT_EQ(caught_count({.trust_absent = true}, true), 1u);
}

}  // namespace
}  // namespace basalt::bdev
