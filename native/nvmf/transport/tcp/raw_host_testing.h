// SPDX-License-Identifier: Apache-2.0
// RawHost: a host for tests that says exactly what it is told, well-formed or not, and reads what comes back.
// `Pump` turns the world until a condition holds (MemoryNet::run_until, or reactors over real sockets).
#pragma once

#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/bytes.h"
#include "env/env.h"
#include "nvmf/pdu/decoder.h"
#include "nvmf/pdu/encoder.h"

namespace basalt::nvmf::testing {

using Bytes = std::vector<uint8_t>;
using Pump = std::function<bool(const std::function<bool()>&)>;

struct RawPdu {
  pdu::Type type;
  Bytes header;
  Bytes data;
  bool digest_ok = true;
  // Zeroes where the PDU is of another, shorter type.
  template <class T>
  T as() const {
    T out{};
    std::memcpy(&out, header.data(), std::min(sizeof(T), header.size()));
    return out;
  }
};

class RawHost {
 public:
  RawHost(std::unique_ptr<env::StreamSocket> socket, Pump pump)
      : socket_(std::move(socket)),
        pump_(std::move(pump)),
        decoder_(pdu::Role::host, {.capsule_data_bytes_max = 0, .data_bytes_max = 1u << 20}) {}

  // False when the target has closed before all was sent.
  bool send(const Bytes& bytes) {
    size_t at = 0;
    bool open = true;
    pump_([&] {
      while (at < bytes.size()) {
        const Iovec iov{const_cast<uint8_t*>(bytes.data()) + at, bytes.size() - at};
        const env::Transfer transfer = socket_->try_send(&iov, 1);
        if (transfer.state == env::Transfer::State::would_block) return false;
        if (transfer.state != env::Transfer::State::done) {
          open = false;
          return true;
        }
        at += transfer.count_bytes;
      }
      return true;
    });
    return open;
  }

  // The next PDU; nothing when the connection ended first.
  std::optional<RawPdu> next() {
    std::optional<RawPdu> out;
    const bool came = pump_([&] { return (out = try_next()).has_value() || closed_; });
    return came ? std::move(out) : std::nullopt;
  }
  // True when the target ends the connection (PDUs before that are dropped).
  bool closes() {
    return pump_([&] {
      while (try_next().has_value()) {
      }
      return closed_;
    });
  }
  bool closed() const { return closed_; }
  // What came was no PDU that a target may send.
  bool broken() const { return broken_; }
  // The next PDU when it is there already.
  std::optional<RawPdu> poll() { return closed_ ? std::nullopt : try_next(); }
  void drop() { socket_.reset(); }

  // ---- the usual steps ----

  pdu::IcResponse initialize(pdu::Digests digests = {}) {
    Bytes header(sizeof(pdu::IcRequest));
    pdu::encode_ic_request(header.data(), digests, 0);
    send(header);
    const auto response = next();
    if (!response || response->type != pdu::Type::ic_response) return {};
    digests_ = digests;
    decoder_.set_digests(digests);
    return response->as<pdu::IcResponse>();
  }

  static Bytes capsule(const nvme::Command& command, const Bytes& data = {}, pdu::Digests digests = {}) {
    Bytes out(pdu::encoded_small_header_bytes_max);
    out.resize(pdu::encode_capsule_command(out.data(), digests, command, static_cast<uint32_t>(data.size())));
    out.insert(out.end(), data.begin(), data.end());
    if (digests.data && !data.empty()) append_digest(out, data);
    return out;
  }
  static void append_digest(Bytes& out, const Bytes& data) {
    const Iovec iov{const_cast<uint8_t*>(data.data()), data.size()};
    uint8_t crc[4];
    store_le<uint32_t>(crc, pdu::data_digest(0, &iov, 1));
    out.insert(out.end(), crc, crc + 4);
  }

  struct Answer {
    nvme::Status status;
    uint32_t dw0 = 0;
    uint32_t dw1 = 0;
    Bytes data;
    bool came = false;
  };

  // Sends one command and serves it to its end: sends data when asked, collects data that comes.
  Answer command(nvme::Command command, const Bytes& data = {}, uint32_t read_bytes = 0, bool in_capsule = true) {
    command.cid = next_cid_++;
    command.flags = 0x40;
    if (!data.empty() && in_capsule) {
      command.sgl = {0, static_cast<uint32_t>(data.size()), {}, nvme::sgl_data_block_offset};
      send(capsule(command, data, digests_));
    } else {
      const auto length_bytes = static_cast<uint32_t>(data.empty() ? read_bytes : data.size());
      command.sgl = {0, length_bytes, {}, nvme::sgl_transport_data_block};
      send(capsule(command, {}, digests_));
    }
    return collect(command.cid, data);
  }

