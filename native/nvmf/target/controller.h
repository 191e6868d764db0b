// SPDX-License-Identifier: Apache-2.0
// Controller: one association of a host with a subsystem: properties, features, asynchronous events, keep-alive, and
// its queues. The state is here; the files beside it hold one family of events each:
//   controller.cc (life)  controller_admin.cc (dispatch)  properties.cc  features.cc  identify.cc  log_pages.cc
//   controller_aer.cc  discovery.cc (the discovery log)  connect.cc (how one is made)  cross_reset.cc
//   controller_authentication.cc  controller_reservations.cc  controller_link.cc
//
// Thread: lives on the target's home reactor. Queues on other reactors read `enabled()` only.
#pragma once

#include <array>
#include <atomic>
#include <coroutine>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "nvmf/target/attachments.h"
#include "nvmf/target/queue.h"
#include "nvmf/target/subsystem.h"
#include "nvmf/target/target.h"

namespace basalt::nvmf {

constexpr uint32_t async_event_max = 4;
constexpr uint16_t io_queues_max = 127;
constexpr uint32_t changed_namespaces_max = 1024;
constexpr uint32_t keep_alive_granularity_ms = 100;
constexpr uint32_t error_log_entries = 1;
// What a host that lost an association waits for beside the keep-alive time-out. It holds as long as the namespaces'
// devices answer within it; a cross-controller reset tells when they really have.
constexpr uint16_t command_quiesce_ms = 10'000;
constexpr uint8_t cross_resets_max = 4;  // at a time, asked of one controller
constexpr size_t cross_reset_log_entries_max = 16;
constexpr size_t reservation_notices_max = 64;  // that a host has not read yet

struct ControllerOptions {
  uint16_t cntlid = 0;
  std::string hostnqn;
  ns::HostId hostid;
  uint32_t keep_alive_ms = 0;  // 0: none
  // Which instance of the controller identifier this is.
  uint8_t ciu = 0;
  uint64_t cirn = 0;
};

class Controller {
 public:
  Controller(Target& target, Subsystem& subsystem, SubsystemListener* path, Listener& listener,
             const ControllerOptions& options);
  ~Controller();

  const ControllerOptions& options() const { return options_; }
  Subsystem& subsystem() const { return subsystem_; }
  SubsystemListener* path() const { return path_; }
  const Listener& listener() const { return listener_; }
  bool is_discovery() const { return subsystem_.options().discovery; }
  bool enabled() const { return enabled_.load(std::memory_order_acquire); }
  bool ended() const { return ended_.load(std::memory_order_acquire); }  // terminated: its connections are closing
  bool ending() const { return ending_; }
  uint16_t io_queue_count_max() const { return io_queue_count_; }
  size_t io_queue_count() const;
  size_t queue_count() const { return queues_.size(); }
  size_t admitted_queue_count() const;
  bool has_queue(uint16_t qid) const;

  // `authentication`: the host must authenticate on it before anything else.
  void attach(TargetQueue* queue, bool authentication);
  void detach(TargetQueue* queue);
  // Asks every connection to end. The controller goes when the last queue has drained.
  void terminate();
  void wait_gone(std::coroutine_handle<> waiter) { gone_waiters_.push_back(waiter); }

  // An admin command, or a fabrics one; ends with TargetQueue::return_from_home().
  void admin(Request* request);

  // Of a node link: those that `which` names are taken away, and the host is told; `space` has changed.
  const Attachments* attachments() const { return attachments_.get(); }
  void end_attachments(const std::function<bool(const Attachment&)>& which, Attachments::Taken* out);
  void attached_changed(const ns::Namespace& space);
  void namespace_changed(uint32_t nsid);
  void ana_changed();
  void discovery_changed();
  void reservation_notice(uint32_t nsid, ns::NoticeKind kind);

 private:
  friend class Target;
  enum class Notice : uint8_t { namespace_attribute, ana, discovery, cross_reset, reservation };
  // A reset of another controller that this one was asked for and that took longer.
  struct CrossReset {
    uint16_t cntlid = 0;
    uint8_t ciu = 0;
    uint64_t cirn = 0;
    bool answered = false;  // that it is in progress
    bool done = false;
  };

