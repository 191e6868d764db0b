// SPDX-License-Identifier: Apache-2.0
// What methods read about in-band authentication: names of keys, and what may be used.
#pragma once

#include <string>

#include "engine/keyring.h"
#include "engine/rpc/fields.h"
#include "nvmf/auth/exchange.h"

namespace basalt::rpc {

// dhchap_key and dhchap_ctrlr_key; empty where absent.
struct KeyNames {
  std::string host;
  std::string controller;
};
KeyNames read_key_names(Fields& in);

// dhchap_digests and dhchap_dhgroups; what is absent stays.
void read_policy(Fields& in, nvmf::auth::Policy* policy);

// The secret of a named key, of field `field`; nullptr for no name.
Result<nvmf::auth::SharedSecret> find_secret(const Keyring& keyring, const char* field, const std::string& name);

}  // namespace basalt::rpc
