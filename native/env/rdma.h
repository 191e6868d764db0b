// SPDX-License-Identifier: Apache-2.0
// rdma: what the engine needs of RDMA adapters, shaped like verbs and a connection manager, reached by Poller::rdma().
// Reliable connections only: messages arrive once, in order, or the connection breaks.
//
//   RdmaListener, Rdma::connect  ->  RdmaConnection: private data each way, then one queue pair
//   RdmaDevice: an adapter as one poller uses it: memory regions, windows for peers, shared receive queues
//   RdmaRequest, RdmaReceive: work, intrusive; `run` is called from Poller::poll() when it has ended
//
// Completions are the poller's to find: poll() looks into the completion queues, wait() asks to be woken by them.
//
// Threads: as with sockets: all of it belongs to the thread that polls; an RdmaPending may move between threads.
// Invariants: - nothing completes inside the call that started it; posting never fails, it completes as `flushed`
//             - requests of one connection complete in the order in which they were posted
//             - from close() on, no peer reads or writes memory by this connection any more
//             - after State::ended nothing runs: what was posted to the connection and has not run by then never will,
//               and its memory is its owner's again. What was posted to a shared receive queue stays posted there.
//             - a region ends after everything that uses its keys, a device's objects before its poller
#pragma once

#include <span>

#include "env/env.h"

namespace basalt::env {

class RdmaConnection;

// A piece of registered memory: what a request gathers from or scatters into.
struct RdmaPiece {
  void* base = nullptr;
  uint32_t length_bytes = 0;
  uint32_t key = 0;  // of the region that it lies in
};

enum class RdmaStatus : uint8_t {
  success,
  flushed,              // the connection had broken before; whether it was carried out is unknown
  local_error,          // a piece is not in its region, or a message was longer than the receive
  remote_access_error,  // the peer's key does not allow it: unknown, out of bounds, invalidated, of another connection
  remote_error,         // the peer could not take the message
  retry_exceeded,       // the peer does not answer
  receiver_not_ready,   // the peer has no receive posted, for longer than was allowed
};
const char* rdma_status_name(RdmaStatus status);

// Everything but success breaks the connection.
struct RdmaWork : Work {
  RdmaStatus status = RdmaStatus::success;
  uint16_t piece_count = 0;
  const RdmaPiece* pieces = nullptr;  // stay in place until it ran
  void* context = nullptr;            // the owner's
};

// Memory of this side that the peer may use by `key()`, once a bind request has been posted. One binding at a time; it
// ends by an invalidate request, by the peer's send_invalidate, or with the connection. Each binding has a new key.
class RdmaWindow {
 public:
  virtual ~RdmaWindow() = default;   // unbound, or its connection has ended
  virtual uint32_t key() const = 0;  // of the last bind that was posted
};

struct RdmaRequest : RdmaWork {
  enum class Type : uint8_t {
    send,
    send_invalidate,  // and the peer's window `remote_key` is closed when it arrives
    write,            // pieces -> the peer's memory at remote_address
    read,             // the peer's memory -> pieces
    bind,             // opens `window` over the one piece, for this connection's peer
    invalidate,       // closes `window`
  };
  Type type = Type::send;
  bool peer_writes = false;  // bind: the peer may write; otherwise it may read
  uint32_t remote_key = 0;
  uint64_t remote_address = 0;
  RdmaWindow* window = nullptr;
};

struct RdmaReceive : RdmaWork {
  uint32_t length_bytes = 0;             // of the message
  bool invalidated = false;              // it came with an invalidation
  uint32_t invalidated_key = 0;          // of this
  RdmaConnection* connection = nullptr;  // that it came by; nullptr: flushed
};

// Memory that this side may use, pinned.
class RdmaRegion {
 public:
  virtual ~RdmaRegion() = default;
  virtual uint32_t key() const = 0;
};

// Receives that several connections of a device draw from.
class RdmaReceiveQueue {
 public:
  virtual ~RdmaReceiveQueue() = default;  // no connection uses it any more; what is posted is forgotten
  virtual void post(RdmaReceive* receive) = 0;
};

struct RdmaLimits {
  uint32_t pieces_max = 1;  // of one request or receive
  uint32_t send_depth_max = 0;
  uint32_t receive_depth_max = 0;
  uint32_t shared_receive_depth_max = 0;
  uint32_t window_count_max = 0;  // 0: it has none that a peer's send can close
};

class RdmaDevice {
 public:
  virtual ~RdmaDevice() = default;
  virtual const std::string& name() const = 0;
  virtual const RdmaLimits& limits() const = 0;
  virtual bool removed() const = 0;  // the adapter is gone; its connections have broken
  // no_memory: the machine does not let this process pin so much (RLIMIT_MEMLOCK).
  virtual Result<std::unique_ptr<RdmaRegion>> register_memory(void* base, size_t length_bytes) = 0;
  virtual Result<std::unique_ptr<RdmaWindow>> make_window() = 0;
  virtual Result<std::unique_ptr<RdmaReceiveQueue>> make_receive_queue(uint32_t depth) = 0;
};

struct RdmaQueuePairOptions {
  uint32_t send_depth = 0;     // requests that are posted and have not run
  uint32_t receive_depth = 0;  // the same of receives; 0 with a shared queue
  RdmaReceiveQueue* shared = nullptr;
  uint8_t read_depth = 16;    // reads under way at once, each direction; more wait in line
  uint8_t rnr_retry_max = 6;  // how often a send is repeated to a peer that has no receive; 7: for ever
};

class RdmaConnection {
 public:
  enum class State : uint8_t {
    resolving,    // connect(): which device leads there?
    resolved,     // device() is known: make_queue_pair(), then connect()
    requested,    // came in: device() and private_data() are known: make_queue_pair() and accept(), or reject()
    connecting,   // connect() or accept() was called
    established,  // messages may come in before this is seen
    broken,       // why() says why; close() follows
    ended,        // the last
  };
  enum class Cause : uint8_t { none, unreachable, refused, rejected, disconnected, failed, removed };

