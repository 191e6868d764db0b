// SPDX-License-Identifier: Apache-2.0
// Which answers of a member condemn it, in a mirror and in a parity raid.
#pragma once

#include "nvme/status.h"

namespace basalt::bdev {

// A member that answers so has lost its path, its device or its right to our trust; others are told exactly as they
// are.
inline bool is_member_failure(nvme::Status status) {
  return status.type() == nvme::StatusType::path || status.is(nvme::status::write_fault) ||
         status.is(nvme::status::internal_error) || status.is(nvme::status::aborted_sq_deletion) ||
         status.is(nvme::status::abort_requested) || status.is(nvme::status::namespace_not_ready) ||
         status.is(nvme::status::invalid_namespace) || status.is(nvme::status::transient_transport_error) ||
         status.is(nvme::status::data_transfer_error) || status.is(nvme::status::command_sequence_error);
}

}  // namespace basalt::bdev
