// SPDX-License-Identifier: Apache-2.0
#include "ns/reservation_command.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <random>
#include <set>
#include <string>

namespace basalt::ns {
namespace {

using nvme::ReservationType;
namespace status = nvme::status;
using Kind = ReservationCommand::Kind;

HostId numbered(uint8_t n) {
  HostId id;
  id.bytes[15] = n;
  return id;
}

ReservationCommand registering(RegisterFields fields) {
  return {Kind::register_host, fields, {}, {}};
}
ReservationCommand acquiring(AcquireFields fields) {
  return {Kind::acquire, {}, fields, {}};
}
ReservationCommand releasing(ReleaseFields fields) {
  return {Kind::release, {}, {}, fields};
}

ReservationState held(uint8_t type, std::vector<uint8_t> hosts) {
  ReservationState state;
  state.type = static_cast<ReservationType>(type);
  for (const uint8_t n : hosts)
    state.registrants.push_back({numbered(n), uint64_t{n} * 10});
  if (type != 0 && type < 5) state.holder = numbered(hosts.front());
  return state;
}

std::vector<Notice> told(const ReservationState& state, uint8_t host, const ReservationCommand& command) {
  const Reservation before(state);
  Reservation after = before;
  EXPECT_TRUE(carry_out(command, numbered(host), &after).ok());
  return notices_of(command, numbered(host), before, after);
}

TEST(ReservationState, OnlyWhatCanBeIsTaken) {
  EXPECT_EQ(what_is_wrong({}), nullptr);
  for (uint8_t type = 0; type <= 6; type++)
    EXPECT_EQ(what_is_wrong(held(type, {1, 2})), nullptr) << int{type};
  const auto wrong = [](auto change) {
    ReservationState state = held(1, {1, 2});
    change(state);
    return what_is_wrong(state) != nullptr;
  };
  EXPECT_TRUE(wrong([](ReservationState& s) { s.holder = numbered(3); }));
  EXPECT_TRUE(wrong([](ReservationState& s) { s.holder = {}; }));
  EXPECT_TRUE(wrong([](ReservationState& s) { s.type = static_cast<ReservationType>(7); }));
  EXPECT_TRUE(wrong([](ReservationState& s) { s.type = ReservationType::none; }));
  EXPECT_TRUE(wrong([](ReservationState& s) { s.type = ReservationType::write_exclusive_all_registrants; }));
  EXPECT_TRUE(wrong([](ReservationState& s) { s.registrants.push_back(s.registrants[0]); }));
  EXPECT_TRUE(wrong([](ReservationState& s) { s.registrants[1].key = 0; }));
  EXPECT_TRUE(wrong([](ReservationState& s) { s.registrants[1].host = {}; }));
  EXPECT_TRUE(wrong([](ReservationState& s) {
    for (unsigned i = 0; i < Reservation::registrants_max; i++)
      s.registrants.push_back({numbered(static_cast<uint8_t>(100 + i)), 1});
  }));
  ReservationState nobody;
  nobody.type = ReservationType::exclusive_access_all_registrants;
  EXPECT_NE(what_is_wrong(nobody), nullptr);
}

TEST(ReservationState, PersistenceIsOnAndStaysOn) {
  Reservation kept{ReservationState{}};
  EXPECT_TRUE(kept.persistent());
  EXPECT_FALSE(Reservation(false).persistent());
  const auto enroll = [&](uint8_t change_persistence) {
    return kept.register_host(numbered(1), {.change_persistence = change_persistence, .new_key = 5});
  };
  EXPECT_TRUE(enroll(2).is(status::invalid_field));
  EXPECT_TRUE(enroll(1).is(status::invalid_field));
  EXPECT_TRUE(enroll(3).ok());
  EXPECT_TRUE(enroll(0).ok());
}

TEST(ReservationNotices, SayToWhomWhatHasHappened) {
  const Notice gone{NoticeKind::registration_preempted, {numbered(1)}};
  const Notice released{NoticeKind::reservation_released, {numbered(3)}};
  // Preempting: those that lost their registration; those that stay when the type is another one.
  const auto preempting = [](uint8_t type) {
    return acquiring({.action = 1, .type = type, .current_key = 20, .preempt_key = 10});
  };
  EXPECT_EQ(told(held(1, {1, 2, 3}), 2, preempting(1)), std::vector<Notice>{gone});
  EXPECT_EQ(told(held(1, {1, 2, 3}), 2, preempting(3)), (std::vector<Notice>{gone, released}));
  EXPECT_EQ(told(held(0, {1, 2, 3}), 2, preempting(1)), std::vector<Notice>{gone});
  // Releasing, and leaving: the others, where the type lets them in.
  const std::vector<Notice> others{{NoticeKind::reservation_released, {numbered(2), numbered(3)}}};
  for (uint8_t type = 1; type <= 4; type++) {
    const std::vector<Notice> expected = type < 3 ? std::vector<Notice>{} : others;
    EXPECT_EQ(told(held(type, {1, 2, 3}), 1, releasing({.type = type, .current_key = 10})), expected) << int{type};
    EXPECT_EQ(told(held(type, {1, 2, 3}), 1, registering({.action = 1, .current_key = 10})), expected) << int{type};
  }
  EXPECT_EQ(told(held(5, {1, 2, 3}), 1, releasing({.type = 5, .current_key = 10})), others);
  EXPECT_EQ(told(held(5, {1, 2, 3}), 1, registering({.action = 1, .current_key = 10})), std::vector<Notice>{});
  EXPECT_EQ(told(held(1, {1, 2, 3}), 2, registering({.action = 1, .current_key = 20})), std::vector<Notice>{});
  // Clearing.
  EXPECT_EQ(told(held(1, {1, 2, 3}), 2, releasing({.action = 1, .current_key = 20})),
            (std::vector<Notice>{{NoticeKind::reservation_preempted, {numbered(1), numbered(3)}}}));
  EXPECT_EQ(told(held(0, {1}), 1, releasing({.action = 1, .current_key = 10})), std::vector<Notice>{});
}

// The rules of the specification, said as simply as possible.
struct HostOracle {
  std::map<uint8_t, uint64_t> keys;
  uint8_t type = 0;
  uint8_t holder = 0;  // of types 1 to 4

