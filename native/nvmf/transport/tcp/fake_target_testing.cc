// SPDX-License-Identifier: Apache-2.0
#include "nvmf/transport/tcp/fake_target_testing.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"

namespace basalt::testing {

using namespace nvmf::pdu;

FakeConnection::FakeConnection(FakeTarget& target, std::unique_ptr<env::StreamSocket> socket)
    : target(target), socket(std::move(socket)), decoder(Role::target, {.data_bytes_max = 1u << 20}), input(65536) {
  readable.connection = writable.connection = this;
  readable.run = [](Work* work) { static_cast<OwnedWork*>(work)->connection->receive(); };
  writable.run = [](Work* work) {
    FakeConnection* connection = static_cast<OwnedWork*>(work)->connection;
    connection->writable_armed = false;
    connection->flush();
  };
  this->socket->arm_readable(&readable);
}

void FakeConnection::receive() {
  for (;;) {
    const Iovec piece{input.data(), input.size()};
    const env::Transfer transfer = socket->try_recv(&piece, 1);
    if (transfer.state == env::Transfer::State::would_block) break;
    if (transfer.state != env::Transfer::State::done) {
      closed = true;
      return;
    }
    std::span<const uint8_t> bytes(input.data(), transfer.count_bytes);
    for (bool more = true; more;) {
      switch (decoder.push(bytes)) {
        case Event::need_more:
          more = false;
          break;
        case Event::header:
          break;
        case Event::data:
          // A capsule's or an H2CData's payload may arrive in pieces over several calls.
          arriving.insert(arriving.end(), decoder.chunk().begin(), decoder.chunk().end());
          break;
        case Event::complete:
          complete_pdu();
          break;
        case Event::failed:
          closed = true;
          return;
      }
      if (closed) return;
    }
  }
  socket->arm_readable(&readable);
  flush();
}

void FakeConnection::complete_pdu() {
  std::vector<uint8_t> data = std::move(arriving);
  arriving.clear();
  if (decoder.type() == Type::ic_request) {
    if (target.on_ic_request && target.on_ic_request(*this)) return;
    digests = Digests::from_bits(decoder.header<IcRequest>().digests);
    uint8_t out[encoded_header_bytes_max];
    send(out, encode_ic_response(out, digests, target.maxh2cdata_bytes));
    decoder.set_digests(digests);
  } else if (decoder.type() == Type::capsule_command) {
    const nvme::Command command = decoder.header<CapsuleCommand>().command;
    if (target.on_command && target.on_command(*this, command, data)) return;
    serve(command, data);
  } else if (decoder.type() == Type::h2c_data) {
    target.h2c_count++;
    const auto header = decoder.header<Data>();
    if (writes.count(header.cccid) == 0) return;  // a hook's own R2T
    Write& write = writes[header.cccid];
    BASALT_ASSERT(header.datao == write.received_bytes && header.datao + header.datal <= write.data.size());
    BASALT_ASSERT(header.datal <= target.maxh2cdata_bytes && decoder.data_digest_ok());
    std::memcpy(write.data.data() + header.datao, data.data(), data.size());
    write.received_bytes += header.datal;
    if ((header.common.flags & flag_last) == 0) return;
    if (write.received_bytes < write.data.size()) {
      send_r2t(header.cccid, 7, write.received_bytes,
               std::min<uint32_t>(target.r2t_bytes, static_cast<uint32_t>(write.data.size()) - write.received_bytes));
      return;
    }
    const Write done = std::move(write);
    writes.erase(header.cccid);
    serve_io(done.command, done.data);
  }
}

void FakeConnection::send(const void* bytes, size_t count) {
  const auto* from = static_cast<const uint8_t*>(bytes);
  output.insert(output.end(), from, from + count);
}

void FakeConnection::flush() {
  while (!output.empty() && !writable_armed) {
    const Iovec piece{output.data(), output.size()};
    const env::Transfer transfer = socket->try_send(&piece, 1);
    if (transfer.state == env::Transfer::State::would_block) {
      writable_armed = true;
      socket->arm_writable(&writable);
      return;
    }
    if (transfer.state != env::Transfer::State::done) return;
    output.erase(output.begin(), output.begin() + static_cast<long>(transfer.count_bytes));
  }
}

void FakeConnection::respond(uint16_t cid, nvme::Status status, uint64_t value) {
  nvme::Completion completion{};
  completion.cid = cid;
  completion.dw0 = static_cast<uint32_t>(value);
  completion.dw1 = static_cast<uint32_t>(value >> 32);
  completion.status = static_cast<uint16_t>(status.value << 1);
  uint8_t out[encoded_small_header_bytes_max];
  send(out, encode_capsule_response(out, digests, completion));
}

void FakeConnection::send_data(uint16_t cid, uint32_t offset_bytes, const void* data, uint32_t length_bytes, bool last,
                               bool success) {
  DataFields fields;
  fields.cccid = cid;
  fields.offset_bytes = offset_bytes;
  fields.length_bytes = length_bytes;
  fields.last = last;
  fields.success = success;
  uint8_t out[encoded_small_header_bytes_max];
  send(out, encode_c2h_data(out, digests, fields));
  send(data, length_bytes);
  if (digests.data) {
    const Iovec piece{const_cast<void*>(data), length_bytes};
    const uint32_t digest = data_digest(0, &piece, 1);
    send(&digest, sizeof(digest));
  }
}

void FakeConnection::send_r2t(uint16_t cid, uint16_t ttag, uint32_t offset_bytes, uint32_t length_bytes) {
  R2tFields fields;
  fields.cccid = cid;
  fields.ttag = ttag;
  fields.offset_bytes = offset_bytes;
  fields.length_bytes = length_bytes;
  uint8_t out[encoded_small_header_bytes_max];
  send(out, encode_r2t(out, digests, fields));
}

void FakeConnection::give(const nvme::Command& command, std::vector<uint8_t> data) {
  data.resize(command.sgl.length_bytes);
  for (uint32_t at = 0; at < data.size();) {
    const uint32_t length = std::min<uint32_t>(target.c2h_bytes, static_cast<uint32_t>(data.size()) - at);
    const bool last = at + length == data.size();
    send_data(command.cid, at, data.data() + at, length, last, last && target.success_flag);
    at += length;
  }
  if (!target.success_flag) respond(command.cid, nvme::status::success);
}

void FakeConnection::serve(const nvme::Command& command, const std::vector<uint8_t>& data) {
  if (command.opcode == 0x7f) {
    serve_fabrics(command);
  } else if (qid == 0) {
    serve_admin(command);
  } else if (nvme::data_direction(command.opcode) == nvme::DataDirection::host_to_controller && data.empty() &&
             command.sgl.length_bytes > 0) {
    writes[command.cid] = {command, std::vector<uint8_t>(command.sgl.length_bytes), 0};
    send_r2t(command.cid, 7, 0, std::min(target.r2t_bytes, command.sgl.length_bytes));
  } else {
    serve_io(command, data);
  }
}

void FakeConnection::serve_fabrics(const nvme::Command& command) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(&command);
  const auto type = static_cast<nvme::FabricsType>(bytes[4]);
  if (type == nvme::FabricsType::connect) {
    target.connect_count++;
    qid = load_le<uint16_t>(bytes + offsetof(nvme::ConnectCommand, qid));
    respond(command.cid, nvme::status::success, 1);
  } else if (type == nvme::FabricsType::property_get) {
    const auto offset = load_le<uint32_t>(bytes + offsetof(nvme::PropertyCommand, offset));
    respond(command.cid, nvme::status::success, offset == nvme::property_cap ? 127 | 1u << 24 : 1);
  } else {
    respond(command.cid, nvme::status::success);
  }
}

