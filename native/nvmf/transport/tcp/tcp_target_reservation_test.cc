// SPDX-License-Identifier: Apache-2.0
// Reservations of hosts on a namespace that several controllers serve: nothing is in force that is not durable, nothing
// completes before it is in force; and what hosts are told of it.
#include "nvmf/target/controller.h"
#include "nvmf/transport/tcp/tcp_target_fixture_testing.h"

namespace basalt::nvmf {
namespace {

using namespace basalt::nvmf::testing;  // NOLINT
using nvme::AdminOpcode;
using nvme::LogPageId;
using nvme::NvmOpcode;
namespace status = nvme::status;

constexpr uint32_t write_exclusive = 1u << 8;
constexpr uint32_t write_exclusive_registrants = 3u << 8;
constexpr uint32_t preempt = 1;
constexpr uint32_t preempt_and_abort = 2;
constexpr uint32_t clear = 1;

struct TestKeeper final : ns::ReservationKeeper {
  void asked(const ns::Namespace&, const ns::ReservationChange& change) override { changes.push_back(change); }
  std::vector<ns::ReservationChange> changes;
};

ns::HostId host_id(uint8_t n) {
  ns::HostId id;
  id.bytes[15] = n;
  return id;
}

ns::KeptReservation kept(const ns::ReservationChange& change) {
  ns::KeptReservation out{change.version, change.id, change.next, {}};
  for (const ns::Notice& notice : change.notices)
    out.notices.push_back({change.version, notice});
  return out;
}

class SharedReservations : public TcpTargetFixture {
 protected:
  SharedReservations() : TcpTargetFixture(Wire::memory) {}

  void add_shared(Duration timeout = seconds(10)) {
    auto nsid =
        run(subsystem_->add_namespace({.nsid = 1, .keeper = keeper_, .reservation_timeout = timeout}, bdev_.get()));
    ASSERT_TRUE(nsid.ok());
  }
  ns::Namespace& space() { return *subsystem_->find_namespace(1); }
  void begin() {
    add_shared();
    space().set_reservation({});
  }

  // Sends; the answer is fetched with collect(cid).
  void ask(RawHost& host, uint16_t cid, NvmOpcode opcode, uint32_t cdw10, uint64_t key, uint64_t other) {
    nvme::Command command{};
    command.opcode = static_cast<uint8_t>(opcode);
    command.flags = 0x40;
    command.cid = cid;
    command.nsid = 1;
    command.cdw10 = cdw10;
    Bytes keys(opcode == NvmOpcode::reservation_release ? 8 : 16);
    store_le<uint64_t>(keys.data(), key);
    if (keys.size() == 16) store_le<uint64_t>(keys.data() + 8, other);
    command.sgl = {0, static_cast<uint32_t>(keys.size()), {}, nvme::sgl_data_block_offset};
    const size_t asked_before = keeper_->changes.size();
    host.send(RawHost::capsule(command, keys));
    EXPECT_TRUE(run_until([&] { return keeper_->changes.size() > asked_before; }));
  }
  // The same, with a keeper that does what it is asked.
  nvme::Status change(RawHost& host, NvmOpcode opcode, uint32_t cdw10, uint64_t key, uint64_t other) {
    ask(host, 700, opcode, cdw10, key, other);
    space().set_reservation(kept(keeper_->changes.back()));
    const auto answer = host.collect(700);
    EXPECT_TRUE(answer.came);
    return answer.status;
  }
  nvme::Status enroll(const Pair& pair, uint64_t key) {
    return change(*pair.io, NvmOpcode::reservation_register, 3u << 30, 0, key);
  }
  nvme::Status acquire(const Pair& pair, uint32_t cdw10, uint64_t key, uint64_t other = 0) {
    return change(*pair.io, NvmOpcode::reservation_acquire, cdw10, key, other);
  }
  RawHost::Answer report(const Pair& pair) {
    nvme::Command command{};
    command.opcode = static_cast<uint8_t>(NvmOpcode::reservation_report);
    command.nsid = 1;
    command.cdw10 = 4096 / 4 - 1;
    command.cdw11 = 1;
    return pair.io->command(command, {}, 4096);
  }
  void park_write(const Pair& pair, uint16_t cid, uint64_t slba) {
    bdev_->hold = true;
    nvme::Command parked = RawHost::io_command(NvmOpcode::write, 1, slba, 1);
    parked.cid = cid;
    parked.sgl = {0, 4096, {}, nvme::sgl_data_block_offset};
    const size_t held_before = bdev_->held.size();
    pair.io->send(RawHost::capsule(parked, pattern(4096, 2)));
    ASSERT_TRUE(run_until([&] { return bdev_->held.size() == held_before + 1; }));
  }
  nvme::Status write(const Pair& pair) { return pair.io->write(1, 9, pattern(4096, 1), true).status; }

