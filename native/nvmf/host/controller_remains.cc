// SPDX-License-Identifier: Apache-2.0
// What is left of a lost association, ended by way of another controller of the subsystem (Cross-Controller Reset).
#include <algorithm>
#include <cstring>
#include <memory>

#include "base/bytes.h"
#include "nvmf/host/controller.h"

namespace basalt::nvmf {
namespace {

constexpr uint32_t immediate_reset_successful = 1;
constexpr uint8_t log_remove_completed = 1;
constexpr size_t log_entries_max = 63;
constexpr uint32_t log_bytes = nvme::cross_reset_log_header_bytes + log_entries_max * 8;

nvme::CrossResetState state_in_log(const uint8_t* log, const HostController::Instance& instance) {
  const size_t count = std::min<size_t>(load_le<uint16_t>(log), log_entries_max);
  for (size_t i = 0; i < count; i++) {
    nvme::CrossControllerResetEntry entry;
    std::memcpy(&entry, log + nvme::cross_reset_log_header_bytes + i * sizeof(entry), sizeof(entry));
    if (entry.icid == instance.cntlid && entry.ciu == instance.ciu)
      return static_cast<nvme::CrossResetState>(entry.ccrs);
  }
  return nvme::CrossResetState::in_progress;
}

}  // namespace

Task<HostController::Remains> HostController::end_instance(Instance instance) {
  if (!live() || info_.cross_reset_limit == 0 || instance.cirn == 0 || !gate_.enter()) co_return Remains::unknown;
  Gate::Leaver leaver(gate_);
  Call reset;
  reset.command.opcode = static_cast<uint8_t>(nvme::AdminOpcode::cross_controller_reset);
  reset.command.cdw10 = instance.cntlid | uint32_t{instance.ciu} << 16;
  reset.command.cdw12 = static_cast<uint32_t>(instance.cirn);
  reset.command.cdw13 = static_cast<uint32_t>(instance.cirn >> 32);
  const Answer answer = co_await call_on(*admin_, reset);
  if (answer.lost || state_ == State::lost) co_return Remains::unknown;
  if (answer.status.ok() && (answer.value & immediate_reset_successful) != 0) co_return Remains::ended;
  // Others are in progress: its turn comes. Reading the log takes out what is over.
  const bool busy = answer.status.is(nvme::status::cross_reset_limit_exceeded) ||
                    answer.status.is(nvme::status::cross_reset_log_full) ||
                    answer.status.is(nvme::status::cross_reset_in_progress);
  if (!answer.status.ok() && !busy) co_return Remains::unknown;
  auto log = std::make_unique<uint8_t[]>(log_bytes);
  const Answer read =
      co_await log_page(nvme::LogPageId::cross_controller_reset, log.get(), log_bytes, log_remove_completed);
  if (!read.status.ok() || state_ == State::lost) co_return Remains::unknown;
  switch (state_in_log(log.get(), instance)) {
    case nvme::CrossResetState::succeeded:
      co_return Remains::ended;
    case nvme::CrossResetState::in_progress:
      co_return Remains::in_progress;
    case nvme::CrossResetState::failed:
      break;
  }
  co_return Remains::unknown;
}

}  // namespace basalt::nvmf
