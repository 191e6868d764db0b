// SPDX-License-Identifier: Apache-2.0
// A node at the controllers' end of a link, as a fuzz target plays it: one association, which attaches, describes and
// detaches replicas and sends them commands under identities and epochs of any choice, any bits of them changed.
//
// What comes back is judged. Each completion answers a command. An I/O succeeds under an epoch, and a number and
// identity that belong together when it is sent, or do until it is answered. One that was sent under an epoch below one
// that somebody had been told to hold the replica under changes and reads nothing. A description tells a size that was
// true between question and answer.
#pragma once

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "base/bytes.h"
#include "nvme/status.h"
#include "nvmf/transport/tcp/link_replicas_fuzz_testing.h"

namespace basalt::nvmf::testing {

class LinkNode {
 public:
  LinkNode(LinkReplicas& replicas, basalt::testing::FuzzInput& input, uint16_t number)
      : replicas_(replicas), input_(input), host_number_(number) {}

  // Identity 0 is none: its tag is zero.
  static uint64_t tag_of_identity(uint8_t identity) { return 0x0101010101010101u * identity; }
  static Bytes attach_data(uint8_t identity, const char* nqn) {
    nvme::LinkAttachData fields{};
    std::memset(fields.hostid, identity, sizeof(fields.hostid));
    fields.nsid = 1;
    std::strncpy(fields.subnqn, nqn, sizeof(fields.subnqn));
    Bytes data(sizeof(fields));
    std::memcpy(data.data(), &fields, sizeof(fields));
    return data;
  }
  static Bytes keys_of(uint64_t current, uint64_t other) {
    Bytes keys(16);
    store_le<uint64_t>(keys.data(), current);
    store_le<uint64_t>(keys.data() + 8, other);
    return keys;
  }
  static nvme::Command acquire(nvme::Command command) {
    command.opcode = static_cast<uint8_t>(nvme::NvmOpcode::reservation_acquire);
    command.cdw10 = acquire_cdw10;
    return command;
  }

  RawHost& admin() { return *admin_.raw; }
  RawHost& io() { return *io_.raw; }
  bool deaf = false;  // its I/O queue is not listened to

  // False: the target does not let this host in, or not yet: an association of the same host may have requests at the
  // disk. What came later would answer a command that nobody knows of: the connections go.
  bool associate() {
    drop(true, true);
    attaching_.clear();
    attached_.clear();
    vague_ = deaf = false;
    const bool done = connect();
    if (!done) drop(true, true);
    return done;
  }
  void drop(bool admin, bool io) {
    if (admin) admin_ = {};
    if (io) io_ = {};
  }

  // With data: in the capsule. Otherwise it is moved as the target asks. Gives its CID.
  uint16_t send_admin(nvme::Command command, const Bytes& data, uint32_t length_bytes, bool patched) {
    return send(admin_, command, {data, length_bytes, patched});
  }
  uint16_t send_io(nvme::Command command, const Bytes& data, uint32_t length_bytes, bool patched) {
    return send(io_, command, {data, length_bytes, patched});
  }
  void attach(const Bytes& data, bool patched) {
    nvme::Command command{};
    command.opcode = static_cast<uint8_t>(nvme::AdminOpcode::link_attach);
    const uint16_t cid = send(admin_, command, {data, 0, patched});
    if (!admin_.up()) return;
    vague_ = vague_ || admin_.counts[cid] > 1;
    attaching_[cid] = {};
    if (data.size() < sizeof(nvme::LinkAttachData)) return;
    nvme::LinkAttachData fields;
    std::memcpy(&fields, data.data(), sizeof(fields));
    attaching_[cid] = {load_le<uint64_t>(data.data()), LinkReplicas::place_of(fields.subnqn, sizeof(fields.subnqn))};
  }
  void listen() {
    listen_to(admin_);
    if (!deaf) listen_to(io_);
  }

 private:
  static constexpr uint32_t acquire_cdw10 = 2 | 2 << 8;

