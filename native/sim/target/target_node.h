// SPDX-License-Identifier: Apache-2.0
// TargetNode: a machine with a real target: one or two reactors, two subsystems behind the same two ports - one for the
// hosts that behave, one for those that do not - each over a bdev of its own.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "bdev/file/file.h"
#include "bdev/lvol/lvstore.h"
#include "env/sim/sim_world.h"
#include "nvmf/host/transport.h"
#include "nvmf/target/target.h"
#include "nvmf/transport/tcp/tcp_target.h"

namespace basalt::sim {

inline constexpr char good_subnqn[] = "nqn.2026-01.sim:good";
inline constexpr char rude_subnqn[] = "nqn.2026-01.sim:rude";
inline constexpr char good_hostnqn[] = "nqn.2026-01.sim:host:";

enum class TargetDisk : uint8_t { malloc, file, lvol };

struct TargetNodeOptions {
  size_t reactor_count = 1;
  size_t port_count = 2;
  TargetDisk disk = TargetDisk::malloc;
  uint64_t count_blocks = 512;
  size_t buffer_bytes_max = size_t{128} << 20;  // small: commands wait for buffers
  size_t good_host_count = 1;
};

class TargetNode {
 public:
  TargetNode(env::SimWorld& world, const TargetNodeOptions& options, Arena& arena);
  ~TargetNode();

  void open();
  void close();  // every connection ends, the bdevs too
  std::vector<env::Address> addresses() const;
  env::SimNode& node() { return node_; }
  env::SimDisk& disk() { return world_.disk("t", "good"); }
  nvmf::Subsystem& subsystem() { return *target_->find_subsystem(good_subnqn); }
  size_t connection_count() const { return tcp_->connection_count(); }
  size_t buffers_in_use() const;

  template <class T>
  T run(Task<T> task) {
    std::optional<T> result;
    spawn(collect(std::move(task), &result));
    BASALT_ASSERT(world_.run_until([&] { return result.has_value(); }, seconds(120)));
    return std::move(*result);
  }

 private:
  template <class T>
  static Task<void> collect(Task<T> task, std::optional<T>* result) {
    result->emplace(co_await task);
  }
  Reactor& home() { return *reactors_.front(); }
  Task<Outcome> open_all();
  Task<Outcome> close_all();
  Task<Result<bdev::Bdev*>> open_disk(std::string name, TargetDisk kind);
  Task<Outcome> serve(std::string nqn, bdev::Bdev* bdev, bool anybody);

  env::SimWorld& world_;
  env::SimNode& node_;
  const TargetNodeOptions options_;
  std::vector<std::unique_ptr<Reactor>> reactors_;
  std::vector<std::unique_ptr<env::LoopHandle>> loops_;
  std::vector<std::unique_ptr<bdev::Bdev>> bdevs_;
  std::unique_ptr<bdev::LvStore> store_;
  std::unique_ptr<nvmf::Target> target_;
  nvmf::TcpTargetTransport* tcp_ = nullptr;
};

}  // namespace basalt::sim
