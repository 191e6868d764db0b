// SPDX-License-Identifier: Apache-2.0
// nvmf_*: the target's subsystems, namespaces, listeners and hosts.
#include "engine/fabric.h"
#include "engine/rpc/authentication_params.h"
#include "engine/rpc/fields.h"
#include "engine/rpc/modules.h"
#include "engine/rpc/nvmf_params.h"
#include "engine/rpc/reservation_params.h"

namespace basalt::rpc {
namespace {

std::string namespace_user(const std::string& nqn, const std::string& bdev) {
  return "the namespace of " + bdev + " in " + nqn;
}

class Nvmf final : public Module {
 public:
  explicit Nvmf(Engine& engine) : engine_(engine) {}

  void register_methods(Dispatcher& dispatcher) override {
    dispatcher.add("nvmf_create_transport", this, &Nvmf::create_transport);
    dispatcher.add("nvmf_get_transports", this, &Nvmf::get_transports);
    dispatcher.add("nvmf_create_subsystem", this, &Nvmf::create_subsystem);
    dispatcher.add("nvmf_delete_subsystem", this, &Nvmf::delete_subsystem);
    dispatcher.add("nvmf_subsystem_add_ns", this, &Nvmf::add_ns);
    dispatcher.add("nvmf_subsystem_remove_ns", this, &Nvmf::remove_ns);
    dispatcher.add("nvmf_subsystem_add_listener", this, &Nvmf::add_listener);
    dispatcher.add("nvmf_subsystem_remove_listener", this, &Nvmf::remove_listener);
    dispatcher.add("nvmf_subsystem_listener_set_ana_state", this, &Nvmf::set_ana_state);
    dispatcher.add("nvmf_subsystem_add_host", this, &Nvmf::add_host);
    dispatcher.add("nvmf_subsystem_set_keys", this, &Nvmf::set_keys);
    dispatcher.add("nvmf_set_config", this, &Nvmf::set_config);
    dispatcher.add("nvmf_subsystem_remove_host", this, &Nvmf::remove_host);
    dispatcher.add("nvmf_subsystem_allow_any_host", this, &Nvmf::allow_any_host);
    dispatcher.add("nvmf_get_subsystems", this, &Nvmf::get_subsystems);
    dispatcher.add("nvmf_subsystem_get_controllers", this, &Nvmf::get_controllers);
  }

  Task<bool> stop_some() override {
    if (closed_) co_return false;
    closed_ = true;
    auto closing = target().close();
    co_await closing;
    for (const auto& [key, used] : used_)
      engine_.bdevs().release(used.bdev, used.user);
    used_.clear();
    co_return true;
  }

 private:
  struct Used {
    std::string bdev;
    std::string user;
  };

  nvmf::Target& target() { return engine_.fabric().target(); }

  Result<nvmf::Subsystem*> find(const std::string& nqn) {
    nvmf::Subsystem* subsystem = target().find_subsystem(nqn);
    if (subsystem == nullptr) return Error{Errc::not_found, "subsystem " + nqn + " does not exist"};
    return subsystem;
  }

