// SPDX-License-Identifier: Apache-2.0
// Discovery: what a target tells hosts of itself and of others.
//
// Anybody may connect to the discovery subsystem: nodes do, to see whether this one lives. What counts is what its log
// shows, which is decided each time that it is read.
// Thread: the target's home reactor.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "nvmf/target/transport.h"

namespace basalt::nvmf {

enum class DiscoveryAccess : uint8_t {
  open,           // to each host what it may use, by its name
  authenticated,  // who has keys proves them first
  off,            // nothing, to nobody
};

// Discovery services of others, which this one names to the hosts that it knows.
class Referrals {
 public:
  static constexpr size_t count_max = 256;

  Outcome add(const ListenAddress& address);
  Outcome remove(const ListenAddress& address);
  const std::vector<ListenAddress>& all() const { return all_; }

 private:
  std::vector<ListenAddress> all_;
};

}  // namespace basalt::nvmf
