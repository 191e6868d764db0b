// SPDX-License-Identifier: Apache-2.0
// The Snapshot command (nvme/spec.h) of replicas: it travels to the namespace's home reactor and comes back.
#include <cstring>

#include "nvmf/target/queue.h"

namespace basalt::nvmf {

Task<void> TargetQueue::run_snapshot(Request* request, Addressee to) {
  ns::Namespace* space = to.space;
  const uint32_t step = request->command.cdw10;
  const ns::HostId host = to.host;
  char bytes[nvme::snapshot_name_bytes];
  Iovec pieces[2];
  nvme::Status result = nvme::status::success;
  size_t used = 0;
  if (request->data_bytes == sizeof(bytes)) {
    used = iovec_slice(request->iov, request->iov_count, 0, sizeof(bytes), pieces, 2);
  }
  std::string name;
  if (used == 0) {
    result = nvme::status::data_sgl_length_invalid.dnr();
  } else {
    iovec_copy_out(pieces, used, bytes);
    name.assign(bytes, strnlen(bytes, sizeof(bytes)));
  }
  if (step != nvme::snapshot_cut && step != nvme::snapshot_prepare) result = nvme::status::invalid_field.dnr();
  co_await hop(space->home());
  if (!result.ok()) {
  } else if (step == nvme::snapshot_prepare) {
    result = co_await space->prepare_snapshot(host);
  } else {
    auto making = space->snapshot(host, std::move(name));
    result = co_await making;
  }
  co_await hop(reactor_);
  complete(request, result);
}

}  // namespace basalt::nvmf
