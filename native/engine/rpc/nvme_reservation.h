// SPDX-License-Identifier: Apache-2.0
// Reservation commands of our own host, on whichever path is accessible.
#pragma once

#include "bdev/nvmf/multipath.h"
#include "engine/rpc/fields.h"

namespace basalt::rpc {

enum class ReservationAction : uint8_t {
  register_key,
  unregister,
  replace,
  acquire,
  preempt,
  preempt_and_abort,
  release,
  clear,
  report
};

struct HostReservation {
  ReservationAction action = ReservationAction::report;
  uint8_t type = 0;
  bool ignore_key = false;
  uint64_t key = 0;    // the present one
  uint64_t other = 0;  // the new one, or the one to preempt
  Duration timeout = seconds(10);
};

HostReservation read_host_reservation(Fields& in);
// Tries again, on any path, for as long as the answer says that this may help. `controller` stays meanwhile, unless
// `stopping` says that nothing is to be tried any more.
Task<RpcResult> run_host_reservation(bdev::NvmfController& controller, bdev::NvmfBdev& bdev, HostReservation wanted,
                                     const bool& stopping);

}  // namespace basalt::rpc