  Task<RpcResult> create_transport(JsonValue params) {
    Fields in(params);
    const bool rdma = in.choice("trtype", {"TCP", "tcp", "RDMA", "rdma"}) >= 2;
    // Queue counts and depths are the target's own limits; what is asked for may only be within them.
    in.natural_or("max_io_qpairs_per_ctrlr", 1, {.min = 1, .max = 65535});
    in.natural_or("max_queue_depth", 128, {.min = 16, .max = 65535});
    const auto in_capsule_bytes =
        static_cast<uint32_t>(in.natural_or("in_capsule_data_size", 8192, {.min = 4096, .max = 65536}));
    if (in_capsule_bytes % 16 != 0) in.refuse("in_capsule_data_size", "must be a multiple of 16");
    const bool trusted_network = in.boolean_or("trusted_network", false);
    if (auto error = in.error()) co_return *error;
    if (rdma) {
      nvmf::RdmaTargetOptions options;
      options.trusted_network = trusted_network;
      options.connection.in_capsule_bytes = in_capsule_bytes;
      auto created = engine_.fabric().create_rdma(options);
      if (!created) co_return std::move(created).error();
      co_return done();
    }
    nvmf::TcpTargetOptions options;
    options.trusted_network = trusted_network;
    options.connection.in_capsule_bytes = in_capsule_bytes;
    auto created = engine_.fabric().create_tcp(options);
    if (!created) co_return std::move(created).error();
    target().on_tls_refused = [this](const std::string& traddr, nvmf::TlsRefusal refusal) {
      engine_.events().emit("nvmf_tls_refused",
                            JsonValue::object().set("traddr", traddr).set("reason", nvmf::to_string(refusal)));
    };
    co_return done();
  }

  Task<RpcResult> get_transports(JsonValue params) {
    Fields in(params);
    const bool all = !in.has("trtype");
    const size_t one = in.choice_or("trtype", 0, {"TCP", "RDMA", "LOOPBACK"});
    if (auto error = in.error()) co_return *error;
    auto list = JsonValue::array();
    const Fabric& fabric = engine_.fabric();
    if ((all || one == 0) && fabric.has_tcp()) list.push(describe_tcp(*fabric.tcp_target(), target()));
    if ((all || one == 1) && fabric.rdma_target() != nullptr) list.push(describe_rdma(*fabric.rdma_target()));
    co_return list;
  }

  Task<RpcResult> create_subsystem(JsonValue params) {
    Fields in(params);
    nvmf::SubsystemOptions options;
    options.nqn = read_nqn(in, "nqn");
    options.serial_number = in.string_or("serial_number", "00000000000000000000");
    options.model_number = in.string_or("model_number", "Basalt");
    options.allow_any_host = in.boolean_or("allow_any_host", false);
    options.cntlid_min = static_cast<uint16_t>(in.natural_or("min_cntlid", 1, {.min = 1, .max = 0xffef}));
    options.cntlid_max = static_cast<uint16_t>(in.natural_or("max_cntlid", 0xffef, {.min = 1, .max = 0xffef}));
    options.ana_reporting = in.boolean_or("ana_reporting", true);
    options.namespaces_max = static_cast<uint32_t>(in.natural_or("max_namespaces", 32, {.min = 1, .max = 1024}));
    options.internal = in.boolean_or("internal", false);
    options.one_active = in.boolean_or("one_active", false);
    options.node_link = in.boolean_or("node_link", false);
    options.compare_write = in.boolean_or("compare_write", true);
    if (options.serial_number.size() > 20) in.refuse("serial_number", "must be at most 20 bytes");
    if (options.model_number.size() > 40) in.refuse("model_number", "must be at most 40 bytes");
    if (options.cntlid_min > options.cntlid_max) in.refuse("min_cntlid", "must not be above max_cntlid");
    if (auto error = in.error()) co_return *error;
    auto created = target().create_subsystem(options);
    if (!created) co_return std::move(created).error();
    co_return done();
  }

  Task<RpcResult> delete_subsystem(JsonValue params) {
    Fields in(params);
    const std::string nqn = read_nqn(in, "nqn");
    if (auto error = in.error()) co_return *error;
    auto deleting = target().delete_subsystem(nqn);
    auto deleted = co_await deleting;
    if (!deleted) co_return std::move(deleted).error();
    for (auto used = used_.begin(); used != used_.end();) {
      if (used->first.first != nqn) {
        ++used;
        continue;
      }
      engine_.bdevs().release(used->second.bdev, used->second.user);
      used = used_.erase(used);
    }
    co_return done();
  }

