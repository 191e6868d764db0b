// SPDX-License-Identifier: Apache-2.0
// Workload: clients that share a range of blocks of one device, each with one random operation at a time: stamped
// writes (some with FUA), zeroings, flushes, and reads of everything. What they asked for and were told goes to a
// HistoryLog. Thread: one reactor. Invariants: - a write or zeroing is on record before it is sent
//             - two of them never overlap in flight: a host that resends keeps no order between them. Reads overlap all
//             - an operation that ended with an error is of unknown outcome (`info`)
//             - the blocks are zero when a new history begins; one that goes on reads all of them first
#pragma once

#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/gate.h"
#include "recorder/history_log.h"

namespace basalt::recorder {

struct WorkloadOptions {
  uint64_t first_block = 0;
  uint64_t block_count = 1024;
  uint32_t client_count = 8;
  uint64_t rate = 0;             // operations per second, all clients together; 0: as many as the device carries
  uint64_t operation_count = 0;  // 0: no end by number
  Duration length{0};            // 0: no end by time
  uint64_t seed = 0;
  bool erase = false;                     // zero the blocks first; otherwise a new history wants zeroes there
  std::function<bool()> told_to_stop;     // asked between operations; may be empty
  std::function<void()> clients_started;  // may be empty
};

struct Totals {
  uint64_t read_count = 0;
  uint64_t write_count = 0;
  uint64_t zero_count = 0;
  uint64_t flush_count = 0;
  uint64_t error_count = 0;
  Duration longest{0};                  // of one operation
  std::vector<std::string> complaints;  // the first errors, in words
};

// The blocks are there, and none holds anything that would be lost.
Task<Outcome> check_blocks(env::BlockFile& device, uint64_t first_block, uint64_t block_count, bool must_be_zero);

class Workload {
 public:
  Workload(Reactor& reactor, env::BlockFile& device, HistoryLog& log, const WorkloadOptions& options);

  // Until the end by number or time, or until it is told to stop; then reads every block once more. Fails when the
  // history cannot be written. Errors of the device are on record and in totals().
  Task<Outcome> run();
  const Totals& totals() const { return totals_; }

 private:
  struct Client {
    Client(uint32_t client_number, uint64_t seed);
    uint32_t number;
    std::mt19937_64 random;
    AlignedBuffer buffer;
    uint64_t below(uint64_t end) { return random() % end; }
  };
  Task<void> work(Client& client);
  Task<void> each_piece(Client& client, check::OpType type);
  Task<bool> carry_out(Client& client, check::Op op);
  check::Op draw(Client& client);
  void place(Client& client, check::Op* op);
  bool is_changing(const check::Op& op) const;
  void set_changing(const check::Op& op, bool changing);
  void stamp(Client& client, check::Op* op);
  void count(const check::Op& op, int error);
  bool going_on() const;

  Reactor& reactor_;
  env::BlockFile& device_;
  HistoryLog& log_;
  const WorkloadOptions options_;
  Client passer_;  // client 0 goes through all blocks, before and after the others
  std::vector<std::unique_ptr<Client>> clients_;
  std::vector<uint64_t> hot_blocks_;  // where half of the operations go, so that clients meet
  std::vector<bool> changing_;        // by block of the range
  Gate gate_;
  Instant end_ = Instant::never();
  uint64_t started_count_ = 0;
  Totals totals_;
};

}  // namespace basalt::recorder
