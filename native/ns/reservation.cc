// SPDX-License-Identifier: Apache-2.0
#include "ns/reservation.h"

#include <algorithm>

#include "base/assert.h"

namespace basalt::ns {
namespace {

using nvme::ReservationType;
using nvme::Status;
namespace status = nvme::status;

constexpr uint8_t action_acquire = 0;
constexpr uint8_t action_preempt_and_abort = 2;

bool valid_type(uint8_t type) {
  return type >= 1 && type <= 6;
}

// The lowest key's, the oldest of those, but for the holder. Whoever registered and never acquired would otherwise keep
// its place for ever, and in the end nobody could take over.
HostId least_of(const std::vector<Registrant>& registrants, const HostId& holder) {
  const Registrant* least = nullptr;
  for (const Registrant& each : registrants) {
    if (each.host != holder && (least == nullptr || each.key < least->key)) least = &each;
  }
  return least == nullptr ? HostId{} : least->host;
}

}  // namespace

Reservation::Reservation(bool one_writer, const GateRecord& record)
    : one_writer_(one_writer), highest_epoch_(record.highest_epoch) {
  if (!one_writer || record.holder.is_zero()) return;
  registrants_.push_back({record.holder, record.holder_key});
  set_holder(record.holder, ReservationType::exclusive_access);
}

Reservation::Reservation(const ReservationState& state)
    : one_writer_(false),
      persistent_(true),
      registrants_(state.registrants),
      type_(state.type),
      holder_(state.holder),
      generation_(state.generation) {
  BASALT_ASSERT(what_is_wrong(state) == nullptr);
}

ReservationState Reservation::state() const {
  const bool one_holder = type_ != ReservationType::none && !all_registrants_type();
  return {generation_, type_, one_holder ? holder_ : HostId{}, registrants_};
}

bool belongs_to_all_registrants(ReservationType type) {
  return type == ReservationType::write_exclusive_all_registrants ||
         type == ReservationType::exclusive_access_all_registrants;
}

const char* what_is_wrong(const ReservationState& state) {
  if (state.registrants.size() > Reservation::registrants_max) return "has too many registrants";
  bool holder_found = false;
  for (size_t i = 0; i < state.registrants.size(); i++) {
    const Registrant& registrant = state.registrants[i];
    if (registrant.host.is_zero()) return "has a registrant without an identifier";
    if (registrant.key == 0) return "has a registrant without a key";
    if (registrant.host == state.holder) holder_found = true;
    for (size_t j = 0; j < i; j++) {
      if (state.registrants[j].host == registrant.host) return "names a registrant twice";
    }
  }
  if (state.type != ReservationType::none && !valid_type(static_cast<uint8_t>(state.type))) {
    return "has a type that is none";
  }
  const bool one_holder = state.type != ReservationType::none && !belongs_to_all_registrants(state.type);
  if (one_holder && !holder_found) return "is held by nobody that is registered";
  if (!one_holder && !state.holder.is_zero()) return "has a holder where there is none";
  if (state.type != ReservationType::none && state.registrants.empty()) return "is held by nobody";
  return nullptr;
}

const Registrant* Reservation::find(const HostId& host) const {
  for (const Registrant& registrant : registrants_) {
    if (registrant.host == host) return &registrant;
  }
  return nullptr;
}
Registrant* Reservation::find(const HostId& host) {
  return const_cast<Registrant*>(static_cast<const Reservation*>(this)->find(host));
}

bool Reservation::all_registrants_type() const {
  return belongs_to_all_registrants(type_);
}

bool Reservation::is_holder(const HostId& host) const {
  if (type_ == ReservationType::none) return false;
  return all_registrants_type() ? is_registrant(host) : holder_ == host;
}

GateRecord Reservation::record() const {
  if (!one_writer_ || type_ == ReservationType::none) return {highest_epoch_, {}, 0};
  return {highest_epoch_, holder_, find(holder_)->key};
}

void Reservation::set_holder(const HostId& host, ReservationType type) {
  holder_ = host;
  type_ = type;
}

void Reservation::drop_holder() {
  holder_ = {};
  type_ = ReservationType::none;
}

void Reservation::close_gate(uint64_t epoch) {
  highest_epoch_ = std::max(highest_epoch_, epoch);
  drop_holder();
}

void Reservation::remove(const HostId& host) {
  const bool held = !all_registrants_type() && is_holder(host);
  std::erase_if(registrants_, [&](const Registrant& r) { return r.host == host; });
  // The last registrant takes an all-registrants reservation along.
  if (held || (all_registrants_type() && registrants_.empty())) drop_holder();
}

bool Reservation::allows(const HostId& host, Access access) const {
  if (one_writer_) return type_ != ReservationType::none && holder_ == host;
  switch (type_) {
    case ReservationType::none:
      return true;
    case ReservationType::write_exclusive:
      return access == Access::read || holder_ == host;
    case ReservationType::exclusive_access:
      return holder_ == host;
    case ReservationType::write_exclusive_registrants_only:
    case ReservationType::write_exclusive_all_registrants:
      return access == Access::read || is_registrant(host);
    case ReservationType::exclusive_access_registrants_only:
    case ReservationType::exclusive_access_all_registrants:
      return is_registrant(host);
  }
  return false;
}

Status Reservation::register_host(const HostId& host, const RegisterFields& fields) {
  // Persistence through power loss (1 is reserved, 2 switches it off, 3 on): what persists always does, and what does
  // not never. Of the gate's host, 2 means nothing.
  if (fields.change_persistence == 1 || (fields.change_persistence == 2 && persistent_) ||
      (fields.change_persistence == 3 && !persistent())) {
    return status::invalid_field.dnr();
  }
  Registrant* own = find(host);
  const bool key_matches = own != nullptr && (fields.ignore_key || own->key == fields.current_key);
  switch (fields.action) {
    case 0:
      if (fields.new_key == 0) return status::invalid_field.dnr();
      if (one_writer_ && fields.new_key < highest_epoch_) return status::reservation_conflict.dnr();
      if (own != nullptr) {
        if (own->key != fields.new_key) return status::reservation_conflict.dnr();
        return status::success;
      }
      if (one_writer_ && registrants_.size() >= registrants_max) remove(least_of(registrants_, holder_));
      if (registrants_.size() >= registrants_max) return status::invalid_field.dnr();
      registrants_.push_back({host, fields.new_key});
      generation_++;
      return status::success;
    case 1:
      if (!key_matches) return status::reservation_conflict.dnr();
      remove(host);
      generation_++;
      return status::success;
    case 2:
      if (one_writer_ || fields.new_key == 0) return status::invalid_field.dnr();
      if (own == nullptr) {
        // Ignoring the existing key also registers a host that has none.
        if (!fields.ignore_key) return status::reservation_conflict.dnr();
        if (registrants_.size() >= registrants_max) return status::invalid_field.dnr();
        registrants_.push_back({host, fields.new_key});
      } else {
        if (!key_matches) return status::reservation_conflict.dnr();
        own->key = fields.new_key;
      }
      generation_++;
      return status::success;
    default:
      return status::invalid_field.dnr();
  }
}

Status Reservation::acquire(const HostId& host, const AcquireFields& fields, std::vector<HostId>* preempted) {
  // Acquire has no "ignore existing key" in newer revisions; it is refused rather than guessed.
  if (fields.ignore_key || !valid_type(fields.type) || fields.action > action_preempt_and_abort) {
    return status::invalid_field.dnr();
  }
  const Registrant* found = find(host);
  if (found == nullptr || found->key != fields.current_key) return status::reservation_conflict.dnr();
  const Registrant own = *found;
  if (one_writer_) return acquire_one_writer(own, fields, preempted);
  if (fields.action != action_acquire) return preempt(own, fields, preempted);
  const auto type = static_cast<ReservationType>(fields.type);
  if (type_ != ReservationType::none) {
    return is_holder(host) && type_ == type ? status::success : status::reservation_conflict.dnr();
  }
  set_holder(host, type);
  return status::success;
}

Status Reservation::acquire_one_writer(const Registrant& own, const AcquireFields& fields,
                                       std::vector<HostId>* preempted) {
  if (fields.type != static_cast<uint8_t>(ReservationType::exclusive_access)) return status::invalid_field.dnr();
  if (own.key < highest_epoch_) return status::reservation_conflict.dnr();
  if (type_ != ReservationType::none && holder_ != own.host && fields.action == action_acquire) {
    return status::reservation_conflict.dnr();
  }
  for (const Registrant& other : registrants_) {
    if (other.host != own.host && other.key <= own.key) preempted->push_back(other.host);
  }
  for (const HostId& other : *preempted)
    remove(other);
  if (!preempted->empty()) generation_++;
  set_holder(own.host, ReservationType::exclusive_access);
  highest_epoch_ = own.key;
  return status::success;
}

Status Reservation::preempt(const Registrant& own, const AcquireFields& fields, std::vector<HostId>* preempted) {
  const auto type = static_cast<ReservationType>(fields.type);
  const bool any_key = fields.preempt_key == 0;
  if (any_key && !all_registrants_type()) return status::invalid_field.dnr();
  bool holder_hit = type_ == ReservationType::none ? false : any_key;
  bool found = false;
  for (const Registrant& other : registrants_) {
    if (!any_key && other.key != fields.preempt_key) continue;
    found = true;
    if (!all_registrants_type() && is_holder(other.host)) holder_hit = true;
    if (other.host != own.host) preempted->push_back(other.host);
  }
  if (!found && !any_key) {
    preempted->clear();
    return status::reservation_conflict.dnr();
  }
  for (const HostId& other : *preempted)
    remove(other);
  if (holder_hit) set_holder(own.host, type);
  generation_++;
  return status::success;
}

Status Reservation::release(const HostId& host, const ReleaseFields& fields) {
  const Registrant* own = find(host);
  if (fields.ignore_key || fields.action > 1) return status::invalid_field.dnr();
  if (own == nullptr || own->key != fields.current_key) return status::reservation_conflict.dnr();
  if (fields.action == 1) {
    registrants_.clear();
    drop_holder();
    generation_++;
    return status::success;
  }
  if (!is_holder(host)) return status::success;  // nothing of its own to release
  if (static_cast<uint8_t>(type_) != fields.type) return status::invalid_field.dnr();
  drop_holder();
  return status::success;
}

}  // namespace basalt::ns
