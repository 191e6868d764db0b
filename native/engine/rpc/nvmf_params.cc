// SPDX-License-Identifier: Apache-2.0
#include "engine/rpc/nvmf_params.h"

#include <algorithm>
#include <charconv>

#include "env/env.h"
#include "nvmf/target/target.h"

namespace basalt::rpc {
namespace {

const char* family_of(const std::string& traddr) {
  return traddr.find(':') == std::string::npos ? "IPv4" : "IPv6";
}

}  // namespace

std::string read_nqn(Fields& in, std::string_view name) {
  std::string nqn = in.string(name);
  if (!nvmf::valid_nqn(nqn)) in.refuse(name, "must be an NQN: \"nqn.\" and more, at most 223 printable bytes");
  return nqn;
}

std::string read_port(Fields& in, std::string_view name, uint64_t min) {
  std::string text = in.string(name);
  uint64_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size() || port < min || port > 65535) {
    in.refuse(name, "must be a port from " + std::to_string(min) + " to 65535 as a string");
    return {};
  }
  return std::to_string(port);
}

nvmf::ListenAddress read_listen_address(Fields& in, std::string_view field) {
  Fields nested(in.object(field), in.path_of(field));
  nvmf::ListenAddress address;
  constexpr const char* types[] = {"TCP", "LOOPBACK", "TCP", "RDMA", "RDMA"};
  address.trtype = types[nested.choice("trtype", {"TCP", "LOOPBACK", "tcp", "RDMA", "rdma"})];
  nested.choice_or("adrfam", 0, {"IPv4", "IPv6", "ipv4", "ipv6"});
  address.traddr = nested.string("traddr");
  if (address.trtype == "LOOPBACK") {
    address.trsvcid = nested.string_or("trsvcid", "0");
  } else {
    address.trsvcid = read_port(nested, "trsvcid", 0);
  }
  in.adopt(nested);
  return address;
}

nvme::AnaState read_ana_state(Fields& in) {
  constexpr nvme::AnaState states[] = {nvme::AnaState::optimized, nvme::AnaState::non_optimized,
                                       nvme::AnaState::inaccessible, nvme::AnaState::change};
  return states[in.choice("ana_state", {"optimized", "non_optimized", "inaccessible", "change"})];
}

Uuid read_nguid(Fields& in) {
  std::string text = in.string_or("nguid", "");
  if (text.empty()) return {};
  std::erase(text, '-');
  if (text.size() == 32) {
    for (size_t at : {20, 16, 12, 8})
      text.insert(at, "-");
  }
  const auto parsed = Uuid::parse(text);
  if (!parsed) in.refuse("nguid", "must be 32 hexadecimal digits");
  return parsed.value_or(Uuid{});
}

const char* ana_state_name(nvme::AnaState state) {
  switch (state) {
    case nvme::AnaState::optimized:
      return "optimized";
    case nvme::AnaState::non_optimized:
      return "non_optimized";
    case nvme::AnaState::inaccessible:
      return "inaccessible";
    case nvme::AnaState::persistent_loss:
      return "persistent_loss";
    case nvme::AnaState::change:
      return "change";
  }
  return "unknown";
}

JsonValue describe_address(const nvmf::ListenAddress& address) {
  return JsonValue::object()
      .set("trtype", address.trtype)
      .set("adrfam", family_of(address.traddr))
      .set("traddr", address.traddr)
      .set("trsvcid", address.trsvcid);
}

JsonValue describe_subsystem(const nvmf::Subsystem& subsystem) {
  const nvmf::SubsystemInfo info = subsystem.info();
  auto addresses = JsonValue::array();
  for (const auto& path : subsystem.paths()) {
    const nvmf::ListenAddress& at = path->listener.address;
    auto one = describe_address(at);
    one.set("ana_state", ana_state_name(path->state(1)));
    if (at.secure_channel) one.set("secure_channel", true);
    addresses.push(std::move(one));
  }
  auto hosts = JsonValue::array();
  for (const nvmf::HostInfo& host : info.hosts) {
    auto one = JsonValue::object();
    one.set("nqn", host.nqn);
    // Names of keys; the keys themselves are not shown by anything.
    if (!host.keys.host_name.empty()) one.set("dhchap_key", host.keys.host_name);
    if (!host.keys.controller_name.empty()) one.set("dhchap_ctrlr_key", host.keys.controller_name);
    if (!host.keys.tls_name.empty()) one.set("psk", host.keys.tls_name);
    hosts.push(std::move(one));
  }
  auto namespaces = JsonValue::array();
  for (const nvmf::NamespaceInfo& each : info.namespaces) {
    auto one = JsonValue::object();
    one.set("nsid", each.nsid)
        .set("bdev_name", each.bdev_name)
        .set("nguid", each.nguid.to_string())
        .set("uuid", each.uuid.to_string())
        .set("anagrpid", each.ana_group)
        .set("one_writer", each.one_writer);
    namespaces.push(std::move(one));
  }
  auto result = JsonValue::object();
  result.set("nqn", info.options.nqn)
      .set("subtype", info.options.discovery ? "Discovery" : "NVMe")
      .set("listen_addresses", std::move(addresses))
      .set("allow_any_host", info.options.allow_any_host)
      .set("hosts", std::move(hosts))
      .set("serial_number", info.options.serial_number)
      .set("model_number", info.options.model_number)
      .set("min_cntlid", uint32_t{info.options.cntlid_min})
      .set("max_cntlid", uint32_t{info.options.cntlid_max})
      .set("namespaces", std::move(namespaces));
  return result;
}

JsonValue describe_tcp(const nvmf::TcpTargetTransport& transport, const nvmf::Target& target) {
  using nvmf::TlsRefusal;
  const nvmf::TlsRefusals& refusals = target.tls_refusals();
  auto refused = JsonValue::object();
  for (const TlsRefusal why : {TlsRefusal::plaintext, TlsRefusal::key, TlsRefusal::handshake, TlsRefusal::timeout})
    refused.set(nvmf::to_string(why), refusals.count(why));
  auto peers = JsonValue::array();
  for (const nvmf::TlsRefusals::Peer& peer : refusals.peers()) {
    peers.push(JsonValue::object()
                   .set("traddr", peer.traddr)
                   .set("reason", nvmf::to_string(peer.first))
                   .set("count", peer.count));
  }
  auto tls = JsonValue::object();
  tls.set("established", transport.tls_established_count())
      .set("refused", std::move(refused))
      .set("refused_peers", std::move(peers));
  return JsonValue::object()
      .set("trtype", transport.trtype())
      .set("connections", uint64_t{transport.connection_count()})
      .set("half_open", uint64_t{transport.half_open_count()})
      .set("tls", std::move(tls));
}

JsonValue describe_rdma(const nvmf::RdmaTargetTransport& transport) {
  const nvmf::RdmaTargetStats& stats = transport.stats();
  auto rdma = JsonValue::object();
  rdma.set("rejected", stats.rejected_count.load())
      .set("broken", stats.wire_error_count.load())
      .set("in_place_bytes", stats.in_place_bytes.load())
      .set("copied_bytes", stats.copied_bytes.load())
      .set("refused_writes", stats.refused_count.load())
      .set("last_lack", stats.last_lack());
  return JsonValue::object()
      .set("trtype", transport.trtype())
      .set("connections", uint64_t{transport.connection_count()})
      .set("half_open", uint64_t{transport.half_open_count()})
      .set("rdma", std::move(rdma));
}

}  // namespace basalt::rpc
