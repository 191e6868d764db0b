// SPDX-License-Identifier: Apache-2.0
// Notes on replicas, through the gate.
#include <utility>

#include "ns/namespace.h"

namespace basalt::ns {

// One after another with what changes the gate: both are kept in one attribute. So a takeover comes before it, and it
// is refused, or after it, and finds it durable.
Task<nvme::Status> Namespace::write_note(HostId host, std::string note) {
  in_flight_count_++;
  co_await lock();
  nvme::Status status = judge(host, Access::write);
  // A gate in memory keeps nothing for long.
  if (options_.gate_epoch != 0) status = nvme::status::invalid_opcode.dnr();
  if (status.ok() && note.size() > nvme::note_bytes_max) status = nvme::status::invalid_field.dnr();
  if (status.ok() && note != note_) {
    std::string encoded = encode_gate(reservation_.record(), note);
    auto stored = co_await bdev_.set_attribute(std::move(encoded));
    if (stored) note_ = std::move(note);
    if (!stored) status = nvme::status::internal_error;
  }
  unlock();
  leave();
  co_return status;
}

Task<nvme::Status> Namespace::read_note(HostId host, std::string* out) {
  const nvme::Status status = judge(host, Access::read);
  if (status.ok()) *out = note_;
  co_return status;
}

}  // namespace basalt::ns
