// SPDX-License-Identifier: Apache-2.0
// Layers over another one that change neither its size nor its content: a connection, encryption.
#include "bdev/crypt/crypt.h"
#include "bdev/fault/fault.h"
#include "nvmf/transport/tcp/tcp_target.h"
#include "sim/data/stack.h"

namespace basalt::sim {
namespace {

constexpr uint32_t first_port = 4420;

crypto::SecretBytes key_of(uint32_t layer, uint8_t salt) {
  crypto::SecretBytes key(32);
  for (size_t i = 0; i < key.size(); i++)
    key.data()[i] = static_cast<uint8_t>(layer * 31 + salt + i * 7);
  return key;
}

}  // namespace

// Called after the layer, as a leg tells its members by name.
Task<Outcome> Stack::open_remote(const LayerPlan* plan, bdev::Bdev* base) {
  Remote& remote = remotes_[plan->id];
  remote.target = std::make_unique<nvmf::Target>(std::vector<Reactor*>{&reactor_});
  remote.target->add_transport(std::make_unique<nvmf::TcpTargetTransport>(*remote.target));
  nvmf::SubsystemOptions subsystem_options;
  subsystem_options.nqn = "nqn.2026-01.sim:" + plan->name();
  subsystem_options.serial_number = "1";
  subsystem_options.allow_any_host = true;
  auto made = remote.target->create_subsystem(subsystem_options);
  if (!made) co_return std::move(made).error();
  nvmf::Subsystem* subsystem = *made;
  ns::NamespaceOptions space;
  space.nsid = 1;
  auto adding_namespace = subsystem->add_namespace(space, base);
  auto added = co_await adding_namespace;
  if (!added) co_return std::move(added).error();
  const std::string port = std::to_string(first_port + plan->id);
  auto listening = subsystem->add_listener({"TCP", "127.0.0.1", port});
  auto bound = co_await listening;
  if (!bound) co_return std::move(bound).error();

  bdev::MultipathOptions options;
  options.name = plan->name();
  options.subnqn = subsystem_options.nqn;
  options.hostnqn = "nqn.2026-01.sim:host";
  options.io_queue_count = static_cast<uint16_t>(1 + plan->id % 2);
  remote.transport = std::make_unique<nvmf::TcpHostTransport>(
      nvmf::TcpHostTransport::Options{.digests = {plan->id % 2 == 0, plan->id % 3 == 0}});
  remote.controller = std::make_unique<bdev::NvmfController>(reactor_, options);
  auto adding_path = remote.controller->add_path(*remote.transport, {"127.0.0.1", port});
  Outcome connected = co_await adding_path;
  if (!connected) co_return connected;
  bdev::Bdev& attached = *remote.controller->bdevs().front();
  bdevs_[plan->id] =
      std::make_unique<bdev::FaultBdev>(reactor_, plan->name(), Uuid{}, bdev::Handle(attached, reactor_));
  co_return success();
}

Task<void> Stack::close_remote(const LayerPlan* plan) {
  const auto found = remotes_.find(plan->id);
  if (found == remotes_.end()) co_return;
  Remote& remote = found->second;
  if (remote.controller != nullptr) {
    auto closing = remote.controller->close();
    co_await closing;
  }
  auto closing = remote.target->close();
  co_await closing;
  remotes_.erase(plan->id);
}

Outcome Stack::open_crypt(const LayerPlan* plan, bdev::Handle base) {
  auto cipher = crypto::XtsCipher::create(key_of(plan->id, 1), key_of(plan->id, 2));
  if (!cipher) return std::move(cipher).error();
  auto opened = bdev::CryptBdev::create(reactor_, {plan->name(), {}}, std::move(base), std::move(cipher).value());
  if (!opened) return std::move(opened).error();
  bdevs_[plan->id] = std::move(opened).value();
  return success();
}

}  // namespace basalt::sim