  const std::shared_ptr<TestKeeper> keeper_ = std::make_shared<TestKeeper>();
};

TEST_F(SharedReservations, NothingIsServedBeforeTheKeeperHasSaidWhatThereIs) {
  add_shared();
  const Pair pair = associate();
  EXPECT_TRUE(write(pair).is(status::ana_inaccessible));
  EXPECT_TRUE(pair.io->read(1, 0, 1).status.is(status::ana_inaccessible));
  EXPECT_TRUE(pair.io->reservation(NvmOpcode::reservation_register, 1, 0, 0, 5).status.is(status::ana_inaccessible));
  EXPECT_TRUE(report(pair).status.is(status::ana_inaccessible));
  EXPECT_TRUE(keeper_->changes.empty());
  space().set_reservation(
      {4, host_id(99), {2, nvme::ReservationType::write_exclusive, host_id(8), {{host_id(8), 80}}}, {}});
  EXPECT_TRUE(pair.io->read(1, 0, 1).status.ok());
  EXPECT_TRUE(write(pair).is(status::reservation_conflict));
  const auto told = report(pair);
  ASSERT_TRUE(told.status.ok());
  EXPECT_EQ(load_le<uint32_t>(told.data.data()), 2u);
  EXPECT_EQ(told.data[4], 1);
  EXPECT_EQ(load_le<uint16_t>(told.data.data() + 5), 1u);
  EXPECT_EQ(told.data[9], 1);  // persists
  EXPECT_EQ(load_le<uint64_t>(told.data.data() + 64 + 8), 80u);
  EXPECT_EQ(told.data[64 + 16 + 15], 8);
}

TEST_F(SharedReservations, AreOfferedWithPersistenceAndItCannotBeSwitchedOff) {
  begin();
  const Pair pair = associate();
  EXPECT_EQ(pair.admin->identify(0, 1).data[31], 0xff);
  EXPECT_NE(pair.admin->identify(1).data[520] & 1u << 5, 0);
  EXPECT_EQ(pair.admin->admin(AdminOpcode::get_features, 0x83, 0, 1).dw0, 1u);
  EXPECT_TRUE(pair.admin->admin(AdminOpcode::set_features, 0x83, 1, 1).status.ok());
  EXPECT_TRUE(pair.admin->admin(AdminOpcode::set_features, 0x83, 0, 1).status.is(status::feature_not_changeable));
  const auto off = pair.io->reservation(NvmOpcode::reservation_register, 1, 2u << 30, 0, 5);
  EXPECT_TRUE(off.status.is(status::invalid_field));
  EXPECT_TRUE(keeper_->changes.empty());
  EXPECT_TRUE(enroll(pair, 5).ok());
}

TEST_F(SharedReservations, ACommandCompletesWhenItsChangeIsDurableAndNotBefore) {
  begin();
  const Pair pair = associate(1);
  const Pair other = associate(2);
  ask(*pair.io, 800, NvmOpcode::reservation_register, 0, 0, 10);
  const ns::ReservationChange change = keeper_->changes.back();
  EXPECT_EQ(change.version, 1u);
  EXPECT_EQ(change.host, host_id(1));
  EXPECT_EQ(change.next.registrants, (std::vector<ns::Registrant>{{host_id(1), 10}}));
  run_for(seconds(5));
  EXPECT_FALSE(pair.io->poll().has_value());
  EXPECT_TRUE(space().reservation().registrants().empty());
  EXPECT_TRUE(write(other).ok());  // I/O goes on meanwhile
  space().set_reservation(kept(change));
  EXPECT_TRUE(pair.io->collect(800).status.ok());
  EXPECT_TRUE(acquire(pair, write_exclusive, 10).ok());
  EXPECT_TRUE(write(pair).ok());
  EXPECT_TRUE(write(other).is(status::reservation_conflict));
  // What changes nothing asks nobody.
  const size_t asked = keeper_->changes.size();
  EXPECT_TRUE(pair.io->reservation(NvmOpcode::reservation_acquire, 1, write_exclusive, 10, 0).status.ok());
  EXPECT_TRUE(other.io->reservation(NvmOpcode::reservation_acquire, 1, write_exclusive, 10, 0)
                  .status.is(status::reservation_conflict));
  EXPECT_EQ(keeper_->changes.size(), asked);
}

TEST_F(SharedReservations, WhatLosesItsRightsEndsBeforeTheCommandThatTookThem) {
  begin();
  const Pair old = associate(1);
  const Pair next = associate(2);
  ASSERT_TRUE(enroll(old, 10).ok() && enroll(next, 20).ok() && acquire(old, write_exclusive, 10).ok());
  park_write(old, 900, 1);
  ask(*next.io, 901, NvmOpcode::reservation_acquire, preempt | write_exclusive, 20, 10);
  EXPECT_TRUE(write(next).is(status::reservation_conflict));  // not in force yet
  space().set_reservation(kept(keeper_->changes.back()));
  EXPECT_TRUE(write(old).is(status::reservation_conflict));
  run_for(seconds(1));
  EXPECT_FALSE(next.io->poll().has_value());
  bdev_->release();
  EXPECT_TRUE(next.io->collect(901).status.ok());
  EXPECT_TRUE(old.io->collect(900).status.ok());
  EXPECT_TRUE(write(next).ok());
}

TEST_F(SharedReservations, AbortEndsAlsoWhatThePreemptedHostMayStillDo) {
  begin();
  const Pair old = associate(1);
  const Pair next = associate(2);
  ASSERT_TRUE(enroll(old, 10).ok() && enroll(next, 20).ok() && acquire(next, write_exclusive, 20).ok());
  bdev_->hold_all = true;
  nvme::Command parked = RawHost::io_command(NvmOpcode::read, 1, 0, 1);
  parked.cid = 900;
  parked.sgl = {0, 4096, {}, nvme::sgl_transport_data_block};
  old.io->send(RawHost::capsule(parked));
  ASSERT_TRUE(run_until([&] { return bdev_->held.size() == 1; }));
  ask(*next.io, 901, NvmOpcode::reservation_acquire, preempt_and_abort | write_exclusive, 20, 10);
  space().set_reservation(kept(keeper_->changes.back()));
  run_for(seconds(1));
  EXPECT_FALSE(next.io->poll().has_value());
  bdev_->release();
  EXPECT_TRUE(next.io->collect(901).status.ok());
}

TEST_F(SharedReservations, WithoutAnAnswerACommandMayBeTriedAgainAndWhatBecameOfItHolds) {
  add_shared(seconds(2));
  space().set_reservation({});
  const Pair pair = associate(1);
  const Pair other = associate(2);
  ASSERT_TRUE(enroll(pair, 10).ok());
  ask(*pair.io, 900, NvmOpcode::reservation_acquire, write_exclusive, 10, 0);
  const auto late = pair.io->collect(900);
  EXPECT_TRUE(late.status.is(status::command_interrupted));
  EXPECT_FALSE(late.status.do_not_retry());
  EXPECT_TRUE(write(other).ok());
  // It was done after all.
  const auto done = kept(keeper_->changes.back());
  space().set_reservation(done);
  EXPECT_TRUE(write(other).is(status::reservation_conflict));
  EXPECT_TRUE(pair.io->reservation(NvmOpcode::reservation_acquire, 1, write_exclusive, 10, 0).status.ok());
  space().set_reservation(done);
  EXPECT_EQ(keeper_->changes.size(), 2u);
}

TEST_F(SharedReservations, ACommandThatWasTooLateStillWaitsForWhatLostItsRightsWhenTriedAgain) {
  add_shared(seconds(2));
  space().set_reservation({});
  const Pair old = associate(1);
  const Pair next = associate(2);
  ASSERT_TRUE(enroll(next, 20).ok());
  park_write(old, 900, 1);
  ask(*next.io, 901, NvmOpcode::reservation_acquire, write_exclusive, 20, 0);
  space().set_reservation(kept(keeper_->changes.back()));
  EXPECT_TRUE(next.io->collect(901).status.is(status::command_interrupted));
  bdev_->release();
  EXPECT_TRUE(next.io->reservation(NvmOpcode::reservation_acquire, 1, write_exclusive, 20, 0).status.ok());
  EXPECT_TRUE(old.io->collect(900).status.ok());
}

TEST_F(SharedReservations, AStateThatAnotherControllerMadeHasTheCommandJudgedAnew) {
  begin();
  const Pair pair = associate(1);
  ASSERT_TRUE(enroll(pair, 10).ok());
  ask(*pair.io, 900, NvmOpcode::reservation_acquire, write_exclusive, 10, 0);
  const ns::ReservationState theirs{
      5, nvme::ReservationType::exclusive_access, host_id(3), {{host_id(1), 10}, {host_id(3), 30}}};
  space().set_reservation({7, host_id(77), theirs, {}});
  EXPECT_TRUE(pair.io->collect(900).status.is(status::reservation_conflict));
  EXPECT_EQ(keeper_->changes.size(), 2u);
  EXPECT_TRUE(write(pair).is(status::reservation_conflict));
  // A register is asked for again, on top of theirs.
  const Pair fourth = associate(4);
  ask(*fourth.io, 901, NvmOpcode::reservation_register, 0, 0, 40);
  EXPECT_EQ(keeper_->changes.back().version, 8u);
  ns::ReservationState cleared;
  cleared.generation = 6;
  space().set_reservation({8, host_id(78), cleared, {}});
  ASSERT_TRUE(run_until([&] { return keeper_->changes.size() == 4; }));
  EXPECT_EQ(keeper_->changes.back().version, 9u);
  EXPECT_EQ(keeper_->changes.back().next.registrants.size(), 1u);
  space().set_reservation(kept(keeper_->changes.back()));
  EXPECT_TRUE(fourth.io->collect(901).status.ok());
}

TEST_F(SharedReservations, ARefusedChangeLeavesEverythingAsItWas) {
  begin();
  const Pair pair = associate(1);
  ask(*pair.io, 900, NvmOpcode::reservation_register, 0, 0, 10);
  space().refuse_change(host_id(66), status::ana_inaccessible);  // another one's
  run_for(seconds(1));
  EXPECT_FALSE(pair.io->poll().has_value());
  space().refuse_change(keeper_->changes.back().id, status::ana_inaccessible);
  EXPECT_TRUE(pair.io->collect(900).status.is(status::ana_inaccessible));
  EXPECT_TRUE(space().reservation().registrants().empty());
  space().refuse_change(keeper_->changes.back().id, status::ana_inaccessible);
  EXPECT_TRUE(enroll(pair, 10).ok());
}

TEST_F(SharedReservations, AControllerThatServesNoMoreTellsNothingOfReservations) {
  begin();
  const Pair pair = associate(1);
  ASSERT_TRUE(enroll(pair, 10).ok());
  bdev_->hold_all = true;
  nvme::Command command{};
  command.opcode = static_cast<uint8_t>(NvmOpcode::reservation_report);
  command.flags = 0x40;
  command.cid = 900;
  command.nsid = 1;
  command.cdw10 = 4096 / 4 - 1;
  command.cdw11 = 1;
  command.sgl = {0, 4096, {}, nvme::sgl_transport_data_block};
  pair.io->send(RawHost::capsule(command));
  ASSERT_TRUE(run_until([&] { return bdev_->held.size() == 1; }));
  bdev_->held.front()->status = status::internal_path_error;
  bdev_->held.front()->done(bdev_->held.front());
  bdev_->held.clear();
  bdev_->hold_all = false;
  EXPECT_TRUE(pair.io->collect(900).status.is(status::internal_path_error));
}

TEST_F(SharedReservations, ANamespaceThatGoesEndsTheCommandThatWaits) {
  begin();
  const Pair pair = associate(1);
  ask(*pair.io, 900, NvmOpcode::reservation_register, 0, 0, 10);
  ASSERT_TRUE(run(subsystem_->remove_namespace(1)).ok());
  EXPECT_TRUE(pair.io->collect(900).status.is(status::invalid_namespace));
}

TEST_F(SharedReservations, HostsAreToldOncePerChangeAlsoOfThoseMadeElsewhere) {
  begin();
  const Pair old = associate(1);
  const Pair next = associate(2);
  ASSERT_TRUE(enroll(old, 10).ok() && enroll(next, 20).ok());
  ASSERT_TRUE(acquire(old, write_exclusive_registrants, 10).ok());
  nvme::Command event{};
  event.opcode = static_cast<uint8_t>(AdminOpcode::async_event_request);
  event.cid = 900;
  old.admin->send(RawHost::capsule(event));
  ASSERT_TRUE(acquire(next, preempt | write_exclusive_registrants, 20, 10).ok());
  const auto told = old.admin->collect(900);
  ASSERT_TRUE(told.came);
  EXPECT_EQ(told.dw0, 0x00800006u);  // I/O command set specific, a reservation log page is there, its number
  auto page = old.admin->log_page(LogPageId::reservation_notification, 64);
  ASSERT_TRUE(page.status.ok());
  EXPECT_EQ(load_le<uint64_t>(page.data.data()), 1u);
  EXPECT_EQ(page.data[8], 1);  // registration preempted
  EXPECT_EQ(page.data[9], 0);
  EXPECT_EQ(load_le<uint32_t>(page.data.data() + 12), 1u);
  page = old.admin->log_page(LogPageId::reservation_notification, 64);
  EXPECT_EQ(page.data, Bytes(64));
  EXPECT_EQ(next.admin->log_page(LogPageId::reservation_notification, 64).data, Bytes(64));

  // Through another controller: cleared by a third host. It is said twice.
  ns::ReservationState cleared;
  cleared.generation = 9;
  const uint64_t version = space().shared()->version;
  const ns::KeptReservation theirs{version + 2,
                                   host_id(77),
                                   cleared,
                                   {{version, {ns::NoticeKind::registration_preempted, {host_id(2)}}},
                                    {version + 1, {ns::NoticeKind::reservation_released, {host_id(2)}}},
                                    {version + 2, {ns::NoticeKind::reservation_preempted, {host_id(2)}}}}};
  space().set_reservation(theirs);
  space().set_reservation(theirs);
  run_for(milliseconds(10));
  page = next.admin->log_page(LogPageId::reservation_notification, 64);
  EXPECT_EQ(page.data[8], 2);
  EXPECT_EQ(page.data[9], 1);
  EXPECT_EQ(load_le<uint64_t>(page.data.data()), 1u);
  page = next.admin->log_page(LogPageId::reservation_notification, 64);
  EXPECT_EQ(page.data[8], 3);
  EXPECT_EQ(load_le<uint64_t>(page.data.data()), 2u);
  EXPECT_EQ(next.admin->log_page(LogPageId::reservation_notification, 64).data, Bytes(64));
}

TEST_F(SharedReservations, WhatAHostMasksItIsNotTold) {
  begin();
  const Pair old = associate(1);
  const Pair next = associate(2);
  ASSERT_TRUE(enroll(old, 10).ok() && enroll(next, 20).ok());
  EXPECT_TRUE(old.admin->admin(AdminOpcode::set_features, 0x82, 1u << 3, 0xffffffff).status.ok());
  EXPECT_EQ(old.admin->admin(AdminOpcode::get_features, 0x82, 0, 1).dw0, 1u << 3);
  EXPECT_TRUE(old.admin->admin(AdminOpcode::get_features, 0x82, 0, 2).status.is(status::invalid_namespace));
  EXPECT_TRUE(old.admin->admin(AdminOpcode::set_features, 0x82, 0, 2).status.is(status::invalid_namespace));
  ASSERT_TRUE(change(*next.io, NvmOpcode::reservation_release, clear, 20, 0).ok());
  run_for(milliseconds(10));
  EXPECT_EQ(old.admin->log_page(LogPageId::reservation_notification, 64).data, Bytes(64));
  ASSERT_TRUE(enroll(old, 10).ok() && enroll(next, 20).ok());
  EXPECT_TRUE(old.admin->admin(AdminOpcode::set_features, 0x82, 0, 1).status.ok());
  ASSERT_TRUE(change(*next.io, NvmOpcode::reservation_release, clear, 20, 0).ok());
  run_for(milliseconds(10));
  EXPECT_EQ(old.admin->log_page(LogPageId::reservation_notification, 64).data[8], 3);
}

// A namespace whose reservations live in this process tells its hosts, too.
TEST_F(SharedReservations, WithoutAKeeperTheRulesAndTheNotificationsAreTheSame) {
  add_namespace();
  const Pair old = associate(1);
  const Pair next = associate(2);
  ASSERT_TRUE(old.io->reservation(NvmOpcode::reservation_register, 1, 0, 0, 10).status.ok());
  ASSERT_TRUE(next.io->reservation(NvmOpcode::reservation_register, 1, 0, 0, 20).status.ok());
  ASSERT_TRUE(old.io->reservation(NvmOpcode::reservation_acquire, 1, write_exclusive_registrants, 10, 0).status.ok());
  ASSERT_TRUE(old.io->reservation(NvmOpcode::reservation_release, 1, write_exclusive_registrants, 10, 0).status.ok());
  run_for(milliseconds(10));
  EXPECT_EQ(next.admin->log_page(LogPageId::reservation_notification, 64).data[8], 2);
  EXPECT_EQ(old.admin->log_page(LogPageId::reservation_notification, 64).data, Bytes(64));
  EXPECT_EQ(old.admin->identify(0, 1).data[31], 0xfe);
}

TEST_F(SharedReservations, NotificationsThatNobodyReadsAreBounded) {
  begin();
  const Pair old = associate(1);
  for (uint64_t i = 0; i < 3 * reservation_notices_max; i++) {
    ns::ReservationState state;
    space().set_reservation(
        {i + 1, host_id(5), state, {{i + 1, {ns::NoticeKind::reservation_released, {host_id(1)}}}}});
  }
  run_for(milliseconds(10));
  const auto page = old.admin->log_page(LogPageId::reservation_notification, 64);
  EXPECT_EQ(page.data[9], reservation_notices_max - 1);
  EXPECT_EQ(load_le<uint64_t>(page.data.data()), 2 * reservation_notices_max + 1);
}

}  // namespace
}  // namespace basalt::nvmf
