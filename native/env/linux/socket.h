// SPDX-License-Identifier: Apache-2.0
// Stream sockets of env/linux: IPv4, IPv6 and Unix, non-blocking, TCP_NODELAY.
#pragma once

#include <memory>
#include <string>

#include "base/list.h"
#include "env/env.h"

namespace basalt::env {

class Watched;

// What sockets need from their poller: registration for edge-triggered events, and being tried while hot.
class SocketPoller {
 public:
  virtual ~SocketPoller() = default;
  virtual void watch(Watched& watched) = 0;
  virtual void unwatch(Watched& watched) = 0;
  virtual void make_ready(Watched& watched) = 0;  // its armed work runs at the next poll
  virtual void make_hot(Watched& watched) = 0;    // it moved data just now
  virtual void note_progress() = 0;
};

// One descriptor in the epoll set. Events are edges: what happened stays noted until somebody armed for it.
class Watched {
 public:
  Watched(SocketPoller& poller, int fd);
  virtual ~Watched();
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;

  int fd() const { return fd_; }
  void arm_read(Work* work);
  void arm_write(Work* work);
  void disarm_all();
  void on_events(bool readable, bool writable);  // from epoll
  void run_ready();                              // runs armed work whose event was noted
  void run_speculatively();                      // hot: runs the armed reader without an event
  bool read_armed() const { return reader_ != nullptr; }

  ListNode ready_node;
  ListNode hot_node;
  unsigned idle_tries = 0;

 protected:
  void read_drained() { readable_ = false; }
  void write_filled() { writable_ = false; }
  SocketPoller& poller_;

 private:
  const int fd_;
  Work* reader_ = nullptr;
  Work* writer_ = nullptr;
  bool readable_ = false;
  bool writable_ = false;
};

Result<std::unique_ptr<StreamSocket>> connect_socket(SocketPoller& poller, const Address& address);
Result<std::unique_ptr<StreamListener>> listen_socket(SocketPoller& poller, const Address& address);
std::unique_ptr<StreamSocket> adopt_socket(SocketPoller& poller, std::unique_ptr<PendingSocket> pending);

}  // namespace basalt::env
