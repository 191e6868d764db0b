// SPDX-License-Identifier: Apache-2.0
#include "sim/data/data_run.h"

#include <cstdio>
#include <optional>
#include <set>

#include "sim/data/data_world.h"
#include "sim/process.h"

namespace basalt::sim {
namespace {

constexpr size_t lives_max = 4;
constexpr uint64_t states_per_life_max = 30;
constexpr uint64_t states_of_recovery_max = 2;
constexpr Duration drain_limit = seconds(120);

// What a crash at this moment would leave of the disks, and what was recorded.
struct CrashState {
  DiskImages images;
  InSyncSets in_sync;
  CrashRule rule = CrashRule::kill;
  std::vector<uint32_t> absent;  // members of raids that are gone
};

bool has_marks(const StackPlan& plan) {
  for (const LayerPlan* leg : legs_of(plan.top)) {
    if (leg->tails) return true;
  }
  return false;
}

// A bug needs what has it to show.
StackPlan fitting_plan(env::SimRandom& random, const DataBugs& bugs) {
  const bool lvol = bugs.lvol.reuse_early || bugs.lvol.reuse_unzeroed;
  const bool mirror = bugs.leg.skip_marks || bugs.leg.clear_before_flush || bugs.leg.ignore_own_marks ||
                      bugs.leg.ignore_order || bugs.leg.ack_before_flush;
  const bool raid = bugs.raid.any();
  const auto& checksums = bugs.lvol.checksums;
  const bool checksummed = bugs.lvol.log_outlives_cluster || checksums.no_record || checksums.record_not_durable ||
                           checksums.trim_before_flush;
  const bool misdirected = bugs.misdirect_below_checksums || checksums.no_verify || bugs.scrub_mends_nothing;
  StackPlan plan = random_plan(random);
  while ((mirror && !has_marks(plan)) || (raid && raids_of(plan.top).empty()) || (lvol && !plan.pool) ||
         (checksummed && !plan.pool_checksums) || (misdirected && verified_members_of(plan.top).empty()))
    plan = random_plan(random);
  return plan;
}

class DataRun {
 public:
  DataRun(const RunOptions& options, const DataBugs& bugs)
      : options_(options),
        bugs_(bugs),
        random_(options.seed ^ 0xda7a),
        plan_(fitting_plan(random_, bugs)),
        mix_(random_data_mix(random_)),
        alone_(legs_of(plan_.top).empty() && raids_of(plan_.top).empty()),
        shorn_(alone_ && random_.chance(0.3) && !plan_.encrypted() && !plan_.checksummed()),
        losses_(random_.chance(0.6)),
        sectors_(random_.chance(0.3)),
        data_(random_, plan_, mix_, shorn_) {
    // One disk of a mirror lies, drawn apart so that other runs stay as they are. Then no other member may fail.
    env::SimRandom apart(options.seed ^ 0x11a2);
    const std::vector<VerifiedMember> verified = verified_members_of(plan_.top);
    const bool asked = bugs.misdirect_below_checksums || bugs.lvol.checksums.no_verify || bugs.scrub_mends_nothing;
    if (!verified.empty() && (asked || apart.chance(0.5))) liar_ = verified[apart.below(verified.size())];
    if (liar_) losses_ = sectors_ = false;
    // By an order of its own, too: whoever is damaged for certain is scrubbed.
    scrubs_ = !alone_ && (sectors_ || liar_ || apart.chance(0.3));
    exchanges_ = apart.chance(0.7);
  }

  RunResult run() {
    result_.summary = plan_.to_string() + "; " + mix_.to_string() + (shorn_ ? "; shorn" : "") +
                      (losses_ ? "; losses" : "") + (sectors_ ? "; bad sectors" : "") +
                      (liar_ ? "; misdirected writes" : "") + (scrubs_ ? "; scrubs" : "") +
                      (exchanges_ ? "; exchanges" : "");
    CrashState state;
    state.in_sync = all_in_sync(plan_);
    const size_t lives = 2 + random_.below(lives_max - 1);
    for (size_t life = 0; life < lives && !failed() && !data_.garbage_seen(); life++)
      live(life, &state);
    result_.op_count = data_.op_count();
    result_.crash_state_count = distinct_.size();
    result_.trace_hash = trace_;
    return result_;
  }