  Task<RpcResult> add_ns(JsonValue params) {
    Fields in(params);
    const std::string nqn = read_nqn(in, "nqn");
    Fields nested(in.object("namespace"), in.path_of("namespace"));
    const std::string bdev_name = nested.string("bdev_name");
    ns::NamespaceOptions options;
    options.nsid = static_cast<uint32_t>(nested.natural_or("nsid", 0, {.min = 1, .max = 1024}));
    options.uuid = nested.uuid("uuid").value_or(Uuid{});
    options.nguid = read_nguid(nested);
    options.ana_group = static_cast<uint32_t>(nested.natural_or("anagrpid", 0, {.min = 1, .max = 1024}));
    options.one_writer = nested.boolean_or("one_writer", false);
    if (nested.has("gate_epoch")) {
      options.gate_epoch = nested.epoch("gate_epoch");
      if (!options.one_writer) nested.refuse("gate_epoch", "goes with one_writer only");
    }
    options.reservations = nested.boolean_or("reservations", true);
    if (options.one_writer && !options.reservations)
      nested.refuse("reservations", "must be true: one_writer rests on them");
    if (nested.boolean_or("shared_reservations", false)) {
      if (options.one_writer || !options.reservations)
        nested.refuse("shared_reservations", "does not go with one_writer, nor without reservations");
      options.keeper = make_event_keeper(engine_.events(), nqn);
      options.reservation_timeout = milliseconds(
          static_cast<int64_t>(nested.natural_or("reservation_timeout_ms", 10'000, {.min = 1, .max = 600'000})));
    }
    const auto& planted = engine_.config().planted;
    options.planted_no_gate =
        (planted.no_gate && options.one_writer) || (planted.no_export_gate && options.gate_epoch != 0);
    options.planted_forget_epoch = planted.forget_epoch && options.one_writer;
    in.adopt(nested);
    if (auto error = in.error()) co_return *error;
    auto subsystem = find(nqn);
    if (!subsystem) co_return std::move(subsystem).error();

    // Behind the bdev's own gate nothing else may write: it is claimed. Otherwise exports share it.
    const std::string user = namespace_user(nqn, bdev_name);
    BdevRegistry& bdevs = engine_.bdevs();
    const bool alone = options.one_writer && options.gate_epoch == 0;
    auto bdev = alone ? bdevs.claim(bdev_name, user) : bdevs.open(bdev_name, user);
    if (!bdev) co_return std::move(bdev).error();
    if (options.keeper != nullptr && &(*bdev)->home() != &engine_.management()) {
      bdevs.release(bdev_name, user);
      co_return Error{Errc::unsupported, bdev_name + ": shared_reservations needs a bdev of the first reactor"};
    }
    auto adding = (*subsystem)->add_namespace(options, *bdev);
    auto added = co_await adding;
    if (!added) {
      bdevs.release(bdev_name, user);
      co_return std::move(added).error();
    }
    used_[{nqn, *added}] = {bdev_name, user};
    co_return JsonValue(*added);
  }

  Task<RpcResult> remove_ns(JsonValue params) {
    Fields in(params);
    const std::string nqn = read_nqn(in, "nqn");
    const auto nsid = static_cast<uint32_t>(in.natural("nsid", {.min = 1, .max = 1024}));
    if (auto error = in.error()) co_return *error;
    auto subsystem = find(nqn);
    if (!subsystem) co_return std::move(subsystem).error();
    auto removing = (*subsystem)->remove_namespace(nsid);
    auto removed = co_await removing;
    if (!removed) co_return std::move(removed).error();
    if (const auto used = used_.find({nqn, nsid}); used != used_.end()) {
      engine_.bdevs().release(used->second.bdev, used->second.user);
      used_.erase(used);
    }
    co_return done();
  }

