// SPDX-License-Identifier: Apache-2.0
// TlsSession: one end of a TLS 1.3 connection that both sides enter with a pre-shared key (psk_dhe_ke), and with
// nothing else: no certificates, no tickets, no early data, no earlier versions. Bytes of the connection go through a
// TlsWire, so the session itself knows no sockets and no time. TlsContext: what the sessions of one role share; it may
// be used by several threads at once.
//
// Bounds: it holds at most one record in each direction, and what it read ahead (input_bytes_max). Each call looks at a
// bounded number of records. A peer that sends messages of the handshake (key updates, tickets) more often than data
// fails before long. Randomness is the library's own. Thread: a session belongs to one thread at a time. Failures leave
// nothing in the thread's error queue.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.h"
#include "crypto/tls_psk.h"

struct bio_method_st;
struct ssl_ctx_st;
struct ssl_st;

namespace basalt::crypto {

constexpr size_t tls_record_bytes_max = 16384;                            // of payload
constexpr size_t tls_wire_bytes_max = tls_record_bytes_max + 5 + 1 + 16;  // such a record on the wire

// The connection below. Called from inside the session's functions only.
class TlsWire {
 public:
  enum class State : uint8_t { done, would_block, closed, failed };
  struct Moved {
    State state;
    size_t count_bytes = 0;
  };
  virtual ~TlsWire() = default;
  virtual Moved read(void* out, size_t room_bytes) = 0;
  virtual Moved write(const void* bytes, size_t length_bytes) = 0;  // may take less than all
};

// A server's keys.
class TlsPskFinder {
 public:
  virtual ~TlsPskFinder() = default;
  // nullptr: unknown. The identity is what the peer says. The last one that was found is the one in use.
  virtual SharedTlsPsk find(std::string_view identity) = 0;
};

class TlsContext {
 public:
  enum class Role : uint8_t { client, server };
  static Result<std::unique_ptr<TlsContext>> make(Role role);
  ~TlsContext();
  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;

 private:
  friend class TlsSession;
  TlsContext() = default;
  ssl_ctx_st* context_ = nullptr;
  bio_method_st* method_ = nullptr;
};

enum class TlsFailure : uint8_t {
  none,
  no_tls,       // what came is not TLS
  unknown_key,  // server: none of the peer's identities is known
  refused,      // the peer ended the handshake with an alert, see reason()
  wrong_key,    // server: the identity is known, the key is another one
  protocol,     // anything else that is wrong with what came
  flood,        // too many messages without data
  wire,         // the connection below ended
};

class TlsSession {
 public:
  enum class Step : uint8_t {
    done,
    want_read,   // the wire had no more
    want_write,  // the wire took no more; call again with the same bytes
    closed,      // the peer ended its side in order
    failed,      // see failure()
  };
  TlsSession(const TlsContext& context, TlsWire& wire, SharedTlsPsk psk);      // client
  TlsSession(const TlsContext& context, TlsWire& wire, TlsPskFinder& finder);  // server
  ~TlsSession();
  TlsSession(const TlsSession&) = delete;
  TlsSession& operator=(const TlsSession&) = delete;

  Step handshake();
  bool established() const { return established_; }
  // After the handshake. done: some bytes were moved, of one record at most. want_read without the wire having blocked
  // is possible when something else than data came: `wire_blocked()` tells.
  Step read(void* out, size_t room_bytes, size_t* count_bytes);
  Step write(const void* bytes, size_t length_bytes, size_t* count_bytes);
  bool wire_blocked() const { return wire_blocked_; }
  // Tells the peer that nothing more comes; best effort.
  void say_goodbye();

  TlsFailure failure() const { return failure_; }
  // For people; nothing in it is secret.
  const std::string& reason() const { return reason_; }

 private:
  friend class TlsContext;
  struct Callbacks;  // what the library calls
  void attach(const TlsContext& context);
  Step ended(int result);
  Step fail(TlsFailure failure, std::string reason);
  bool flooded();
  bool looks_like_tls(uint8_t first_byte) const;

  TlsWire& wire_;
  TlsPskFinder* const finder_ = nullptr;  // server
  SharedTlsPsk psk_;                      // client: its own; server: the one that was chosen
  ssl_st* ssl_ = nullptr;
  bool client_ = false;
  bool established_ = false;
  bool first_byte_seen_ = false;
  bool wire_blocked_ = false;
  bool wire_ended_ = false;
  std::optional<uint8_t> alert_;        // the peer's
  uint32_t messages_without_data_ = 0;  // each read of data makes up for one
  TlsFailure failure_ = TlsFailure::none;
  std::string reason_;
};

}  // namespace basalt::crypto
