// SPDX-License-Identifier: Apache-2.0
// TargetTransport: what the target asks of a transport - to listen, and to stop. One per transport type.
// Thread: called on the target's home reactor.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "base/result.h"
#include "base/task.h"

namespace basalt::nvmf {

struct ListenAddress {
  std::string trtype = "TCP";  // "TCP", "RDMA", "LOOPBACK"
  std::string traddr;
  std::string trsvcid;          // decimal port; "0": any free one
  bool secure_channel = false;  // TLS only
  // One place has one kind of channel.
  bool operator==(const ListenAddress& other) const {
    return trtype == other.trtype && traddr == other.traddr && trsvcid == other.trsvcid;
  }
};

// Where connections come in; shared by the subsystems that listen there. Owned by the target; its transport holds on to
// it between listen() and the end of unlisten().
class Listener {
 public:
  ListenAddress address;
  uint16_t portid = 0;
  size_t user_count = 0;  // subsystems
};

class TargetTransport {
 public:
  virtual ~TargetTransport() = default;
  virtual const char* trtype() const = 0;
  // Sets listener->address.trsvcid to the bound port.
  virtual Task<Outcome> listen(Listener* listener) = 0;
  // Accepts nothing any more, closes the connections that came in there and waits until all have drained.
  virtual Task<void> unlisten(Listener* listener) = 0;
};

}  // namespace basalt::nvmf
