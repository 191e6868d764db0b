// SPDX-License-Identifier: Apache-2.0
// Goal: whatever step a controller dies at, whichever members are then out of reach (as many as there is parity), lose
// their caches and return, a leg with parity gives every acknowledged byte, and never a value that was superseded or
// that nobody wrote.
// Method: controllers with a budget of steps (requests that take effect on a member) over members with volatile caches.
// The record of who is in the set is swapped as the orchestrator does it, and the controller may die on either side of
// each swap. One replica is outside of the set: it is exchanged for others while they serve. Every budget in turn for
// one history, then random ones.
// Oracle: per block, the values that a read may give. As many members may be out of reach or have lost their caches,
// all in all, as there is parity; where more did, what no flush covered may be as it was at the last one.
#include <random>
#include <set>

#include "bdev/raid/parity_leg_test_util.h"
#include "testing/rounds.h"

namespace basalt::bdev {
namespace {

constexpr uint64_t parity_hot_blocks = 24;  // whole stripes
constexpr uint64_t parity_seeds_of_a_run = testing::rounds_here({.plain = 400, .asan = 60, .tsan = 20});

struct ParityBlock {
  std::set<uint32_t> now = {0};    // what a read may give
  std::set<uint32_t> since = {0};  // what it may give when more caches were lost than there is parity
  uint32_t writing_count = 0;
  bool contested = false;  // several were in flight at once: either may be the last
};

class ParityMachine {
 public:
  ParityMachine(uint64_t seed, uint32_t k, uint32_t m, const RaidPlantedBugs& bugs)
      : rig_(k, m, 1), random_(seed), blocks_(parity_hot_blocks), in_set_(k + m, true), forgetful_(k + m + 1) {
    in_set_.push_back(false);
    rig_.planted.raid = bugs;
    for (auto& member : rig_.members)
      member->steps_left = &steps_left_;
  }
  ~ParityMachine() {
    crash();
    for (auto& member : rig_.members)
      member->steps_left = nullptr;
  }

  void live(uint64_t steps, int actions) {
    steps_left_ = steps;
    begin();
    for (int i = 0; i < actions && alive(); i++)
      act();
  }
  void crash() {
    steps_left_ = 0;
    if (rig_.leg != nullptr) {
      EXPECT_TRUE(rig_.fixture.run(rig_.leg->close()).ok());
      rig_.leg.reset();
    }
    for (const auto& op : ops_)
      EXPECT_TRUE(op->done);
    ops_.clear();
    for (ParityBlock& block : blocks_) {
      block.writing_count = 0;
      block.contested = false;
    }
  }
  // Caches that are lost, and members of the set that are out of reach: those leave the record.
  void take_over(uint32_t lost, uint32_t unreached) {
    uint32_t good_count = 0;
    for (size_t i = 0; i < in_set_.size(); i++) {
      const bool leaves = in_set_[i] && (unreached >> i & 1) != 0 && set_count() > rig_.k;
      const bool forgets = (lost >> i & 1) != 0 && !rig_.members[i]->flushed();
      forgetful_[i] = forgetful_[i] || forgets;
      good_count += in_set_[i] && !leaves && !forgetful_[i] ? 1 : 0;
      if (leaves) in_set_[i] = false;
      if (!forgets) continue;
      const uint64_t pattern = random_();
      rig_.members[i]->lose_cache([&](uint64_t block) { return (pattern >> block % 64 & 1) != 0; });
    }
    if (good_count >= rig_.k) return;
    for (ParityBlock& block : blocks_)
      block.now = block.since;
  }
  void take_over_at_random() {
    take_over(static_cast<uint32_t>(random_()), below(2) == 0 ? 0 : static_cast<uint32_t>(random_()));
  }
  // All come back; then as many as may be are lost, and the others tell.
  void end_well() {
    steps_left_ = 1'000'000;
    begin();
    for (size_t i = 0; i < in_set_.size() && problem.empty(); i++) {
      if (!in_set_[i] && set_count() < rig_.k + rig_.m) join(i, true);
    }
    read_all();
    crash();
    take_over(static_cast<uint32_t>(random_()), 0);
    const uint32_t gone = static_cast<uint32_t>(random_());
    take_over(0, gone == 0 ? 1 : gone);
    steps_left_ = 1'000'000;
    begin();
    read_all();
    crash();
  }
  size_t below(size_t n) { return random_() % n; }

