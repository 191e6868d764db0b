// SPDX-License-Identifier: Apache-2.0
#include "sim/disk_node.h"

#include "nvmf/transport/tcp/tcp_target.h"

namespace basalt::sim {
namespace {
constexpr uint32_t cluster_bytes = 64 << 10;
constexpr Duration open_interval = milliseconds(50);
}  // namespace

std::string replica_nqn(const std::string& replica) {
  return "nqn.2026-01.sim:replica:" + replica;
}

std::string node_link_nqn() {
  return "nqn.2026-01.sim:node-link";
}

struct DiskNode::Daemon final : Process {
  Daemon(env::SimNode& node, const DiskNodeOptions& node_options)
      : Process(node), options(node_options), incarnation(std::to_string(node.random_u64())) {}

  Task<void> run() {
    auto begin = hop(reactor());
    co_await begin;
    for (;;) {
      auto opening = open_store();
      const bool opened = co_await opening;
      if (opened) break;
      co_await sleep_for(reactor(), open_interval);
    }
    target = std::make_unique<nvmf::Target>(std::vector<Reactor*>{&reactor()});
    target->add_transport(std::make_unique<nvmf::TcpTargetTransport>(*target));
    if (options.link) {
      auto linking = serve_link();
      const Outcome linked = co_await linking;
      BASALT_ASSERT(linked.ok());
    }
    for (const std::string& replica : options.replicas) {
      auto serving = serve(replica);
      const Outcome served = co_await serving;
      if (!served) co_return;  // a broken disk: the supervisor starts us again
    }
    ready = true;
  }

  Task<bool> open_store() {
    if (file == nullptr) {
      const bool make = node().world().disk(options.name, "disk").size_bytes() == 0;
      bdev::FileBdevOptions file_options;
      file_options.name = "disk";
      file_options.path = "disk";
      file_options.create_bytes = make ? options.disk_bytes : 0;
      auto opened = bdev::FileBdev::open(reactor(), file_options);
      if (!opened) co_return false;
      file = std::move(opened).value();
    }
    const bdev::Handle base(*file, reactor());
    auto loading = bdev::LvStore::load(reactor(), base);
    auto loaded = co_await loading;
    if (!loaded.ok() && loaded.error().code == Errc::not_found) {
      bdev::LvStoreOptions store_options;
      store_options.name = "lvs";
      store_options.cluster_bytes = cluster_bytes;
      auto creating = bdev::LvStore::create(reactor(), base, store_options);
      loaded = co_await creating;
    }
    if (!loaded.ok()) {
      problem = loaded.error().message;
      co_return false;
    }
    store = std::move(loaded).value();
    co_return true;
  }

  Task<Outcome> serve(std::string replica) {
    if (store->find(replica) == nullptr) {
      bdev::LvolOptions lvol;
      lvol.name = replica;
      lvol.size_bytes = options.replica_bytes;
      auto creating = store->create_lvol(lvol);
      auto created = co_await creating;
      if (!created) co_return created.error();
    }
    nvmf::SubsystemOptions subsystem_options;
    subsystem_options.nqn = replica_nqn(replica);
    subsystem_options.serial_number = incarnation;
    subsystem_options.allow_any_host = true;
    subsystem_options.internal = true;
    auto made = target->create_subsystem(subsystem_options);
    if (!made) co_return made.error();
    ns::NamespaceOptions space;
    space.nsid = 1;
    space.one_writer = true;
    space.planted_no_gate = options.bugs.skip_fence;
    space.planted_forget_epoch = options.bugs.forget_epoch;
    auto adding = made.value()->add_namespace(space, store->find(replica));
    auto added = co_await adding;
    if (!added) co_return added.error();
    auto listening = listen(*made.value());
    co_return co_await listening;
  }

  Task<Outcome> serve_link() {
    nvmf::SubsystemOptions subsystem_options;
    subsystem_options.nqn = node_link_nqn();
    subsystem_options.allow_any_host = true;
    subsystem_options.internal = true;
    subsystem_options.node_link = true;
    auto made = target->create_subsystem(subsystem_options);
    if (!made) co_return made.error();
    auto listening = listen(*made.value());
    co_return co_await listening;
  }

  Task<Outcome> listen(nvmf::Subsystem& subsystem) {
    nvmf::ListenAddress address;
    address.traddr = options.endpoint.address;
    address.trsvcid = std::to_string(options.endpoint.port);
    auto listening = subsystem.add_listener(address);
    auto bound = co_await listening;
    if (!bound) co_return bound.error();
    co_return success();
  }

  const DiskNodeOptions& options;
  const std::string incarnation;
  std::unique_ptr<bdev::FileBdev> file;
  std::unique_ptr<bdev::LvStore> store;
  std::unique_ptr<nvmf::Target> target;
  std::string problem;
  bool ready = false;
};

DiskNode::DiskNode(env::SimWorld& world, DiskNodeOptions options)
    : world_(world), options_(std::move(options)), node_(world.add_node(options_.name)) {}

DiskNode::~DiskNode() {
  kill();
}

std::string DiskNode::incarnation() const {
  return daemon_ == nullptr ? std::string() : daemon_->incarnation;
}

void DiskNode::start() {
  BASALT_ASSERT(daemon_ == nullptr);
  node_.restart();
  daemon_ = std::make_unique<Daemon>(node_, options_);
  spawn(daemon_->run());
}

void DiskNode::kill() {
  if (daemon_ == nullptr) return;
  node_.crash();
  bury(daemon_);
}

void DiskNode::power_cut() {
  if (daemon_ == nullptr) return;
  node_.power_cut();
  bury(daemon_);
}

bool DiskNode::ready() const {
  return daemon_ != nullptr && daemon_->ready;
}

bool DiskNode::failed() const {
  return daemon_ != nullptr && daemon_->store != nullptr && daemon_->store->failed();
}

bdev::Lvol* DiskNode::lvol(const std::string& replica) {
  return ready() ? daemon_->store->find(replica) : nullptr;
}

ns::Namespace* DiskNode::space(const std::string& replica) {
  if (!ready()) return nullptr;
  nvmf::Subsystem* subsystem = daemon_->target->find_subsystem(replica_nqn(replica));
  return subsystem == nullptr ? nullptr : subsystem->find_namespace(1);
}

uint64_t DiskNode::conflict_count() const {
  uint64_t count = 0;
  for (const std::string& replica : options_.replicas) {
    const ns::Namespace* space = const_cast<DiskNode*>(this)->space(replica);
    if (space != nullptr) count += space->stats().conflict_count;
  }
  return count;
}

Reactor& DiskNode::reactor() {
  BASALT_ASSERT(daemon_ != nullptr);
  return daemon_->reactor();
}

}  // namespace basalt::sim
