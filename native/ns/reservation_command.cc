// SPDX-License-Identifier: Apache-2.0
#include "ns/reservation_command.h"

#include <utility>

namespace basalt::ns {
namespace {

using nvme::ReservationType;

constexpr uint8_t release_clear = 1;

// Those whom a holder that is gone concerns: of the types that share its rights with registrants.
bool is_shared_type(ReservationType type) {
  return type != ReservationType::none && type != ReservationType::write_exclusive &&
         type != ReservationType::exclusive_access;
}

std::vector<HostId> others_of(const Reservation& reservation, const HostId& host) {
  std::vector<HostId> out;
  for (const Registrant& registrant : reservation.registrants()) {
    if (registrant.host != host) out.push_back(registrant.host);
  }
  return out;
}

void add(std::vector<Notice>* notices, NoticeKind kind, std::vector<HostId> hosts) {
  if (!hosts.empty()) notices->push_back({kind, std::move(hosts)});
}

}  // namespace

nvme::Status carry_out(const ReservationCommand& command, const HostId& host, Reservation* reservation) {
  std::vector<HostId> preempted;
  switch (command.kind) {
    case ReservationCommand::Kind::register_host:
      return reservation->register_host(host, command.registering);
    case ReservationCommand::Kind::acquire:
      return reservation->acquire(host, command.acquiring, &preempted);
    case ReservationCommand::Kind::release:
      return reservation->release(host, command.releasing);
  }
  return nvme::status::internal_error;
}

std::vector<Notice> notices_of(const ReservationCommand& command, const HostId& host, const Reservation& before,
                               const Reservation& after) {
  std::vector<Notice> notices;
  if (command.kind == ReservationCommand::Kind::release && command.releasing.action == release_clear) {
    add(&notices, NoticeKind::reservation_preempted, others_of(before, host));
    return notices;
  }
  if (command.kind == ReservationCommand::Kind::acquire) {
    std::vector<HostId> lost;
    for (const HostId& other : others_of(before, host)) {
      if (!after.is_registrant(other)) lost.push_back(other);
    }
    add(&notices, NoticeKind::registration_preempted, std::move(lost));
    const bool type_changed = before.type() != ReservationType::none && before.type() != after.type();
    if (type_changed) add(&notices, NoticeKind::reservation_released, others_of(after, host));
    return notices;
  }
  // Released, or gone with its holder's registration.
  const bool released = is_shared_type(before.type()) && after.type() == ReservationType::none;
  if (released) add(&notices, NoticeKind::reservation_released, others_of(after, host));
  return notices;
}

}  // namespace basalt::ns
