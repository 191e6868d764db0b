// SPDX-License-Identifier: Apache-2.0
// TcpConnection::TlsEnd: what a connection to a TLS port has beside its socket while the handshake goes on.
#pragma once

#include "nvmf/transport/tcp/tcp_target_connection.h"

namespace basalt::nvmf {

struct TcpConnection::TlsEnd final : crypto::TlsPskFinder {
  explicit TlsEnd(const TlsKeys& known) : keys(known) {}
  crypto::SharedTlsPsk find(std::string_view identity) override {
    return keys.find(identity, &grant) ? grant.psk : nullptr;
  }
  const TlsKeys& keys;
  TlsGrant grant;
  TlsSocket* socket = nullptr;  // the connection's
};

}  // namespace basalt::nvmf