  std::string problem;
  uint64_t join_count = 0;
  uint64_t delta_count = 0;
  uint64_t exchange_count = 0;

 private:
  struct Op {
    Io io;
    Iovec iov;
    std::vector<uint32_t> data;
    ParityMachine* machine = nullptr;
    uint32_t value = 0;
    bool done = false;
    std::vector<std::set<uint32_t>> snapshot;  // a flush: what was there when it began
  };

  bool alive() const { return steps_left_ > 0 && problem.empty() && rig_.leg != nullptr; }
  size_t set_count() const { return static_cast<size_t>(std::count(in_set_.begin(), in_set_.end(), true)); }
  void begin() {
    std::vector<size_t> set;
    for (size_t i = 0; i < in_set_.size(); i++) {
      rig_.members[i]->status = nvme::status::success;
      if (in_set_[i]) set.push_back(i);
    }
    rig_.copied.clear();
    const Outcome opened = rig_.open(set);
    if (!opened && steps_left_ > 0) problem = "it does not open: " + opened.error().message;
    if (opened) forgetful_.assign(in_set_.size(), false);  // the logs were replayed
  }
  void read_all() {
    for (uint64_t block = 0; block < parity_hot_blocks && alive(); block++)
      read(block);
  }

  void act() {
    switch (below(10)) {
      case 0:
        return rig_.settle(microseconds(static_cast<int64_t>(below(500))));
      case 1:
        return flush();
      case 2:
        return read(below(parity_hot_blocks));
      case 3:
      case 4:
        return lose_or_join();
      default:
        return write();
    }
  }