  // controller_admin.cc
  nvme::Status dispatch(Request* request);
  nvme::Status fabrics(Request* request);
  nvme::Status abort(Request* request);
  // Copies out to the host: bytes beyond `from` are zero.
  static void reply(Request* request, const void* from, size_t length_bytes, uint64_t offset_bytes = 0);
  // properties.cc
  uint64_t capabilities() const;
  nvme::Status property_get(Request* request);
  nvme::Status property_set(Request* request);
  void set_configuration(uint32_t value);
  // features.cc
  nvme::Status get_features(Request* request);
  nvme::Status set_features(Request* request);
  // controller_link.cc
  nvme::Status link_attach(Request* request);
  nvme::Status link_describe(Request* request);
  nvme::Status link_detach(Request* request);
  // identify.cc
  static uint8_t reservation_capabilities(const ns::Namespace& space);
  nvme::Status identify(Request* request);
  void identify_controller(Request* request);
  void identify_io_controller(nvme::IdentifyController* id) const;
  nvme::Status identify_namespace(Request* request, uint32_t nsid);
  nvme::Status identify_descriptors(Request* request, uint32_t nsid);
  nvme::Status identify_namespace_independent(Request* request, uint32_t nsid);
  void identify_active(Request* request, uint32_t after);
  // log_pages.cc
  nvme::Status get_log_page(Request* request);
  std::string log_page(uint8_t id, nvme::Status* status);
  std::string supported_pages() const;
  std::string supported_features() const;
  std::string smart_log() const;
  std::string effects_log() const;
  std::string changed_namespaces_log();
  std::string ana_log(bool groups_only) const;
  // discovery.cc
  std::string discovery_log() const;
  bool discovery_proves(const HostKeys& keys) const;
  // cross_reset.cc
  Task<void> cross_reset(Request* request);
  Controller* find_instance(uint16_t cntlid, uint8_t ciu, uint64_t cirn) const;
  void instance_gone(uint16_t cntlid, uint64_t cirn);
  std::string cross_reset_log(bool remove_completed);
  // controller_reservations.cc
  uint32_t reservation_mask(uint32_t nsid) const;
  nvme::Status set_reservation_mask(uint32_t nsid, uint32_t mask);
  std::string reservation_log() const;
  void reservation_log_read();
  // controller_aer.cc
  void async_event_request(Request* request);
  void notify(Notice notice);
  void log_read(uint8_t id, bool retain);
  void abort_async_events(nvme::Status status);
  void send_events();
  // controller_authentication.cc
  Task<void> authenticate(Request* request);
  nvme::Status authentication_send(Request* request, bool* admits);
  nvme::Status authentication_receive(Request* request, bool* admits);
  Task<nvme::Status> admit(TargetQueue* queue);
  // controller.cc
  void arm_keep_alive();
  static void keep_alive_due(Work* work);
  void maybe_gone();

  Target& target_;
  Subsystem& subsystem_;
  SubsystemListener* path_;  // nullptr: discovery
  Listener& listener_;
  const ControllerOptions options_;

  const std::unique_ptr<Attachments> attachments_;  // nullptr: no node link
  std::vector<TargetQueue*> queues_;
  std::vector<std::coroutine_handle<>> gone_waiters_;
  bool ending_ = false;
  bool gone_ = false;

  std::atomic<bool> enabled_{false};
  std::atomic<bool> ended_{false};
  uint32_t configuration_ = 0;  // CC
  uint32_t status_ = 0;         // CSTS

  uint32_t keep_alive_ms_;
  Instant last_keep_alive_;
  struct KeepAliveTimer : Timer {
    Controller* owner = nullptr;
  } keep_alive_timer_;

  uint16_t io_queue_count_ = io_queues_max;
  uint32_t async_event_configuration_ = 0;
  uint32_t write_cache_ = 1;
  std::array<uint8_t, 512> host_behavior_{};

  std::vector<Request*> async_requests_;
  uint32_t pending_notices_ = 0;  // bits of Notice
  uint32_t masked_notices_ = 0;   // sent, and their log was not read yet
  std::vector<CrossReset> cross_resets_;
  std::deque<nvme::ReservationNotificationLog> reservation_notices_;  // oldest first
  uint64_t reservation_notice_count_ = 0;
  std::map<uint32_t, uint32_t> reservation_masks_;  // by nsid
  std::vector<uint32_t> changed_namespaces_;
  bool changed_namespaces_overflow_ = false;
  // Of a discovery controller: what the host works with, and has shown to have.
  auth::SharedSecret claimed_;
  auth::SharedSecret proven_;
};

}  // namespace basalt::nvmf
