// SPDX-License-Identifier: Apache-2.0
// The commands for a replica's note (nvme/spec.h): they travel to the namespace's home reactor and come back.
#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "nvmf/target/queue.h"

namespace basalt::nvmf {
namespace {

void copy_in(const Request& request, const char* from) {
  size_t at = 0;
  for (size_t i = 0; i < request.iov_count && at < nvme::note_data_bytes; i++) {
    const size_t take = std::min<size_t>(request.iov[i].length_bytes, nvme::note_data_bytes - at);
    std::memcpy(request.iov[i].base, from + at, take);
    at += take;
  }
}

}  // namespace

Task<void> TargetQueue::run_note(Request* request, Addressee to) {
  ns::Namespace* space = to.space;
  const bool writes = static_cast<nvme::NvmOpcode>(request->command.opcode) == nvme::NvmOpcode::write_note;
  const ns::HostId host = to.host;
  char bytes[nvme::note_data_bytes] = {};
  Iovec pieces[2];
  nvme::Status result = nvme::status::success;
  size_t used = 0;
  if (request->data_bytes == sizeof(bytes)) {
    used = iovec_slice(request->iov, request->iov_count, 0, sizeof(bytes), pieces, 2);
  }
  if (used == 0) result = nvme::status::data_sgl_length_invalid.dnr();
  std::string note;
  if (result.ok() && writes) {
    iovec_copy_out(pieces, used, bytes);
    const size_t length_bytes = load_le<uint16_t>(bytes);
    if (length_bytes == 0 || length_bytes > nvme::note_bytes_max) {
      result = nvme::status::invalid_field.dnr();
    } else {
      note.assign(bytes + nvme::note_offset, length_bytes);
    }
  }
  co_await hop(space->home());
  if (result.ok() && writes) {
    auto writing = space->write_note(host, std::move(note));
    result = co_await writing;
  } else if (result.ok()) {
    result = co_await space->read_note(host, &note);
  }
  co_await hop(reactor_);
  if (result.ok() && !writes) {
    store_le<uint16_t>(bytes, static_cast<uint16_t>(note.size()));
    std::memcpy(bytes + nvme::note_offset, note.data(), note.size());
    copy_in(*request, bytes);
  }
  complete(request, result);
}

}  // namespace basalt::nvmf
