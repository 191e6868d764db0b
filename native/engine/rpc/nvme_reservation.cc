// SPDX-License-Identifier: Apache-2.0
#include "engine/rpc/nvme_reservation.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "bdev/nvmf/verdict.h"
#include "ns/reservation.h"

namespace basalt::rpc {
namespace {

constexpr uint32_t report_bytes = nvme::reservation_report_header_extended_bytes +
                                  ns::Reservation::registrants_max * sizeof(nvme::ReservationRegistrantExtended);
constexpr uint32_t persist = 3u << 30;  // CPTPL
constexpr uint32_t ignore_existing_key = 1u << 3;
constexpr Duration again_after = milliseconds(20);

nvmf::HostController::Call make_call(const HostReservation& wanted, uint32_t nsid, uint8_t* data) {
  nvmf::HostController::Call call;
  nvme::Command& command = call.command;
  command.nsid = nsid;
  call.direction = nvme::DataDirection::host_to_controller;
  call.data = data;
  call.data_bytes = 2 * sizeof(uint64_t);
  store_le<uint64_t>(data, wanted.key);
  store_le<uint64_t>(data + sizeof(uint64_t), wanted.other);
  const auto action = static_cast<uint32_t>(wanted.action);
  switch (wanted.action) {
    case ReservationAction::register_key:
    case ReservationAction::unregister:
    case ReservationAction::replace:
      command.opcode = static_cast<uint8_t>(nvme::NvmOpcode::reservation_register);
      command.cdw10 = action | persist;
      break;
    case ReservationAction::acquire:
    case ReservationAction::preempt:
    case ReservationAction::preempt_and_abort:
      command.opcode = static_cast<uint8_t>(nvme::NvmOpcode::reservation_acquire);
      command.cdw10 = (action - static_cast<uint32_t>(ReservationAction::acquire)) | uint32_t{wanted.type} << 8;
      break;
    case ReservationAction::release:
    case ReservationAction::clear:
      command.opcode = static_cast<uint8_t>(nvme::NvmOpcode::reservation_release);
      command.cdw10 = (action - static_cast<uint32_t>(ReservationAction::release)) | uint32_t{wanted.type} << 8;
      call.data_bytes = sizeof(uint64_t);
      break;
    case ReservationAction::report:
      command.opcode = static_cast<uint8_t>(nvme::NvmOpcode::reservation_report);
      command.cdw10 = report_bytes / 4 - 1;
      command.cdw11 = 1;  // extended data structure
      call.direction = nvme::DataDirection::controller_to_host;
      call.data_bytes = report_bytes;
      break;
  }
  if (wanted.ignore_key) command.cdw10 |= ignore_existing_key;
  return call;
}

bdev::NvmfPath* accessible_path(const bdev::NvmfController& controller, const bdev::NvmfBdev& bdev) {
  bdev::NvmfPath* found = nullptr;
  for (const auto& path : controller.paths()) {
    if (!path->live()) continue;
    const nvme::AnaState state = bdev.ana_state(*path);
    if (state == nvme::AnaState::optimized) return path.get();
    if (state == nvme::AnaState::non_optimized) found = path.get();
  }
  return found;
}

JsonValue describe_report(const uint8_t* bytes) {
  auto registrants = JsonValue::array();
  const size_t told = load_le<uint16_t>(bytes + offsetof(nvme::ReservationReportHeader, regctl));
  for (size_t i = 0; i < std::min<size_t>(told, ns::Reservation::registrants_max); i++) {
    nvme::ReservationRegistrantExtended one;
    std::memcpy(&one, bytes + nvme::reservation_report_header_extended_bytes + i * sizeof(one), sizeof(one));
    Uuid host;
    std::memcpy(host.bytes.data(), one.hostid, sizeof(one.hostid));
    registrants.push(JsonValue::object()
                         .set("host", host.to_string())
                         .set("key", std::to_string(one.rkey))
                         .set("holds", (one.rcsts & 1) != 0));
  }
  auto out = JsonValue::object();
  out.set("generation", uint64_t{load_le<uint32_t>(bytes)})
      .set("rtype", uint64_t{bytes[offsetof(nvme::ReservationReportHeader, rtype)]})
      .set("persistent", bytes[offsetof(nvme::ReservationReportHeader, ptpls)] == 1)
      .set("registrants", std::move(registrants));
  return out;
}

}  // namespace

HostReservation read_host_reservation(Fields& in) {
  HostReservation wanted;
  wanted.action =
      static_cast<ReservationAction>(in.choice("action", {"register", "unregister", "replace", "acquire", "preempt",
                                                          "preempt_and_abort", "release", "clear", "report"}));
  wanted.key = in.epoch_optional("key").value_or(0);
  const bool registers =
      wanted.action == ReservationAction::register_key || wanted.action == ReservationAction::replace;
  wanted.other = in.epoch_optional(registers ? "new_key" : "preempt_key").value_or(0);
  wanted.type = static_cast<uint8_t>(in.natural_or("rtype", 0, {.max = 255}));
  wanted.ignore_key = in.boolean_or("ignore_key", false);
  wanted.timeout = milliseconds(static_cast<int64_t>(in.natural_or("timeout_ms", 10'000, {.min = 1, .max = 600'000})));
  return wanted;
}

Task<RpcResult> run_host_reservation(bdev::NvmfController& controller, bdev::NvmfBdev& bdev, HostReservation wanted,
                                     const bool& stopping) {
  Reactor& home = controller.reactor();
  const Instant deadline = home.now() + wanted.timeout;
  auto data = std::make_unique<uint8_t[]>(report_bytes);
  nvme::Status last = nvme::status::host_path_error;
  while (home.now() < deadline && !stopping) {
    bdev::NvmfPath* path = accessible_path(controller, bdev);
    if (path != nullptr) {
      std::memset(data.get(), 0, report_bytes);
      const auto call = make_call(wanted, bdev.nsid(), data.get());
      auto calling = path->controller().io_call(call);
      const auto answer = co_await calling;
      last = answer.lost ? nvme::status::host_path_error : answer.status;
      const bdev::Verdict verdict = bdev::judge(last);
      if (verdict == bdev::Verdict::done || verdict == bdev::Verdict::up) break;
    }
    co_await sleep_for(home, again_after);
  }
  auto out = JsonValue::object();
  out.set("status", uint64_t{last.value}).set("text", nvme::to_string(last));
  if (last.ok() && wanted.action == ReservationAction::report) out.set("report", describe_report(data.get()));
  co_return out;
}

}  // namespace basalt::rpc
