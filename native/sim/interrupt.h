// SPDX-License-Identifier: Apache-2.0
// Interrupt: Ctrl-C (SIGINT) and SIGTERM as something to poll, so that what ran so far is told before the end.
#pragma once

namespace basalt::sim {

class Interrupt {
 public:
  // Blocks both signals for this thread, and so for children until they unblock them.
  Interrupt();
  ~Interrupt();
  Interrupt(const Interrupt&) = delete;
  Interrupt& operator=(const Interrupt&) = delete;

  int fd() const { return fd_; }  // readable from the first signal on
  bool seen() const;

 private:
  int fd_ = -1;
};

}  // namespace basalt::sim
