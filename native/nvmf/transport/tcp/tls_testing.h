// SPDX-License-Identifier: Apache-2.0
// Keys for the tests of TLS, and a raw host that speaks it.
#pragma once

#include <memory>

#include "nvmf/auth/tls_key.h"
#include "nvmf/transport/tcp/raw_host_testing.h"
#include "nvmf/transport/tcp/tls_socket.h"

namespace basalt::nvmf::testing {

inline constexpr char tls_text_256[] = "NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:";
inline constexpr char tls_text_384[] =
    "NVMeTLSkey-1:02:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwP/w0S89ELi3W2LxIcLXVsDn8kXZQ==:";
inline constexpr char tls_text_other[] = "NVMeTLSkey-1:00:FzPFn6f0j8839fJvxP8CaK1PeOAw9POwv9HUfnuxRHre+Y7v:";

inline auth::SharedTlsKey tls_key_of(const char* text) {
  auto key = auth::TlsKey::parse(text);
  BASALT_ASSERT(key.ok());
  return std::make_shared<const auth::TlsKey>(std::move(key).value());
}

// What a client's sockets need.
struct TlsClient {
  TlsClient() : context(crypto::TlsContext::make(crypto::TlsContext::Role::client).value()) {}
  std::unique_ptr<env::StreamSocket> wrap(Reactor& reactor, std::unique_ptr<env::StreamSocket> socket,
                                          crypto::SharedTlsPsk psk) {
    return std::make_unique<TlsSocket>(reactor, std::move(socket), scratch, *context, std::move(psk));
  }
  std::unique_ptr<crypto::TlsContext> context;
  TlsScratch scratch;
};

}  // namespace basalt::nvmf::testing
