// SPDX-License-Identifier: Apache-2.0
// TlsKeys: which hosts may open connections with TLS, and by which key. A key of (host, subsystem) opens that subsystem
// and, as the same host, the discovery subsystem: both identities are listed.
// Thread: any; connections ask on their own reactors while the management changes the list. Not on the path of I/O.
#pragma once

#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>

#include "nvmf/auth/tls_key.h"

namespace basalt::nvmf {

// What a handshake has proven, once it has ended well.
struct TlsGrant {
  crypto::SharedTlsPsk psk;
  std::string hostnqn;
  std::string subnqn;
};

class TlsKeys {
 public:
  // In place of the key that the host had for the subsystem; nullptr: none any more.
  void set(const std::string& hostnqn, const std::string& subnqn, const auth::SharedTlsKey& key);
  void remove_subsystem(const std::string& subnqn);
  // False: nobody has such a key.
  bool find(std::string_view identity, TlsGrant* out) const;
  size_t count() const;

 private:
  // By identity; two subsystems may have one host's key.
  using Grants = std::multimap<std::string, TlsGrant, std::less<>>;
  struct Entry {
    Grants::iterator own;
    Grants::iterator discovery;
  };
  using Entries = std::map<std::pair<std::string, std::string>, Entry>;  // by subsystem and host

  Entries::iterator remove(Entries::iterator entry);
  Grants::iterator grant(const std::string& hostnqn, const std::string& subnqn, const auth::TlsKey& key);

  mutable std::mutex mutex_;
  Grants grants_;
  Entries entries_;
};

}  // namespace basalt::nvmf
