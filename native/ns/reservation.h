// SPDX-License-Identifier: Apache-2.0
// Reservation: who may touch a namespace. A pure state machine of NVMe reservations (Register, Acquire, Release,
// Report), with one addition, the one-writer policy: a registrant's key is an epoch, and the right to do I/O only moves
// forward. No I/O, no clock; Namespace (ns/namespace.h) owns one, applies it on its home reactor and persists it.
//
// One-writer policy:
//  - I/O only from the holder; no holder: from nobody
//  - a key below the highest epoch that was ever accepted neither registers nor acquires
//  - acquiring with preempt takes over from any holder whose key is not higher (equal: a new association of the same
//    owner); it removes every registrant with a key up to its own
//  - the type is Exclusive Access; keys cannot be replaced
//  - when there are too many registrants, the one with the lowest key that is not the holder gives its place
//
// A reservation made from a ReservationState is kept for good by somebody else (ns/shared_reservation.h): persistence
// through power loss is on, and cannot be switched off.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/uuid.h"
#include "nvme/spec.h"
#include "nvme/status.h"

namespace basalt::ns {

using HostId = Uuid;  // the NVMe host identifier

enum class Access : uint8_t { read, write };

struct Registrant {
  HostId host;
  uint64_t key = 0;
  bool operator==(const Registrant&) const = default;
};

// What must be durable of a one-writer gate.
struct GateRecord {
  uint64_t highest_epoch = 0;
  HostId holder;  // zero: nobody
  uint64_t holder_key = 0;
  bool operator==(const GateRecord&) const = default;
};

// All of a host's reservation, as it is kept outside of this process.
struct ReservationState {
  uint32_t generation = 0;
  nvme::ReservationType type = nvme::ReservationType::none;
  HostId holder;  // zero: nobody, or all registrants, as the type says
  std::vector<Registrant> registrants;
  bool operator==(const ReservationState&) const = default;
};

struct RegisterFields {
  uint8_t action = 0;  // RREGA: 0 register, 1 unregister, 2 replace
  bool ignore_key = false;
  uint8_t change_persistence = 0;  // CPTPL
  uint64_t current_key = 0;
  uint64_t new_key = 0;
};
struct AcquireFields {
  uint8_t action = 0;  // RACQA: 0 acquire, 1 preempt, 2 preempt and abort
  bool ignore_key = false;
  uint8_t type = 0;
  uint64_t current_key = 0;
  uint64_t preempt_key = 0;
};
struct ReleaseFields {
  uint8_t action = 0;  // RRELA: 0 release, 1 clear
  bool ignore_key = false;
  uint8_t type = 0;
  uint64_t current_key = 0;
};

class Reservation {
 public:
  static constexpr size_t registrants_max = 64;

  explicit Reservation(bool one_writer) : one_writer_(one_writer) {}
  Reservation(bool one_writer, const GateRecord& record);
  explicit Reservation(const ReservationState& state);  // a sound one

  // Each returns the status of the command; unless it is ok, nothing has changed. Hosts that lost their registration to
  // a preemption are in `preempted`.
  nvme::Status register_host(const HostId& host, const RegisterFields& fields);
  nvme::Status acquire(const HostId& host, const AcquireFields& fields, std::vector<HostId>* preempted);
  nvme::Status release(const HostId& host, const ReleaseFields& fields);

  bool allows(const HostId& host, Access access) const;
  bool is_registrant(const HostId& host) const { return find(host) != nullptr; }

  bool one_writer() const { return one_writer_; }
  uint64_t highest_epoch() const { return highest_epoch_; }
  uint32_t generation() const { return generation_; }
  nvme::ReservationType type() const { return type_; }
  bool is_holder(const HostId& host) const;
  const std::vector<Registrant>& registrants() const { return registrants_; }
  GateRecord record() const;
  ReservationState state() const;
  bool persistent() const { return one_writer_ || persistent_; }  // through the loss of power

  // After a takeover that could not be made durable: nobody holds the gate, and the epoch counts as accepted, because
  // the medium may have it.
  void close_gate(uint64_t epoch);

 private:
  const Registrant* find(const HostId& host) const;
  Registrant* find(const HostId& host);
  bool all_registrants_type() const;
  void set_holder(const HostId& host, nvme::ReservationType type);
  void drop_holder();
  void remove(const HostId& host);
  nvme::Status acquire_one_writer(const Registrant& own, const AcquireFields& fields, std::vector<HostId>* preempted);
  nvme::Status preempt(const Registrant& own, const AcquireFields& fields, std::vector<HostId>* preempted);

  bool one_writer_;
  bool persistent_ = false;
  std::vector<Registrant> registrants_;
  nvme::ReservationType type_ = nvme::ReservationType::none;
  HostId holder_;  // meaningless for the all-registrants types
  uint32_t generation_ = 0;
  uint64_t highest_epoch_ = 0;
};

// nullptr when it can be: hosts once each and with keys, a holder that is one of them where the type has one.
const char* what_is_wrong(const ReservationState& state);
// Whom such a type belongs to when it is held.
bool belongs_to_all_registrants(nvme::ReservationType type);

}  // namespace basalt::ns
