// SPDX-License-Identifier: Apache-2.0
// env: everything that reaches the engine from outside - clock, randomness, files, sockets, threads - as interfaces.
// env/linux is the real world; env/sim is a seeded one in virtual time. No other folder includes an OS header
// (memory/ maps pages).
//
// Threads: an Env may be used from any thread. A Poller and all that was made by it belong to the one thread that polls
// it; only Poller::wake() and LoopHandle are for others.
// Completion: nothing completes inside the call that started it. Work armed or submitted runs from Poller::poll().
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/iovec.h"
#include "base/result.h"
#include "base/time.h"
#include "base/work.h"

namespace basalt::env {

// Where a stream socket listens or connects: an IPv4/IPv6 literal with a port, or the path of a Unix socket.
struct Address {
  enum class Family : uint8_t { ip, unix_path };
  Family family = Family::ip;
  std::string host;   // literal, or the path
  uint16_t port = 0;  // 0 when listening: any free port
  std::string to_string() const;
  bool is_loopback() const;
};

struct Transfer {
  enum class State : uint8_t {
    done,         // count_bytes > 0 were moved
    would_block,  // arm and try again
    closed,       // the peer ended the stream in order
    failed,       // reset or another error; the socket is of no further use
  };
  State state;
  size_t count_bytes = 0;
};

// A connected (or connecting) byte stream. Destroying it aborts the connection and forgets armed work.
class StreamSocket {
 public:
  virtual ~StreamSocket() = default;
  virtual Transfer try_recv(const Iovec* iov, size_t count) = 0;
  virtual Transfer try_send(const Iovec* iov, size_t count) = 0;
  // Runs `work` once from poll() when the socket is readable (data, end or error) or writable (also: connected, or
  // connecting failed). One armed work each. A run may be spurious: the try that follows then would block; arm again.
  virtual void arm_readable(Work* work) = 0;
  virtual void arm_writable(Work* work) = 0;
  virtual void disarm() = 0;
  // After the first writable event of an outgoing connection: did it connect?
  virtual Outcome connect_result() = 0;
  virtual std::string peer() const = 0;
};

// An accepted stream that no poller drives yet; may move between threads.
class PendingSocket {
 public:
  virtual ~PendingSocket() = default;
};

class StreamListener {
 public:
  virtual ~StreamListener() = default;
  virtual std::unique_ptr<PendingSocket> try_accept() = 0;  // nullptr: none waits
  virtual void arm_acceptable(Work* work) = 0;
  virtual const Address& address() const = 0;  // with the bound port
};

// One request to a BlockFile. `run` is called from poll() when it has ended; `error` is 0 or a positive errno.
// A short transfer is an error (EIO). iov and its memory stay valid until then.
struct FileIo : Work {
  enum class Type : uint8_t {
    read,
    write,
    flush,  // what completed before is on stable media
    zero,   // the range reads as zeroes afterwards; deallocates where the file can
  };
  Type type = Type::read;
  bool fua = false;  // write: on stable media before it completes
  uint32_t iov_count = 0;
  uint64_t offset_bytes = 0;
  uint64_t length_bytes = 0;
  const Iovec* iov = nullptr;
  int error = 0;
  void* context = nullptr;  // the submitter's
  uint64_t env_private[4] = {};
};

struct FileLimits {
  uint64_t size_bytes;
  uint32_t memory_alignment_bytes;  // of every Iovec base and length
  uint32_t offset_alignment_bytes;
};

class BlockFile {
 public:
  virtual ~BlockFile() = default;  // nothing may be in flight
  virtual const FileLimits& limits() const = 0;
  virtual void submit(FileIo* io) = 0;
};

struct FileOptions {
  std::string path;
  uint64_t create_bytes = 0;  // not 0: create with this size; fails with `exists` when the path is there
  bool read_only = false;
  bool buffered = false;  // go through the page cache where O_DIRECT is refused; only when asked for by name
  // Files are always opened with an exclusive lock on the descriptor that does the I/O (`busy` when held elsewhere).
};

class Rdma;  // env/rdma.h

class Poller {
 public:
  virtual ~Poller() = default;
  // Runs what is ready, without waiting; returns how many completions ran (0: nothing to do).
  virtual size_t poll() = 0;
  // Sleeps until something is ready, wake() was called, or the deadline. Then poll() again.
  virtual void wait(Instant deadline) = 0;
  virtual void wake() = 0;  // any thread
  // Between two polls that found nothing: lets a thread that wants this processor have it. At once back when none does.
  virtual void give_way() {}

  virtual Result<std::unique_ptr<StreamListener>> listen(const Address& address) = 0;
  virtual Result<std::unique_ptr<StreamSocket>> connect(const Address& address) = 0;
  virtual std::unique_ptr<StreamSocket> adopt(std::unique_ptr<PendingSocket> pending) = 0;
  virtual Result<std::unique_ptr<BlockFile>> open(const FileOptions& options) = 0;
  virtual Rdma* rdma() { return nullptr; }      // nullptr: no RDMA here
  virtual std::string description() const = 0;  // "io_uring", "epoll + threads", "simulated"
};

enum class PollerKind : uint8_t { automatic, io_uring, epoll };

struct PollerOptions {
  PollerKind kind = PollerKind::automatic;
};

// A loop that the env drives: on a thread of its own, calling run(), or turn by turn from a simulator.
class Loop {
 public:
  virtual ~Loop() = default;
  virtual void run() = 0;                // returns when the loop was told to stop
  virtual bool turn() = 0;               // one pass without waiting; true when it did something
  virtual Instant deadline() const = 0;  // when the next timer is due
};

class LoopHandle {
 public:
  virtual ~LoopHandle() = default;  // joins; the loop was told to stop before
};

struct LoopOptions {
  std::string name;
  int core = -1;  // -1: not pinned. Pinning that is refused is not an error.
};

class Env {
 public:
  virtual ~Env() = default;
  virtual Instant now() const = 0;      // CLOCK_BOOTTIME
  virtual int64_t wall_ms() const = 0;  // for people's eyes only
  virtual void random(void* out, size_t length_bytes) = 0;
  virtual Result<std::unique_ptr<Poller>> make_poller(const PollerOptions& options) = 0;
  virtual std::unique_ptr<LoopHandle> start(Loop& loop, const LoopOptions& options) = 0;
  // A small file that holds a secret, whole: a regular one of this user's (or root's) that nobody else may read, named
  // by an absolute path. `permission` when it is not kept so. No error repeats what it holds. Blocks: control path.
  virtual Result<std::string> read_secret_file(const std::string& path) {
    return Error{Errc::unsupported, path + ": no files here"};
  }

  uint64_t random_u64() {
    uint64_t value;
    random(&value, sizeof(value));
    return value;
  }
};

}  // namespace basalt::env