 private:
  bool failed() const { return result_.failure != Failure::none; }
  void fail(Failure failure, const std::string& what) {
    if (failed()) return;
    result_.failure = failure;
    result_.explanation = what + "\n  " + plan_.to_string();
  }
  void trace(uint64_t value) { trace_ = (trace_ ^ value) * 0x9fb21c651e98df25 + 1; }
  // Each stack comes after all that were before.
  Stack::Options next_stack() {
    world_count_++;
    return {.seed = options_.seed * 1'000'003 + world_count_,
            .epoch = world_count_,
            .leg_bugs = bugs_.leg,
            .raid_bugs = bugs_.raid,
            .lvol_bugs = bugs_.lvol};
  }

  // One life of the stack: brought up from the state, worked with, ended by a crash or in order.
  void live(size_t life, CrashState* state) {
    arena_.clear();
    auto stack = std::make_unique<Stack>(next_stack(), plan_, state->in_sync, state->images, arena_);
    if (const Outcome opened = stack->open(life > 0); !opened) {
      return fail(Failure::correctness, "life " + std::to_string(life) + ": " + opened.error().message);
    }
    for (uint32_t i = 0; i < stack->disk_count(); i++) {
      stack->disk(i).shorn_chance = shorn_ ? 0.2 : 0;
      stack->disk(i).lose_write_chance = bugs_.lose_write_chance;
      stack->disk(i).ignore_flushes = bugs_.ignore_flushes;
      stack->disk(i).misdirect_write_chance = bugs_.misdirect_write_chance;
      stack->disk(i).on_boundary = [this, at = stack.get()](env::FileIo::Type) { boundary(*at); };
    }
    if (liar_) stack->misdirect_writes(*liar_);
    data_.attach(*stack);
    states_left_ = states_per_life_max;
    const uint64_t steps = 40 + random_.below(80);
    // A disk breaks that nobody can replace: what fails then may fail, but nothing may be wrong.
    const uint64_t breaks_at = alone_ && life > 0 && random_.chance(0.3) ? random_.below(steps) : steps;
    for (uint64_t step = 0; step < steps && !failed(); step++) {
      for (uint64_t burst = random_.below(4); burst > 0; burst--)
        data_.step();
      if (losses_) member_faults(*stack);
      if (exchanges_ && moves_.below(25) == 0) stack->exchange_member(moves_);
      if (moves_.below(60) == 0) stack->grow_raid();
      if (sectors_ && random_.below(15) == 0) stack->spoil_sectors(random_);
      if (step == breaks_at) break_a_disk(*stack);
      stack->world().run_for(microseconds(static_cast<int64_t>(random_.below(400))));
      if (!data_.violation().empty()) fail(Failure::correctness, data_.violation());
    }
    const uint64_t end = breaks_at < steps ? 1 + random_.below(3) : random_.below(4);
    CrashState left;
    const bool in_order = end == 0;
    if (!in_order) {
      left = crash(*stack, end == 1);
      data_.crashed();
    }
    if (liar_) result_.misdirected_count += stack->misdirected_count(*liar_);
    if (liar_) result_.mismatch_count += stack->mismatch_count(*liar_);
    const bool ended = end_life(*stack, in_order, &left);
    trace(stack->world().trace_hash());
    trace(data_.digest());
    // With requests under way it cannot be taken down.
    if (!ended) return keep_for_ever(stack.release());
    stack.reset();
    data_.detach();
    broken_ = false;
    if (!failed()) recover(left, 0, true, state);
  }

  // False: the stack is still in use.
  bool end_life(Stack& stack, bool in_order, CrashState* left) {
    if (!in_order) quiet(stack);
    if (!stack.world().run_until([this] { return data_.idle(); }, drain_limit)) {
      fail(Failure::liveness, "requests do not end");
      return false;
    }
    if (in_order && !data_.violation().empty()) fail(Failure::correctness, data_.violation());
    if (in_order && scrubs_ && !failed()) scrub(stack);
    const bool lost = stack.member_lost();
    quiet(stack);
    const Outcome closed = stack.close();
    if (!closed && !lost && !broken_) fail(Failure::correctness, "closing: " + closed.error().message);
    if (!in_order) return true;
    left->in_sync = stack.in_sync();
    for (uint32_t i = 0; i < stack.disk_count(); i++)
      left->images.push_back(stack.disk(i).contents());
    return true;
  }