void FakeConnection::serve_admin(const nvme::Command& command) {
  std::vector<uint8_t> page(4096);
  switch (static_cast<nvme::AdminOpcode>(command.opcode)) {
    case nvme::AdminOpcode::identify: {
      if (command.cdw10 == 1) {
        auto* id = reinterpret_cast<nvme::IdentifyController*>(page.data());
        std::memcpy(id->sn, "fake                ", 20);
        id->cntlid = 1;
        id->mdts = target.mdts;
        id->nn = 1;
        id->mnan = 1;
        id->nanagrpid = 1;
        id->cmic = 0x0a;
        id->ioccsz = target.ioccsz;
        id->iorcsz = 1;
        id->oncs = 0x2c;
        id->vwc = 1;
      } else if (command.cdw10 == 2) {
        page[0] = 1;
      } else if (command.cdw10 == 3) {
        page[0] = 3, page[1] = 16;
        std::memset(page.data() + 4, 0x5a, 16);
      } else {
        auto* id = reinterpret_cast<nvme::IdentifyNamespace*>(page.data());
        id->nsze = id->ncap = target.disk.size() / 4096;
        id->lbaf[0].lbads = 12;
        id->anagrpid = 1;
      }
      return give(command, page);
    }
    case nvme::AdminOpcode::get_log_page: {
      auto* header = reinterpret_cast<nvme::AnaLogHeader*>(page.data());
      header->ngrps = 1;
      auto* group = reinterpret_cast<nvme::AnaGroupDescriptor*>(page.data() + sizeof(*header));
      group->anagrpid = 1;
      group->nnsids = 1;
      group->state = static_cast<uint8_t>(target.ana_state);
      return give(command, page);
    }
    case nvme::AdminOpcode::async_event_request:
      events.push_back(command.cid);
      return;
    case nvme::AdminOpcode::keep_alive:
      target.keep_alive_count++;
      break;
    default:
      break;
  }
  respond(command.cid, nvme::status::success);
}

