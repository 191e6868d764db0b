// SPDX-License-Identifier: Apache-2.0
// What a controller tells its host of reservations: the notification log, its event, and the mask of both.
#include <algorithm>
#include <cstring>

#include "nvmf/target/controller.h"

namespace basalt::nvmf {

using nvme::Status;
namespace status = nvme::status;

namespace {
constexpr uint32_t all_namespaces = 0xffffffff;
// Bits 1 to 3, by the number of the notification.
constexpr uint32_t mask_bits = 0xe;
}  // namespace

uint32_t Controller::reservation_mask(uint32_t nsid) const {
  const auto found = reservation_masks_.find(nsid);
  return found == reservation_masks_.end() ? 0 : found->second;
}

// Kept by the number, whichever namespace has it: at most as many as there can be.
Status Controller::set_reservation_mask(uint32_t nsid, uint32_t mask) {
  if (nsid != all_namespaces && subsystem_.find_namespace(nsid) == nullptr) return status::invalid_namespace.dnr();
  for (uint32_t each = 1; each <= subsystem_.options().namespaces_max; each++) {
    const bool meant = nsid == each || (nsid == all_namespaces && subsystem_.find_namespace(each) != nullptr);
    if (meant) reservation_masks_[each] = mask & mask_bits;
  }
  return status::success;
}

void Controller::reservation_notice(uint32_t nsid, ns::NoticeKind kind) {
  const auto type = static_cast<uint8_t>(kind);
  if ((reservation_mask(nsid) & 1u << type) != 0) return;
  nvme::ReservationNotificationLog entry{};
  entry.count = ++reservation_notice_count_;
  entry.type = type;
  entry.nsid = nsid;
  if (reservation_notices_.size() >= reservation_notices_max) reservation_notices_.pop_front();
  reservation_notices_.push_back(entry);
  notify(Notice::reservation);
}

std::string Controller::reservation_log() const {
  nvme::ReservationNotificationLog entry{};
  if (!reservation_notices_.empty()) {
    entry = reservation_notices_.front();
    entry.available_count = static_cast<uint8_t>(std::min<size_t>(reservation_notices_.size() - 1, 255));
  }
  return {reinterpret_cast<const char*>(&entry), sizeof(entry)};
}

// Each page is there to be read once; those behind it have their own event.
void Controller::reservation_log_read() {
  if (!reservation_notices_.empty()) reservation_notices_.pop_front();
  if (!reservation_notices_.empty()) pending_notices_ |= 1u << static_cast<unsigned>(Notice::reservation);
}

}  // namespace basalt::nvmf
