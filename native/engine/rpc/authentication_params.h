// SPDX-License-Identifier: Apache-2.0
// What methods read about authentication and TLS: names of keys, and what may be used.
#pragma once

#include <string>

#include "engine/keyring.h"
#include "engine/rpc/fields.h"
#include "nvmf/auth/exchange.h"
#include "nvmf/auth/tls_key.h"

namespace basalt::rpc {

// dhchap_key, dhchap_ctrlr_key and psk; empty where absent.
struct KeyNames {
  std::string host;
  std::string controller;
  std::string tls;
};
KeyNames read_key_names(Fields& in);

// dhchap_digests and dhchap_dhgroups; what is absent stays.
void read_policy(Fields& in, nvmf::auth::Policy* policy);

// The secret of a named key, of field `field` (TLS: `psk`); nullptr for no name.
Result<nvmf::auth::SharedSecret> find_secret(const Keyring& keyring, const char* field, const std::string& name);
Result<nvmf::auth::SharedTlsKey> find_tls_key(const Keyring& keyring, const std::string& name);

}  // namespace basalt::rpc