  Answer collect(uint16_t cid, const Bytes& data = {}) {
    Answer answer;
    while (auto pdu = next()) {
      if (pdu->type == pdu::Type::r2t) {
        const auto r2t = pdu->as<pdu::R2t>();
        send_data(r2t, data);
      } else if (pdu->type == pdu::Type::c2h_data) {
        answer.data.insert(answer.data.end(), pdu->data.begin(), pdu->data.end());
        if ((pdu->as<pdu::Data>().common.flags & pdu::flag_success) != 0) {
          answer.came = true;
          return answer;
        }
      } else if (pdu->type == pdu::Type::capsule_response) {
        const auto completion = pdu->as<pdu::CapsuleResponse>().completion;
        if (completion.cid != cid) {
          others.push_back(completion);
          continue;
        }
        answer.status.value = completion.status >> 1;
        answer.dw0 = completion.dw0;
        answer.dw1 = completion.dw1;
        answer.came = true;
        return answer;
      } else {
        break;
      }
    }
    return answer;
  }

  void send_data(const pdu::R2t& r2t, const Bytes& data, uint32_t piece_bytes = 65536) {
    for (uint32_t at = 0; at < r2t.r2tl; at += piece_bytes) {
      const uint32_t take = std::min(piece_bytes, r2t.r2tl - at);
      const auto from = data.begin() + r2t.r2to + at;
      const Bytes piece(from, from + take);
      Bytes out(pdu::encoded_small_header_bytes_max);
      out.resize(pdu::encode_h2c_data(out.data(), digests_,
                                      {.cccid = r2t.cccid,
                                       .ttag = r2t.ttag,
                                       .offset_bytes = r2t.r2to + at,
                                       .length_bytes = take,
                                       .last = at + take == r2t.r2tl}));
      out.insert(out.end(), piece.begin(), piece.end());
      if (digests_.data) append_digest(out, piece);
      send(out);
    }
  }

