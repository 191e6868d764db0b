// SPDX-License-Identifier: Apache-2.0
// FakeTarget: a small scripted NVMe/TCP target for tests of the host. By default it serves one namespace from memory;
// hooks see each command first and may answer anything, right or wrong.
#pragma once

#include <functional>
#include <list>
#include <map>
#include <memory>
#include <vector>

#include "nvme/status.h"
#include "nvmf/pdu/decoder.h"
#include "nvmf/pdu/encoder.h"
#include "nvmf/transport/memory_net_testing.h"

namespace basalt::testing {

class FakeTarget;

struct FakeConnection {
  explicit FakeConnection(FakeTarget& target, std::unique_ptr<env::StreamSocket> socket);
  void receive();
  void complete_pdu();
  void send(const void* bytes, size_t count);
  void flush();
  void respond(uint16_t cid, nvme::Status status, uint64_t value = 0);
  void send_data(uint16_t cid, uint32_t offset_bytes, const void* data, uint32_t length_bytes, bool last, bool success);
  void send_r2t(uint16_t cid, uint16_t ttag, uint32_t offset_bytes, uint32_t length_bytes);
  void serve(const nvme::Command& command, const std::vector<uint8_t>& data);
  void serve_admin(const nvme::Command& command);
  void serve_io(const nvme::Command& command, const std::vector<uint8_t>& data);
  void serve_fabrics(const nvme::Command& command);
  void give(const nvme::Command& command, std::vector<uint8_t> data);

  struct Write {
    nvme::Command command;
    std::vector<uint8_t> data;
    uint32_t received_bytes = 0;
  };
  struct OwnedWork : Work {
    FakeConnection* connection = nullptr;
  };
  FakeTarget& target;
  std::unique_ptr<env::StreamSocket> socket;
  nvmf::pdu::Decoder decoder;
  nvmf::pdu::Digests digests;
  uint16_t qid = 0;
  std::vector<uint8_t> input;
  std::vector<uint8_t> arriving;  // payload of the PDU that is coming in
  std::vector<uint8_t> output;
  std::map<uint16_t, Write> writes;
  std::vector<uint16_t> events;  // CIDs of outstanding Asynchronous Event Requests
  bool closed = false;
  OwnedWork readable;
  OwnedWork writable;
  bool writable_armed = false;
};

class FakeTarget {
 public:
  FakeTarget(MemoryNet& net, Reactor& reactor, uint16_t port);
  ~FakeTarget();

  // True: the hook has dealt with it.
  std::function<bool(FakeConnection&, const nvme::Command&, const std::vector<uint8_t>&)> on_command;
  std::function<bool(FakeConnection&)> on_ic_request;
  uint32_t maxh2cdata_bytes = 4096;
  uint32_t r2t_bytes = 8192;  // asked for at a time
  uint32_t c2h_bytes = 3000;  // sent in one C2HData
  bool success_flag = true;
  uint8_t mdts = 5;
  uint32_t ioccsz = (64 + 8192) / 16;
  nvme::AnaState ana_state = nvme::AnaState::optimized;
  std::vector<uint8_t> disk = std::vector<uint8_t>(4 << 20);
  std::list<std::unique_ptr<FakeConnection>> connections;
  size_t h2c_count = 0;
  size_t keep_alive_count = 0;
  size_t connect_count = 0;

  void send_event(uint32_t dw0);

 private:
  struct OwnedWork : Work {
    FakeTarget* target = nullptr;
  };
  void accept();
  Reactor& reactor_;
  std::unique_ptr<env::StreamListener> listener_;
  OwnedWork acceptable_;
};

}  // namespace basalt::testing