  void write() {
    const size_t kind = below(12);
    const IoType type = kind == 0 ? IoType::unmap : kind == 1 ? IoType::write_zeroes : IoType::write;
    const uint64_t stripe_blocks = uint64_t{4} * rig_.k;
    const bool whole = below(3) == 0;
    const uint64_t first = whole ? below(parity_hot_blocks / stripe_blocks) * stripe_blocks : below(parity_hot_blocks);
    const uint64_t stripes = type == IoType::write ? 1 : 1 + below(3);
    Op& op = make(type, first, whole ? stripes * stripe_blocks : 1 + below(6));
    op.io.fua = below(4) == 0;
    op.value = type == IoType::write ? ++last_value_ : 0;
    std::fill(op.data.begin(), op.data.end(), op.value);
    for (uint64_t i = 0; i < op.io.count_blocks; i++) {
      ParityBlock& block = blocks_[op.io.offset_blocks + i];
      block.now.insert(op.value);
      block.since.insert(op.value);
      if (block.writing_count++ > 0) block.contested = true;
    }
    rig_.leg->submit(&op.io);
    if (below(3) != 0) wait_for(op);
  }
  void write_ended(const Op& op) {
    for (uint64_t i = 0; i < op.io.count_blocks; i++) {
      ParityBlock& block = blocks_[op.io.offset_blocks + i];
      block.writing_count--;
      if (block.writing_count > 0) continue;
      const bool contested = std::exchange(block.contested, false);
      if (!op.io.status.ok() || contested) continue;
      block.now = {op.value};
      if (op.io.fua) block.since = {op.value};
    }
  }
  // Nothing else is in flight or begins meanwhile, where it is known what the flush covers.
  void flush() {
    Op& op = make(IoType::flush, 0, 1);
    for (const ParityBlock& block : blocks_)
      op.snapshot.push_back(block.writing_count == 0 ? block.now : block.since);
    wait(op);
    if (!op.done || !op.io.status.ok()) return;
    for (size_t i = 0; i < blocks_.size(); i++)
      if (blocks_[i].writing_count == 0) blocks_[i].since = op.snapshot[i];
  }
  void read(uint64_t at) {
    ParityBlock& block = blocks_[at];
    const bool busy = block.writing_count > 0;
    // What was there when it began is an answer, too, whatever has ended meanwhile.
    std::set<uint32_t> allowed = block.now;
    Op& op = make(IoType::read, at, 1);
    wait(op);
    allowed.insert(block.now.begin(), block.now.end());
    if (!op.done || !op.io.status.ok()) {
      if (alive() && !rig_.leg->waiting()) problem = "a read is not answered";
      return;
    }
    const uint32_t value = op.data[0];
    const bool whole = std::all_of(op.data.begin(), op.data.end(), [&](uint32_t word) { return word == value; });
    if (!whole || !allowed.contains(value)) {
      problem = "block " + std::to_string(at) + " gives " + (whole ? std::to_string(value) : "a mix");
      return;
    }
    // A value once read is kept.
    if (!busy && block.writing_count == 0) block.now = {value};
  }
  void lose_or_join() {
    const size_t i = below(in_set_.size());
    if (!in_set_[i]) return set_count() < rig_.k + rig_.m && below(4) != 0 ? join(i, false) : exchange(i);
    if (set_count() == rig_.k || below(2) == 0) return;
    lose(i);
  }
  void lose(size_t i) {
    ScriptedMember& member = *rig_.members[i];
    member.status = nvme::status::host_path_error;
    rig_.leg->member_lost(member.info().name);
    if (below(2) == 0) write();
    if (!alive() || below(8) == 0) return steps_end();  // it died before the swap
    in_set_[i] = false;
    if (below(8) == 0) return steps_end();  // or right after it
    let_go(i);
  }
  void let_go(size_t i) {
    ScriptedMember& member = *rig_.members[i];
    if (!rig_.leg->remove_member(member.info().name).ok()) problem = "a member cannot be removed";
    auto releasing = rig_.leg->released(member);
    rig_.fixture.run(finished(std::move(releasing)));
    member.status = nvme::status::success;
    if (below(2) == 0) member.lose_cache();
  }
  // Member i takes over from another one, by one swap; this one may fail before.
  void exchange(size_t i) {
    size_t old = below(in_set_.size());
    while (!in_set_[old])
      old = (old + 1) % in_set_.size();
    ScriptedMember& member = *rig_.members[i];
    member.status = nvme::status::success;
    rig_.copied.clear();
    LegMember with(rig_.handle(i));
    with.instead_of = rig_.members[old]->info().name;
    const auto added = [&] { return steps_left_ == 0 || rig_.leg->add_member(with).ok(); };
    if (!rig_.fixture.run_until(added, seconds(1))) problem = "a member cannot be exchanged";
    for (size_t writes = below(4); writes > 0 && alive(); writes--)
      write();
    if (alive() && set_count() > rig_.k && below(5) == 0) lose(old);
    rig_.fixture.run_until([&] { return !rig_.copied.empty() || steps_left_ == 0; }, seconds(20));
    if (!alive()) return;
    if (rig_.copied.empty()) {
      problem = "an exchange does not end";
      return;
    }
    if (below(3) == 0) write();
    if (!alive() || below(6) == 0) return steps_end();  // its swap was not made
    if (below(6) == 0) {
      if (!rig_.leg->abandon_member(member.info().name).ok()) problem = "an exchange cannot be called off";
      return;
    }
    const bool serves = in_set_[old];
    in_set_[old] = false;
    in_set_[i] = true;
    if (below(6) == 0) return steps_end();  // or the leg never heard of it
    exchange_count += serves ? 1 : 0;
    if (!rig_.leg->commit_member(member.info().name).ok()) problem = "a copied member cannot be committed";
    if (below(3) == 0 && alive()) write();
    if (!alive() || below(8) == 0) return steps_end();  // or not that the old one may go
    if (serves) let_go(old);
  }
  void join(size_t i, bool to_the_end) {
    ScriptedMember& member = *rig_.members[i];
    const std::string name = member.info().name;
    member.status = nvme::status::success;
    rig_.copied.clear();
    // The place of one that was let go is free a little later.
    const auto added = [&] { return steps_left_ == 0 || rig_.leg->add_member(rig_.handle(i)).ok(); };
    if (!rig_.fixture.run_until(added, seconds(1))) problem = "a member cannot be added";
    if (below(3) == 0 && alive()) write();
    rig_.fixture.run_until([&] { return !rig_.copied.empty() || steps_left_ == 0; }, seconds(20));
    if (!alive()) return;
    if (rig_.copied.empty()) {
      problem = "a rebuild does not end";
      return;
    }
    if (!to_the_end && below(6) == 0) return steps_end();  // its swap was not made
    in_set_[i] = true;
    if (!to_the_end && below(6) == 0) return steps_end();  // or the leg never heard of it
    join_count++;
    for (const LegMemberInfo& info : rig_.leg->members())
      delta_count += info.name == name && info.resync == Resync::delta ? 1 : 0;
    if (!rig_.leg->commit_member(name).ok()) problem = "a copied member cannot be committed";
  }
  void steps_end() { steps_left_ = 0; }
  static Task<bool> finished(Task<void> task) {
    co_await task;
    co_return true;
  }

