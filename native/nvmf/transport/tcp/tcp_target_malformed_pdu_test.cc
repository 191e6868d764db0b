// SPDX-License-Identifier: Apache-2.0
// PDUs that no host may send, M1 to M16 and M22 of docs/conformance-malformed.md, in memory and over real sockets: the
// right termination request, the end of that connection only, nothing written, nothing kept.
#include <cstring>

#include "nvmf/transport/tcp/tcp_target_fixture_testing.h"

namespace basalt::nvmf {
namespace {

using namespace basalt::nvmf::testing;  // NOLINT
using nvme::NvmOpcode;
using pdu::Fes;

constexpr pdu::Digests both{true, true};

Bytes ic_request() {
  Bytes out(sizeof(pdu::IcRequest));
  pdu::encode_ic_request(out.data(), {}, 0);
  return out;
}
Bytes keep_alive_capsule(pdu::Digests digests = {}) {
  nvme::Command command{};
  command.opcode = 0x18;
  return RawHost::capsule(command, {}, digests);
}
Bytes h2c_data(const pdu::DataFields& fields, pdu::Digests digests = {}) {
  Bytes out(pdu::encoded_small_header_bytes_max);
  out.resize(pdu::encode_h2c_data(out.data(), digests, fields));
  const Bytes payload(fields.length_bytes, 0xdd);
  out.insert(out.end(), payload.begin(), payload.end());
  if (digests.data && !payload.empty()) RawHost::append_digest(out, payload);
  return out;
}
Bytes write_capsule(uint16_t cid, uint32_t count, pdu::Digests digests = {}) {
  nvme::Command command = RawHost::io_command(NvmOpcode::write, 1, 0, count);
  command.cid = cid;
  command.sgl = {0, count * 4096, {}, nvme::sgl_data_block_offset};
  return RawHost::capsule(command, Bytes(size_t{count} * 4096, 0xdd), digests);
}
Bytes term_request(uint16_t fes, uint32_t plen) {
  const uint8_t wrong[8] = {};
  Bytes out(sizeof(pdu::TermRequest) + sizeof(wrong));
  out.resize(pdu::encode_term_request(out.data(), pdu::Type::h2c_term_request, {Fes::sequence_error, 0}, wrong, 8));
  store_le<uint16_t>(out.data() + 8, fes);
  store_le<uint32_t>(out.data() + 4, plen);
  out.resize(std::max<size_t>(out.size(), std::min<uint32_t>(plen, 4096)));
  return out;
}

class MalformedPdu : public TcpTargetFixture, public ::testing::WithParamInterface<Wire> {
 protected:
  MalformedPdu() : TcpTargetFixture(GetParam()) { add_namespace(); }

  // `bad` on a connection that did nothing else but initialize; a bystander's I/O goes on.
  void check(const std::string& name, const Bytes& bad, Fes fes, uint32_t fei, bool initialized = true,
             pdu::Digests digests = {}) {
    SCOPED_TRACE(name);
    if (bystander_.io == nullptr) bystander_ = associate();
    RawHost& host = dial();
    if (initialized) host.initialize(digests);
    host.send(bad);
    expect_terminated(host, fes, fei);
    EXPECT_TRUE(bystander_.io->read(1, 0, 1).status.ok());
  }
  // An I/O queue with a write of 8 KiB for which the R2T has come.
  struct Asked {
    Pair pair;
    pdu::DataFields good;
  };
  Asked ask(uint16_t hostid, pdu::Digests digests = {}) {
    const Pair pair = associate(hostid, digests);
    nvme::Command command = RawHost::io_command(NvmOpcode::write, 1, 0, 2);
    command.cid = 77;
    command.sgl = {0, 8192, {}, nvme::sgl_transport_data_block};
    pair.io->send(RawHost::capsule(command, {}, digests));
    const auto r2t = pair.io->next();
    EXPECT_TRUE(r2t.has_value() && r2t->type == pdu::Type::r2t);
    const auto ttag = r2t ? r2t->as<pdu::R2t>().ttag : uint16_t{0};
    return {pair, {.cccid = 77, .ttag = ttag, .length_bytes = 8192, .last = true}};
  }
  void expect_nothing_written() { EXPECT_EQ(associate(999).io->read(1, 0, 2).data, Bytes(8192)); }

