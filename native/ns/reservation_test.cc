// SPDX-License-Identifier: Apache-2.0
#include "ns/reservation.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <random>
#include <string>

#include "base/hex.h"
#include "bdev/bdev.h"
#include "ns/gate_record.h"

namespace basalt::ns {
namespace {

using nvme::ReservationType;
namespace status = nvme::status;

HostId host(uint8_t n) {
  HostId id;
  id.bytes[15] = n;
  return id;
}
nvme::Status enroll(Reservation& r, uint8_t n, uint64_t key) {
  return r.register_host(host(n), {.action = 0, .ignore_key = true, .new_key = key});
}
nvme::Status take(Reservation& r, uint8_t n, uint64_t key, uint8_t action = 2, uint8_t type = 2, uint64_t prkey = 0) {
  std::vector<HostId> preempted;
  return r.acquire(host(n), {.action = action, .type = type, .current_key = key, .preempt_key = prkey}, &preempted);
}

TEST(Reservation, WhoMayReadAndWriteDependsOnTheType) {
  struct Row {
    uint8_t type;
    bool registrant_reads, registrant_writes, stranger_reads, stranger_writes;
  };
  const Row rows[] = {{1, true, false, true, false}, {2, false, false, false, false}, {3, true, true, true, false},
                      {4, true, true, false, false}, {5, true, true, true, false},    {6, true, true, false, false}};
  for (const Row& row : rows) {
    Reservation r(false);
    ASSERT_TRUE(enroll(r, 1, 10).ok());
    ASSERT_TRUE(enroll(r, 2, 20).ok());
    ASSERT_TRUE(take(r, 1, 10, 0, row.type).ok());
    EXPECT_TRUE(r.allows(host(1), Access::read) && r.allows(host(1), Access::write)) << int{row.type};
    EXPECT_EQ(r.allows(host(2), Access::read), row.registrant_reads) << int{row.type};
    EXPECT_EQ(r.allows(host(2), Access::write), row.registrant_writes) << int{row.type};
    EXPECT_EQ(r.allows(host(3), Access::read), row.stranger_reads) << int{row.type};
    EXPECT_EQ(r.allows(host(3), Access::write), row.stranger_writes) << int{row.type};
  }
}

TEST(Reservation, KeysAreCheckedAndTheGenerationCountsRegistrations) {
  Reservation r(false);
  EXPECT_TRUE(take(r, 1, 1, 0).is(status::reservation_conflict));  // not registered
  EXPECT_TRUE(enroll(r, 1, 0).is(status::invalid_field));
  ASSERT_TRUE(enroll(r, 1, 10).ok());
  EXPECT_TRUE(enroll(r, 1, 11).is(status::reservation_conflict));
  EXPECT_TRUE(enroll(r, 1, 10).ok());
  EXPECT_EQ(r.generation(), 1u);
  EXPECT_TRUE(take(r, 1, 9, 0).is(status::reservation_conflict));
  EXPECT_TRUE(take(r, 1, 10, 0, 0).is(status::invalid_field));
  EXPECT_TRUE(take(r, 1, 10, 0, 7).is(status::invalid_field));
  EXPECT_TRUE(take(r, 1, 10, 3, 2).is(status::invalid_field));
  ASSERT_TRUE(take(r, 1, 10, 0, 2).ok());
  EXPECT_TRUE(r.release(host(1), {.type = 1, .current_key = 10}).is(status::invalid_field));
  EXPECT_TRUE(r.release(host(1), {.type = 2, .current_key = 9}).is(status::reservation_conflict));
  EXPECT_TRUE(r.register_host(host(1), {.action = 2, .current_key = 10, .new_key = 12}).ok());
  EXPECT_TRUE(r.release(host(1), {.type = 2, .current_key = 12}).ok());
  EXPECT_EQ(r.type(), ReservationType::none);
  EXPECT_EQ(r.generation(), 2u);
}

TEST(Reservation, PreemptRemovesTheOwnerOfTheKeyAndTakesItsReservation) {
  Reservation r(false);
  ASSERT_TRUE(enroll(r, 1, 10).ok() && enroll(r, 2, 20).ok() && enroll(r, 3, 30).ok());
  ASSERT_TRUE(take(r, 1, 10, 0, 2).ok());
  EXPECT_TRUE(take(r, 2, 20, 1, 2, 99).is(status::reservation_conflict));
  std::vector<HostId> preempted;
  EXPECT_TRUE(r.acquire(host(2), {.action = 2, .type = 1, .current_key = 20, .preempt_key = 10}, &preempted).ok());
  EXPECT_EQ(preempted, std::vector<HostId>{host(1)});
  EXPECT_TRUE(r.is_holder(host(2)));
  EXPECT_FALSE(r.is_registrant(host(1)));
  EXPECT_TRUE(take(r, 3, 30, 1, 2, 20).ok());
  EXPECT_TRUE(r.is_holder(host(3)));
  EXPECT_TRUE(r.release(host(3), {.action = 1, .current_key = 30}).ok());
  EXPECT_TRUE(r.registrants().empty());
}

TEST(Reservation, RegistrantsAreBounded) {
  Reservation r(false);
  for (unsigned i = 0; i < Reservation::registrants_max; i++)
    ASSERT_TRUE(enroll(r, static_cast<uint8_t>(i + 1), 5).ok());
  EXPECT_TRUE(enroll(r, 200, 5).is(status::invalid_field));
}

// Takeovers that are given up leave their registrations behind.
TEST(OneWriter, RegistrationsThatAreLeftBehindKeepNobodyOut) {
  Reservation r(true);
  ASSERT_TRUE(enroll(r, 1, 5).ok());
  ASSERT_TRUE(take(r, 1, 5).ok());
  for (unsigned i = 2; i < 3 * Reservation::registrants_max; i++) {
    ASSERT_TRUE(enroll(r, static_cast<uint8_t>(i), 6 + i).ok()) << i;
    EXPECT_LE(r.registrants().size(), Reservation::registrants_max);
    EXPECT_TRUE(r.is_holder(host(1)));
    EXPECT_TRUE(r.is_registrant(host(static_cast<uint8_t>(i))));
  }
  ASSERT_TRUE(enroll(r, 250, 500).ok());
  EXPECT_TRUE(take(r, 250, 500).ok());
  EXPECT_TRUE(r.is_holder(host(250)));
  EXPECT_EQ(r.registrants().size(), 1u);
}

TEST(OneWriter, NobodyMayDoIoUntilSomebodyHoldsTheGate) {
  Reservation r(true);
  EXPECT_FALSE(r.allows(host(1), Access::read));
  ASSERT_TRUE(enroll(r, 1, 5).ok());
  EXPECT_FALSE(r.allows(host(1), Access::write));
  ASSERT_TRUE(take(r, 1, 5).ok());
  EXPECT_TRUE(r.allows(host(1), Access::write));
  EXPECT_FALSE(r.allows(host(2), Access::read));
  ASSERT_TRUE(r.release(host(1), {.type = 2, .current_key = 5}).ok());
  EXPECT_FALSE(r.allows(host(1), Access::read));
  EXPECT_EQ(r.record(), (GateRecord{5, {}, 0}));
}

TEST(OneWriter, ALowerKeyNeitherRegistersNorPreempts) {
  Reservation r(true);
  ASSERT_TRUE(enroll(r, 1, 5).ok());
  ASSERT_TRUE(enroll(r, 3, 4).ok());  // before anything was accepted
  ASSERT_TRUE(take(r, 1, 5).ok());
  EXPECT_FALSE(r.is_registrant(host(3)));
  EXPECT_TRUE(enroll(r, 2, 4).is(status::reservation_conflict));
  EXPECT_TRUE(take(r, 3, 4).is(status::reservation_conflict));
  EXPECT_TRUE(r.is_holder(host(1)));
  // Also not when the holder has gone: the highest epoch counts, not the present holder.
  ASSERT_TRUE(r.release(host(1), {.action = 1, .current_key = 5}).ok());
  EXPECT_TRUE(enroll(r, 2, 4).is(status::reservation_conflict));
  ASSERT_TRUE(enroll(r, 2, 5).ok());
  EXPECT_TRUE(take(r, 2, 5).ok());
}

TEST(OneWriter, AnEqualKeyOfAnotherHostTakesOverAndTheOldOneIsOut) {
  Reservation r(true);
  ASSERT_TRUE(enroll(r, 1, 5).ok());
  ASSERT_TRUE(take(r, 1, 5).ok());
  ASSERT_TRUE(enroll(r, 2, 5).ok());
  EXPECT_TRUE(take(r, 2, 5, 0).is(status::reservation_conflict));  // not without preempting
  std::vector<HostId> preempted;
  ASSERT_TRUE(r.acquire(host(2), {.action = 2, .type = 2, .current_key = 5}, &preempted).ok());
  EXPECT_EQ(preempted, std::vector<HostId>{host(1)});
  EXPECT_FALSE(r.allows(host(1), Access::read));
  EXPECT_TRUE(r.allows(host(2), Access::write));
}

TEST(OneWriter, OnlyExclusiveAccessIsTakenAndKeysAreNotReplaced) {
  Reservation r(true);
  ASSERT_TRUE(enroll(r, 1, 5).ok());
  for (const uint8_t type : {1, 3, 4, 5, 6})
    EXPECT_TRUE(take(r, 1, 5, 2, type).is(status::invalid_field));
  EXPECT_TRUE(r.register_host(host(1), {.action = 2, .current_key = 5, .new_key = 9}).is(status::invalid_field));
}

TEST(OneWriter, ARestartKeepsEpochAndHolder) {
  Reservation before(true);
  ASSERT_TRUE(enroll(before, 1, 7).ok());
  ASSERT_TRUE(take(before, 1, 7).ok());
  auto record = decode_gate(encode_gate(before.record()));
  ASSERT_TRUE(record.ok());
  Reservation after(true, *record);
  EXPECT_TRUE(after.allows(host(1), Access::write));
  EXPECT_FALSE(after.allows(host(2), Access::read));
  EXPECT_TRUE(enroll(after, 2, 6).is(status::reservation_conflict));
}

TEST(GateRecord, DamageIsAnErrorAndNeverEpochZero) {
  const std::string good = encode_gate({9, host(3), 9});
  EXPECT_EQ(highest_epoch(good).value(), 9u);
  EXPECT_EQ(highest_epoch("").value(), 0u);
  for (size_t i = 0; i < good.size(); i++) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 1);
    EXPECT_FALSE(highest_epoch(bad).ok()) << i;
  }
  EXPECT_FALSE(highest_epoch(good.substr(0, 40)).ok());
}

