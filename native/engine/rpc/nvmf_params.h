// SPDX-License-Identifier: Apache-2.0
// What the nvmf_* methods read and show.
#pragma once

#include <string>

#include "engine/rpc/fields.h"
#include "nvme/spec.h"
#include "nvmf/target/subsystem.h"
#include "nvmf/transport/rdma/rdma_target.h"
#include "nvmf/transport/tcp/tcp_target.h"

namespace basalt::rpc {

std::string read_nqn(Fields& in, std::string_view name);
// Which addresses may be listened on, the transport knows.
nvmf::ListenAddress read_listen_address(Fields& in, std::string_view field = "listen_address");
nvme::AnaState read_ana_state(Fields& in);
Uuid read_nguid(Fields& in);  // 32 hexadecimal digits, with hyphens or without; zero when absent
// A decimal port 1..65535, of a peer.
std::string read_port(Fields& in, std::string_view name, uint64_t min = 1);

const char* ana_state_name(nvme::AnaState state);
JsonValue describe_address(const nvmf::ListenAddress& address);
JsonValue describe_subsystem(const nvmf::Subsystem& subsystem);
JsonValue describe_tcp(const nvmf::TcpTargetTransport& transport, const nvmf::Target& target);
JsonValue describe_rdma(const nvmf::RdmaTargetTransport& transport);

}  // namespace basalt::rpc