  // Only when it has ended, or no queue pair was made.
  virtual ~RdmaConnection() = default;
  void* context = nullptr;  // the owner's
  virtual State state() const = 0;
  virtual Cause why() const = 0;
  // Runs once from poll() when the state changes, or has changed since it was armed before. A run may be spurious.
  virtual void arm_changed(Work* work) = 0;
  virtual void disarm() = 0;
  virtual RdmaDevice& device() = 0;  // not while resolving
  // What the peer sent with its request, its accept, or its rejection. May be longer than what was sent: padded by
  // zeroes.
  virtual std::span<const uint8_t> private_data() const = 0;
  virtual std::string peer() const = 0;

  virtual Outcome make_queue_pair(const RdmaQueuePairOptions& options) = 0;
  virtual void connect(std::span<const uint8_t> private_data) = 0;
  virtual void accept(std::span<const uint8_t> private_data) = 0;
  virtual void reject(std::span<const uint8_t> private_data) = 0;  // ends by itself
  // From make_queue_pair() on: receives. From established on, or from the first message that came in: requests.
  virtual void post(RdmaRequest* request) = 0;
  virtual void post_receive(RdmaReceive* receive) = 0;  // not with a shared queue
  // Leads to `ended`. Twice is once.
  virtual void close() = 0;
};

// A connection request that no poller drives yet; dropping it refuses the peer.
class RdmaPending {
 public:
  virtual ~RdmaPending() = default;
};

class RdmaListener {
 public:
  virtual ~RdmaListener() = default;
  virtual std::unique_ptr<RdmaPending> try_accept() = 0;  // nullptr: none waits
  virtual void arm_acceptable(Work* work) = 0;
  virtual const Address& address() const = 0;  // with the bound port
};

constexpr size_t rdma_request_private_bytes_max = 56;  // what InfiniBand's and RoCE's connection managers carry
constexpr size_t rdma_accept_private_bytes_max = 196;
constexpr size_t rdma_reject_private_bytes_max = 148;

// A poller's door to RDMA.
class Rdma {
 public:
  virtual ~Rdma() = default;
  virtual Outcome available() const { return success(); }  // or what is missing here
  virtual Result<std::unique_ptr<RdmaListener>> listen(const Address& address) = 0;
  virtual Result<std::unique_ptr<RdmaConnection>> connect(const Address& address) = 0;
  virtual std::unique_ptr<RdmaConnection> adopt(std::unique_ptr<RdmaPending> pending) = 0;  // nullptr: gone already
};

}  // namespace basalt::env
