// SPDX-License-Identifier: Apache-2.0
// Cross-Controller Reset as a host asks for it: it succeeds only when nothing of the other association is left.
#include "nvmf/transport/tcp/tcp_target_fixture_testing.h"

namespace basalt::nvmf::testing {
namespace {

using nvme::AdminOpcode;
using nvme::NvmOpcode;
namespace status = nvme::status;

class CrossReset : public TcpTargetFixture {
 protected:
  struct Instance {
    uint16_t cntlid = 0;
    uint8_t ciu = 0;
    uint64_t cirn = 0;
  };
  CrossReset() : TcpTargetFixture(Wire::memory) {
    add_namespace();
    first_ = address_;
    auto address = run(subsystem_->add_listener({"TCP", "127.0.0.1", "0"}));
    second_ = address.value();
  }
  Pair at(const ListenAddress& address, uint16_t hostid = 1) {
    address_ = address;
    return associate(hostid);
  }
  static Instance instance_of(const Pair& pair) {
    const Bytes id = pair.admin->identify(1).data;
    return {load_le<uint16_t>(id.data() + 78), id[135], load_le<uint64_t>(id.data() + 136)};
  }
  static nvme::Command reset_command(const Instance& instance) {
    nvme::Command command{};
    command.opcode = static_cast<uint8_t>(AdminOpcode::cross_controller_reset);
    command.cdw10 = instance.cntlid | uint32_t{instance.ciu} << 16;
    command.cdw12 = static_cast<uint32_t>(instance.cirn);
    command.cdw13 = static_cast<uint32_t>(instance.cirn >> 32);
    return command;
  }
  static RawHost::Answer reset(const Pair& pair, const Instance& instance) {
    return pair.admin->command(reset_command(instance));
  }
  // A write that stays at the device.
  void park_write(const Pair& pair) {
    bdev_->hold = true;
    nvme::Command command = RawHost::io_command(NvmOpcode::write, 1, 0, 1);
    command.cid = 1;
    command.sgl = {0, 4096, {}, nvme::sgl_data_block_offset};
    pair.io->send(RawHost::capsule(command, pattern(4096, 1)));
    ASSERT_TRUE(run_until([&] { return bdev_->held.size() == 1; }));
    bdev_->hold = false;
  }
  static constexpr uint32_t lsp_remove_completed = 1u << 8;
  static RawHost::Answer log(const Pair& pair, uint32_t specific = 0) {
    return pair.admin->admin(AdminOpcode::get_log_page, 0x1e | specific | (64u / 4 - 1) << 16, 0, 0, 64);
  }
  ListenAddress first_;
  ListenAddress second_;
};

TEST_F(CrossReset, IsOfferedWithACommandQuiesceTime) {
  const Pair pair = at(first_);
  const Bytes id = pair.admin->identify(1).data;
  EXPECT_EQ(load_le<uint16_t>(id.data() + 386), 10'000);
  EXPECT_EQ(id[1807], 4);
  EXPECT_NE(instance_of(pair).cirn, 0u);
  EXPECT_NE(instance_of(pair).ciu, 0);
  EXPECT_EQ(load_le<uint32_t>(id.data() + 92) >> 20 & 1, 1u);  // OAES
}

TEST_F(CrossReset, EndsTheOtherAssociationAndSaysSo) {
  const Pair old = at(first_);
  const Pair next = at(second_);
  const auto answer = reset(next, instance_of(old));
  EXPECT_TRUE(answer.status.ok());
  EXPECT_EQ(answer.dw0, 1u);
  EXPECT_EQ(subsystem_->controllers().size(), 1u);
  EXPECT_TRUE(old.admin->closes() && old.io->closes());
  EXPECT_TRUE(next.io->read(1, 0, 1).status.ok());
  EXPECT_EQ(load_le<uint16_t>(log(next).data.data()), 0u);
}

TEST_F(CrossReset, TellsTheEndOfWhatTakesLonger) {
  const Pair old = at(first_);
  const Pair next = at(second_);
  ASSERT_TRUE(next.admin->admin(AdminOpcode::set_features, 0x0b, 1u << 20).status.ok());
  nvme::Command event{};
  event.opcode = 0x0c;
  event.cid = 1000;
  next.admin->send(RawHost::capsule(event));
  const Instance impacted = instance_of(old);
  park_write(old);
  auto answer = reset(next, impacted);
  EXPECT_TRUE(answer.status.ok());
  EXPECT_EQ(answer.dw0, 0u) << "the write is still at the device";
  EXPECT_TRUE(reset(next, impacted).status.is(status::cross_reset_in_progress));
  Bytes entries = log(next, lsp_remove_completed).data;
  ASSERT_EQ(load_le<uint16_t>(entries.data()), 1u);
  EXPECT_EQ(load_le<uint16_t>(entries.data() + 8), impacted.cntlid);
  EXPECT_EQ(entries[10], impacted.ciu);
  EXPECT_EQ(load_le<uint16_t>(entries.data() + 12), next.cntlid);
  EXPECT_EQ(entries[14], 0);  // in progress
  bdev_->release();
  EXPECT_EQ(next.admin->collect(1000).dw0, 2u | 0xf4u << 8 | 0x1eu << 16);
  entries = log(next, lsp_remove_completed).data;
  ASSERT_EQ(load_le<uint16_t>(entries.data()), 1u);
  EXPECT_EQ(entries[14], 1);
  EXPECT_EQ(load_le<uint16_t>(log(next).data.data()), 0u);
  EXPECT_TRUE(reset(next, impacted).status.ok());
}

TEST_F(CrossReset, OfTheOthersOfOneselfAndOfAnotherHostIsRefused) {
  const Pair pair = at(first_);
  const Pair other = at(second_, 2);
  EXPECT_TRUE(reset(pair, instance_of(pair)).status.is(status::invalid_field));
  EXPECT_TRUE(reset(pair, instance_of(other)).status.is(status::controller_id_invalid));
  EXPECT_TRUE(other.io->read(1, 0, 1).status.ok());
  // An instance before this one of the same identifier has ended; it does not end this one.
  Instance before = instance_of(other);
  before.cirn ^= 2;
  const auto answer = reset(pair, before);
  EXPECT_TRUE(answer.status.ok());
  EXPECT_EQ(answer.dw0, 1u);
  EXPECT_TRUE(other.io->read(1, 0, 1).status.ok());
}

TEST_F(CrossReset, OfAControllerOfAnotherNodeIsRefusedUnlessItIsFenced) {
  SubsystemOptions options{.nqn = "nqn.2024-01.io.basalt:vol2", .serial_number = "serial1", .allow_any_host = true};
  options.cntlid_min = 0x1001;
  options.cntlid_max = 0x2000;
  for (const bool one_active : {false, true}) {
    SCOPED_TRACE(one_active);
    options.one_active = one_active;
    Subsystem* subsystem = target_->create_subsystem(options).value();
    ASSERT_TRUE(run(subsystem->add_namespace({.nsid = 1}, bdev_.get())).ok());
    const ListenAddress address = run(subsystem->add_listener({"TCP", "127.0.0.1", "0"})).value();
    address_ = address;
    RawHost& admin = dial();
    admin.initialize();
    ASSERT_TRUE(admin.connect(0, options.nqn, hostnqn, 1).status.ok());
    ASSERT_TRUE(admin.property_set(nvme::property_cc, cc_enable).status.ok());
    const Instance elsewhere{.cntlid = 7, .ciu = 1, .cirn = 99};
    const Instance gone{.cntlid = 0x1fff, .ciu = 1, .cirn = 99};
    EXPECT_EQ(admin.command(reset_command(elsewhere)).status.ok(), one_active);
    EXPECT_TRUE(admin.command(reset_command(gone)).status.ok());
    // A standby has fenced nobody.
    ASSERT_TRUE(run(subsystem->set_ana_state(address, 0, nvme::AnaState::inaccessible)).ok());
    EXPECT_TRUE(admin.command(reset_command(elsewhere)).status.is(status::controller_id_invalid));
    EXPECT_EQ(admin.command(reset_command(gone)).status.ok(), !one_active);
    ASSERT_TRUE(run(target_->delete_subsystem(options.nqn)).ok());
  }
}

// Two that reset each other, each with a command at the device, both end.
TEST_F(CrossReset, TwoThatResetEachOtherBothEnd) {
  const Pair one = at(first_);
  const Pair two = at(second_);
  const Instance first = instance_of(one);
  const Instance second = instance_of(two);
  nvme::Command command = reset_command(second);
  command.cid = 500;
  one.admin->send(RawHost::capsule(command));
  command = reset_command(first);
  command.cid = 500;
  two.admin->send(RawHost::capsule(command));
  EXPECT_TRUE(run_until([&] { return subsystem_->controllers().size() <= 1; }, seconds(2)));
  run_for(seconds(1));
  const Pair three = at(first_);
  EXPECT_TRUE(three.io->read(1, 0, 1).status.ok());
}

TEST_F(CrossReset, EndsWhenTheOneThatAsksGoes) {
  const Pair old = at(first_);
  const Pair next = at(second_);
  const Instance impacted = instance_of(old);
  park_write(old);
  nvme::Command command = reset_command(impacted);
  command.cid = 500;
  next.admin->send(RawHost::capsule(command));
  run_for(milliseconds(5));
  next.drop();
  EXPECT_TRUE(run_until([&] { return subsystem_->controllers().size() == 1; }, seconds(2)));
  bdev_->release();
  EXPECT_TRUE(run_until([&] { return subsystem_->controllers().empty(); }, seconds(2)));
}

}  // namespace
}  // namespace basalt::nvmf::testing
