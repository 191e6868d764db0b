// SPDX-License-Identifier: Apache-2.0
// Process: what every simulated daemon consists of: memory and one reactor on a SimNode. A killed process runs no
// destructors: bury() keeps its objects reachable for ever (nothing runs them any more) and gives its payload memory
// back.
#pragma once

#include <memory>
#include <string>
#include <utility>

#include "env/sim/sim_world.h"
#include "runtime/reactor.h"

namespace basalt::sim {

// Where a daemon listens. All nodes share one address space, so each has its own port.
struct Endpoint {
  std::string address = "127.0.0.1";
  uint16_t port = 0;
};

class Process {
 public:
  explicit Process(env::SimNode& node)
      : node_(node), arena_(std::make_unique<Arena>(size_t{64} << 20)), reactor_(node, *arena_, {}) {
    BASALT_ASSERT(reactor_.init().ok());
    loop_ = node.start(reactor_, {});
  }
  virtual ~Process() = default;  // never for one that ran: see bury()

  env::SimNode& node() { return node_; }
  Reactor& reactor() { return reactor_; }
  void free_memory() { arena_.reset(); }

 private:
  env::SimNode& node_;
  std::unique_ptr<Arena> arena_;
  Reactor reactor_;
  std::unique_ptr<env::LoopHandle> loop_;
};

void keep_for_ever(void* object);

template <class P>
void bury(std::unique_ptr<P>& process) {
  if (process == nullptr) return;
  process->free_memory();
  keep_for_ever(process.release());
}

}  // namespace basalt::sim
