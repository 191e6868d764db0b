// SPDX-License-Identifier: Apache-2.0
// bdev_nvme_*: subsystems of other targets as a host sees them, with their paths.
#include "bdev/nvmf/multipath.h"
#include "engine/fabric.h"
#include "engine/rpc/authentication_params.h"
#include "engine/rpc/fields.h"
#include "engine/rpc/modules.h"
#include "engine/rpc/nvme_reservation.h"
#include "engine/rpc/nvmf_params.h"

namespace basalt::rpc {
namespace {

class Nvme final : public Module {
 public:
  explicit Nvme(Engine& engine) : engine_(engine) {}

  void register_methods(Dispatcher& dispatcher) override {
    dispatcher.add("bdev_nvme_attach_controller", this, &Nvme::attach);
    dispatcher.add("bdev_nvme_detach_controller", this, &Nvme::detach);
    dispatcher.add("bdev_nvme_get_controllers", this, &Nvme::get_controllers);
    dispatcher.add("bdev_nvme_set_multipath_policy", this, &Nvme::set_multipath_policy);
    dispatcher.add("basalt_nvme_reservation", this, &Nvme::reservation);
  }

  void abort() override { stopping_ = true; }

  Task<bool> stop_some() override {
    bool some = false;
    for (bool found = true; found;) {
      found = false;
      for (const auto& [name, held] : controllers_) {
        if (!retire(*held).ok()) continue;
        auto closing = close(name);
        co_await closing;
        some = found = true;
        break;  // the map has changed
      }
    }
    co_return some;
  }

 private:
  struct Held {
    std::unique_ptr<bdev::NvmfController> controller;
    std::vector<std::string> bdevs;
    bool busy = false;  // a path is being added, or it ends
  };
  struct Path {
    nvmf::HostTransport* transport = nullptr;
    nvmf::HostAddress address;
    bool add = false;
  };

  Path read_path(Fields& in) {
    Path path;
    const size_t type = in.choice("trtype", {"TCP", "LOOPBACK", "tcp", "RDMA", "rdma"});
    const bool loopback = type == 1;
    const bool rdma = type >= 3;
    in.choice_or("adrfam", 0, {"IPv4", "IPv6", "ipv4", "ipv6"});
    path.address.traddr = in.string("traddr");
    path.address.trsvcid = loopback ? in.string_or("trsvcid", "0") : read_port(in, "trsvcid");
    const bool header_digest = in.boolean_or("hdgst", false);
    const bool data_digest = in.boolean_or("ddgst", false);
    Fabric& fabric = engine_.fabric();
    if (rdma && header_digest) in.refuse("hdgst", "goes with TCP only");
    if (rdma && data_digest) in.refuse("ddgst", "goes with TCP only");
    path.transport = &fabric.tcp(header_digest, data_digest);
    if (loopback) path.transport = &fabric.loopback();
    if (rdma) path.transport = &fabric.rdma();
    path.add = in.choice_or("multipath", 0, {"disable", "multipath"}) == 1;
    return path;
  }

