// SPDX-License-Identifier: Apache-2.0
// GoodHost: our initiator on a machine of its own, with random work on blocks that are its own, judged by an oracle.
// It keeps every rule, resends what was not answered, and expects each of its requests to end well.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "bdev/nvmf/multipath.h"
#include "env/sim/sim_world.h"
#include "nvmf/transport/tcp/tcp_host.h"
#include "sim/data/block_oracle.h"

namespace basalt::sim {

class GoodHost {
 public:
  static constexpr uint64_t own_blocks = 64;
  struct Options {
    std::vector<env::Address> paths;  // all optimized
    bdev::PathPolicy policy;
    bool digests = false;
    bool resend_at_once = false;  // a bug for the simulator to catch
  };
  GoodHost(env::SimWorld& world, size_t index, Options options, Arena& arena);
  ~GoodHost();

  void connect();  // in the background, for as long as it takes
  bool connected() const { return connected_; }
  void step(env::SimRandom& random);  // asks for something
  bool idle() const { return active_count_ == 0; }
  void read_everything();
  Task<void> close();
  void start_closing();
  bool closed() const { return closed_; }

  env::SimNode& node() { return node_; }
  const std::string& violation() const { return violation_; }
  uint64_t op_count() const { return op_count_; }
  uint64_t digest() const { return digest_; }

 private:
  Task<void> connect_path();
  Task<void> change(bdev::IoType type, uint64_t first, uint32_t count, bool fua);
  Task<void> read(uint64_t first, uint32_t count);
  Task<void> flush();
  uint64_t place(uint64_t block) const { return index_ * own_blocks + block; }
  bdev::Bdev& bdev();
  void ended(uint64_t what, nvme::Status status);

  env::SimWorld& world_;
  env::SimNode& node_;
  const size_t index_;
  const Options options_;
  Reactor reactor_;
  std::unique_ptr<env::LoopHandle> loop_;
  nvmf::TcpHostTransport transport_;
  std::unique_ptr<bdev::NvmfController> controller_;
  BlockOracle oracle_;
  std::vector<bool> changing_ = std::vector<bool>(own_blocks);
  bool connected_ = false;
  bool closed_ = false;
  uint64_t next_sequence_ = 1;
  uint64_t active_count_ = 0;
  uint64_t op_count_ = 0;
  uint64_t digest_ = 0xcbf29ce484222325;
  std::string violation_;
};

}  // namespace basalt::sim