  struct Attaching {
    uint64_t tag = 0;
    uint8_t place = LinkReplicas::place_count;
  };
  struct Sent {
    nvme::Command command{};
    bool goes = false;                          // its number and tag belonged together
    uint8_t place = LinkReplicas::place_count;  // that they led to; none: it is not known
    uint64_t epoch = 0;                         // that somebody held it under
    uint64_t size_blocks = 0;
  };
  // One queue.
  struct Line {
    std::unique_ptr<RawHost> raw;
    std::map<uint16_t, unsigned> counts;  // by CID: without an answer so far
    std::map<uint16_t, Sent> sent;        // the last one
    std::map<uint16_t, Bytes> data;       // that came for it
    bool up() const { return raw != nullptr && !raw->closed(); }
  };
  struct Payload {
    const Bytes& data;
    uint32_t length_bytes;
    bool patched;
  };

  bool connect() {
    admin_.raw = replicas_.dial();
    const auto connected = admin_.raw->connect(0, LinkReplicas::linknqn, LinkReplicas::hostnqn, host_number_);
    if (!connected.came || !connected.status.ok()) return false;
    const auto enabled = admin_.raw->property_set(nvme::property_cc, 0x00460001);
    if (!enabled.came || !enabled.status.ok()) return false;
    io_.raw = replicas_.dial();
    const auto joined = io_.raw->connect(1, LinkReplicas::linknqn, LinkReplicas::hostnqn, host_number_,
                                         static_cast<uint16_t>(connected.dw0));
    return joined.came && joined.status.ok();
  }

  uint16_t send(Line& line, nvme::Command command, const Payload& payload) {
    command.flags |= 0x40;
    command.cid = next_cid_++;
    command.sgl = {0, static_cast<uint32_t>(payload.data.size()), {}, nvme::sgl_data_block_offset};
    if (payload.data.empty()) command.sgl = {0, payload.length_bytes, {}, nvme::sgl_transport_data_block};
    if (payload.patched) {
      uint8_t bytes[sizeof(command)];
      std::memcpy(bytes, &command, sizeof(command));
      input_.patch(bytes);
      std::memcpy(&command, bytes, sizeof(command));
    }
    if (!line.up()) return command.cid;
    line.counts[command.cid]++;
    line.sent[command.cid] = as_sent(command, &line == &io_);
    line.data.erase(command.cid);
    line.raw->send(RawHost::capsule(command, payload.data));
    return command.cid;
  }
  Sent as_sent(const nvme::Command& command, bool is_io) const {
    Sent sent{.command = command};
    sent.goes = goes_by(command);
    // To describe, a number is enough.
    const uint64_t tag = is_io ? command.link_tag() : tag_of(command.nsid);
    const auto found = attached_.find({command.nsid, tag});
    if (found == attached_.end() || found->second == LinkReplicas::place_count || vague_) return sent;
    sent.place = found->second;
    sent.epoch = replicas_.epochs[sent.place];
    sent.size_blocks = replicas_.size_blocks(sent.place);
    return sent;
  }
  uint64_t tag_of(uint32_t number) const {
    const auto found = attached_.lower_bound({number, 0});
    return found == attached_.end() || found->first.first != number ? 0 : found->first.second;
  }
  bool goes_by(const nvme::Command& command) const {
    const uint64_t tag = command.link_tag();
    const auto comes = [&](const auto& each) { return each.second.tag == tag; };
    return vague_ || std::any_of(attaching_.begin(), attaching_.end(), comes) ||
           attached_.contains({command.nsid, tag});
  }

  // ---- what comes back ----

