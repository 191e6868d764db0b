// SPDX-License-Identifier: Apache-2.0
// Reservation commands: they travel to the namespace's home reactor and come back.
#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "nvmf/target/attachments.h"
#include "nvmf/target/queue.h"

namespace basalt::nvmf {
namespace {

using nvme::Status;
namespace status = nvme::status;

constexpr uint16_t dynamic_controller = 0xffff;
constexpr uint32_t extended_data_structure = 1;

// Register, Acquire and Release all begin with the current key; Register and Acquire have a second one.
struct Keys {
  uint64_t current = 0;
  uint64_t other = 0;
};

bool read_keys(const Request& request, size_t count, Keys* keys) {
  Iovec pieces[2];
  const size_t used = iovec_slice(request.iov, request.iov_count, 0, count * sizeof(uint64_t), pieces, 2);
  if (used == 0) return false;
  iovec_copy_out(pieces, used, keys);
  return true;
}

std::string report(const ns::Reservation& reservation) {
  constexpr size_t header_bytes = 64;
  constexpr size_t entry_bytes = 64;
  const auto& registrants = reservation.registrants();
  std::string out(header_bytes + registrants.size() * entry_bytes, '\0');
  char* bytes = out.data();
  store_le<uint32_t>(bytes, reservation.generation());
  bytes[4] = static_cast<char>(reservation.type());
  store_le<uint16_t>(bytes + 5, static_cast<uint16_t>(registrants.size()));
  bytes[9] = reservation.persistent() ? 1 : 0;  // PTPLS
  char* entry = bytes + header_bytes;
  for (const ns::Registrant& registrant : registrants) {
    store_le<uint16_t>(entry, dynamic_controller);
    entry[2] = reservation.is_holder(registrant.host) ? 1 : 0;
    store_le<uint64_t>(entry + 8, registrant.key);
    std::memcpy(entry + 16, registrant.host.bytes.data(), 16);
    entry += entry_bytes;
  }
  return out;
}

void copy_report(const Request& request, const std::string& from) {
  iovec_zero(request.iov, request.iov_count);
  size_t at = 0;
  for (size_t i = 0; i < request.iov_count && at < from.size(); i++) {
    const size_t take = std::min(request.iov[i].length_bytes, from.size() - at);
    std::memcpy(request.iov[i].base, from.data() + at, take);
    at += take;
  }
}

}  // namespace

Task<void> TargetQueue::run_reservation(Request* request, Addressee to) {
  ns::Namespace* space = to.space;
  const nvme::Command command = request->command;
  const auto opcode = static_cast<nvme::NvmOpcode>(command.opcode);
  const ns::HostId host = to.host;
  const uint8_t action = command.cdw10 & 7;
  const bool ignore_key = (command.cdw10 & 8) != 0;
  const uint8_t type = static_cast<uint8_t>(command.cdw10 >> 8);
  Keys keys;
  Status result = space->options().reservations ? status::success : status::invalid_opcode.dnr();
  const size_t key_count = opcode == nvme::NvmOpcode::reservation_release ? 1 : 2;
  const bool takes_keys = opcode != nvme::NvmOpcode::reservation_report;
  if (result.ok() && takes_keys && !read_keys(*request, key_count, &keys))
    result = status::data_sgl_length_invalid.dnr();
  // What an attachment registers is the epoch that it goes by.
  const bool registers = opcode == nvme::NvmOpcode::reservation_register;
  if (attachments_ != nullptr && registers && keys.other != command.link_epoch()) result = status::invalid_field.dnr();
  if (attachments_ != nullptr && registers && result.ok()) attachments_->registered(command);
  co_await hop(space->home());
  if (!result.ok()) {
  } else if (opcode == nvme::NvmOpcode::reservation_register) {
    ns::RegisterFields fields{action, ignore_key, static_cast<uint8_t>(command.cdw10 >> 30), keys.current, keys.other};
    result = co_await space->register_host(host, fields);
  } else if (opcode == nvme::NvmOpcode::reservation_acquire) {
    ns::AcquireFields fields{action, ignore_key, type, keys.current, keys.other};
    result = co_await space->acquire(host, fields);
  } else if (opcode == nvme::NvmOpcode::reservation_release) {
    ns::ReleaseFields fields{action, ignore_key, type, keys.current};
    result = co_await space->release(host, fields);
  } else if ((command.cdw11 & extended_data_structure) == 0) {
    // Host identifiers have 128 bits here, which the short form cannot hold.
    result = status::host_id_inconsistent.dnr();
  } else {
    ns::Reservation in_force(false);
    result = co_await space->report(&in_force);
    if (result.ok()) {
      const std::string text = report(in_force);
      copy_report(*request, text);
    }
  }
  co_await hop(reactor_);
  complete(request, result);
}

}  // namespace basalt::nvmf
