// SPDX-License-Identifier: Apache-2.0
// basalt_ns_*_reservation: what the keeper of a namespace's reservations says. Nothing here waits.
#include "engine/fabric.h"
#include "engine/rpc/modules.h"
#include "engine/rpc/nvmf_params.h"
#include "engine/rpc/reservation_params.h"

namespace basalt::rpc {
namespace {

class NvmfReservation final : public Module {
 public:
  explicit NvmfReservation(Engine& engine) : engine_(engine) {}

  void register_methods(Dispatcher& dispatcher) override {
    dispatcher.add("basalt_ns_set_reservation", this, &NvmfReservation::set);
    dispatcher.add("basalt_ns_refuse_reservation", this, &NvmfReservation::refuse);
    dispatcher.add("basalt_ns_get_reservation", this, &NvmfReservation::get);
  }

  // Commands that wait for a keeper's word would keep their connections, and so the target, for as long as their
  // deadline.
  void abort() override {
    for (const auto& subsystem : engine_.fabric().target().all_subsystems()) {
      for (uint32_t nsid = 1; nsid <= subsystem->options().namespaces_max; nsid++) {
        ns::Namespace* space = subsystem->find_namespace(nsid);
        if (space == nullptr || space->shared() == nullptr || !space->shared()->asked) continue;
        space->refuse_change(Uuid(space->shared()->asked->id), nvme::status::ana_inaccessible);
      }
    }
  }

 private:
  struct Named {
    std::string nqn;
    uint32_t nsid = 0;
  };

  static Named read_named(Fields& in) {
    return {read_nqn(in, "nqn"), static_cast<uint32_t>(in.natural("nsid", {.min = 1, .max = 1024}))};
  }

  Result<ns::Namespace*> find(const Named& named) {
    const nvmf::Subsystem* subsystem = engine_.fabric().target().find_subsystem(named.nqn);
    if (subsystem == nullptr) return Error{Errc::not_found, "subsystem " + named.nqn + " does not exist"};
    ns::Namespace* space = subsystem->find_namespace(named.nsid);
    const std::string name = "namespace " + std::to_string(named.nsid) + " of " + named.nqn;
    if (space == nullptr) return Error{Errc::not_found, name + " does not exist"};
    if (space->shared() == nullptr) return Error{Errc::invalid_argument, name + " has no shared_reservations"};
    return space;
  }

  Task<RpcResult> set(JsonValue params) {
    Fields in(params);
    const Named named = read_named(in);
    const ns::KeptReservation kept = read_reservation(in, "reservation");
    if (auto error = in.error()) co_return *error;
    auto space = find(named);
    if (!space) co_return std::move(space).error();
    (*space)->set_reservation(kept);
    co_return done();
  }

  Task<RpcResult> refuse(JsonValue params) {
    Fields in(params);
    const Named named = read_named(in);
    const Uuid change = in.uuid_required("change");
    const bool elsewhere = in.choice("retry", {"later", "elsewhere"}) == 1;
    if (auto error = in.error()) co_return *error;
    auto space = find(named);
    if (!space) co_return std::move(space).error();
    (*space)->refuse_change(change, elsewhere ? nvme::status::ana_inaccessible : nvme::status::command_interrupted);
    co_return done();
  }

  Task<RpcResult> get(JsonValue params) {
    Fields in(params);
    const Named named = read_named(in);
    if (auto error = in.error()) co_return *error;
    auto space = find(named);
    if (!space) co_return std::move(space).error();
    co_return describe_reservation(**space);
  }

  Engine& engine_;
};

}  // namespace

std::unique_ptr<Module> make_nvmf_reservation(Engine& engine) {
  return std::make_unique<NvmfReservation>(engine);
}

}  // namespace basalt::rpc