void FakeConnection::serve_io(const nvme::Command& command, const std::vector<uint8_t>& data) {
  const uint64_t offset = command.slba() * 4096;
  const auto opcode = static_cast<nvme::NvmOpcode>(command.opcode);
  if (opcode == nvme::NvmOpcode::read) {
    return give(command, {target.disk.begin() + static_cast<long>(offset),
                          target.disk.begin() + static_cast<long>(offset + command.sgl.length_bytes)});
  }
  if (opcode == nvme::NvmOpcode::write)
    std::copy(data.begin(), data.end(), target.disk.begin() + static_cast<long>(offset));
  if (opcode == nvme::NvmOpcode::write_zeroes) {
    std::fill_n(target.disk.begin() + static_cast<long>(offset), command.count_blocks() * 4096, 0);
  }
  respond(command.cid, nvme::status::success);
}

FakeTarget::FakeTarget(MemoryNet& net, Reactor& reactor, uint16_t port) : reactor_(reactor) {
  env::Address address;
  address.host = "127.0.0.1";
  address.port = port;
  listener_ = std::move(reactor.poller().listen(address)).value();
  acceptable_.target = this;
  acceptable_.run = [](Work* work) { static_cast<OwnedWork*>(work)->target->accept(); };
  listener_->arm_acceptable(&acceptable_);
}

FakeTarget::~FakeTarget() = default;

void FakeTarget::accept() {
  connections.remove_if([](const auto& connection) { return connection->closed; });
  while (auto pending = listener_->try_accept()) {
    connections.push_back(std::make_unique<FakeConnection>(*this, reactor_.poller().adopt(std::move(pending))));
  }
  listener_->arm_acceptable(&acceptable_);
}

void FakeTarget::send_event(uint32_t dw0) {
  for (auto& connection : connections) {
    if (connection->closed || connection->events.empty()) continue;
    const uint16_t cid = connection->events.back();
    connection->events.pop_back();
    connection->respond(cid, nvme::status::success, dw0);
    connection->flush();
  }
}

}  // namespace basalt::testing
