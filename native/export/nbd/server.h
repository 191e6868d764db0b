// SPDX-License-Identifier: Apache-2.0
// NBD export of one bdev on one socket: the second way in beside NVMe-oF, for qemu, nbdcopy, fio and others.
//
// Owner: one reactor; the bdev may live on another (Handle). Several connections serve the same bdev, and a flush on
// one covers what any of them completed (NBD_FLAG_CAN_MULTI_CONN).
//
// Limits: requests are whole blocks of the bdev, at most 1 MiB (both are announced); per connection 128 requests and
// 16 MiB of payload in flight, then it is not read from until answers were taken; a handshake has 10 s and a payload
// 30 s to arrive, then the connection is closed. At most connection_count_max connections; one more takes the place of
// the oldest that is still in its handshake, or is closed at once.
#pragma once

#include <memory>
#include <string>

#include "base/gate.h"
#include "base/list.h"
#include "bdev/handle.h"
#include "env/env.h"
#include "export/nbd/protocol.h"

namespace basalt::nbd {

struct ServerOptions {
  env::Address address;     // Unix path, or a loopback address
  std::string export_name;  // also answered to the empty name
};

struct ServerStats {
  uint64_t connection_count = 0;  // now
  uint64_t accepted_count = 0;    // ever
  uint64_t request_count = 0;
};

class Connection;

class Server {
 public:
  static constexpr size_t connection_count_max = 256;

  static Result<std::unique_ptr<Server>> start(Reactor& reactor, bdev::Handle bdev, const ServerOptions& options);
  ~Server();
  // Stops listening, drops the connections and waits for their requests in flight.
  Task<Outcome> stop();

  const env::Address& address() const { return listener_->address(); }
  const ExportInfo& info() const { return info_; }
  ServerStats stats() const;

 private:
  friend class Connection;
  Server(Reactor& reactor, bdev::Handle bdev);
  static void acceptable(Work* work);
  void accept_some();
  bool make_room();
  void remove(Connection* connection);

  struct Acceptor : Work {
    Server* server = nullptr;
  };
  Reactor& reactor_;
  bdev::Handle bdev_;
  ExportInfo info_;
  std::unique_ptr<env::StreamListener> listener_;
  Acceptor acceptor_;
  std::vector<std::unique_ptr<Connection>> connections_;
  ServerStats stats_;
  Gate gate_;  // connections
};

}  // namespace basalt::nbd