  // What nobody damaged has nothing to be found; what was is right afterwards.
  void scrub(Stack& stack) {
    while (stack.return_member() || stack.returning()) {
      if (!stack.world().run_until([&] { return !stack.returning(); }, drain_limit))
        return fail(Failure::liveness, "a member does not come back");
    }
    const auto redundant = [&] {
      return !stack.raids_resyncing() && !stack.raids_degraded() && !stack.raids_exchanging() && stack.legs_equal();
    };
    if (!stack.world().run_until(redundant, drain_limit)) return fail(Failure::liveness, "a raid stays degraded");
    if (liar_) stack.misdirect_no_more(*liar_);
    const bool damaged = sectors_ || liar_;
    const Stack::Scrubbed scrubbed = stack.scrub(!bugs_.scrub_mends_nothing);
    if (!scrubbed.wrong.empty()) fail(Failure::correctness, scrubbed.wrong);
    if (scrubbed.found_blocks > 0 && !damaged)
      fail(Failure::correctness,
           "a scrub found " + std::to_string(scrubbed.found_blocks) + " wrong blocks, and nothing was damaged");
  }

  static void quiet(Stack& stack) {
    for (uint32_t i = 0; i < stack.disk_count(); i++)
      stack.disk(i).on_boundary = {};
  }

  void break_a_disk(Stack& stack) {
    env::SimDisk& disk = stack.disk(static_cast<uint32_t>(random_.below(stack.disk_count())));
    broken_ = true;
    data_.expect_failures();
    if (random_.chance(0.5)) {
      disk.space_bytes = disk.contents().allocated_bytes() + random_.below(200 << 10);
    } else {
      const uint64_t length_bytes = env::SimDisk::sector_bytes << random_.below(10);
      disk.make_unreadable(
          random_.below((disk.size_bytes() - length_bytes) / env::SimDisk::sector_bytes) * env::SimDisk::sector_bytes,
          length_bytes);
    }
  }

  void member_faults(Stack& stack) {
    if (random_.below(12) != 0) return;
    if (stack.member_lost() && (stack.returning() || random_.chance(0.7) || !stack.lose_member(random_))) {
      stack.return_member();
    } else {
      stack.lose_member(random_);
    }
  }

  // Disks lose power together, but a process may die alone, and not every disk has a cache to lose.
  CrashState crash(Stack& stack, bool kill) {
    static constexpr unsigned keeps[] = {0, 0, 10, 50, 90, 100};
    CrashState state;
    state.in_sync = stack.in_sync();
    state.rule = kill ? CrashRule::kill : CrashRule::power_cut;
    state.absent = stack.absent_members(random_);
    const uint64_t kind = random_.below(4);
    const unsigned keep_percent = keeps[random_.below(6)];
    for (uint32_t i = 0; i < stack.disk_count(); i++) {
      const env::SimDisk& disk = stack.disk(i);
      if (kill || (kind == 0 && random_.chance(0.5))) {
        state.images.push_back(disk.after_kill(random_));
      } else if (kind == 1) {
        state.images.push_back(disk.after_prefix(random_.below(disk.unflushed_count() + 1)));
      } else {
        state.images.push_back(disk.after_power_cut(random_, keep_percent));
      }
    }
    return state;
  }

  void boundary(Stack& stack) {
    if (failed() || states_left_ == 0 || !random_.chance(0.15)) return;
    states_left_--;
    recover(crash(stack, random_.below(5) == 0), 0, false, nullptr);
  }

