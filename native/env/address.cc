// SPDX-License-Identifier: Apache-2.0
#include "env/env.h"

namespace basalt::env {

std::string Address::to_string() const {
  if (family == Family::unix_path) return "unix:" + host;
  return (host.find(':') != std::string::npos ? "[" + host + "]" : host) + ":" + std::to_string(port);
}

bool Address::is_loopback() const {
  return family == Family::unix_path || host.starts_with("127.") || host == "::1";
}

}  // namespace basalt::env