constexpr char gate_golden[] =
    "424153474154453102010000000000000000000000000000"
    "0000000000000003020100000000000000000000583d56ec";
constexpr char note_golden[] = "4241534e4f544531060000006d280e6261206e6f7465";

TEST(GateRecord, IsAsItAlwaysWasOnDisks) {
  const std::string bare = encode_gate({0x0102, host(3), 0x0102});
  const std::string noted = encode_gate({0x0102, host(3), 0x0102}, "a note");
  EXPECT_EQ(noted.substr(0, 48), bare);
  EXPECT_EQ(to_hex(bare), gate_golden);
  EXPECT_EQ(to_hex(noted.substr(48)), note_golden);
}

TEST(GateRecord, ANoteIsKeptBesideItAndDamageOfEitherIsAnError) {
  const std::string longest(nvme::note_bytes_max, 'n');
  for (const std::string& note : {std::string("who is in sync"), longest}) {
    const std::string good = encode_gate({9, host(3), 9}, note);
    EXPECT_LE(good.size(), bdev::Bdev::attribute_bytes_max);
    EXPECT_EQ(highest_epoch(good).value(), 9u);
    EXPECT_EQ(decode_note(good).value(), note);
    for (size_t i = 0; i < good.size(); i++) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ 1);
      EXPECT_FALSE(decode_note(bad).ok()) << i;
      EXPECT_FALSE(highest_epoch(bad).ok()) << i;
    }
    for (size_t cut = 49; cut < good.size(); cut++)
      EXPECT_FALSE(highest_epoch(good.substr(0, cut)).ok()) << cut;
  }
  EXPECT_EQ(decode_note("").value(), "");
  EXPECT_EQ(decode_note(encode_gate({9, host(3), 9})).value(), "");
  EXPECT_EQ(encode_gate({9, host(3), 9}).size(), 48u) << "as it was before there were notes";
}

