// SPDX-License-Identifier: Apache-2.0
#include "engine/rpc/connection.h"

#include <array>

namespace basalt::rpc {
namespace {

using Kind = JsonValue::Kind;

// JSON-RPC 2.0, section 4: what makes a request; the problem otherwise.
const char* request_problem(const JsonValue& request) {
  if (request.is(Kind::array)) return "batches are not supported: send one request after another";
  if (!request.is(Kind::object)) return "a request is an object";
  const JsonValue* version = request.find("jsonrpc");
  if (version == nullptr || !version->is(Kind::string) || version->string() != "2.0") return "jsonrpc: must be \"2.0\"";
  const JsonValue* method = request.find("method");
  if (method == nullptr || !method->is(Kind::string)) return "method: must be a string";
  const JsonValue* id = request.find("id");
  if (id != nullptr && (id->is(Kind::object) || id->is(Kind::array) || id->is(Kind::boolean))) {
    return "id: must be a string, a number or null";
  }
  return nullptr;
}

}  // namespace

Connection::Connection(Engine& engine, std::unique_ptr<env::StreamSocket> socket)
    : engine_(engine), socket_(std::move(socket)) {
  readable_.connection = writable_.connection = this;
  readable_.run = [](Work* work) {
    Connection* connection = static_cast<Event*>(work)->connection;
    connection->armed_ = false;
    connection->pump();
  };
  writable_.run = [](Work* work) { static_cast<Event*>(work)->connection->write(); };
}

Connection::~Connection() {
  BASALT_ASSERT(idle());
}

void Connection::start() {
  pump();
}

void Connection::close() {
  if (subscription_ != 0) engine_.events().unsubscribe(subscription_);
  subscription_ = 0;
  if (socket_) socket_->disarm();
  socket_.reset();
}

// Serves what was received, then receives more, until there is nothing or too much. A method that ends at once comes
// back here through serve(): it must not nest.
void Connection::pump() {
  if (pumping_) return;
  pumping_ = true;
  while (socket_ && (take_requests() || receive())) {
  }
  pumping_ = false;
  if (socket_ && ending_ && unsent_.empty() && running_count_ == 0) close();
}

// True when bytes came.
bool Connection::receive() {
  if (ending_ || armed_ || overloaded()) return false;
  std::array<char, 16384> bytes;
  const Iovec piece{bytes.data(), bytes.size()};
  const env::Transfer got = socket_->try_recv(&piece, 1);
  switch (got.state) {
    case env::Transfer::State::done:
      framer_.push({bytes.data(), got.count_bytes});
      return true;
    case env::Transfer::State::would_block:
      armed_ = true;
      socket_->arm_readable(&readable_);
      return false;
    case env::Transfer::State::closed:
      ending_ = true;
      return false;
    case env::Transfer::State::failed:
      close();
      return false;
  }
  return false;
}

// True when a request was found.
bool Connection::take_requests() {
  if (overloaded()) return false;
  std::string text;
  if (framer_.next(&text)) {
    running_count_++;
    spawn(serve(std::move(text)));
    return true;
  }
  if (framer_.broken() && !ending_) {
    ending_ = true;
    answer(JsonValue(), RpcError{code::parse_error, framer_.reason(), {}});
  }
  return false;
}

Task<void> Connection::serve(std::string text) {
  auto request = parse_json(text);
  if (!request) {
    answer(JsonValue(), RpcError{code::parse_error, request.error().message, {}});
  } else if (const char* problem = request_problem(*request); problem != nullptr) {
    const JsonValue* id = request->is(Kind::object) ? request->find("id") : nullptr;
    const bool usable = id != nullptr && (id->is(Kind::string) || id->is(Kind::natural) || id->is(Kind::negative));
    answer(usable ? *id : JsonValue(), RpcError{code::invalid_request, problem, {}});
  } else {
    auto serving = serve_one(std::move(*request));
    co_await serving;
  }
  running_count_--;
  pump();  // there is room again
}

Task<void> Connection::serve_one(JsonValue request) {
  const JsonValue* id = request.find("id");
  const JsonValue* params = request.find("params");
  const std::string method = request.find("method")->string();
  if (method == "basalt_subscribe") {
    subscribe(id != nullptr ? *id : JsonValue());
    co_return;
  }
  auto running = engine_.run_method(method, params != nullptr ? *params : JsonValue());
  const auto result = co_await running;
  if (id != nullptr) answer(*id, result);
}

// Events go to this connection from now on. Asked again, it stays as it is.
void Connection::subscribe(const JsonValue& id) {
  if (subscription_ == 0 && socket_) {
    subscription_ = engine_.events().subscribe([this](const JsonValue& event) {
      auto notification = JsonValue::object();
      notification.set("jsonrpc", "2.0");
      for (const auto& [name, value] : event.members())
        notification.set(name, value);
      send(notification);
    });
  }
  answer(id, done());
}

void Connection::answer(const JsonValue& id, const RpcResult& result) {
  auto message = JsonValue::object();
  message.set("jsonrpc", "2.0").set("id", id);
  if (result.ok()) {
    message.set("result", result.value());
  } else {
    auto error = JsonValue::object();
    error.set("code", result.error().code).set("message", result.error().message);
    if (!result.error().data.is(Kind::null)) error.set("data", result.error().data);
    message.set("error", std::move(error));
  }
  send(message);
}

// Events to a client that does not read are dropped with the connection, not kept.
void Connection::send(const JsonValue& message) {
  if (!socket_) return;
  const bool was_empty = unsent_.empty();
  unsent_ += message.to_text();
  unsent_ += '\n';
  if (was_empty) socket_->arm_writable(&writable_);
}

void Connection::write() {
  while (socket_ && !unsent_.empty()) {
    const Iovec piece{unsent_.data(), unsent_.size()};
    const env::Transfer sent = socket_->try_send(&piece, 1);
    if (sent.state == env::Transfer::State::would_block) return socket_->arm_writable(&writable_);
    if (sent.state != env::Transfer::State::done) return close();
    unsent_.erase(0, sent.count_bytes);
  }
  pump();
}

}  // namespace basalt::rpc