  bool all() const { return type >= 5; }
  bool holds(uint8_t n) const { return type != 0 && (all() ? keys.count(n) != 0 : holder == n); }
  void leave(uint8_t n) {
    keys.erase(n);
    if (type != 0 && ((!all() && holder == n) || (all() && keys.empty()))) type = holder = 0;
  }
  bool may(uint8_t n, Access access) const {
    if (type == 0 || holds(n)) return true;
    const bool reads = type == 1 || type == 3 || type == 5;
    const bool registrants = type >= 3;
    return (reads && access == Access::read) || (registrants && keys.count(n) != 0);
  }
  bool acquire(uint8_t n, uint64_t key, uint8_t action, uint8_t wanted, uint64_t preempted) {
    if (wanted < 1 || wanted > 6 || action > 2) return false;
    if (keys.count(n) == 0 || keys[n] != key) return false;
    if (action == 0) {
      if (type != 0) return holds(n) && type == wanted;
      type = wanted;
      holder = wanted < 5 ? n : 0;
      return true;
    }
    std::set<uint8_t> hit;
    for (const auto& [host, its] : keys)
      if (preempted == 0 || its == preempted) hit.insert(host);
    if (preempted == 0 && !all()) return false;
    if (preempted != 0 && hit.empty()) return false;
    const bool takes = preempted == 0 || (type != 0 && !all() && hit.count(holder) != 0);
    for (const uint8_t host : hit)
      if (host != n) keys.erase(host);
    if (takes) {
      type = wanted;
      holder = wanted < 5 ? n : 0;
    }
    return true;
  }
};

TEST(HostReservations, RandomCommandsAgreeWithANaiveOracleAndEveryStateSurvivesBeingKept) {
  const char* text = std::getenv("BASALT_SEED");
  const unsigned seed =
      text != nullptr ? static_cast<unsigned>(std::strtoul(text, nullptr, 0)) : std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 300; round++) {
    Reservation r{ReservationState{}};
    HostOracle oracle;
    for (int step = 0; step < 200; step++) {
      const auto n = static_cast<uint8_t>(1 + random() % 4);
      const uint64_t key = 1 + random() % 3;
      const bool known = oracle.keys.count(n) != 0;
      const bool matches = known && oracle.keys[n] == key;
      const Reservation before = r;
      ReservationCommand command;
      bool expected = false;
      switch (random() % 6) {
        case 0:
          command = registering({.action = 0, .new_key = key});
          expected = !known || matches;
          if (expected) oracle.keys[n] = key;
          break;
        case 1: {
          const uint64_t next = random() % 4;
          command = registering({.action = 2, .current_key = key, .new_key = next});
          expected = matches && next != 0;
          if (expected) oracle.keys[n] = next;
          break;
        }
        case 2:
          command = registering({.action = 1, .current_key = key});
          expected = matches;
          if (expected) oracle.leave(n);
          break;
        case 3: {
          const auto type = static_cast<uint8_t>(random() % 8);
          const auto clear = static_cast<uint8_t>(random() % 8 == 0 ? 1 : 0);
          command = releasing({.action = clear, .type = type, .current_key = key});
          expected = matches && (clear == 1 || !oracle.holds(n) || oracle.type == type);
          if (expected && clear == 1) oracle = {};
          if (expected && clear == 0 && oracle.holds(n)) oracle.type = oracle.holder = 0;
          break;
        }
        default: {
          const auto action = static_cast<uint8_t>(random() % 4);
          const auto type = static_cast<uint8_t>(random() % 8);
          const uint64_t preempted = random() % 4;
          command = acquiring({.action = action, .type = type, .current_key = key, .preempt_key = preempted});
          expected = oracle.acquire(n, key, action, type, preempted);
        }
      }
      ASSERT_EQ(carry_out(command, numbered(n), &r).ok(), expected) << "round " << round << " step " << step;
      ASSERT_EQ(static_cast<uint8_t>(r.type()), oracle.type) << "round " << round << " step " << step;
      for (uint8_t i = 1; i <= 5; i++) {
        ASSERT_EQ(r.is_registrant(numbered(i)), oracle.keys.count(i) != 0) << "round " << round << " step " << step;
        ASSERT_EQ(r.is_holder(numbered(i)), oracle.holds(i)) << "round " << round << " step " << step;
        for (const Access access : {Access::read, Access::write})
          ASSERT_EQ(r.allows(numbered(i), access), oracle.may(i, access)) << "round " << round << " step " << step;
      }
      ASSERT_EQ(what_is_wrong(r.state()), nullptr) << "round " << round << " step " << step;
      ASSERT_EQ(Reservation(r.state()).state(), r.state());
      if (!expected) {
        ASSERT_EQ(before.state(), r.state());
        continue;
      }
      for (const Notice& notice : notices_of(command, numbered(n), before, r)) {
        ASSERT_FALSE(notice.hosts.empty());
        for (const HostId& host : notice.hosts)
          ASSERT_TRUE(before.is_registrant(host) && host != numbered(n));
      }
    }
  }
}

}  // namespace
}  // namespace basalt::ns
