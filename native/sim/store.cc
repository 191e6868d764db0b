// SPDX-License-Identifier: Apache-2.0
#include "sim/store.h"

#include <algorithm>

#include "base/probe.h"

namespace basalt::sim {
namespace {
constexpr Duration back_off_min = milliseconds(20);
constexpr Duration back_off_max = milliseconds(500);
}  // namespace

// One request. Shared by the events that carry it and the coroutine that waits.
struct SimStore::Call : Work {
  env::SimNode* node = nullptr;
  uint64_t incarnation = 0;
  Reactor* reactor = nullptr;
  std::optional<Leadership> next;
  uint64_t revision = 0;
  StoreReply reply;
  bool answered = false;
  std::coroutine_handle<> waiter;

  bool sender_lives() const { return !node->crashed() && node->incarnation() == incarnation; }
  // The first answer counts: the store's, or the time-out.
  void answer(const StoreReply& value) {
    if (answered || !sender_lives()) return;
    answered = true;
    reply = value;
    run = [](Work* work) { static_cast<Call*>(work)->waiter.resume(); };
    reactor->post(this);
  }
};

Duration SimStore::delay() {
  env::SimRandom& random = world_.random();
  if (random.chance(knobs_.late_chance)) {
    return nanoseconds(static_cast<int64_t>(random.below(static_cast<uint64_t>(knobs_.late_max.ns))));
  }
  const auto spread = static_cast<uint64_t>((knobs_.delay_max - knobs_.delay_min).ns + 1);
  return knobs_.delay_min + nanoseconds(static_cast<int64_t>(random.below(spread)));
}

void SimStore::set_cut(const std::string& node, bool cut) {
  if (cut) {
    cut_.insert(node);
  } else {
    cut_.erase(node);
  }
}

void SimStore::heal() {
  away_ = answers_lost_ = false;
  cut_.clear();
}

Task<StoreReply> SimStore::ask(env::SimNode& node, Reactor& reactor, std::optional<Leadership> next,
                               uint64_t revision) {
  auto call = std::make_shared<Call>();
  call->node = &node;
  call->incarnation = node.incarnation();
  call->reactor = &reactor;
  call->next = std::move(next);
  call->revision = revision;
  world_.at(world_.now() + delay(), [this, call] { arrive(call); });
  world_.at(world_.now() + knobs_.timeout, [call] { call->answer({}); });
  struct Wait {
    Call& call;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiter) noexcept { call.waiter = waiter; }
    void await_resume() const noexcept {}
  };
  Wait wait{*call};
  co_await wait;
  co_return call->reply;
}

// The moment at which it takes effect.
void SimStore::arrive(const std::shared_ptr<Call>& call) {
  if (!reachable(call->node->name())) return;
  heard_[call->node->name()] = world_.now();
  StoreReply reply;
  reply.status = StoreStatus::ok;
  if (call->next && present_.revision != call->revision) {
    reply.status = StoreStatus::conflict;
  } else if (call->next) {
    present_ = {*call->next, present_.revision + 1};
    world_.trace(present_.revision << 32 ^ present_.value.epoch);
    if (on_change) on_change(present_.value);
  }
  reply.present = present_;
  for (const auto& [name, when] : heard_) {
    if (world_.now() - when < knobs_.session) reply.alive.insert(name);
  }
  if (answers_lost_ || world_.random().chance(knobs_.answer_lost_chance)) return;
  world_.at(world_.now() + delay(), [this, call, reply] {
    if (reachable(call->node->name())) call->answer(reply);
  });
}

// ---- register ------------------------------------------------------------------------------------------------------

Task<bool> LeadershipRegister::refresh_once() {
  auto asking = store_.ask(node_, reactor_, std::nullopt, 0);
  const StoreReply reply = co_await asking;
  if (reply.status != StoreStatus::ok) co_return false;
  // Another of this process's questions may have been answered later and came back earlier.
  if (reply.present.revision >= known_.revision) known_ = reply.present;
  alive_ = reply.alive;
  co_return true;
}

Task<bool> LeadershipRegister::refresh(StopFlag stop) {
  Duration back_off = back_off_min;
  while (!*stop) {
    const bool read = co_await refresh_once();
    if (read) co_return true;
    co_await sleep_for(reactor_, back_off);
    back_off = std::min(back_off * 2, back_off_max);
  }
  co_return false;
}

Task<bool> LeadershipRegister::swap(Plan plan, StopFlag stop) {
  while (!*stop) {
    std::optional<Leadership> next = plan(known_.value);
    if (!next) co_return true;
    auto swapping = swap_once(std::move(*next), stop);
    const Settled settled = co_await swapping;
    if (settled != Settled::again) co_return settled == Settled::done;
  }
  co_return false;
}

Task<LeadershipRegister::Settled> LeadershipRegister::swap_once(Leadership next, StopFlag stop) {
  const uint64_t revision = known_.revision;
  auto asking = store_.ask(node_, reactor_, next, revision);
  const StoreReply reply = co_await asking;
  if (reply.status == StoreStatus::ok) {
    known_ = reply.present;
    co_return Settled::done;
  }
  if (reply.status == StoreStatus::unknown) reach(Mark::swap_outcome_unknown);
  // Refused or unknown: only reading tells whether it happened, or an earlier try of it did.
  const bool read = co_await refresh(stop);
  if (!read) co_return Settled::lost;
  if (known_.revision == revision) co_return Settled::again;
  co_return same(known_.value, next) ? Settled::done : Settled::lost;
}

}  // namespace basalt::sim
