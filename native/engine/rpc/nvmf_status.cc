// SPDX-License-Identifier: Apache-2.0
// What SPDK's tools ask about a target: nvmf_get_targets, nvmf_get_stats, nvmf_subsystem_get_listeners.
#include "engine/fabric.h"
#include "engine/rpc/fields.h"
#include "engine/rpc/modules.h"
#include "engine/rpc/nvmf_params.h"

namespace basalt::rpc {
namespace {

class NvmfStatus final : public Module {
 public:
  explicit NvmfStatus(Engine& engine) : engine_(engine) {}

  void register_methods(Dispatcher& dispatcher) override {
    dispatcher.add("nvmf_get_targets", this, &NvmfStatus::get_targets);
    dispatcher.add("nvmf_get_stats", this, &NvmfStatus::get_stats);
    dispatcher.add("nvmf_subsystem_get_listeners", this, &NvmfStatus::get_listeners);
  }

 private:
  nvmf::Target& target() { return engine_.fabric().target(); }

  Task<RpcResult> get_targets(JsonValue params) {
    Fields in(params);
    if (auto error = in.error()) co_return *error;
    co_return JsonValue::array().push("nvmf_tgt");
  }

  // Queues are not counted by reactor: one group stands for all.
  Task<RpcResult> get_stats(JsonValue params) {
    Fields in(params);
    if (auto error = in.error()) co_return *error;
    uint64_t admin_count = 0;
    uint64_t io_count = 0;
    for (const auto& subsystem : target().all_subsystems()) {
      for (const nvmf::ControllerInfo& controller : subsystem->controllers()) {
        admin_count++;
        io_count += controller.io_queue_count;
      }
    }
    auto transports = JsonValue::array();
    if (engine_.fabric().has_tcp()) transports.push(JsonValue::object().set("trtype", "TCP"));
    if (engine_.fabric().rdma_target() != nullptr) transports.push(JsonValue::object().set("trtype", "RDMA"));
    auto group = JsonValue::object();
    group.set("name", "all reactors")
        .set("current_admin_qpairs", admin_count)
        .set("current_io_qpairs", io_count)
        .set("transports", std::move(transports));
    auto result = JsonValue::object();
    result.set("tick_rate", uint64_t{1'000'000'000}).set("poll_groups", JsonValue::array().push(std::move(group)));
    co_return result;
  }

  Task<RpcResult> get_listeners(JsonValue params) {
    Fields in(params);
    const std::string nqn = read_nqn(in, "nqn");
    if (auto error = in.error()) co_return *error;
    nvmf::Subsystem* subsystem = target().find_subsystem(nqn);
    if (subsystem == nullptr) co_return Error{Errc::not_found, "subsystem " + nqn + " does not exist"};
    auto list = JsonValue::array();
    for (const auto& path : subsystem->paths())
      list.push(describe_path(*subsystem, *path));
    co_return list;
  }

  static JsonValue describe_path(const nvmf::Subsystem& subsystem, const nvmf::SubsystemListener& path) {
    auto states = JsonValue::array();
    for (uint32_t group = 1; group <= subsystem.options().namespaces_max; group++) {
      states.push(JsonValue::object().set("ana_group", group).set("ana_state", ana_state_name(path.state(group))));
    }
    return JsonValue::object()
        .set("address", describe_address(path.listener.address))
        .set("ana_states", std::move(states));
  }

  Engine& engine_;
};

}  // namespace

std::unique_ptr<Module> make_nvmf_status(Engine& engine) {
  return std::make_unique<NvmfStatus>(engine);
}

}  // namespace basalt::rpc
