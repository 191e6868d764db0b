// SPDX-License-Identifier: Apache-2.0
// A reservation command as one value, and what other hosts are told of what it did. Pure.
#pragma once

#include "ns/reservation.h"

namespace basalt::ns {

struct ReservationCommand {
  enum class Kind : uint8_t { register_host, acquire, release };
  Kind kind = Kind::register_host;
  RegisterFields registering;
  AcquireFields acquiring;
  ReleaseFields releasing;
};

// As the Reservation Notification log page counts them.
enum class NoticeKind : uint8_t { registration_preempted = 1, reservation_released = 2, reservation_preempted = 3 };

struct Notice {
  NoticeKind kind = NoticeKind::registration_preempted;
  std::vector<HostId> hosts;  // to be told; never empty
  bool operator==(const Notice&) const = default;
};

// Not ok: nothing has changed.
nvme::Status carry_out(const ReservationCommand& command, const HostId& host, Reservation* reservation);
// What `host`'s command, which made `after` of `before`, has to be told to others.
std::vector<Notice> notices_of(const ReservationCommand& command, const HostId& host, const Reservation& before,
                               const Reservation& after);

}  // namespace basalt::ns
