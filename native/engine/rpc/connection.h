// SPDX-License-Identifier: Apache-2.0
// Connection: one client of the JSON-RPC socket. Requests run as they arrive and are answered as they end, by id; one
// that has too many unanswered ones, or does not read its answers, is not read from.
//
// Thread: the management reactor.
// Invariants: - every request with an id is answered exactly once while the connection lives
//             - nothing refers to the connection after idle(): closed, and no method of it is running
#pragma once

#include <memory>
#include <string>

#include "base/task.h"
#include "engine/engine.h"
#include "engine/rpc/framer.h"
#include "env/env.h"

namespace basalt::rpc {

class Connection {
 public:
  Connection(Engine& engine, std::unique_ptr<env::StreamSocket> socket);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void start();
  void close();
  bool idle() const { return socket_ == nullptr && running_count_ == 0; }

 private:
  static constexpr unsigned running_count_max = 64;
  static constexpr size_t unsent_bytes_max = size_t{8} << 20;
  struct Event : Work {
    Connection* connection = nullptr;
  };

  void pump();
  bool receive();
  bool take_requests();
  void write();
  Task<void> serve(std::string text);
  Task<void> serve_one(JsonValue request);
  void subscribe(const JsonValue& id);
  void answer(const JsonValue& id, const RpcResult& result);
  void send(const JsonValue& message);
  bool overloaded() const { return running_count_ >= running_count_max || unsent_.size() > unsent_bytes_max; }

  Engine& engine_;
  std::unique_ptr<env::StreamSocket> socket_;
  Event readable_;
  Event writable_;
  Framer framer_;
  std::string unsent_;
  unsigned running_count_ = 0;
  bool armed_ = false;  // readable_ waits
  bool pumping_ = false;
  bool ending_ = false;  // the client sends no more, or broke the protocol: answer what there is, then close
  uint64_t subscription_ = 0;
};

}  // namespace basalt::rpc
