// SPDX-License-Identifier: Apache-2.0
// The target over NVMe/TCP in memory: a raw host says what Linux says.
#include <cstring>

#include "nvmf/transport/tcp/tcp_target_fixture_testing.h"

namespace basalt::nvmf {
namespace {

using namespace basalt::nvmf::testing;  // NOLINT
using nvme::AdminOpcode;
using nvme::LogPageId;
using nvme::NvmOpcode;
namespace status = nvme::status;

class TcpTarget : public TcpTargetFixture {
 protected:
  TcpTarget() : TcpTargetFixture(Wire::memory) {}
};

TEST_F(TcpTarget, ALinuxLikeHostConnectsIdentifiesReadsAndWrites) {
  add_namespace();
  for (const pdu::Digests digests : {pdu::Digests{}, pdu::Digests{true, true}}) {
    RawHost& admin = dial();
    const auto ic = admin.initialize(digests);
    EXPECT_EQ(ic.cpda, 0);
    EXPECT_EQ(ic.digests, digests.bits());
    EXPECT_GE(ic.maxh2cdata, 131072u);
    const auto connected = admin.connect(0, subnqn, hostnqn, 1, 0xffff, 5000);
    ASSERT_TRUE(connected.came);
    ASSERT_TRUE(connected.status.ok()) << to_string(connected.status);
    const auto capabilities = admin.property_get(nvme::property_cap, true);
    EXPECT_EQ(capabilities.dw0 & 0xffff, 127u);
    EXPECT_EQ(admin.property_get(nvme::property_csts, false).dw0, 0u);
    EXPECT_TRUE(admin.property_set(nvme::property_cc, cc_enable).status.ok());
    EXPECT_EQ(admin.property_get(nvme::property_csts, false).dw0 & 1, 1u);
    EXPECT_EQ(admin.property_get(nvme::property_vs, false).dw0, 0x00010400u);

    const auto identified = admin.identify(1);
    ASSERT_EQ(identified.data.size(), 4096u);
    nvme::IdentifyController id;
    std::memcpy(&id, identified.data.data(), sizeof(id));
    EXPECT_EQ(id.cntlid, connected.dw0);
    EXPECT_STREQ(id.subnqn, subnqn);
    EXPECT_NE(id.kas, 0);
    EXPECT_NE(id.maxcmd, 0);
    EXPECT_GE(id.ioccsz, 4u);
    EXPECT_GE(id.iorcsz, 1u);
    EXPECT_EQ(id.cmic & 0x0a, 0x0a);
    EXPECT_EQ(id.anacap, 0x1f);  // bit 6 would make nvme-cli misread the ANA log
    EXPECT_TRUE(id.mnan != 0 && id.mnan <= id.nn);
    EXPECT_EQ(id.sgls & 1, 1u);
    EXPECT_EQ(memcmp(id.sn, "serial0  ", 9), 0);

    EXPECT_EQ(admin.log_page(LogPageId::commands_supported_and_effects, 4096).data.size(), 4096u);
    const auto ana = admin.log_page(LogPageId::ana, 4096);
    ASSERT_TRUE(ana.status.ok());
    EXPECT_EQ(load_le<uint16_t>(ana.data.data() + 8), 1);
    EXPECT_EQ(ana.data[16 + 16], 1);  // optimized
    EXPECT_EQ(load_le<uint32_t>(ana.data.data() + 16 + 32), 1u);
    const auto queues = admin.admin(AdminOpcode::set_features, 7, 3 | 3 << 16);
    EXPECT_EQ(queues.dw0, 3u | 3u << 16);
    EXPECT_TRUE(admin.admin(AdminOpcode::set_features, 0x0b, 0x900).status.ok());
    EXPECT_TRUE(admin.admin(AdminOpcode::keep_alive, 0).status.ok());
    const auto list = admin.identify(2);
    EXPECT_EQ(load_le<uint32_t>(list.data.data()), 1u);
    EXPECT_EQ(load_le<uint32_t>(list.data.data() + 4), 0u);
    const auto descriptors = admin.identify(3, 1);
    EXPECT_EQ(descriptors.data[0], 3);  // UUID
    EXPECT_EQ(descriptors.data[4], 7);
    const auto space = admin.identify(0, 1);
    EXPECT_EQ(load_le<uint64_t>(space.data.data()), blocks);
    for (const uint8_t cns : {5, 6, 8, 0x1c})
      EXPECT_TRUE(admin.identify(cns, 1).status.ok()) << int{cns};

    RawHost& io = dial();
    io.initialize(digests);
    ASSERT_TRUE(io.connect(1, subnqn, hostnqn, 1, static_cast<uint16_t>(connected.dw0)).status.ok());
    EXPECT_EQ(io.read(1, 0, 1).data.size(), 4096u);
    const Bytes small = pattern(4096, 1);
    const Bytes large = pattern(1 << 20, 2);
    EXPECT_TRUE(io.write(1, 5, small, true).status.ok());
    EXPECT_TRUE(io.write(1, 100, large, false).status.ok());
    EXPECT_EQ(io.read(1, 5, 1).data, small);
    EXPECT_EQ(io.read(1, 100, 256).data, large);
    EXPECT_TRUE(io.command(RawHost::io_command(NvmOpcode::flush, 1, 0, 1)).status.ok());
    EXPECT_TRUE(io.command(RawHost::io_command(NvmOpcode::write_zeroes, 1, 100, 256)).status.ok());
    EXPECT_EQ(io.read(1, 100, 256).data, Bytes(1 << 20));
    admin.drop();
    EXPECT_TRUE(io.closes());
  }
}

TEST_F(TcpTarget, EventsTellWhatChanged) {
  const Pair pair = associate();
  ASSERT_TRUE(pair.admin->admin(AdminOpcode::set_features, 0x0b, 0x900).status.ok());
  nvme::Command event{};
  event.opcode = 0x0c;
  for (uint16_t i = 0; i < 4; i++) {
    event.cid = static_cast<uint16_t>(1000 + i);
    pair.admin->send(RawHost::capsule(event));
  }
  event.cid = 2000;
  pair.admin->send(RawHost::capsule(event));
  EXPECT_TRUE(pair.admin->collect(2000).status.is(status::aer_limit_exceeded));
  add_namespace();
  const auto added = pair.admin->collect(1000);
  EXPECT_EQ(added.dw0, 2u | 4u << 16);
  const auto changed = pair.admin->log_page(LogPageId::changed_namespace_list, 4096);
  EXPECT_EQ(load_le<uint32_t>(changed.data.data()), 1u);
  ASSERT_TRUE(run(subsystem_->set_ana_state(address_, 1, nvme::AnaState::inaccessible)).ok());
  EXPECT_EQ(pair.admin->collect(1001).dw0, 2u | 3u << 8 | 0x0cu << 16);
  EXPECT_TRUE(pair.io->read(1, 0, 1).status.is(status::ana_inaccessible));
  const auto ana = pair.admin->log_page(LogPageId::ana, 4096);
  EXPECT_EQ(ana.data[16 + 16], 3);
  ASSERT_TRUE(run(subsystem_->set_ana_state(address_, 0, nvme::AnaState::optimized)).ok());
  EXPECT_TRUE(pair.io->read(1, 0, 1).status.ok());
  ASSERT_TRUE(run(subsystem_->remove_namespace(1)).ok());
  EXPECT_TRUE(pair.io->read(1, 0, 1).status.is(status::invalid_namespace));
}

TEST_F(TcpTarget, EveryLogPageAndFeatureThatItListsCanBeRead) {
  add_namespace();
  const Pair pair = associate();
  const Bytes pages = pair.admin->log_page(LogPageId::supported_log_pages, 1024).data;
  const Bytes features = pair.admin->log_page(static_cast<LogPageId>(0x12), 1024).data;
  ASSERT_TRUE(pages.size() == 1024 && features.size() == 1024);
  size_t page_count = 0;
  for (uint32_t id = 0; id < 256; id++) {
    const bool listed = (load_le<uint32_t>(pages.data() + id * 4) & 1) != 0;
    EXPECT_EQ(pair.admin->log_page(static_cast<LogPageId>(id), 64).status.ok(), listed) << id;
    page_count += listed ? 1 : 0;
    const bool has = (load_le<uint32_t>(features.data() + id * 4) & 1) != 0;
    // Host identifiers of 128 bits.
    const uint32_t cdw11 = id == 0x81 ? 1 : 0;
    EXPECT_EQ(pair.admin->admin(AdminOpcode::get_features, id, cdw11, 1, 512).status.ok(), has) << id;
  }
  EXPECT_GE(page_count, 10u);
}

TEST_F(TcpTarget, ANewAssociationOfTheSameHostWaitsUntilTheOldOneHasDrained) {
  add_namespace();
  const Pair old = associate(1);
  bdev_->hold = true;
  nvme::Command command = RawHost::io_command(NvmOpcode::write, 1, 0, 1);
  command.cid = 1;
  command.sgl = {0, 4096, {}, nvme::sgl_data_block_offset};
  old.io->send(RawHost::capsule(command, pattern(4096, 1)));
  EXPECT_TRUE(run_until([&] { return bdev_->held.size() == 1; }));
  RawHost& next = dial();
  next.initialize();
  bool released = false;
  struct Release : Timer {
    GateBdev* bdev;
    bool* released;
  } timer;
  timer.bdev = bdev_.get();
  timer.released = &released;
  timer.run = [](Work* work) {
    auto* self = static_cast<Release*>(static_cast<Timer*>(work));
    *self->released = true;
    self->bdev->release();
  };
  reactors_[1]->arm_after(&timer, seconds(3));
  const auto connected = next.connect(0, subnqn, hostnqn, 1);
  EXPECT_TRUE(connected.status.ok());
  EXPECT_TRUE(released);
  EXPECT_TRUE(old.io->closes());
  EXPECT_EQ(subsystem_->controllers().size(), 1u);
}

TEST_F(TcpTarget, DiscoveryListsOnlyWhatTheHostMayUse) {
  auto other = target_->create_subsystem({.nqn = "nqn.2024-01.io.basalt:other"});
  ASSERT_TRUE(other.ok());
  ASSERT_TRUE(run((*other)->add_listener(address_)).ok());
  auto inner =
      target_->create_subsystem({.nqn = "nqn.2024-01.io.basalt:inner", .allow_any_host = true, .internal = true});
  ASSERT_TRUE(inner.ok());
  ASSERT_TRUE(run((*inner)->add_listener(address_)).ok());
  RawHost& host = dial();
  host.initialize();
  ASSERT_TRUE(host.connect(0, nvme::discovery_nqn, hostnqn, 1).status.ok());
  ASSERT_TRUE(host.property_set(nvme::property_cc, cc_enable).status.ok());
  auto log = host.log_page(LogPageId::discovery, 8192);
  ASSERT_TRUE(log.status.ok());
  EXPECT_EQ(load_le<uint64_t>(log.data.data() + 8), 1u);
  nvme::DiscoveryLogEntry entry;
  std::memcpy(&entry, log.data.data() + 1024, sizeof(entry));
  EXPECT_STREQ(entry.subnqn, subnqn);
  EXPECT_STREQ(entry.traddr, "127.0.0.1");
  EXPECT_EQ(std::string(entry.trsvcid), address_.trsvcid);
  EXPECT_EQ(entry.trtype, 3);
  const uint64_t generation = load_le<uint64_t>(log.data.data());
  ASSERT_TRUE((*other)->add_host(hostnqn).ok());
  log = host.log_page(LogPageId::discovery, 8192);
  EXPECT_EQ(load_le<uint64_t>(log.data.data() + 8), 2u);
  EXPECT_GT(load_le<uint64_t>(log.data.data()), generation);
  EXPECT_TRUE(host.admin(AdminOpcode::identify, 2, 0, 0, 4096).status.is(status::invalid_field));
}

TEST_F(TcpTarget, DiscoveryStaysConnectedAndTellsWhenThereIsMoreOrLess) {
  auto other = target_->create_subsystem({.nqn = "nqn.2024-01.io.basalt:other"});
  ASSERT_TRUE(other.ok());
  ASSERT_TRUE(run((*other)->add_listener(address_)).ok());
  RawHost& host = dial();
  host.initialize();
  ASSERT_TRUE(host.connect(0, nvme::discovery_nqn, hostnqn, 1, 0xffff, 120'000).status.ok());
  ASSERT_TRUE(host.property_set(nvme::property_cc, cc_enable).status.ok());
  ASSERT_TRUE(host.admin(AdminOpcode::set_features, 0x0b, 1u << 31).status.ok());
  nvme::Command event{};
  event.opcode = 0x0c;
  uint64_t wanted_count = 1;
  for (uint16_t cid = 1000; cid < 1004; cid++) {
    event.cid = cid;
    host.send(RawHost::capsule(event));
    const auto log = host.log_page(LogPageId::discovery, 8192);
    EXPECT_EQ(load_le<uint64_t>(log.data.data() + 8), wanted_count);
    if (wanted_count == 1) {
      ASSERT_TRUE((*other)->add_host(hostnqn).ok());
    } else {
      ASSERT_TRUE(run((*other)->remove_host(hostnqn)).ok());
    }
    wanted_count = 3 - wanted_count;
    const auto told = host.collect(cid);
    ASSERT_TRUE(told.came && told.status.ok());
    EXPECT_EQ(told.dw0, 2u | 0xf0u << 8 | 0x70u << 16);
  }
}

TEST_F(TcpTarget, AbortEndsAnEventRequestAndSaysOfOthersThatItDidNot) {
  add_namespace();
  const Pair pair = associate();
  nvme::Command event{};
  event.opcode = 0x0c;
  event.cid = 1000;
  pair.admin->send(RawHost::capsule(event));
  const uint32_t admin_queue = 0;
  const auto nobody = pair.admin->admin(AdminOpcode::abort, 999u << 16 | admin_queue);
  EXPECT_TRUE(nobody.status.ok());
  EXPECT_EQ(nobody.dw0 & 1, 1u);
  // Of an I/O queue: a device has it, and it comes to its end.
  bdev_->hold = true;
  nvme::Command write = RawHost::io_command(NvmOpcode::write, 1, 0, 1);
  write.cid = 77;
  write.sgl = {0, 4096, {}, nvme::sgl_data_block_offset};
  pair.io->send(RawHost::capsule(write, pattern(4096, 1)));
  ASSERT_TRUE(run_until([&] { return bdev_->held.size() == 1; }));
  EXPECT_EQ(pair.admin->admin(AdminOpcode::abort, 77u << 16 | 1).dw0 & 1, 1u);
  bdev_->release();
  EXPECT_TRUE(pair.io->collect(77).status.ok());
  EXPECT_EQ(pair.io->read(1, 0, 1).data, pattern(4096, 1));
  nvme::Command abort{};
  abort.opcode = static_cast<uint8_t>(AdminOpcode::abort);
  abort.cid = 500;
  abort.cdw10 = 1000u << 16 | admin_queue;
  pair.admin->send(RawHost::capsule(abort));
  EXPECT_TRUE(pair.admin->collect(1000).status.is(status::abort_requested));  // before the Abort itself
  const auto aborted = pair.admin->collect(500);
  EXPECT_TRUE(aborted.status.ok());
  EXPECT_EQ(aborted.dw0 & 1, 0u);
}

TEST_F(TcpTarget, AHostMayHaveAHundredAndTwentyEightQueues) {
  add_namespace();
  RawHost& admin = dial();
  admin.initialize();
  const auto connected = admin.connect(0, subnqn, hostnqn, 1);
  ASSERT_TRUE(connected.status.ok());
  const auto cntlid = static_cast<uint16_t>(connected.dw0);
  ASSERT_TRUE(admin.property_set(nvme::property_cc, cc_enable).status.ok());
  const auto granted = admin.admin(AdminOpcode::set_features, 7, 0xfffe | 0xfffeu << 16);
  ASSERT_TRUE(granted.status.ok());
  EXPECT_EQ(granted.dw0, 126u | 126u << 16);
  for (uint16_t qid = 1; qid <= 127; qid++) {
    RawHost& io = dial();
    io.initialize();
    ASSERT_TRUE(io.connect(qid, subnqn, hostnqn, 1, cntlid).status.ok()) << qid;
    EXPECT_TRUE(io.write(1, qid, pattern(4096, static_cast<uint8_t>(qid)), true).status.ok()) << qid;
  }
  RawHost& more = dial();
  more.initialize();
  EXPECT_FALSE(more.connect(128, subnqn, hostnqn, 1, cntlid).status.ok());
  EXPECT_EQ(admin.identify(1).data.size(), 4096u);
}

TEST_F(TcpTarget, OnlyLoopbackAddressesAreListenedOn) {
  auto refused = run(subsystem_->add_listener({"TCP", "0.0.0.0", "0"}));
  ASSERT_FALSE(refused.ok());
  EXPECT_EQ(refused.error().code, Errc::permission);
}

TEST_F(TcpTarget, ANamespaceWithoutReservationsSaysSoAndRefusesTheirCommands) {
  auto nsid = run(subsystem_->add_namespace({.nsid = 1, .reservations = false}, bdev_.get()));
  ASSERT_TRUE(nsid.ok());
  const Pair pair = associate();
  EXPECT_TRUE(pair.io->reservation(NvmOpcode::reservation_register, 1, 8, 0, 5).status.is(status::invalid_opcode));
  EXPECT_TRUE(pair.io->reservation(NvmOpcode::reservation_acquire, 1, 0, 5, 0).status.is(status::invalid_opcode));
  EXPECT_TRUE(pair.io->write(1, 2, pattern(4096, 3), true).status.ok());
}

TEST_F(TcpTarget, RemovingAHostClosesItsControllers) {
  add_namespace();
  const Pair pair = associate();
  ASSERT_TRUE(run(subsystem_->remove_host(hostnqn)).ok());
  EXPECT_TRUE(pair.io->closes());
  EXPECT_TRUE(subsystem_->controllers().empty());
}

TEST_F(TcpTarget, CommandsWaitForBuffersInLineAndAllEnd) {
  add_namespace();
  const Pair pair = associate();
  constexpr uint16_t count = 12;  // a slab holds two buffers of this size
  for (uint16_t i = 0; i < count; i++) {
    nvme::Command command = RawHost::io_command(NvmOpcode::read, 1, i, 256);
    command.cid = static_cast<uint16_t>(600 + i);
    command.sgl = {0, 1 << 20, {}, nvme::sgl_transport_data_block};
    pair.io->send(RawHost::capsule(command));
  }
  for (uint16_t i = 0; i < count; i++) {
    const auto pdu = pair.io->next();
    ASSERT_TRUE(pdu.has_value());
    ASSERT_EQ(pdu->type, pdu::Type::c2h_data);
    EXPECT_EQ(pdu->data.size(), size_t{1} << 20);
  }
  EXPECT_TRUE(pair.io->write(1, 0, pattern(1 << 20, 4), false).status.ok());
}

}  // namespace
}  // namespace basalt::nvmf
