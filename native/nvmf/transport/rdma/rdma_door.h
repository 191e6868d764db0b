// SPDX-License-Identifier: Apache-2.0
// A poller's RDMA, or the one line that says why there is none.
#pragma once

#include "env/rdma.h"

namespace basalt::nvmf {

inline Result<env::Rdma*> rdma_of(env::Poller& poller) {
  env::Rdma* rdma = poller.rdma();
  if (rdma == nullptr) return Error{Errc::unsupported, "trtype: there is no RDMA on this machine"};
  const Outcome available = rdma->available();
  if (!available) return Error{available.error().code, "trtype: " + available.error().message};
  return rdma;
}

}  // namespace basalt::nvmf