  bdev::MultipathOptions read_options(Fields& in) {
    bdev::MultipathOptions options;
    options.name = in.string("name");
    options.subnqn = read_nqn(in, "subnqn");
    options.hostnqn = in.has("hostnqn") ? read_nqn(in, "hostnqn")
                                        : "nqn.2014-08.org.nvmexpress:uuid:" + engine_.make_uuid().to_string();
    options.hostid = in.uuid("hostid").value_or(Uuid{});
    const auto read_seconds = [&in](const char* name, Duration otherwise) {
      const uint64_t value = in.natural_or(name, static_cast<uint64_t>(otherwise.ns / seconds(1).ns), {.max = 86400});
      return in.has(name) ? seconds(static_cast<int64_t>(value)) : otherwise;
    };
    options.ctrlr_loss_timeout = read_seconds("ctrlr_loss_timeout_sec", options.ctrlr_loss_timeout);
    options.reconnect_delay = read_seconds("reconnect_delay_sec", options.reconnect_delay);
    options.fast_io_fail_timeout = read_seconds("fast_io_fail_timeout_sec", options.fast_io_fail_timeout);
    if (options.reconnect_delay.ns == 0) options.reconnect_delay = milliseconds(100);
    options.resend_at_once = in.boolean_or("resend_at_once", false);
    // SPDK's name for it; ours is older than that.
    const char* count_name = in.has("num_io_queues") ? "num_io_queues" : "io_queue_count";
    options.io_queue_count = static_cast<uint16_t>(in.natural_or(count_name, 1, {.min = 1, .max = 64}));
    options.keep_alive_ms = static_cast<uint32_t>(in.natural_or("keep_alive_ms", 5000, {.min = 100, .max = 600'000}));
    return options;
  }

  Task<RpcResult> attach(JsonValue params) {
    Fields in(params);
    bdev::MultipathOptions options = read_options(in);
    const KeyNames key_names = read_key_names(in);
    read_policy(in, &options.authentication.policy);
    const Path path = read_path(in);
    if (auto error = in.error()) co_return *error;
    auto key = find_secret(engine_.keyring(), "dhchap_key", key_names.host);
    if (!key) co_return std::move(key).error();
    auto controller_key = find_secret(engine_.keyring(), "dhchap_ctrlr_key", key_names.controller);
    if (!controller_key) co_return std::move(controller_key).error();
    options.authentication.host = *key;
    options.authentication.controller = *controller_key;
    auto tls_key = find_tls_key(engine_.keyring(), key_names.tls);
    if (!tls_key) co_return std::move(tls_key).error();
    options.authentication.tls = *tls_key;
    const std::string name = options.name;
    const auto found = controllers_.find(name);
    if (found != controllers_.end() && found->second->busy) {
      co_return Error{Errc::busy, "controller " + name + " is being changed"};
    }
    if (found != controllers_.end() && (!path.add || found->second->controller->options().subnqn != options.subnqn)) {
      co_return Error{Errc::exists,
                      "controller " + name + " exists" +
                          (path.add ? " and is of another subsystem" : "; multipath: \"multipath\" adds a path to it")};
    }
    if (found != controllers_.end() && options.authentication.tls != nullptr) {
      const nvmf::auth::SharedTlsKey& other = found->second->controller->options().authentication.tls;
      if (other == nullptr || !other->same_key(*options.authentication.tls)) {
        co_return Error{Errc::invalid_argument, "psk: controller " + name +
                                                    (other == nullptr ? " has none" : " has another one") +
                                                    "; all of its paths use the first one's"};
      }
    }
    const bool first = found == controllers_.end();
    if (first) {
      auto made = std::make_unique<Held>();
      made->controller = std::make_unique<bdev::NvmfController>(engine_.management(), std::move(options));
      controllers_.emplace(name, std::move(made));
    }
    Held& held = *controllers_[name];
    held.busy = true;
    auto adding = held.controller->add_path(*path.transport, path.address);
    auto added = co_await adding;
    held.busy = false;
    if (added && first) added = publish(held);
    if (!added) {
      if (first) {
        held.busy = true;
        auto closing = held.controller->close();
        co_await closing;
        controllers_.erase(name);
      }
      co_return std::move(added).error();
    }
    auto names = JsonValue::array();
    for (const std::string& bdev : held.bdevs)
      names.push(bdev);
    co_return names;
  }

  // All of the controller's bdevs get their names, or none.
  Outcome publish(Held& held) {
    BdevRegistry& bdevs = engine_.bdevs();
    for (const auto& bdev : held.controller->bdevs()) {
      const std::string& name = bdev->info().name;
      auto reserved = bdevs.reserve(name);
      if (!reserved) {
        for (const std::string& earlier : held.bdevs)
          bdevs.withdraw(earlier);
        held.bdevs.clear();
        return reserved;
      }
      held.bdevs.push_back(name);
    }
    for (const auto& bdev : held.controller->bdevs())
      bdevs.publish_foreign(bdev->info().name, *bdev);
    return success();
  }

  // All of the controller's bdevs retire, or none.
  Outcome retire(Held& held) {
    std::vector<BdevRegistry::Entry*> entries;
    for (const std::string& name : held.bdevs) {
      auto found = engine_.bdevs().find(name);
      if (!found) return std::move(found).error();
      if ((*found)->used()) return Error{Errc::busy, "bdev " + name + " is in use by " + (*found)->first_user()};
      entries.push_back(*found);
    }
    for (BdevRegistry::Entry* entry : entries) {
      auto retired = engine_.bdevs().retire(*entry);
      BASALT_ASSERT(retired.ok());
    }
    return success();
  }

  // After retire(): nobody uses its bdevs.
  Task<void> close(std::string name) {
    auto node = controllers_.extract(name);
    auto closing = node.mapped()->controller->close();
    co_await closing;
    for (const std::string& bdev : node.mapped()->bdevs)
      engine_.bdevs().withdraw(bdev);
  }

  Task<RpcResult> detach(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    if (auto error = in.error()) co_return *error;
    const auto found = controllers_.find(name);
    if (found == controllers_.end()) co_return Error{Errc::not_found, "controller " + name + " does not exist"};
    if (found->second->busy) co_return Error{Errc::busy, "controller " + name + " is being changed"};
    auto retired = retire(*found->second);
    if (!retired) co_return std::move(retired).error();
    auto closing = close(name);
    co_await closing;
    co_return done();
  }

  static JsonValue describe(const bdev::NvmfController& controller) {
    auto paths = JsonValue::array();
    for (const auto& path : controller.paths()) {
      const char* ana = "inaccessible";
      if (path->live() && !controller.bdevs().empty()) ana = ana_state_name(controller.bdevs()[0]->ana_state(*path));
      auto one = JsonValue::object();
      one.set("trtype", path->trtype())
          .set("traddr", path->address().traddr)
          .set("trsvcid", path->address().trsvcid)
          .set("state", path_state_name(path->state()))
          .set("ana_state", ana)
          .set("io_count", path->load().sent_count())
          .set("cntlid", path->live() ? uint32_t{path->controller().info().cntlid} : 0u);
      paths.push(std::move(one));
    }
    auto bdevs = JsonValue::array();
    for (const auto& bdev : controller.bdevs()) {
      const bool stays = bdev->policy().selector == bdev::PathSelector::stay;
      auto one = JsonValue::object();
      one.set("name", bdev->info().name).set("policy", stays ? "active_passive" : "active_active");
      if (!stays) one.set("selector", path_selector_name(bdev->policy().selector));
      if (bdev->policy().selector == bdev::PathSelector::round_robin) one.set("rr_min_io", bdev->policy().rr_min_io);
      bdevs.push(std::move(one));
    }
    auto result = JsonValue::object();
    result.set("name", controller.options().name)
        .set("subnqn", controller.options().subnqn)
        .set("hostnqn", controller.options().hostnqn)
        .set("ctrlrs", std::move(paths))
        .set("bdevs", std::move(bdevs));
    return result;
  }

  Task<RpcResult> set_multipath_policy(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    const bool active_active = in.choice("policy", {"active_passive", "active_active"}) == 1;
    constexpr bdev::PathSelector selectors[] = {bdev::PathSelector::round_robin, bdev::PathSelector::queue_depth,
                                                bdev::PathSelector::latency};
    bdev::PathPolicy policy;
    policy.selector = selectors[in.choice_or("selector", 0, {"round_robin", "queue_depth", "latency"})];
    policy.rr_min_io = static_cast<uint32_t>(in.natural_or("rr_min_io", 1, {.min = 1, .max = UINT32_MAX}));
    if (in.has("rr_min_io") && policy.selector != bdev::PathSelector::round_robin) {
      in.refuse("rr_min_io", "goes with the selector round_robin");
    }
    if (!active_active && in.has("selector")) in.refuse("selector", "goes with the policy active_active");
    if (!active_active) policy.selector = bdev::PathSelector::stay;
    if (auto error = in.error()) co_return *error;
    for (const auto& [key, held] : controllers_) {
      for (const auto& bdev : held->controller->bdevs()) {
        if (bdev->info().name != name) continue;
        bdev->set_policy(policy);
        co_return done();
      }
    }
    co_return Error{Errc::not_found, "bdev " + name + " does not exist, or is not of an NVMe-oF controller"};
  }

  // The bdev counts as opened meanwhile, so that its controller stays.
  Task<RpcResult> reservation(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    const HostReservation wanted = read_host_reservation(in);
    if (auto error = in.error()) co_return *error;
    static constexpr const char* user = "basalt_nvme_reservation";
    for (const auto& [key, held] : controllers_) {
      for (const auto& bdev : held->controller->bdevs()) {
        if (bdev->info().name != name) continue;
        auto opened = engine_.bdevs().open(name, user);
        if (!opened) co_return std::move(opened).error();
        auto running = run_host_reservation(*held->controller, *bdev, wanted, stopping_);
        auto result = co_await running;
        engine_.bdevs().release(name, user);
        co_return result;
      }
    }
    co_return Error{Errc::not_found, "bdev " + name + " does not exist, or is not of an NVMe-oF controller"};
  }

  Task<RpcResult> get_controllers(JsonValue params) {
    Fields in(params);
    const std::string name = in.string_or("name", "");
    if (auto error = in.error()) co_return *error;
    if (!name.empty() && !controllers_.contains(name)) {
      co_return Error{Errc::not_found, "controller " + name + " does not exist"};
    }
    auto list = JsonValue::array();
    for (const auto& [key, held] : controllers_) {
      if (name.empty() || key == name) list.push(describe(*held->controller));
    }
    co_return list;
  }

  Engine& engine_;
  bool stopping_ = false;
  std::map<std::string, std::unique_ptr<Held>> controllers_;
};

}  // namespace

std::unique_ptr<Module> make_nvme(Engine& engine) {
  return std::make_unique<Nvme>(engine);
}

}  // namespace basalt::rpc