  Pair bystander_{};
};

INSTANTIATE_TEST_SUITE_P(, MalformedPdu, ::testing::Values(Wire::memory, Wire::sockets), wire_name);

TEST_P(MalformedPdu, M1APduBeforeIcReqIsOutOfSequence) {
  check("capsule", keep_alive_capsule(), Fes::sequence_error, 0, false);
  check("data", h2c_data({.length_bytes = 4, .last = true}), Fes::sequence_error, 0, false);
  check("termination", term_request(1, 32), Fes::sequence_error, 0, false);
}

TEST_P(MalformedPdu, M2ASecondIcReqIsOutOfSequence) {
  check("after ICReq", ic_request(), Fes::sequence_error, 0);
  const Pair pair = associate(50);
  pair.io->send(ic_request());
  expect_terminated(*pair.io, Fes::sequence_error);
}

TEST_P(MalformedPdu, M3AWrongIcReqIsToldWhichField) {
  const Bytes ic = ic_request();
  for (const uint8_t hlen : {0, 7, 127, 129})
    check("HLEN", with(ic, 2, hlen), Fes::invalid_header_field, 2, false);
  for (const uint32_t plen : {0u, 7u, 127u, 129u, UINT32_MAX})
    check("PLEN", with32(ic, 4, plen), Fes::invalid_header_field, 4, false);
  check("PFV", with(ic, 8, 1), Fes::invalid_header_field, 8, false);
  check("HPDA", with(ic, 10, 32), Fes::invalid_header_field, 10, false);
  RawHost& host = dial();  // MAXR2T at its largest is not malformed
  host.send(with32(ic, 12, UINT32_MAX));
  EXPECT_EQ(host.next()->type, pdu::Type::ic_response);
}

TEST_P(MalformedPdu, M4TypesOfTheControllerAndUnknownOnesAreRefused) {
  for (const int type : {1, 3, 5, 7, 8, 9, 10, 0x80, 0xff})
    check("type", with(keep_alive_capsule(), 0, static_cast<uint8_t>(type)), Fes::invalid_header_field, 0);
}

TEST_P(MalformedPdu, M5AWrongHeaderLengthIsRefusedWithAndWithoutDigests) {
  for (const uint8_t hlen : {0, 7, 71, 73, 255}) {
    check("capsule", with(keep_alive_capsule(), 2, hlen), Fes::invalid_header_field, 2);
    check("capsule, digests", with(keep_alive_capsule(both), 2, hlen), Fes::invalid_header_field, 2, true, both);
  }
  for (const uint8_t hlen : {0, 23, 25, 128})
    check("data", with(h2c_data({.length_bytes = 4, .last = true}), 2, hlen), Fes::invalid_header_field, 2);
}

TEST_P(MalformedPdu, M6AWrongPduLengthIsRefusedBeforeAnythingIsAllocated) {
  for (const uint32_t plen : {0u, 71u, 100u, 1u << 31, UINT32_MAX})
    check("capsule", with32(keep_alive_capsule(), 4, plen), Fes::invalid_header_field, 4);
  check("capsule, digests", with32(keep_alive_capsule(both), 4, 72), Fes::invalid_header_field, 4, true, both);
  const size_t mapped = reactors_[0]->buffers().mapped_bytes();
  check("in-capsule beyond what is offered", with32(write_capsule(1, 2), 4, 72 + 8193), Fes::invalid_header_field, 4);
  EXPECT_EQ(reactors_[0]->buffers().mapped_bytes(), mapped);
}

TEST_P(MalformedPdu, M7AWrongDataOffsetIsRefused) {
  for (const uint8_t pdo : {1, 71, 73, 74, 255})
    check("capsule with data", with(write_capsule(1, 1), 3, pdo), Fes::invalid_header_field, 3);
  check("beyond PLEN", with32(with(write_capsule(1, 1), 3, 96), 4, 80), Fes::invalid_header_field, 3);
  check("without data", with(keep_alive_capsule(), 3, 72), Fes::invalid_header_field, 3);
  for (const uint8_t pdo : {1, 20, 23, 25})
    check("data", with(h2c_data({.length_bytes = 64, .last = true}), 3, pdo), Fes::invalid_header_field, 3);
  check("before the digest", with(h2c_data({.length_bytes = 64, .last = true}, both), 3, 24), Fes::invalid_header_field,
        3, true, both);
}

TEST_P(MalformedPdu, M8ToM10DataForAnotherTagOrCommandIsRefusedAndNotWritten) {
  uint16_t hostid = 100;
  const auto refused = [&](const char* name, Fes fes, auto change) {
    SCOPED_TRACE(name);
    Asked asked = ask(hostid++);
    change(asked.good);
    asked.pair.io->send(h2c_data(asked.good));
    expect_terminated(*asked.pair.io, fes);
    asked.pair.drop();
  };
  refused("M8 no such tag", Fes::sequence_error, [](auto& f) { f.ttag = 0xffff; });
  refused("M8 one past the slots", Fes::sequence_error, [](auto& f) { f.ttag = 128; });
  refused("M9 a tag of nobody", Fes::sequence_error, [](auto& f) { f.ttag ^= 1; });
  refused("M10 another command's identifier", Fes::sequence_error, [](auto& f) { f.cccid++; });
  expect_nothing_written();
}

TEST_P(MalformedPdu, M9DataThatNobodyAskedForIsRefused) {
  bdev_->hold_all = true;
  const Pair pair = associate(60);
  nvme::Command read = RawHost::io_command(NvmOpcode::read, 1, 0, 1);
  read.cid = 5;
  read.sgl = {0, 4096, {}, nvme::sgl_transport_data_block};
  pair.io->send(RawHost::capsule(read));
  EXPECT_TRUE(run_until([&] { return bdev_->held.size() == 1; }));
  pair.io->send(h2c_data({.cccid = 5, .ttag = 0, .length_bytes = 4096, .last = true}));
  expect_terminated(*pair.io, Fes::sequence_error);

  const Pair in_capsule = associate(61);
  in_capsule.io->send(write_capsule(6, 1));
  EXPECT_TRUE(run_until([&] { return bdev_->held.size() == 2; }));
  in_capsule.io->send(h2c_data({.cccid = 6, .ttag = 0, .length_bytes = 4096, .last = true}));
  expect_terminated(*in_capsule.io, Fes::sequence_error);
  bdev_->release();

  const Asked done = ask(62);  // the same tag once more, after the command has ended
  done.pair.io->send(h2c_data(done.good));
  EXPECT_TRUE(done.pair.io->collect(77).status.ok());
  done.pair.io->send(h2c_data(done.good));
  expect_terminated(*done.pair.io, Fes::sequence_error);
}

TEST_P(MalformedPdu, M11ToM13DataAtAWrongPlaceOrOfAWrongLengthIsRefusedAndNotWritten) {
  uint16_t hostid = 200;
  const auto refused = [&](const char* name, Fes fes, auto change) {
    SCOPED_TRACE(name);
    Asked asked = ask(hostid++);
    change(asked.good);
    asked.pair.io->send(h2c_data(asked.good));
    expect_terminated(*asked.pair.io, fes);
    asked.pair.drop();
  };
  refused("M11 a gap", Fes::transfer_out_of_range, [](auto& f) { f.offset_bytes = f.length_bytes = 4096; });
  refused("M11 past the end", Fes::transfer_out_of_range, [](auto& f) { f.length_bytes = 8196; });
  refused("M12 the offset wraps", Fes::transfer_out_of_range, [](auto& f) { f.offset_bytes = 0xfffffffc; });
  refused("M13 nothing", Fes::invalid_header_field, [](auto& f) { f.length_bytes = 0; });
  refused("M13 not a multiple of four", Fes::invalid_header_field, [](auto& f) { f.length_bytes = 4095; });
  refused("M13 beyond MAXH2CDATA", Fes::transfer_limit_exceeded, [](auto& f) { f.length_bytes = (256 << 10) + 4; });

  SCOPED_TRACE("M11 a repetition");
  const Asked asked = ask(hostid++);
  pdu::DataFields first = asked.good;
  first.length_bytes = 4096;
  first.last = false;
  asked.pair.io->send(h2c_data(first));
  asked.pair.io->send(h2c_data(first));
  expect_terminated(*asked.pair.io, Fes::transfer_out_of_range);

  SCOPED_TRACE("M12 the length wraps");
  const Asked wraps = ask(hostid++);
  wraps.pair.io->send(with32(h2c_data(wraps.good), 16, 0xfffff001));
  expect_terminated(*wraps.pair.io, Fes::transfer_limit_exceeded);
  expect_nothing_written();
}

TEST_P(MalformedPdu, M14LengthsThatDisagreeAreRefused) {
  const Bytes data = h2c_data({.length_bytes = 64, .last = true});
  check("DATAL below PLEN", with32(data, 16, 60), Fes::invalid_header_field, 4);
  check("DATAL above PLEN", with32(data, 16, 68), Fes::invalid_header_field, 4);
  check("PLEN too short", with32(data, 4, 24 + 60), Fes::invalid_header_field, 4);
  check("no room for the digest", with32(h2c_data({.length_bytes = 64, .last = true}, {false, true}), 4, 24 + 64),
        Fes::invalid_header_field, 4, true, {false, true});
}

TEST_P(MalformedPdu, M15AShortWriteIsNeverExecuted) {
  Asked early = ask(300);
  early.good.length_bytes = 4096;
  early.pair.io->send(h2c_data(early.good));
  expect_terminated(*early.pair.io, Fes::sequence_error);
  Asked missing = ask(301);
  missing.good.last = false;
  missing.pair.io->send(h2c_data(missing.good));
  expect_terminated(*missing.pair.io, Fes::sequence_error);
  expect_nothing_written();
  const Asked more = ask(302);
  Bytes twice = h2c_data(more.good);
  const Bytes again =
      h2c_data({.cccid = 77, .ttag = more.good.ttag, .offset_bytes = 8192, .length_bytes = 4, .last = true});
  twice.insert(twice.end(), again.begin(), again.end());
  more.pair.io->send(twice);
  expect_terminated(*more.pair.io, Fes::sequence_error);
}

TEST_P(MalformedPdu, M16HeaderDigestsAreCheckedAndTheirFlagsHeldToWhatWasAgreed) {
  const pdu::Digests header{true, false};
  check("a wrong digest", with(keep_alive_capsule(header), 73, 0xee), Fes::header_digest_error,
        load_le<uint32_t>(with(keep_alive_capsule(header), 73, 0xee).data() + 72) & 0xffff, true, header);
  check("a changed header", with(keep_alive_capsule(header), 20, 0xee), Fes::header_digest_error,
        load_le<uint32_t>(keep_alive_capsule(header).data() + 72) & 0xffff, true, header);
  check("a flag that was not agreed", with(keep_alive_capsule(), 1, pdu::flag_header_digest), Fes::invalid_header_field,
        1);
  check("the flag missing", with(keep_alive_capsule(header), 1, 0), Fes::invalid_header_field, 1, true, header);
  check("a data digest that was not agreed", with(write_capsule(1, 1), 1, pdu::flag_data_digest),
        Fes::invalid_header_field, 1);
  check("the data digest's flag missing", with(write_capsule(1, 1, {false, true}), 1, 0), Fes::invalid_header_field, 1,
        true, {false, true});
}

TEST_P(MalformedPdu, M22TerminationRequestsOfAnyFormEndTheConnectionQuietlyOrAreRefused) {
  bystander_ = associate();
  for (const uint16_t fes : {0, 1, 6, 7, 0xffff}) {
    for (const uint32_t plen : {24u, 25u, 32u, 152u}) {
      SCOPED_TRACE(std::to_string(fes) + ", " + std::to_string(plen));
      RawHost& host = dial();
      host.initialize();
      host.send(term_request(fes, plen));
      EXPECT_FALSE(host.next().has_value()) << "an answer to a termination request";
      EXPECT_TRUE(host.closed());
    }
  }
  for (const uint32_t plen : {0u, 23u, 153u, 1u << 31, UINT32_MAX})
    check("PLEN", term_request(1, plen), Fes::invalid_header_field, 4);
}

}  // namespace
}  // namespace basalt::nvmf