  void listen_to(Line& line) {
    if (line.raw == nullptr) return;
    while (auto pdu = line.raw->poll()) {
      if (pdu->type == pdu::Type::r2t) {
        const auto r2t = pdu->as<pdu::R2t>();
        BASALT_ASSERT(r2t.r2tl <= (1u << 20) && r2t.r2to <= (1u << 20));
        line.raw->send_data(r2t, Bytes(size_t{r2t.r2to} + r2t.r2tl, 0x55), 8192);
      }
      if (pdu->type == pdu::Type::capsule_response) judge(line, pdu->as<pdu::CapsuleResponse>().completion);
      if (pdu->type != pdu::Type::c2h_data) continue;
      const auto head = pdu->as<pdu::Data>();
      Bytes& data = line.data[head.cccid];
      data.insert(data.end(), pdu->data.begin(), pdu->data.end());
      if ((head.common.flags & pdu::flag_success) == 0) continue;
      nvme::Completion completion{};
      completion.cid = head.cccid;
      judge(line, completion);
    }
    BASALT_ASSERT(!line.raw->broken());
  }
  void judge(Line& line, const nvme::Completion& completion) {
    BASALT_ASSERT(line.counts[completion.cid] > 0);
    const bool once = line.counts[completion.cid]-- == 1;
    // Which of several under one CID it was cannot be told.
    const Sent sent = line.sent[completion.cid];
    const bool ok = completion.status >> 1 == 0;
    if (&line == &admin_) return judge_admin(sent, completion, ok && once);
    if (!once || !ok || sent.command.opcode == static_cast<uint8_t>(nvme::AdminOpcode::fabrics)) return;
    BASALT_ASSERT(sent.command.link_epoch() != 0 && sent.command.link_tag() != 0);
    BASALT_ASSERT(sent.goes || goes_by(sent.command));
    judge_epoch(sent);
  }
  void judge_epoch(const Sent& sent) {
    if (sent.place == LinkReplicas::place_count) return;
    const uint64_t epoch = sent.command.link_epoch();
    const auto opcode = static_cast<nvme::NvmOpcode>(sent.command.opcode);
    if (opcode != nvme::NvmOpcode::reservation_report) BASALT_ASSERT(epoch >= sent.epoch);
    if (opcode != nvme::NvmOpcode::reservation_acquire || sent.command.cdw10 != acquire_cdw10) return;
    uint64_t& newest = replicas_.epochs[sent.place];
    newest = std::max(newest, epoch);
  }
  void judge_admin(const Sent& sent, const nvme::Completion& completion, bool done) {
    const auto attach = attaching_.find(completion.cid);
    const auto opcode = static_cast<nvme::AdminOpcode>(sent.command.opcode);
    if (attach != attaching_.end()) {
      const auto [tag, place] = attach->second;
      attaching_.erase(attach);
      if (done && opcode == nvme::AdminOpcode::link_attach) {
        BASALT_ASSERT(completion.dw0 > 0 && completion.dw0 <= LinkReplicas::attachments_max && tag != 0);
        BASALT_ASSERT(place == LinkReplicas::place_a || place == LinkReplicas::place_b);
        std::erase_if(attached_, [&](const auto& each) { return each.first.first == completion.dw0; });
        attached_[{completion.dw0, tag}] = place;
      }
    }
    if (opcode == nvme::AdminOpcode::link_detach && done) {
      std::erase_if(attached_, [&](const auto& each) { return each.first.first == sent.command.nsid; });
    }
    if (opcode == nvme::AdminOpcode::link_describe && done) judge_description(sent, admin_.data[completion.cid]);
  }
  void judge_description(const Sent& sent, const Bytes& data) const {
    nvme::LinkDescription told;
    if (sent.place == LinkReplicas::place_count || data.size() < sizeof(told)) return;
    std::memcpy(&told, data.data(), sizeof(told));
    BASALT_ASSERT(told.block_size_bytes == LinkReplicas::block_bytes);
    BASALT_ASSERT(told.count_blocks >= sent.size_blocks && told.count_blocks <= replicas_.size_blocks(sent.place));
  }

  LinkReplicas& replicas_;
  basalt::testing::FuzzInput& input_;
  const uint16_t host_number_;
  Line admin_;
  Line io_;
  std::map<uint16_t, Attaching> attaching_;                    // by CID: an Attach without an answer so far
  std::map<std::pair<uint32_t, uint64_t>, uint8_t> attached_;  // by number and tag: the place
  bool vague_ = false;                                         // two Attach commands had one CID
  uint16_t next_cid_ = 1000;
};

}  // namespace basalt::nvmf::testing
