// SPDX-License-Identifier: Apache-2.0
// RudeHost: a host that keeps no rule for long. It connects properly often enough to get far, and then sends more
// commands than its queue holds, cids twice, data that nobody asked for, or not the data that was asked for, commands
// and PDUs of random bytes, aborts and resets; it stops reading, stops sending, and drops connections at any byte.
//
// Not rude: a keep-alive time in every Connect, so that the target may forget a host that has vanished.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "env/sim/sim_world.h"
#include "nvme/status.h"
#include "nvmf/transport/tcp/raw_host_testing.h"

namespace basalt::sim {

class RudeHost final : public env::Loop {
 public:
  // `long_chance`: of a command to be as long as it may be.
  RudeHost(env::SimWorld& world, size_t index, std::vector<env::Address> addresses, double long_chance);
  ~RudeHost() override;

  void start();
  void stop();            // drops everything, for good
  void kill(bool power);  // start() brings it back
  bool up() const { return loop_ != nullptr; }
  uint64_t command_count() const { return command_count_; }
  uint64_t answer_count() const { return answer_count_; }
  uint64_t connect_count() const { return connect_count_; }

  void run() override {}
  bool turn() override;
  Instant deadline() const override { return stopped_ ? Instant::never() : next_act_; }

 private:
  using Bytes = nvmf::testing::Bytes;
  struct Connection;
  void act();
  void open(uint16_t qid, uint16_t cntlid);
  void say_hello(Connection& connection);
  bool pump(Connection& connection);  // false: it is over
  bool send(Connection& connection);
  bool receive(Connection& connection);
  void pdu_came(Connection& connection);
  void answered(Connection& connection);
  void data_asked(Connection& connection);
  void command(Connection& connection);
  nvme::Command io_command(Bytes* data);
  nvme::Command admin_command(Bytes* data);
  void queue(Connection& connection, Bytes bytes);
  Bytes random_bytes(size_t count);
  uint64_t draw(uint64_t below) { return world_.random().below(below); }
  bool rude(double probability) { return chance(probability * rudeness_); }
  bool chance(double probability) { return world_.random().chance(probability); }

  env::SimWorld& world_;
  env::SimNode& node_;
  const std::string name_;
  const std::vector<env::Address> addresses_;
  const double long_chance_;
  std::vector<std::unique_ptr<env::Poller>> pollers_;  // the last one lives
  std::unique_ptr<env::LoopHandle> loop_;
  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<std::unique_ptr<Connection>> dead_;  // of killed processes: nobody closes them
  Instant next_act_;
  double mutation_chance_ = 0;
  double rudeness_ = 1;  // low: gets far before it is thrown out
  bool stopped_ = true;
  uint64_t command_count_ = 0;
  uint64_t answer_count_ = 0;
  uint64_t connect_count_ = 0;
};

}  // namespace basalt::sim
