// SPDX-License-Identifier: Apache-2.0
// Asynchronous events: parked requests, and notices that wait for one. A notice is sent once, and again only after its
// log page was read.
#include <algorithm>

#include "nvmf/target/controller.h"

namespace basalt::nvmf {
namespace {

constexpr uint32_t event_type_notice = 2;
constexpr uint32_t event_type_io_command = 6;

struct NoticeKind {
  uint32_t enable_bit;  // in the Asynchronous Event Configuration; 0: always
  uint8_t information;
  nvme::LogPageId log;
  uint32_t event_type = event_type_notice;
};
// By Controller::Notice.
constexpr NoticeKind kinds[] = {
    {1u << 8, 0x00, nvme::LogPageId::changed_namespace_list},
    {1u << 11, 0x03, nvme::LogPageId::ana},
    {1u << 31, 0xf0, nvme::LogPageId::discovery},
    {1u << 20, 0xf4, nvme::LogPageId::cross_controller_reset},
    {0, 0x00, nvme::LogPageId::reservation_notification, event_type_io_command},
};

}  // namespace

void Controller::async_event_request(Request* request) {
  if (async_requests_.size() >= async_event_max) {
    TargetQueue::return_from_home(request, nvme::status::aer_limit_exceeded.dnr());
    return;
  }
  async_requests_.push_back(request);
  if (ending_) {
    abort_async_events(nvme::status::aborted_sq_deletion);
    return;
  }
  send_events();
}

void Controller::notify(Notice notice) {
  pending_notices_ |= 1u << static_cast<unsigned>(notice);
  send_events();
}

void Controller::send_events() {
  for (unsigned i = 0; i < std::size(kinds); i++) {
    const uint32_t bit = 1u << i;
    if ((pending_notices_ & bit) == 0 || (masked_notices_ & bit) != 0) continue;
    if (kinds[i].enable_bit != 0 && (async_event_configuration_ & kinds[i].enable_bit) == 0) {
      pending_notices_ &= ~bit;
      continue;
    }
    if (async_requests_.empty()) return;
    Request* request = async_requests_.front();
    async_requests_.erase(async_requests_.begin());
    pending_notices_ &= ~bit;
    masked_notices_ |= bit;
    request->completion.dw0 =
        kinds[i].event_type | uint32_t{kinds[i].information} << 8 | static_cast<uint32_t>(kinds[i].log) << 16;
    TargetQueue::return_from_home(request, nvme::status::success);
  }
}

void Controller::log_read(uint8_t id, bool retain) {
  if (retain) return;
  for (unsigned i = 0; i < std::size(kinds); i++) {
    if (static_cast<uint8_t>(kinds[i].log) == id) masked_notices_ &= ~(1u << i);
  }
  send_events();
}

void Controller::abort_async_events(nvme::Status status) {
  while (!async_requests_.empty()) {
    Request* request = async_requests_.back();
    async_requests_.pop_back();
    TargetQueue::return_from_home(request, status);
  }
}

void Controller::namespace_changed(uint32_t nsid) {
  const bool known =
      std::find(changed_namespaces_.begin(), changed_namespaces_.end(), nsid) != changed_namespaces_.end();
  if (!known) {
    if (changed_namespaces_.size() >= changed_namespaces_max) {
      changed_namespaces_overflow_ = true;
    } else {
      changed_namespaces_.push_back(nsid);
    }
  }
  notify(Notice::namespace_attribute);
}

void Controller::ana_changed() {
  if (subsystem_.options().ana_reporting) notify(Notice::ana);
}

void Controller::discovery_changed() {
  notify(Notice::discovery);
}

}  // namespace basalt::nvmf