  Op& make(IoType type, uint64_t block, uint64_t count) {
    count = std::min(count, parity_hot_blocks - block);
    ops_.push_back(std::make_unique<Op>());
    Op& op = *ops_.back();
    op.machine = this;
    op.data.resize(count * block_bytes / 4);
    op.iov = {op.data.data(), op.data.size() * 4};
    op.io.type = type;
    op.io.offset_blocks = block;
    op.io.count_blocks = static_cast<uint32_t>(count);
    op.io.iov = &op.iov;
    op.io.iov_count = 1;
    op.io.context = &op;
    op.io.done = [](Io* io) {
      Op* op = static_cast<Op*>(io->context);
      op->done = true;
      if (op->io.type != IoType::read && op->io.type != IoType::flush) op->machine->write_ended(*op);
    };
    return op;
  }
  void wait(Op& op) {
    rig_.leg->submit(&op.io);
    wait_for(op);
  }
  void wait_for(Op& op) {
    rig_.fixture.run_until([&] { return op.done || steps_left_ == 0; }, seconds(5));
    if (!op.done && alive() && !rig_.leg->waiting()) problem = "a request does not end";
  }

  uint64_t steps_left_ = 0;
  ParityLegRig rig_;
  std::mt19937_64 random_;
  std::vector<ParityBlock> blocks_;
  std::vector<bool> in_set_;     // the record
  std::vector<bool> forgetful_;  // lost their caches, and nothing has brought back what was in them
  std::vector<std::unique_ptr<Op>> ops_;
  uint32_t last_value_ = 0;
};

uint64_t parity_base_seed() {
  const char* text = std::getenv("BASALT_SEED");
  return text == nullptr ? 20261121 : std::strtoull(text, nullptr, 0);
}

struct ParityCounts {
  uint64_t joins = 0;
  uint64_t deltas = 0;
  uint64_t exchanges = 0;
};

std::string run_parity(uint64_t seed, const RaidPlantedBugs& bugs, ParityCounts* counts = nullptr) {
  ParityMachine machine(seed, 2, seed % 2 == 0 ? 1 : 2, bugs);
  const size_t lives = 2 + machine.below(6);
  for (size_t life = 0; life < lives && machine.problem.empty(); life++) {
    // Many die while they open it.
    machine.live(machine.below(2) == 0 ? 1 + machine.below(40) : 10 + machine.below(250), 30);
    machine.crash();
    if (machine.problem.empty()) machine.take_over_at_random();
  }
  if (machine.problem.empty()) machine.end_well();
  if (counts != nullptr) {
    counts->joins += machine.join_count;
    counts->deltas += machine.delta_count;
    counts->exchanges += machine.exchange_count;
  }
  return machine.problem;
}

// One history, cut at every step, with every member out of reach in turn, and all caches lost or none.
TEST(ParityLegCrash, EveryStepOfAWritingControllerCanBeItsLast) {
  for (uint64_t steps = 1; steps <= 60; steps += testing::cut_stride) {
    for (uint32_t unreached = 0; unreached <= 4; unreached = unreached == 0 ? 1 : unreached * 2) {
      for (const uint32_t lost : {0u, 7u}) {
        ParityMachine machine(parity_base_seed(), 2, 1, {});
        machine.live(steps, 30);
        machine.crash();
        machine.take_over(lost, unreached);
        machine.end_well();
        ASSERT_EQ(machine.problem, "") << "seed " << parity_base_seed() << " steps " << steps << " unreached "
                                       << unreached << " lost " << lost;
      }
    }
  }
}

TEST(ParityLegCrash, RandomLivesOfControllersKeepEveryAcknowledgedByte) {
  ParityCounts counts;
  for (uint64_t seed = parity_base_seed(); seed < parity_base_seed() + parity_seeds_of_a_run; seed++)
    ASSERT_EQ(run_parity(seed, {}, &counts), "") << "seed " << seed;
  EXPECT_GT(counts.joins, parity_seeds_of_a_run / 4) << "members come back, too";
  EXPECT_GT(counts.deltas, parity_seeds_of_a_run / 4) << "by what they missed";
  EXPECT_LT(counts.deltas, counts.joins) << "or in full";
  EXPECT_GT(counts.exchanges, parity_seeds_of_a_run / 8) << "and are exchanged";
}

bool parity_caught(const RaidPlantedBugs& bugs) {
  bool caught = false;
  for (uint64_t seed = parity_base_seed(); seed < parity_base_seed() + 1500 && !caught; seed++)
    caught = !run_parity(seed, bugs).empty();
  return caught;
}

TEST(ParityLegCrash, EachPlantedBugIsCaught) {
  EXPECT_TRUE(parity_caught({.no_record = true}));
  EXPECT_TRUE(parity_caught({.record_not_durable = true}));
  EXPECT_TRUE(parity_caught({.no_flush_before_reuse = true}));
  EXPECT_TRUE(parity_caught({.keep_old_records = true}));
  EXPECT_TRUE(parity_caught({.whole_without_record = true}));
  EXPECT_TRUE(parity_caught({.leave_unasked = true}));
  EXPECT_TRUE(parity_caught({.zeroes_on_some = true}));
}

TEST(ParityLegCrash, EachPlantedBugOfMarksIsCaught) {
  EXPECT_TRUE(parity_caught({.away_unmarked = true})) << "away_unmarked";
  EXPECT_TRUE(parity_caught({.zeroes_of_one_stripe = true})) << "zeroes_of_one_stripe";
  EXPECT_TRUE(parity_caught({.marks_not_durable = true})) << "marks_not_durable";
  EXPECT_TRUE(parity_caught({.marks_without_log = true})) << "marks_without_log";
  EXPECT_TRUE(parity_caught({.marks_without_own = true})) << "marks_without_own";
  EXPECT_TRUE(parity_caught({.marks_cleared_early = true})) << "marks_cleared_early";
  EXPECT_TRUE(parity_caught({.any_may_return = true})) << "any_may_return";
  EXPECT_TRUE(parity_caught({.no_erasing = true})) << "no_erasing";
}

TEST(ParityLegCrash, EachPlantedBugOfAnExchangeIsCaught) {
  EXPECT_TRUE(parity_caught({.twin_before_equal = true}));
  EXPECT_TRUE(parity_caught({.twin_without_writes = true}));
  EXPECT_TRUE(parity_caught({.twin_without_records = true}));
}

}  // namespace
}  // namespace basalt::bdev
