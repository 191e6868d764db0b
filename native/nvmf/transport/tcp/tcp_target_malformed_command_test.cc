// SPDX-License-Identifier: Apache-2.0
// Commands that cannot be right, M17 to M32 of docs/conformance-malformed.md, in memory and over real sockets: an exact
// status each, the connection stays, nothing is written and nothing is kept.
#include <cstring>

#include "nvmf/transport/tcp/tcp_target_fixture_testing.h"

namespace basalt::nvmf {
namespace {

using namespace basalt::nvmf::testing;  // NOLINT
using nvme::AdminOpcode;
using nvme::LogPageId;
using nvme::NvmOpcode;
namespace status = nvme::status;

class MalformedCommand : public TcpTargetFixture, public ::testing::WithParamInterface<Wire> {
 protected:
  MalformedCommand() : TcpTargetFixture(GetParam()) { add_namespace(); }

  static nvme::Command write_command(uint16_t cid, uint64_t slba, uint32_t count, uint8_t sgl_type) {
    nvme::Command command = RawHost::io_command(NvmOpcode::write, 1, slba, count);
    command.cid = cid;
    command.sgl = {0, count * 4096, {}, sgl_type};
    return command;
  }
};

INSTANTIATE_TEST_SUITE_P(, MalformedCommand, ::testing::Values(Wire::memory, Wire::sockets), wire_name);

TEST_P(MalformedCommand, M17AWrongDataDigestFailsTheCommandAndWritesNothing) {
  const pdu::Digests digests{false, true};
  const Pair pair = associate(1, digests);
  Bytes bad = RawHost::capsule(write_command(500, 3, 1, nvme::sgl_data_block_offset), pattern(4096, 1), digests);
  bad[1000] ^= 1;
  pair.io->send(bad);
  EXPECT_TRUE(pair.io->collect(500).status.is(status::transient_transport_error));
  // In the first, a middle and the last of several PDUs of one R2T.
  for (const uint32_t wrong : {0u, 1u, 3u}) {
    const auto cid = static_cast<uint16_t>(600 + wrong);
    pair.io->send(RawHost::capsule(write_command(cid, 3, 4, nvme::sgl_transport_data_block), {}, digests));
    const auto r2t = pair.io->next();
    ASSERT_TRUE(r2t && r2t->type == pdu::Type::r2t);
    for (uint32_t piece = 0; piece < 4; piece++) {
      Bytes out(pdu::encoded_small_header_bytes_max);
      out.resize(pdu::encode_h2c_data(out.data(), digests,
                                      {.cccid = cid,
                                       .ttag = r2t->as<pdu::R2t>().ttag,
                                       .offset_bytes = piece * 4096,
                                       .length_bytes = 4096,
                                       .last = piece == 3}));
      const Bytes payload = pattern(4096, 2);
      out.insert(out.end(), payload.begin(), payload.end());
      RawHost::append_digest(out, payload);
      if (piece == wrong) out.back() ^= 1;
      pair.io->send(out);
    }
    EXPECT_TRUE(pair.io->collect(cid).status.is(status::transient_transport_error));
  }
  EXPECT_EQ(pair.io->read(1, 3, 4).data, Bytes(4 * 4096));
  EXPECT_TRUE(pair.io->write(1, 3, pattern(4096, 1), true).status.ok());
}

TEST_P(MalformedCommand, M18ToM20BadSglsAreRefusedBeforeAnyMemoryIsTaken) {
  const Pair pair = associate();
  struct Row {
    nvme::SglDescriptor sgl;
    uint8_t flags;
    nvme::Status expected;
  };
  constexpr uint8_t transport = nvme::sgl_transport_data_block;
  const Row rows[] = {
      {{0, UINT32_MAX, {}, transport}, 0x40, status::data_sgl_length_invalid},
      {{0, (1 << 20) + 4096, {}, transport}, 0x40, status::data_sgl_length_invalid},
      {{0, 0, {}, transport}, 0x40, status::data_sgl_length_invalid},
      {{0, 8192, {}, transport}, 0x40, status::data_sgl_length_invalid},
      {{0, 4096, {}, 0x00}, 0x40, status::sgl_type_invalid},       // an address
      {{0, 4096, {}, 0x40}, 0x40, status::sgl_type_invalid},       // keyed
      {{0, 4096, {}, 0x10}, 0x40, status::sgl_type_invalid},       // a bit bucket
      {{0, 4096, {}, 0x20}, 0x40, status::sgl_type_invalid},       // a segment
      {{0, 4096, {}, 0x30}, 0x40, status::sgl_type_invalid},       // the last segment
      {{0, 4096, {}, 0xf0}, 0x40, status::sgl_type_invalid},       // a vendor's
      {{0, 4096, {}, transport}, 0x00, status::sgl_type_invalid},  // PRP
      {{0, 4096, {}, transport}, 0xc0, status::sgl_type_invalid},
      {{0, 4096, {}, nvme::sgl_data_block_offset}, 0x40, status::sgl_type_invalid},  // in-capsule, on a read
  };
  const size_t mapped = reactors_[0]->buffers().mapped_bytes() + reactors_[1]->buffers().mapped_bytes();
  for (const Row& row : rows) {
    nvme::Command command = RawHost::io_command(NvmOpcode::read, 1, 0, 1);
    command.cid = 9;
    command.flags = row.flags;
    command.sgl = row.sgl;
    pair.io->send(RawHost::capsule(command));
    EXPECT_TRUE(pair.io->collect(9).status.is(row.expected)) << int{row.sgl.type_subtype};
  }
  EXPECT_EQ(reactors_[0]->buffers().mapped_bytes() + reactors_[1]->buffers().mapped_bytes(), mapped);
  nvme::Command command = write_command(9, 0, 1, nvme::sgl_data_block_offset);
  command.sgl.address = 16;
  pair.io->send(RawHost::capsule(command, pattern(4096, 1)));
  EXPECT_TRUE(pair.io->collect(9).status.is(status::sgl_offset_invalid));
}

TEST_P(MalformedCommand, M19InCapsuleDataThatDisagreesWithItsSglEndsTheConnection) {
  uint16_t hostid = 70;
  for (const size_t data_bytes : {size_t{0}, size_t{512}, size_t{4092}, size_t{8192}}) {
    SCOPED_TRACE(data_bytes);
    const Pair pair = associate(hostid++);
    pair.io->send(RawHost::capsule(write_command(9, 0, 1, nvme::sgl_data_block_offset), Bytes(data_bytes, 1)));
    expect_terminated(*pair.io, pdu::Fes::invalid_header_field, 8 + 24 + 8);
    pair.drop();
  }
  const Pair pair = associate(hostid++);  // data with a command that takes none
  pair.io->send(RawHost::capsule(write_command(9, 0, 1, nvme::sgl_transport_data_block), Bytes(4096, 1)));
  expect_terminated(*pair.io, pdu::Fes::invalid_header_field, 4);
  EXPECT_EQ(associate(hostid).io->read(1, 0, 1).data, Bytes(4096));
}

TEST_P(MalformedCommand, M21MoreCommandsThanTheQueueHoldsEndTheConnection) {
  const Pair pair = associate();
  bdev_->hold = true;
  for (uint16_t i = 0; i < 130; i++) {
    if (!pair.io->send(RawHost::capsule(write_command(i, i, 1, nvme::sgl_data_block_offset), Bytes(4096)))) break;
  }
  EXPECT_TRUE(pair.io->closes());
  bdev_->release();
}

TEST_P(MalformedCommand, M21AnIdentifierThatIsInUseIsAConflictAndTheFirstCommandGoesOn) {
  const Pair pair = associate();
  bdev_->hold = true;
  pair.io->send(RawHost::capsule(write_command(7, 0, 1, nvme::sgl_data_block_offset), pattern(4096, 1)));
  EXPECT_TRUE(run_until([&] { return bdev_->held.size() == 1; }));
  pair.io->send(RawHost::capsule(write_command(7, 1, 1, nvme::sgl_data_block_offset), pattern(4096, 2)));
  EXPECT_TRUE(pair.io->collect(7).status.is(status::command_id_conflict));
  pair.io->send(RawHost::capsule(write_command(7 + 256, 2, 1, nvme::sgl_data_block_offset), pattern(4096, 3)));
  EXPECT_TRUE(run_until([&] { return bdev_->held.size() == 2; })) << "another identifier with the same low byte";
  bdev_->release();
  EXPECT_TRUE(pair.io->collect(7).status.ok());
  EXPECT_TRUE(pair.io->collect(7 + 256).status.ok() || !pair.io->others.empty());
  EXPECT_EQ(pair.io->read(1, 0, 1).data, pattern(4096, 1));
  EXPECT_EQ(pair.io->read(1, 1, 1).data, Bytes(4096));
  pair.io->send(RawHost::capsule(write_command(7, 3, 1, nvme::sgl_data_block_offset), pattern(4096, 4)));
  EXPECT_TRUE(pair.io->collect(7).status.ok()) << "free again";
}

TEST_P(MalformedCommand, M23NamesThatAreNoNamesAreRefusedWithTheirPlace) {
  const auto connect = [&](auto change) {
    RawHost& host = dial();
    host.initialize();
    nvme::ConnectCommand command{};
    command.opcode = 0x7f;
    command.fctype = 1;
    command.sqsize = 31;
    nvme::ConnectData data{};
    data.hostid[15] = 5;
    data.cntlid = 0xffff;
    std::strncpy(data.subnqn, subnqn, sizeof(data.subnqn) - 1);
    std::strncpy(data.hostnqn, hostnqn, sizeof(data.hostnqn) - 1);
    change(command, data);
    const auto answer = host.connect_as(command, data);
    EXPECT_TRUE(answer.came);
    host.drop();
    return answer;
  };
  const auto refused = [&](const char* name, uint32_t offset, auto change) {
    SCOPED_TRACE(name);
    const auto answer = connect([&](auto&, auto& data) { change(data); });
    EXPECT_TRUE(answer.status.is(status::connect_invalid_parameters)) << to_string(answer.status);
    EXPECT_EQ(answer.dw0, offset | 1u << 16);
  };
  constexpr uint32_t at_subnqn = offsetof(nvme::ConnectData, subnqn);
  constexpr uint32_t at_hostnqn = offsetof(nvme::ConnectData, hostnqn);
  refused("no zero in 256 bytes", at_subnqn, [](auto& d) { std::memset(d.subnqn, 'a', sizeof(d.subnqn)); });
  refused("no zero in 256 bytes", at_hostnqn, [](auto& d) { std::memset(d.hostnqn, 'a', sizeof(d.hostnqn)); });
  refused("nqn. and 250 more", at_hostnqn, [](auto& d) { std::memset(d.hostnqn + 4, 'a', 250); });
  refused("empty", at_subnqn, [](auto& d) { d.subnqn[0] = 0; });
  refused("empty", at_hostnqn, [](auto& d) { d.hostnqn[0] = 0; });
  refused("no UTF-8", at_hostnqn, [](auto& d) { std::strcpy(d.hostnqn, "nqn.\xff\xfe\x80"); });
  refused("a control character", at_hostnqn, [](auto& d) { std::strcpy(d.hostnqn, "nqn.a\x1b[2J"); });
  refused("a line end", at_subnqn, [](auto& d) { std::strcpy(d.subnqn, "nqn.a\nb"); });
  refused("a space", at_hostnqn, [](auto& d) { std::strcpy(d.hostnqn, "nqn.a b"); });
  refused("no identifier", offsetof(nvme::ConnectData, hostid), [](auto& d) { std::memset(d.hostid, 0, 16); });
  refused("a controller of one's own choice", offsetof(nvme::ConnectData, cntlid), [](auto& d) { d.cntlid = 1; });
  for (const uint16_t sqsize : {0, 128, 0xffff}) {
    const auto answer = connect([&](auto& command, auto&) { command.sqsize = sqsize; });
    EXPECT_TRUE(answer.status.is(status::connect_invalid_parameters));
    EXPECT_EQ(answer.dw0, offsetof(nvme::ConnectCommand, sqsize));
  }
  EXPECT_TRUE(connect([](auto& command, auto&) { command.recfmt = 1; }).status.is(status::connect_incompatible_format));
  EXPECT_TRUE(connect([](auto&, auto&) {}).status.ok());
}

TEST_P(MalformedCommand, M24ConnectDataOfAnotherLengthIsRefused) {
  for (const size_t length : {size_t{4}, size_t{1020}, size_t{1028}, size_t{8192}}) {
    RawHost& host = dial();
    host.initialize();
    nvme::ConnectCommand connect{};
    connect.opcode = 0x7f;
    connect.fctype = 1;
    connect.sqsize = 31;
    nvme::Command command;
    std::memcpy(&command, &connect, sizeof(command));
    EXPECT_TRUE(host.command(command, Bytes(length)).status.is(status::data_sgl_length_invalid)) << length;
  }
}

TEST_P(MalformedCommand, M24AndM25ConnectAndCommandsOutOfOrderAreRefused) {
  const Pair pair = associate();
  RawHost& early = dial();
  early.initialize();
  EXPECT_TRUE(early.read(1, 0, 1).status.is(status::command_sequence_error));
  EXPECT_TRUE(early.property_get(nvme::property_cap, true).status.is(status::command_sequence_error));
  EXPECT_TRUE(early.connect(0, subnqn, "nqn.2024-01.io.basalt:stranger", 5).status.is(status::connect_invalid_host));
  EXPECT_TRUE(early.connect(0, "nqn.2024-01.io.basalt:none", hostnqn, 5).status.is(status::connect_invalid_parameters));
  EXPECT_TRUE(early.connect(0, subnqn, hostnqn, 0).status.is(status::connect_invalid_parameters));
  EXPECT_TRUE(early.connect(0, subnqn, "nqn.bad\nname", 5).status.is(status::connect_invalid_parameters));
  EXPECT_TRUE(early.connect(0, subnqn, "", 5).status.is(status::connect_invalid_parameters));
  // Another host's controller, a queue that exists, a controller that does not.
  EXPECT_TRUE(early.connect(2, subnqn, hostnqn, 66, pair.cntlid).status.is(status::connect_invalid_parameters));
  EXPECT_TRUE(early.connect(1, subnqn, hostnqn, 1, pair.cntlid).status.is(status::connect_invalid_parameters));
  EXPECT_TRUE(early.connect(2, subnqn, hostnqn, 1, 999).status.is(status::connect_invalid_parameters));
  EXPECT_TRUE(early.connect(2, subnqn, hostnqn, 1, pair.cntlid).status.ok());
  EXPECT_TRUE(early.connect(3, subnqn, hostnqn, 1, pair.cntlid).status.is(status::command_sequence_error));
  EXPECT_TRUE(early.property_get(nvme::property_cap, true).status.is(status::invalid_opcode));
}

TEST_P(MalformedCommand, M26ToM29OddAdminAndIoCommandsGetExactStatus) {
  const Pair pair = associate();
  EXPECT_TRUE(pair.admin->property_get(0x9999, false).status.is(status::invalid_field));
  EXPECT_TRUE(pair.admin->property_get(nvme::property_cap, false).status.is(status::invalid_field));
  EXPECT_TRUE(pair.admin->property_set(nvme::property_csts, 1).status.is(status::invalid_field));
  EXPECT_EQ(pair.admin->admin(AdminOpcode::identify, 1, 0, 0, 4).data.size(), 4u);
  EXPECT_EQ(pair.admin->admin(AdminOpcode::identify, 1, 0, 0, 131072).data.size(), 131072u);
  EXPECT_TRUE(pair.admin->admin(AdminOpcode::identify, 0x77, 0, 0, 4096).status.is(status::invalid_field));
  EXPECT_TRUE(pair.admin->admin(AdminOpcode::get_features, 0x70).status.is(status::invalid_field));
  nvme::Command log{};
  log.opcode = 2;
  log.cdw10 = 2 | 127u << 16;
  log.cdw12 = log.cdw13 = 0xfffffffc;
  EXPECT_TRUE(pair.admin->command(log, {}, 512).status.is(status::invalid_field));
  EXPECT_TRUE(pair.admin->admin(static_cast<AdminOpcode>(0xc0), 0).status.is(status::invalid_opcode));
  for (const uint32_t nsid : {0u, 2u, 0xffffffffu})
    EXPECT_TRUE(pair.io->read(nsid, 0, 1).status.is(status::invalid_namespace));
  EXPECT_TRUE(pair.io->read(1, blocks, 1).status.is(status::lba_out_of_range));
  EXPECT_TRUE(pair.io->read(1, blocks - 1, 2).status.is(status::lba_out_of_range));
  EXPECT_TRUE(pair.io->read(1, UINT64_MAX, 1).status.is(status::lba_out_of_range));
  nvme::Command zeroes = RawHost::io_command(NvmOpcode::write_zeroes, 1, blocks - 1, 65536);
  EXPECT_TRUE(pair.io->command(zeroes).status.is(status::lba_out_of_range));
  EXPECT_TRUE(pair.io->command(RawHost::io_command(static_cast<NvmOpcode>(0x7e), 1, 0, 1)).status.ok() == false);
}

TEST_P(MalformedCommand, M30DeallocateTakesRangesAndComparesSeeTheDifference) {
  const Pair pair = associate();
  const Bytes data = pattern(4 * 4096, 5);
  ASSERT_TRUE(pair.io->write(1, 10, data, false).status.ok());
  nvme::Command compare = RawHost::io_command(NvmOpcode::compare, 1, 10, 4);
  EXPECT_TRUE(pair.io->command(compare, data, 0, false).status.ok());
  EXPECT_TRUE(pair.io->command(compare, pattern(4 * 4096, 6), 0, false).status.is(status::compare_failure));
  Bytes ranges(3 * 16);
  store_le<uint32_t>(ranges.data() + 4, 1);
  store_le<uint64_t>(ranges.data() + 8, 10);
  store_le<uint32_t>(ranges.data() + 36, 2);
  store_le<uint64_t>(ranges.data() + 40, 12);
  nvme::Command dsm{};
  dsm.opcode = 9;
  dsm.nsid = 1;
  dsm.cdw10 = 2;
  dsm.cdw11 = 4;
  EXPECT_TRUE(pair.io->command(dsm, ranges).status.ok());
  Bytes expected = data;
  std::fill(expected.begin(), expected.begin() + 4096, 0);
  std::fill(expected.begin() + 8192, expected.end(), 0);
  EXPECT_EQ(pair.io->read(1, 10, 4).data, expected);
  store_le<uint64_t>(ranges.data() + 40, blocks - 1);
  EXPECT_TRUE(pair.io->command(dsm, ranges).status.is(status::lba_out_of_range));
  dsm.cdw10 = 255;
  EXPECT_TRUE(pair.io->command(dsm, ranges).status.is(status::data_sgl_length_invalid));
}

TEST_P(MalformedCommand, M25FabricsCommandsOfUnknownKindsAreRefused) {
  const Pair pair = associate();
  for (const uint8_t kind : {2, 3, 0x10, 0xc0, 0xff}) {
    nvme::Command command{};
    command.opcode = 0x7f;
    command.nsid = kind;
    const auto answer = pair.admin->command(command, {}, (kind & 3) == 2 ? 64 : 0);
    EXPECT_TRUE(answer.came && !answer.status.ok()) << int{kind};
    EXPECT_TRUE(answer.data.empty() || answer.data == Bytes(answer.data.size()));
  }
  EXPECT_TRUE(pair.admin->property_get(nvme::property_cap, true).status.ok());
}

TEST_P(MalformedCommand, M26AConfigurationThatCannotBeIsAFatalStatusAndAnEnabledShutdownIsAShutdown) {
  for (const uint32_t configuration : {0x00460071u, 0x00460781u, 0x00450001u, 0x00360001u}) {
    RawHost& host = dial();
    host.initialize();
    ASSERT_TRUE(host.connect(0, subnqn, hostnqn, 7).status.ok());
    ASSERT_TRUE(host.property_set(nvme::property_cc, configuration).status.ok());
    EXPECT_EQ(host.property_get(nvme::property_csts, false).dw0 & 3, 2u) << configuration;
    host.drop();
  }
  RawHost& host = dial();
  host.initialize();
  ASSERT_TRUE(host.connect(0, subnqn, hostnqn, 7).status.ok());
  ASSERT_TRUE(host.property_set(nvme::property_cc, cc_enable | 1u << 14).status.ok());
  EXPECT_EQ(host.property_get(nvme::property_csts, false).dw0 >> 2 & 3, 2u);
}

TEST_P(MalformedCommand, M27BuffersOfAnySizeAreFilledToTheirEndAndNoFurther) {
  const Pair pair = associate();
  for (const uint32_t length : {4u, 64u, 4092u, 4096u, 8192u, 131072u}) {
    for (const uint32_t cns : {0u, 1u, 2u, 3u}) {
      const auto answer = pair.admin->admin(AdminOpcode::identify, cns, 0, cns == 1 || cns == 2 ? 0 : 1, length);
      EXPECT_TRUE(answer.status.ok());
      ASSERT_EQ(answer.data.size(), length);
      for (size_t i = 4096; i < length; i++)
        ASSERT_EQ(answer.data[i], 0) << i;
    }
    EXPECT_EQ(pair.admin->log_page(LogPageId::ana, length).data.size(), length);
  }
  // The length in the command is beyond the buffer, or wraps.
  nvme::Command log{};
  log.opcode = 2;
  log.cdw10 = 0x0c | 0xffffu << 16;
  log.cdw11 = 0xffff;
  const auto wraps = pair.admin->command(log, {}, 512);
  EXPECT_TRUE(wraps.came);
  EXPECT_LE(wraps.data.size(), 512u);
  log.cdw11 = 0;
  log.cdw12 = log.cdw13 = UINT32_MAX & ~3u;
  EXPECT_TRUE(pair.admin->command(log, {}, 512).status.is(status::invalid_field));
}

TEST_P(MalformedCommand, M29FusedCommandsAndWrappingRangesAreRefused) {
  const Pair pair = associate();
  for (const uint8_t fuse : {1, 2, 3}) {
    nvme::Command command = write_command(static_cast<uint16_t>(40 + fuse), 0, 1, nvme::sgl_data_block_offset);
    command.flags = static_cast<uint8_t>(0x40 | fuse);
    pair.io->send(RawHost::capsule(command, pattern(4096, 1)));
    EXPECT_FALSE(pair.io->collect(command.cid).status.ok());
  }
  EXPECT_EQ(pair.io->read(1, 0, 1).data, Bytes(4096));
  for (const uint64_t slba : {blocks, UINT64_MAX, UINT64_MAX - 1, uint64_t{1} << 63}) {
    EXPECT_TRUE(pair.io->read(1, slba, 2).status.is(status::lba_out_of_range));
    EXPECT_TRUE(pair.io->write(1, slba, Bytes(8192), true).status.is(status::lba_out_of_range));
  }
  nvme::Command large = RawHost::io_command(NvmOpcode::read, 1, 0, 65536);
  EXPECT_TRUE(pair.io->command(large, {}, 1 << 20).status.is(status::invalid_field));
}

TEST_P(MalformedCommand, M30OddRangesAreJudgedBeforeAnyIsDeallocated) {
  const Pair pair = associate();
  ASSERT_TRUE(pair.io->write(1, 10, pattern(4 * 4096, 5), false).status.ok());
  nvme::Command dsm{};
  dsm.opcode = 9;
  dsm.nsid = 1;
  dsm.cdw11 = 4;
  Bytes ranges(256 * 16);
  const auto range = [&](size_t index, uint64_t slba, uint32_t count) {
    store_le<uint32_t>(ranges.data() + index * 16 + 4, count);
    store_le<uint64_t>(ranges.data() + index * 16 + 8, slba);
  };
  range(0, 10, 4);
  range(255, UINT64_MAX, 2);
  dsm.cdw10 = 255;
  EXPECT_TRUE(pair.io->command(dsm, ranges).status.is(status::lba_out_of_range));
  EXPECT_EQ(pair.io->read(1, 10, 4).data, pattern(4 * 4096, 5)) << "the first range was not carried out";
  range(255, 12, 2);  // overlaps the first one
  EXPECT_TRUE(pair.io->command(dsm, ranges).status.ok());
  EXPECT_EQ(pair.io->read(1, 10, 4).data, Bytes(4 * 4096));
}

TEST_P(MalformedCommand, M31AFifthEventRequestIsRefused) {
  const Pair pair = associate();
  nvme::Command event{};
  event.opcode = 0x0c;
  for (const uint16_t cid : {1000, 1001, 1002, 1003, 2000}) {
    event.cid = cid;
    pair.admin->send(RawHost::capsule(event));
  }
  EXPECT_TRUE(pair.admin->collect(2000).status.is(status::aer_limit_exceeded));
}

TEST_P(MalformedCommand, M32RegistrantsAreBoundedAndWrongKeysConflict) {
  const unsigned host_count = wire_ == Wire::memory ? 200 : 17;
  unsigned registered = 0;
  Pair first{};
  for (unsigned i = 0; i < host_count; i++) {
    const Pair pair = associate(static_cast<uint16_t>(500 + i));
    const auto answer = pair.io->reservation(NvmOpcode::reservation_register, 1, 0, 0, 1000 + i);
    if (answer.status.ok()) registered++;
    if (i == 0) {
      first = pair;
    } else {
      pair.drop();
    }
  }
  EXPECT_EQ(registered, std::min<unsigned>(host_count, ns::Reservation::registrants_max));
  EXPECT_TRUE(first.io->reservation(NvmOpcode::reservation_acquire, 1, 1u << 8, 9999, 0)
                  .status.is(status::reservation_conflict));
  EXPECT_TRUE(first.io->reservation(NvmOpcode::reservation_acquire, 1, 1u << 8, 1000, 0).status.ok());
  const Pair stranger = associate(499);
  EXPECT_TRUE(stranger.io->write(1, 0, pattern(4096, 1), true).status.is(status::reservation_conflict));
  EXPECT_TRUE(stranger.io->reservation(NvmOpcode::reservation_acquire, 1, 1 | 1u << 8, 0, 1000)
                  .status.is(status::reservation_conflict));
  for (const uint32_t bits : {7u, 3u << 30, 0xff00u})
    EXPECT_FALSE(first.io->reservation(NvmOpcode::reservation_acquire, 1, bits, 1000, 0).status.ok()) << bits;
}

}  // namespace
}  // namespace basalt::nvmf
