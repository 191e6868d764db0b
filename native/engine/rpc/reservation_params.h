// SPDX-License-Identifier: Apache-2.0
// Reservations of hosts as they travel between the engine and whoever keeps them (docs/rpc.md, Reservations).
#pragma once

#include <memory>
#include <string>

#include "engine/event_bus.h"
#include "engine/rpc/fields.h"
#include "ns/namespace.h"

namespace basalt::rpc {

// The keeper of a namespace is whoever hears the event nvmf_reservation_change. `bus` outlives it.
std::shared_ptr<ns::ReservationKeeper> make_event_keeper(EventBus& bus, std::string nqn);

// {version, change, generation, rtype, holder, registrants, notices}. in.error() tells what is wrong.
ns::KeptReservation read_reservation(Fields& in, std::string_view name);
JsonValue describe_reservation(const ns::Namespace& space);

}  // namespace basalt::rpc