// The rule of the gate, said as simply as possible: what was accepted, by whom, and who is known with which key.
struct GateOracle {
  std::map<uint8_t, uint64_t> keys;
  uint64_t highest = 0;
  int holder = -1;
};

TEST(OneWriter, RandomCommandsAgreeWithANaiveOracle) {
  const char* text = std::getenv("BASALT_SEED");
  const unsigned seed =
      text != nullptr ? static_cast<unsigned>(std::strtoul(text, nullptr, 0)) : std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937 random(seed);
  for (int round = 0; round < 200; round++) {
    Reservation r(true);
    GateOracle oracle;
    for (int step = 0; step < 200; step++) {
      const auto n = static_cast<uint8_t>(1 + random() % 4);
      const uint64_t key = 1 + random() % 12;
      const bool known = oracle.keys.count(n) != 0;
      bool expected = false;
      nvme::Status got;
      switch (random() % 5) {
        case 0:
          expected = key >= oracle.highest && (!known || oracle.keys[n] == key);
          if (expected) oracle.keys[n] = key;
          got = enroll(r, n, key);
          break;
        case 1:
          expected = known && oracle.keys[n] == key;
          if (expected) {
            oracle.keys.erase(n);
            if (oracle.holder == n) oracle.holder = -1;
          }
          got = r.register_host(host(n), {.action = 1, .current_key = key});
          break;
        case 2:
        case 3: {
          const auto action = static_cast<uint8_t>(random() % 3);
          expected = known && oracle.keys[n] == key && key >= oracle.highest &&
                     (action != 0 || oracle.holder == -1 || oracle.holder == n);
          if (expected) {
            std::erase_if(oracle.keys, [&](const auto& entry) { return entry.first != n && entry.second <= key; });
            oracle.holder = n;
            oracle.highest = key;
          }
          got = take(r, n, key, action);
          break;
        }
        default:
          expected = known && oracle.keys[n] == key;
          if (expected && oracle.holder == n) oracle.holder = -1;
          got = r.release(host(n), {.type = 2, .current_key = key});
      }
      ASSERT_EQ(got.ok(), expected) << "round " << round << " step " << step;
      ASSERT_EQ(r.highest_epoch(), oracle.highest);
      for (uint8_t i = 1; i <= 4; i++) {
        ASSERT_EQ(r.allows(host(i), Access::write), oracle.holder == i);
        ASSERT_EQ(r.is_registrant(host(i)), oracle.keys.count(i) != 0);
      }
    }
  }
}

}  // namespace
}  // namespace basalt::ns
