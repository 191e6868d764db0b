// SPDX-License-Identifier: Apache-2.0
// SimHost: a machine that uses the volume through the project's own multipath initiator, one path to each controller,
// and writes down what it asked and what it was told.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bdev/nvmf/multipath.h"
#include "nvmf/transport/tcp/tcp_host.h"
#include "sim/history.h"
#include "sim/process.h"

namespace basalt::sim {

struct HostTiming {
  uint32_t keep_alive_ms = 500;
  Duration command_timeout = seconds(2);
  Duration connect_timeout = seconds(1);
  Duration reconnect_delay = milliseconds(50);
  Duration reconnect_delay_max = milliseconds(500);
};

struct SimHostOptions {
  std::string name;
  std::vector<Endpoint> controllers;
  uint64_t volume = 1;  // of the stamps
  HostTiming timing;
};

// The index of an operation in the log.
using OpIndex = size_t;

// The operations of all hosts, in the order in which they were asked for.
struct OpLog {
  std::deque<Op> ops;
  size_t pending_count = 0;
};

class SimHost {
 public:
  SimHost(env::SimWorld& world, SimHostOptions options, OpLog& log);
  ~SimHost();

  const std::string& name() const { return options_.name; }
  env::SimNode& node() { return node_; }
  void start();
  bool connected() const;  // has a bdev, and every path was connected once

  // Asks, on the host's reactor; the log says when it is done. A write's stamps are (client, its sequence).
  OpIndex write(uint32_t client, uint64_t lba, uint32_t count_blocks, bool fua = false);
  OpIndex read(uint32_t client, uint64_t lba, uint32_t count_blocks);
  OpIndex zero(uint32_t client, uint64_t lba, uint32_t count_blocks, bool unmap = false);
  OpIndex flush(uint32_t client);
  uint64_t resent_count() const;
  // Called on the host's reactor when an operation has ended.
  std::function<void(OpIndex)> on_done;
  std::function<void(OpIndex)> on_trace;  // before that

 private:
  struct Daemon;
  struct Request;
  OpIndex submit(uint32_t client, bdev::IoType type, OpType op_type, uint64_t lba, uint32_t count_blocks, bool fua);
  void ended(Request* request);
  env::SimWorld& world_;
  const SimHostOptions options_;
  env::SimNode& node_;
  OpLog& log_;
  uint64_t sequence_ = 0;
  std::unique_ptr<Daemon> daemon_;
};

}  // namespace basalt::sim
