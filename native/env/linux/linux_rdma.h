// SPDX-License-Identifier: Apache-2.0
// LinuxRdma: the machine's RDMA adapters as one poller uses them, by libibverbs and librdmacm. Both are loaded when an
// adapter is there and not before, so that a program that was built with their headers starts without them.
//
//   verbs_library.h (the libraries)   verbs_rdma.h (the door)   verbs_listener.h   verbs_connection.h
//   verbs_device.h (an adapter)       verbs_completions.h (its completion queues)
//
// Thread: the poller's.
#pragma once

#include <memory>

#include "env/linux/socket.h"
#include "env/rdma.h"

namespace basalt::env {

class LinuxRdma : public Rdma {
 public:
  virtual size_t poll() = 0;         // runs completions; returns how many
  virtual bool prepare_sleep() = 0;  // false: completions wait already, do not sleep
};

// Where there is none: says why, whatever is asked.
class NoRdma final : public Rdma {
 public:
  NoRdma() = default;
  explicit NoRdma(Error why) : why_(std::move(why)) {}
  Outcome available() const override { return why_; }
  Result<std::unique_ptr<RdmaListener>> listen(const Address&) override { return why_; }
  Result<std::unique_ptr<RdmaConnection>> connect(const Address&) override { return why_; }
  std::unique_ptr<RdmaConnection> adopt(std::unique_ptr<RdmaPending>) override { return nullptr; }

 private:
  Error why_{Errc::unsupported, "there is no RDMA"};
};

// `unsupported`, with what is missing: an adapter, the libraries, or the headers when this was built.
Result<std::unique_ptr<LinuxRdma>> open_linux_rdma(SocketPoller& poller);

}  // namespace basalt::env