  Answer connect(uint16_t qid, const std::string& subnqn, const std::string& hostnqn, uint16_t hostid_last,
                 uint16_t cntlid = 0xffff, uint32_t kato_ms = 0) {
    nvme::ConnectCommand connect{};
    connect.opcode = 0x7f;
    connect.fctype = 1;
    connect.qid = qid;
    connect.sqsize = qid == 0 ? 31 : 127;
    connect.kato_ms = kato_ms;
    nvme::ConnectData data{};
    data.hostid[14] = static_cast<uint8_t>(hostid_last >> 8);
    data.hostid[15] = static_cast<uint8_t>(hostid_last);
    data.cntlid = cntlid;
    std::strncpy(data.subnqn, subnqn.c_str(), sizeof(data.subnqn) - 1);
    std::strncpy(data.hostnqn, hostnqn.c_str(), sizeof(data.hostnqn) - 1);
    return connect_as(connect, data);
  }
  // Every field as it is given.
  Answer connect_as(const nvme::ConnectCommand& connect, const nvme::ConnectData& data) {
    nvme::Command command_bytes;
    std::memcpy(&command_bytes, &connect, sizeof(connect));
    Bytes bytes(sizeof(data));
    std::memcpy(bytes.data(), &data, sizeof(data));
    return command(command_bytes, bytes);
  }
  Answer property_get(uint32_t offset, bool wide) {
    nvme::PropertyCommand property{};
    property.opcode = 0x7f;
    property.fctype = 4;
    property.attrib = wide ? 1 : 0;
    property.offset = offset;
    nvme::Command bytes;
    std::memcpy(&bytes, &property, sizeof(bytes));
    return command(bytes);
  }
  Answer property_set(uint32_t offset, uint64_t value) {
    nvme::PropertyCommand property{};
    property.opcode = 0x7f;
    property.fctype = 0;
    property.offset = offset;
    property.value = value;
    nvme::Command bytes;
    std::memcpy(&bytes, &property, sizeof(bytes));
    return command(bytes);
  }
  Answer admin(nvme::AdminOpcode opcode, uint32_t cdw10, uint32_t cdw11 = 0, uint32_t nsid = 0,
               uint32_t read_bytes = 0) {
    nvme::Command bytes{};
    bytes.opcode = static_cast<uint8_t>(opcode);
    bytes.nsid = nsid;
    bytes.cdw10 = cdw10;
    bytes.cdw11 = cdw11;
    return command(bytes, {}, read_bytes);
  }
  Answer identify(uint8_t cns, uint32_t nsid = 0) { return admin(nvme::AdminOpcode::identify, cns, 0, nsid, 4096); }
  Answer log_page(nvme::LogPageId id, uint32_t length_bytes) {
    return admin(nvme::AdminOpcode::get_log_page, static_cast<uint32_t>(id) | (length_bytes / 4 - 1) << 16, 0, 0,
                 length_bytes);
  }
  Answer read(uint32_t nsid, uint64_t slba, uint32_t count, uint32_t block_bytes = 4096) {
    return command(io_command(nvme::NvmOpcode::read, nsid, slba, count), {}, count * block_bytes);
  }
  Answer write(uint32_t nsid, uint64_t slba, const Bytes& data, bool in_capsule, uint32_t block_bytes = 4096) {
    const auto count = static_cast<uint32_t>(data.size() / block_bytes);
    return command(io_command(nvme::NvmOpcode::write, nsid, slba, count), data, 0, in_capsule);
  }
  static nvme::Command io_command(nvme::NvmOpcode opcode, uint32_t nsid, uint64_t slba, uint32_t count) {
    nvme::Command command{};
    command.opcode = static_cast<uint8_t>(opcode);
    command.flags = 0x40;
    command.nsid = nsid;
    command.cdw10 = static_cast<uint32_t>(slba);
    command.cdw11 = static_cast<uint32_t>(slba >> 32);
    command.cdw12 = count - 1;
    return command;
  }
  Answer reservation(nvme::NvmOpcode opcode, uint32_t nsid, uint32_t cdw10, uint64_t first, uint64_t second) {
    nvme::Command command{};
    command.opcode = static_cast<uint8_t>(opcode);
    command.nsid = nsid;
    command.cdw10 = cdw10;
    Bytes keys(opcode == nvme::NvmOpcode::reservation_release ? 8 : 16);
    store_le<uint64_t>(keys.data(), first);
    if (keys.size() == 16) store_le<uint64_t>(keys.data() + 8, second);
    return this->command(command, keys);
  }

  std::vector<nvme::Completion> others;  // of commands nobody was waiting for (asynchronous events)

 private:
  std::optional<RawPdu> try_next() {
    for (;;) {
      std::span<const uint8_t> input(inbox_.data() + inbox_at_, inbox_.size() - inbox_at_);
      const pdu::Event event = decoder_.push(input);
      inbox_at_ = inbox_.size() - input.size();
      switch (event) {
        case pdu::Event::header:
          current_ = RawPdu{decoder_.type(), {}, {}};
          current_.header.assign(decoder_.wrong_header().begin(), decoder_.wrong_header().end());
          continue;
        case pdu::Event::data:
          current_.data.insert(current_.data.end(), decoder_.chunk().begin(), decoder_.chunk().end());
          continue;
        case pdu::Event::complete:
          current_.digest_ok = decoder_.data_digest_ok();
          return std::move(current_);
        case pdu::Event::failed:
          closed_ = broken_ = true;
          return std::nullopt;
        case pdu::Event::need_more:
          break;
      }
      inbox_.resize(64 * 1024);
      inbox_at_ = 0;
      const Iovec iov{inbox_.data(), inbox_.size()};
      const env::Transfer transfer = socket_->try_recv(&iov, 1);
      inbox_.resize(transfer.state == env::Transfer::State::done ? transfer.count_bytes : 0);
      if (transfer.state == env::Transfer::State::would_block) return std::nullopt;
      if (transfer.state != env::Transfer::State::done) {
        closed_ = true;
        return std::nullopt;
      }
    }
  }

  std::unique_ptr<env::StreamSocket> socket_;
  Pump pump_;
  pdu::Decoder decoder_;
  pdu::Digests digests_;
  Bytes inbox_;
  size_t inbox_at_ = 0;
  RawPdu current_;
  bool closed_ = false;
  bool broken_ = false;
  uint16_t next_cid_ = 1;
};

}  // namespace basalt::nvmf::testing
