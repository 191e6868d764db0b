// SPDX-License-Identifier: Apache-2.0
// Snapshots through the gate. Many at once; each is counted from the moment that it cannot be refused any more.
#include <utility>

#include "ns/namespace.h"

namespace basalt::ns {
namespace {

nvme::Status status_of(const Outcome& outcome) {
  if (outcome.ok()) return nvme::status::success;
  switch (outcome.error().code) {
    case Errc::fenced:
      return nvme::status::reservation_conflict.dnr();
    case Errc::no_space:
    case Errc::no_memory:
      return nvme::status::capacity_exceeded.dnr();
    case Errc::unsupported:
      return nvme::status::invalid_opcode.dnr();
    case Errc::exists:
    case Errc::invalid_argument:
      return nvme::status::invalid_field.dnr();
    default:
      return nvme::status::internal_error;
  }
}

}  // namespace

bool Namespace::begin_snapshot(const HostId& host) {
  if (!judge(host, Access::write).ok()) return false;
  snapshots_.count++;
  return true;
}

Task<nvme::Status> Namespace::prepare_snapshot(HostId host) {
  const nvme::Status status = judge(host, Access::write);
  if (!status.ok()) co_return status;
  in_flight_count_++;
  Outcome prepared = co_await bdev_.prepare_snapshot();
  leave();
  co_return status_of(prepared);
}

Task<nvme::Status> Namespace::snapshot(HostId host, std::string name) {
  const nvme::Status status = judge(host, Access::write);
  if (!status.ok()) co_return status;
  in_flight_count_++;
  bool begun = false;
  std::function<bool()> may_begin = [this, &host, &begun] {
    begun = begin_snapshot(host);
    return begun;
  };
  auto making = bdev_.snapshot(std::move(name), std::move(may_begin));
  Outcome made = co_await making;
  if (begun && --snapshots_.count == 0 && snapshots_.waiter) std::exchange(snapshots_.waiter, {}).resume();
  leave();
  co_return status_of(made);
}

}  // namespace basalt::ns