  Task<RpcResult> add_listener(JsonValue params) {
    Fields in(params);
    const std::string nqn = read_nqn(in, "nqn");
    const bool secure = in.boolean_or("secure_channel", false);
    nvmf::ListenAddress address = read_listen_address(in);
    address.secure_channel = secure;
    if (secure && address.trtype != "TCP") in.refuse("secure_channel", "goes with TCP only");
    if (auto error = in.error()) co_return *error;
    auto subsystem = find(nqn);
    if (!subsystem) co_return std::move(subsystem).error();
    if (address.trtype == "TCP" && !engine_.fabric().has_tcp()) {
      co_return Error{Errc::invalid_argument, "no TCP transport: call nvmf_create_transport first"};
    }
    if (address.trtype == "RDMA" && engine_.fabric().rdma_target() == nullptr) {
      co_return Error{Errc::invalid_argument, "no RDMA transport: call nvmf_create_transport first"};
    }
    auto adding = (*subsystem)->add_listener(std::move(address));
    auto added = co_await adding;
    if (!added) co_return std::move(added).error();
    auto result = JsonValue::object();
    result.set("trtype", added->trtype).set("traddr", added->traddr).set("trsvcid", added->trsvcid);
    co_return result;
  }

  Task<RpcResult> remove_listener(JsonValue params) {
    Fields in(params);
    const std::string nqn = read_nqn(in, "nqn");
    nvmf::ListenAddress address = read_listen_address(in);
    if (auto error = in.error()) co_return *error;
    auto subsystem = find(nqn);
    if (!subsystem) co_return std::move(subsystem).error();
    auto removing = (*subsystem)->remove_listener(std::move(address));
    auto removed = co_await removing;
    if (!removed) co_return std::move(removed).error();
    co_return done();
  }

  Task<RpcResult> set_ana_state(JsonValue params) {
    Fields in(params);
    const std::string nqn = read_nqn(in, "nqn");
    nvmf::ListenAddress address = read_listen_address(in);
    const nvme::AnaState state = read_ana_state(in);
    const auto group = static_cast<uint32_t>(in.natural_or("anagrpid", 0, {.min = 1, .max = 1024}));
    if (auto error = in.error()) co_return *error;
    auto subsystem = find(nqn);
    if (!subsystem) co_return std::move(subsystem).error();
    auto setting = (*subsystem)->set_ana_state(std::move(address), group, state);
    auto set = co_await setting;
    if (!set) co_return std::move(set).error();
    co_return done();
  }

  Task<RpcResult> add_host(JsonValue params) {
    Fields in(params);
    const std::string nqn = read_nqn(in, "nqn");
    std::string host = read_nqn(in, "host");
    const KeyNames names = read_key_names(in);
    if (auto error = in.error()) co_return *error;
    auto subsystem = find(nqn);
    if (!subsystem) co_return std::move(subsystem).error();
    auto keys = host_keys(names);
    if (!keys) co_return std::move(keys).error();
    auto added = (*subsystem)->add_host(std::move(host), std::move(keys).value());
    if (!added) co_return std::move(added).error();
    co_return done();
  }

  Task<RpcResult> set_keys(JsonValue params) {
    Fields in(params);
    const std::string nqn = read_nqn(in, "nqn");
    const std::string host = read_nqn(in, "host");
    const KeyNames names = read_key_names(in);
    if (auto error = in.error()) co_return *error;
    auto subsystem = find(nqn);
    if (!subsystem) co_return std::move(subsystem).error();
    auto keys = host_keys(names);
    if (!keys) co_return std::move(keys).error();
    keys->keep_unnamed((*subsystem)->keys_of(host));
    auto set = (*subsystem)->set_host_keys(host, std::move(keys).value());
    if (!set) co_return std::move(set).error();
    co_return done();
  }

