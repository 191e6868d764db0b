// SPDX-License-Identifier: Apache-2.0
// HostAuthentication: what a host authenticates its queues with, and the key of its connections.
#pragma once

#include "nvmf/auth/exchange.h"
#include "nvmf/auth/tls_key.h"

namespace basalt::nvmf {

struct HostAuthentication {
  auth::SharedSecret host;  // nullptr: the host cannot authenticate
  auth::SharedSecret
      controller;  // not nullptr: the controller must prove itself, whether it asks for authentication or not
  auth::Policy policy;
  auth::SharedTlsKey tls;  // not nullptr: every queue's connection is by TLS
};

}  // namespace basalt::nvmf
