// SPDX-License-Identifier: Apache-2.0
#include "sim/target/rude_host.h"

#include <algorithm>
#include <cstring>

#include "sim/target/target_node.h"

namespace basalt::sim {
namespace {
constexpr size_t connections_max = 6;
constexpr size_t outbox_bytes_max = 4 << 20;
}  // namespace

using nvmf::testing::Bytes;
using nvmf::testing::RawHost;
namespace pdu = nvmf::pdu;

struct RudeHost::Connection {
  std::unique_ptr<env::StreamSocket> socket;
  pdu::Decoder decoder{pdu::Role::host, {.capsule_data_bytes_max = 0, .data_bytes_max = 1u << 20}};
  pdu::Digests digests;
  uint16_t qid = 0;
  uint16_t cntlid = 0xffff;  // asked for; then what it became
  Bytes outbox;
  size_t sent = 0;
  uint64_t sent_total = 0;
  uint64_t drop_after_bytes = UINT64_MAX;  // sent
  bool connected = false;                  // Connect was answered with success
  bool deaf = false;                       // reads nothing
  bool mute = false;                       // sends nothing
  bool confused = false;                   // what came could not be read; goes on sending
  uint16_t next_cid = 1;
  uint16_t connect_cid = 0;
  uint32_t depth = 0;      // commands that the queue holds
  uint32_t in_flight = 0;  // about
  Bytes last_asked;        // an R2T's answer, to be sent again
};

RudeHost::RudeHost(env::SimWorld& world, size_t index, std::vector<env::Address> addresses, double long_chance)
    : world_(world),
      node_(world.add_node("r" + std::to_string(index))),
      name_("r" + std::to_string(index)),
      addresses_(std::move(addresses)),
      long_chance_(long_chance) {}

RudeHost::~RudeHost() {
  connections_.clear();
  dead_.clear();
}

void RudeHost::start() {
  if (node_.crashed()) node_.restart();
  pollers_.push_back(node_.make_poller({}).value());
  loop_ = node_.start(*this, {});
  stopped_ = false;
  next_act_ = node_.now();
  rudeness_ = chance(0.5) ? 1 : 0.05;
  mutation_chance_ = chance(0.5) ? 0.03 * rudeness_ : 0;
}

void RudeHost::stop() {
  if (!up()) start();
  stopped_ = true;
  connections_.clear();
}

void RudeHost::kill(bool power) {
  for (auto& connection : connections_)
    dead_.push_back(std::move(connection));
  connections_.clear();
  loop_.reset();
  if (power) {
    node_.power_cut();
  } else {
    node_.crash();
  }
}

bool RudeHost::turn() {
  const bool polled = pollers_.back()->poll() > 0;
  if (stopped_ || node_.now() < next_act_) return polled;
  next_act_ = node_.now() + microseconds(static_cast<int64_t>(10 + draw(400)));
  act();
  return true;
}

void RudeHost::act() {
  for (size_t i = 0; i < connections_.size();) {
    if (pump(*connections_[i])) {
      i++;
    } else {
      connections_.erase(connections_.begin() + static_cast<ptrdiff_t>(i));
    }
  }
  if (connections_.empty() || (connections_.size() < connections_max && draw(30) == 0)) return open(0, 0xffff);
  Connection& connection = *connections_[draw(connections_.size())];
  const uint64_t pick = draw(60);
  if (pick < 5 && !rude(1)) return;
  switch (pick) {
    case 0:
      connection.deaf = !connection.deaf;
      return;
    case 1:
      connection.mute = !connection.mute;
      return;
    case 2:
      connection.drop_after_bytes = connection.sent_total + draw(3000);
      return;
    case 3:
      return queue(connection, random_bytes(1 + draw(300)));
    case 4:
      if (!connection.last_asked.empty()) queue(connection, connection.last_asked);
      return;
    case 5:
    case 6:
      // Another queue of an association: maybe one that has it already, or has gone.
      if (connections_.size() < connections_max && connection.connected) {
        open(chance(0.8) ? static_cast<uint16_t>(1 + draw(4)) : static_cast<uint16_t>(draw(70000)), connection.cntlid);
      }
      return;
    default:
      if (connection.connected || draw(40) == 0) command(connection);
  }
}

// ---- connections ---------------------------------------------------------------------------------------------------

void RudeHost::open(uint16_t qid, uint16_t cntlid) {
  auto connection = std::make_unique<Connection>();
  connection->socket = pollers_.back()->connect(addresses_[draw(addresses_.size())]).value();
  connection->qid = qid;
  connection->cntlid = cntlid;
  connection->digests = {chance(0.3), chance(0.3)};
  if (rude(0.2)) connection->drop_after_bytes = draw(2000);
  connect_count_++;
  say_hello(*connection);
  connections_.push_back(std::move(connection));
}

void RudeHost::say_hello(Connection& connection) {
  if (chance(0.03)) return queue(connection, random_bytes(1 + draw(400)));
  Bytes header(sizeof(pdu::IcRequest));
  pdu::encode_ic_request(header.data(), connection.digests, static_cast<uint32_t>(draw(4)));
  queue(connection, std::move(header));
  connection.decoder.set_digests({});
  nvme::ConnectCommand connect{};
  connect.opcode = 0x7f;
  connect.flags = 0x40;
  connect.fctype = 1;
  connect.qid = connection.qid;
  connect.sqsize = static_cast<uint16_t>(chance(0.9) ? 1 + draw(64) : draw(65536));
  connection.depth = connect.sqsize;
  connection.in_flight = 1;
  connect.kato_ms = static_cast<uint32_t>(1000 + draw(2000));
  connect.cid = connection.connect_cid = connection.next_cid++;
  nvme::ConnectData data{};
  data.hostid[15] = static_cast<uint8_t>(1 + draw(3));
  data.cntlid = connection.cntlid;
  std::strncpy(data.subnqn, chance(0.97) ? rude_subnqn : good_subnqn, sizeof(data.subnqn) - 1);
  const std::string hostnqn = "nqn.2026-01.sim:" + name_;
  std::strncpy(data.hostnqn, hostnqn.c_str(), sizeof(data.hostnqn) - 1);
  connect.sgl = {0, sizeof(data), {}, nvme::sgl_data_block_offset};
  nvme::Command command;
  std::memcpy(&command, &connect, sizeof(command));
  Bytes bytes(sizeof(data));
  std::memcpy(bytes.data(), &data, sizeof(data));
  Bytes capsule = RawHost::capsule(command, bytes, connection.digests);
  // As it is: a keep-alive time is the one thing that it owes.
  connection.outbox.insert(connection.outbox.end(), capsule.begin(), capsule.end());
}

bool RudeHost::pump(Connection& connection) {
  if (!connection.mute && !send(connection)) return false;
  return connection.deaf || receive(connection);
}

bool RudeHost::send(Connection& connection) {
  while (connection.sent < connection.outbox.size()) {
    const uint64_t left = connection.outbox.size() - connection.sent;
    const uint64_t allowed = connection.drop_after_bytes - std::min(connection.drop_after_bytes, connection.sent_total);
    if (allowed == 0) return false;
    const Iovec piece{connection.outbox.data() + connection.sent, static_cast<size_t>(std::min(left, allowed))};
    const env::Transfer transfer = connection.socket->try_send(&piece, 1);
    if (transfer.state == env::Transfer::State::would_block) return true;
    if (transfer.state != env::Transfer::State::done) return false;
    connection.sent += transfer.count_bytes;
    connection.sent_total += transfer.count_bytes;
  }
  connection.outbox.clear();
  connection.sent = 0;
  return true;
}

bool RudeHost::receive(Connection& connection) {
  uint8_t buffer[16384];
  for (int i = 0; i < 64; i++) {
    const Iovec piece{buffer, sizeof(buffer)};
    const env::Transfer transfer = connection.socket->try_recv(&piece, 1);
    if (transfer.state == env::Transfer::State::would_block) return true;
    if (transfer.state != env::Transfer::State::done) return false;
    std::span<const uint8_t> input(buffer, transfer.count_bytes);
    while (!connection.confused) {
      const pdu::Event event = connection.decoder.push(input);
      if (event == pdu::Event::need_more) break;
      if (event == pdu::Event::failed) connection.confused = true;
      if (event == pdu::Event::complete) pdu_came(connection);
    }
  }
  return true;
}

void RudeHost::pdu_came(Connection& connection) {
  switch (connection.decoder.type()) {
    case pdu::Type::ic_response:
      connection.decoder.set_digests(connection.digests);
      return;
    case pdu::Type::capsule_response:
      return answered(connection);
    case pdu::Type::r2t:
      return data_asked(connection);
    default:
      return;
  }
}

void RudeHost::answered(Connection& connection) {
  answer_count_++;
  if (connection.in_flight > 0) connection.in_flight--;
  const auto completion = connection.decoder.header<pdu::CapsuleResponse>().completion;
  if (connection.connected || completion.cid != connection.connect_cid || completion.status >> 1 != 0) return;
  connection.connected = true;
  connection.cntlid = static_cast<uint16_t>(completion.dw0);
  if (connection.qid != 0 || chance(0.1)) return;
  nvme::PropertyCommand enable{};
  enable.opcode = 0x7f;
  enable.flags = 0x40;
  enable.fctype = 0;
  enable.offset = 0x14;
  enable.value = 0x00460001;
  enable.cid = connection.next_cid++;
  nvme::Command command;
  std::memcpy(&command, &enable, sizeof(command));
  queue(connection, RawHost::capsule(command, {}, connection.digests));
}

// Mostly what was asked for; or another offset, length or tag, a part, nothing, or twice.
void RudeHost::data_asked(Connection& connection) {
  auto r2t = connection.decoder.header<pdu::R2t>();
  if (rude(0.05)) return;
  pdu::DataFields fields{.cccid = r2t.cccid,
                         .ttag = r2t.ttag,
                         .offset_bytes = r2t.r2to,
                         .length_bytes = std::min<uint32_t>(r2t.r2tl, 256 << 10),
                         .last = true};
  if (r2t.r2tl > fields.length_bytes) fields.last = false;
  if (rude(0.03)) fields.offset_bytes += 4096;
  if (rude(0.03)) fields.length_bytes = static_cast<uint32_t>(draw(fields.length_bytes + 5000));
  if (rude(0.03)) fields.ttag = static_cast<uint16_t>(draw(65536));
  if (rude(0.03)) fields.cccid = static_cast<uint16_t>(draw(65536));
  if (rude(0.03)) fields.last = !fields.last;
  Bytes out(pdu::encoded_small_header_bytes_max);
  out.resize(pdu::encode_h2c_data(out.data(), connection.digests, fields));
  const Bytes data(fields.length_bytes, static_cast<uint8_t>(draw(256)));
  out.insert(out.end(), data.begin(), data.end());
  if (connection.digests.data && !data.empty()) RawHost::append_digest(out, data);
  connection.last_asked = out;
  queue(connection, std::move(out));
}

// ---- commands ------------------------------------------------------------------------------------------------------

void RudeHost::command(Connection& connection) {
  for (uint64_t burst = rude(0.05) ? 1 + draw(100) : 1; burst > 0; burst--) {
    if (connection.in_flight >= connection.depth && !rude(0.1)) return;
    connection.in_flight++;
    Bytes data;
    nvme::Command command = connection.qid == 0 ? admin_command(&data) : io_command(&data);
    command.cid = rude(0.02) ? static_cast<uint16_t>(draw(20)) : connection.next_cid++;
    command.flags = rude(0.02) ? static_cast<uint8_t>(draw(256)) : 0x40;
    const bool in_capsule = !data.empty() && data.size() <= 8192 && chance(0.7);
    if (in_capsule) command.sgl = {0, static_cast<uint32_t>(data.size()), {}, nvme::sgl_data_block_offset};
    if (rude(0.03)) {
      const Bytes sgl = random_bytes(sizeof(command.sgl));
      std::memcpy(&command.sgl, sgl.data(), sizeof(command.sgl));
    }
    command_count_++;
    queue(connection, RawHost::capsule(command, in_capsule ? data : Bytes{}, connection.digests));
  }
}

nvme::Command RudeHost::io_command(Bytes* data) {
  static constexpr nvme::NvmOpcode opcodes[] = {
      nvme::NvmOpcode::read,
      nvme::NvmOpcode::write,
      nvme::NvmOpcode::write,
      nvme::NvmOpcode::flush,
      nvme::NvmOpcode::write_zeroes,
      nvme::NvmOpcode::compare,
      nvme::NvmOpcode::dataset_management,
      nvme::NvmOpcode::reservation_register,
      nvme::NvmOpcode::reservation_acquire,
      nvme::NvmOpcode::reservation_release,
      nvme::NvmOpcode::reservation_report,
  };
  const nvme::NvmOpcode opcode =
      chance(0.95) ? opcodes[draw(std::size(opcodes))] : static_cast<nvme::NvmOpcode>(draw(256));
  constexpr uint32_t transfer_blocks_max = 256;
  const bool longest = chance(long_chance_);
  const auto count = longest ? transfer_blocks_max : static_cast<uint32_t>(chance(0.9) ? 1 + draw(8) : 1 + draw(65536));
  const uint64_t slba = longest ? draw(256) : chance(0.95) ? draw(500) : world_.random().next();
  nvme::Command command = RawHost::io_command(opcode, chance(0.95) ? 1 : static_cast<uint32_t>(draw(5)), slba, count);
  uint32_t length = count * 4096;
  if (opcode == nvme::NvmOpcode::dataset_management) {
    command.cdw10 = static_cast<uint32_t>(draw(256));
    command.cdw11 = 4;
    length = (command.cdw10 + 1) * 16;
  } else if (opcode >= nvme::NvmOpcode::reservation_register) {
    command.cdw10 = static_cast<uint32_t>(draw(2048));
    length = opcode == nvme::NvmOpcode::reservation_report ? 4096 : 16;
  }
  if (chance(0.03)) length = static_cast<uint32_t>(draw(1u << 21));
  const bool writes = nvme::data_direction(static_cast<uint8_t>(opcode)) == nvme::DataDirection::host_to_controller;
  if (writes && length <= 8192) *data = random_bytes(length);
  command.sgl = {0, length, {}, nvme::sgl_transport_data_block};
  return command;
}

nvme::Command RudeHost::admin_command(Bytes* data) {
  static constexpr nvme::AdminOpcode opcodes[] = {
      nvme::AdminOpcode::get_log_page, nvme::AdminOpcode::identify,     nvme::AdminOpcode::abort,
      nvme::AdminOpcode::set_features, nvme::AdminOpcode::get_features, nvme::AdminOpcode::async_event_request,
      nvme::AdminOpcode::keep_alive,   nvme::AdminOpcode::fabrics,      nvme::AdminOpcode::keep_alive,
  };
  nvme::Command command{};
  command.opcode = static_cast<uint8_t>(chance(0.95) ? opcodes[draw(std::size(opcodes))]
                                                     : static_cast<nvme::AdminOpcode>(draw(256)));
  command.nsid = static_cast<uint32_t>(draw(3));
  command.cdw10 = static_cast<uint32_t>(chance(0.7) ? draw(256) : world_.random().next());
  command.cdw11 = static_cast<uint32_t>(chance(0.7) ? draw(4) : world_.random().next());
  command.cdw12 = static_cast<uint32_t>(chance(0.9) ? 0 : world_.random().next());
  if (command.opcode == static_cast<uint8_t>(nvme::AdminOpcode::get_log_page)) {
    static constexpr uint8_t pages[] = {1, 2, 3, 4, 5, 0x0c, 0x70};
    command.cdw10 = pages[draw(std::size(pages))] | static_cast<uint32_t>(draw(2048)) << 16;
  }
  if (command.opcode == 0x7f) {
    static constexpr uint8_t types[] = {0, 1, 4, 4, 5, 8};
    const uint8_t type = types[draw(std::size(types))];
    std::memcpy(reinterpret_cast<uint8_t*>(&command) + 4, &type, 1);
    // A property: a known register, or any.
    command.cdw11 = static_cast<uint32_t>(chance(0.9) ? draw(16) * 4 : world_.random().next());
    // A second Connect carries no keep-alive time that the target could take back: it is refused.
  }
  uint32_t length = chance(0.9) ? 4096 : static_cast<uint32_t>(draw(1u << 21));
  if (command.opcode == static_cast<uint8_t>(nvme::AdminOpcode::get_log_page)) {
    length = ((command.cdw10 >> 16) + 1) * 4;
  }
  if (chance(0.1)) *data = random_bytes(draw(5000));
  command.sgl = {0, length, {}, nvme::sgl_transport_data_block};
  return command;
}

RudeHost::Bytes RudeHost::random_bytes(size_t count) {
  Bytes bytes(count);
  for (uint8_t& byte : bytes)
    byte = static_cast<uint8_t>(world_.random().next());
  return bytes;
}

void RudeHost::queue(Connection& connection, Bytes bytes) {
  if (connection.outbox.size() > outbox_bytes_max) return;
  if (!bytes.empty() && world_.random().strikes(mutation_chance_)) {
    for (uint64_t i = 1 + draw(3); i > 0; i--)
      bytes[draw(std::min<size_t>(bytes.size(), 128))] = static_cast<uint8_t>(draw(256));
  }
  connection.outbox.insert(connection.outbox.end(), bytes.begin(), bytes.end());
}

}  // namespace basalt::sim
