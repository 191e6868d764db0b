// SPDX-License-Identifier: Apache-2.0
#include "env/linux/linux_rdma.h"

#include "env/linux/verbs_rdma.h"

namespace basalt::env {

#ifdef BASALT_HAS_VERBS

Result<std::unique_ptr<LinuxRdma>> open_linux_rdma(SocketPoller& poller) {
  auto library = VerbsLibrary::load();
  if (!library) return std::move(library).error();
  auto channel = VerbsChannel::open(std::move(library).value());
  if (!channel) return std::move(channel).error();
  return std::unique_ptr<LinuxRdma>(std::make_unique<VerbsRdma>(poller, std::move(channel).value()));
}

#else

Result<std::unique_ptr<LinuxRdma>> open_linux_rdma(SocketPoller&) {
  return Error{Errc::unsupported, "there is no RDMA: built without rdma-core's headers"};
}

#endif

}  // namespace basalt::env