  // Brings a stack up from the state and judges it. With `adopt` the world goes on from there: `*next`.
  void recover(const CrashState& state, size_t depth, bool adopt, CrashState* next) {
    count(state);
    Stack::Options options = next_stack();
    options.absent = state.absent;
    recovery_arenas_[depth].clear();  // of the one before
    Stack stack(options, plan_, state.in_sync, state.images, recovery_arenas_[depth]);
    uint64_t nested = depth == 0 && !adopt ? states_of_recovery_max : 0;
    for (uint32_t i = 0; i < stack.disk_count() && nested > 0; i++) {
      // The power goes again while the stack is being brought up.
      stack.disk(i).on_boundary = [this, &stack, &nested, rule = state.rule](env::FileIo::Type) {
        if (failed() || nested == 0 || !random_.chance(0.3)) return;
        nested--;
        CrashState again = crash(stack, false);
        again.rule = rule;
        recover(again, 1, false, nullptr);
      };
    }
    const Outcome opened = stack.open(true);
    quiet(stack);
    if (!opened)
      return fail(Failure::correctness, about(state) + ": it does not come up again: " + opened.error().message);
    if (const std::string wrong = data_.judge(stack, state.rule, adopt); !wrong.empty()) {
      fail(Failure::correctness, about(state) + ": " + wrong);
    }
    if (liar_) result_.mismatch_count += stack.mismatch_count(*liar_);
    const Outcome closed = stack.close();
    if (!closed) fail(Failure::correctness, about(state) + ": closing: " + closed.error().message);
    trace(stack.world().trace_hash());
    if (next == nullptr) return;
    *next = {};
    next->in_sync = stack.in_sync();
    for (uint32_t i = 0; i < stack.disk_count(); i++)
      next->images.push_back(stack.disk(i).contents());
  }

  void count(const CrashState& state) {
    uint64_t digest = state.images.size();
    for (const env::SimImage& image : state.images)
      digest = digest * 0x9fb21c651e98df25 + image.digest();
    for (const auto& [leg, members] : state.in_sync) {
      for (const bool member : members)
        digest = digest * 3 + (member ? 1 : 0);
    }
    for (const uint32_t id : state.absent)
      digest = digest * 0x9fb21c651e98df25 + id;
    state_count_++;
    distinct_.insert(digest);
    trace(digest);
  }

  std::string about(const CrashState& state) const {
    std::string text =
        (state.rule == CrashRule::kill ? "killed, state " : "power cut, state ") + std::to_string(state_count_);
    for (const uint32_t id : state.absent)
      text += ", without layer " + std::to_string(id);
    return text;
  }

  const RunOptions options_;
  const DataBugs bugs_;
  env::SimRandom random_;
  const StackPlan plan_;
  const DataMix mix_;
  const bool alone_;  // no redundancy
  const bool shorn_;
  bool losses_;
  bool sectors_;
  bool scrubs_ = false;
  bool exchanges_ = false;  // members of raids, where one has a disk to spare
  env::SimRandom moves_{options_.seed ^ 0xe8c4};
  std::optional<VerifiedMember> liar_;  // whose disk puts writes elsewhere
  Arena arena_{size_t{256} << 20};
  Arena recovery_arenas_[2] = {Arena(size_t{256} << 20), Arena(size_t{256} << 20)};
  DataWorld data_;
  RunResult result_;
  bool broken_ = false;  // in this life a disk broke that nobody can replace
  uint64_t states_left_ = 0;
  uint64_t state_count_ = 0;
  uint64_t world_count_ = 0;
  uint64_t trace_ = 0xcbf29ce484222325;
  std::set<uint64_t> distinct_;
};

}  // namespace

RunResult run_data_stack(const RunOptions& options) {
  DataBugs bugs;
  bugs.leg.skip_marks = options.bugs.skip_marks;
  bugs.leg.clear_before_flush = options.bugs.clear_before_flush;
  bugs.leg.ignore_own_marks = options.bugs.ignore_own_marks;
  bugs.lvol.reuse_early = options.bugs.reuse_early;
  bugs.lvol.reuse_unzeroed = options.bugs.reuse_unzeroed;
  return run_data_stack(options, bugs);
}

RunResult run_data_stack(const RunOptions& options, const DataBugs& bugs) {
  DataRun run(options, bugs);
  return run.run();
}

}  // namespace basalt::sim