  Result<nvmf::HostKeys> host_keys(const KeyNames& names) {
    nvmf::HostKeys keys{nullptr, nullptr, names.host, names.controller, nullptr, names.tls};
    auto host = find_secret(engine_.keyring(), "dhchap_key", names.host);
    if (!host) return std::move(host).error();
    auto controller = find_secret(engine_.keyring(), "dhchap_ctrlr_key", names.controller);
    if (!controller) return std::move(controller).error();
    keys.host = *host;
    keys.controller = *controller;
    auto tls = find_tls_key(engine_.keyring(), names.tls);
    if (!tls) return std::move(tls).error();
    keys.tls = *tls;
    return keys;
  }

  Task<RpcResult> set_config(JsonValue params) {
    Fields in(params);
    nvmf::auth::Policy policy = target().authentication_policy();
    read_policy(in, &policy);
    constexpr nvmf::DiscoveryAccess kinds[] = {nvmf::DiscoveryAccess::open, nvmf::DiscoveryAccess::authenticated,
                                               nvmf::DiscoveryAccess::off};
    const bool has_access = in.has("discovery_access");
    const nvmf::DiscoveryAccess access = kinds[in.choice_or("discovery_access", 0, {"open", "authenticated", "off"})];
    if (auto error = in.error()) co_return *error;
    target().set_authentication_policy(std::move(policy));
    if (has_access) target().set_discovery_access(access);
    co_return done();
  }

  Task<RpcResult> remove_host(JsonValue params) {
    Fields in(params);
    const std::string nqn = read_nqn(in, "nqn");
    std::string host = read_nqn(in, "host");
    if (auto error = in.error()) co_return *error;
    auto subsystem = find(nqn);
    if (!subsystem) co_return std::move(subsystem).error();
    auto removing = (*subsystem)->remove_host(std::move(host));
    auto removed = co_await removing;
    if (!removed) co_return std::move(removed).error();
    co_return done();
  }

  Task<RpcResult> allow_any_host(JsonValue params) {
    Fields in(params);
    const std::string nqn = read_nqn(in, "nqn");
    const bool allow = in.boolean("allow_any_host");
    if (auto error = in.error()) co_return *error;
    auto subsystem = find(nqn);
    if (!subsystem) co_return std::move(subsystem).error();
    auto allowing = (*subsystem)->set_allow_any_host(allow);
    auto allowed = co_await allowing;
    if (!allowed) co_return std::move(allowed).error();
    co_return done();
  }

  Task<RpcResult> get_subsystems(JsonValue params) {
    Fields in(params);
    const bool one = in.has("nqn");
    const std::string nqn = one ? read_nqn(in, "nqn") : std::string();
    if (auto error = in.error()) co_return *error;
    auto list = JsonValue::array();
    if (one) {
      auto subsystem = find(nqn);
      if (!subsystem) co_return std::move(subsystem).error();
      list.push(describe_subsystem(**subsystem));
      co_return list;
    }
    list.push(describe_subsystem(target().discovery()));
    for (const auto& subsystem : target().all_subsystems())
      list.push(describe_subsystem(*subsystem));
    co_return list;
  }

  Task<RpcResult> get_controllers(JsonValue params) {
    Fields in(params);
    const std::string nqn = read_nqn(in, "nqn");
    if (auto error = in.error()) co_return *error;
    auto subsystem = find(nqn);
    if (!subsystem) co_return std::move(subsystem).error();
    auto list = JsonValue::array();
    for (const nvmf::ControllerInfo& info : (*subsystem)->controllers()) {
      auto one = JsonValue::object();
      one.set("cntlid", uint32_t{info.cntlid})
          .set("hostnqn", info.hostnqn)
          .set("hostid", info.hostid.to_string())
          .set("num_io_qpairs", uint64_t{info.io_queue_count});
      list.push(std::move(one));
    }
    co_return list;
  }

  Engine& engine_;
  bool closed_ = false;
  std::map<std::pair<std::string, uint32_t>, Used> used_;  // by subsystem and nsid
};

}  // namespace

std::unique_ptr<Module> make_nvmf(Engine& engine) {
  return std::make_unique<Nvmf>(engine);
}

}  // namespace basalt::rpc
