// SPDX-License-Identifier: Apache-2.0
// Target: the NVMe-oF target of an engine: its subsystems, listeners and transports.
//
// Thread: management lives on the home reactor (the first one) and is called there only; tasks return there. Transports
// spread their connections over all reactors.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "nvmf/auth/exchange.h"
#include "nvmf/target/attachments.h"
#include "nvmf/target/discovery.h"
#include "nvmf/target/queue.h"
#include "nvmf/target/queue_authentication.h"
#include "nvmf/target/subsystem.h"
#include "nvmf/target/tls_keys.h"
#include "nvmf/target/tls_refusals.h"
#include "nvmf/target/transport.h"

namespace basalt::nvmf {

struct TargetLimits {
  size_t connections_per_host_max = 4096;  // queues of all controllers of one host NQN
  // Queues that have yet to authenticate; one more takes the oldest one's place.
  size_t unauthenticated_max = 256;
  Duration authentication_timeout = seconds(20);
};

class Target {
 public:
  explicit Target(std::vector<Reactor*> reactors, const TargetLimits& limits = {});
  ~Target();
  Target(const Target&) = delete;
  Target& operator=(const Target&) = delete;

  Reactor& home() const { return *reactors_.front(); }
  const std::vector<Reactor*>& reactors() const { return reactors_; }
  void add_transport(std::unique_ptr<TargetTransport> transport);

  Result<Subsystem*> create_subsystem(const SubsystemOptions& options);
  Task<Outcome> delete_subsystem(std::string nqn);
  Subsystem* find_subsystem(const std::string& nqn) const;  // nullptr: none
  std::vector<SubsystemInfo> subsystems() const;            // without discovery
  // Deletes all subsystems. Then the target may be destroyed.
  Task<void> close();

  // What hosts may use to authenticate, from the next one on.
  void set_authentication_policy(auth::Policy policy) { authentication_policy_ = std::move(policy); }
  const auth::Policy& authentication_policy() const { return authentication_policy_; }

  // discovery.cc; hosts that are connected there are told.
  void set_discovery_access(DiscoveryAccess access);
  DiscoveryAccess discovery_access() const { return discovery_access_; }
  Outcome add_referral(const ListenAddress& address);
  Outcome remove_referral(const ListenAddress& address);
  const std::vector<ListenAddress>& referrals() const { return referrals_.all(); }
  // What a host that has keys proves itself with there.
  const HostKeys& discovery_keys_of(const std::string& hostnqn) const;

  // TLS; both may be used from any thread.
  TlsKeys& tls_keys() { return tls_keys_; }
  const TlsRefusals& tls_refusals() const { return tls_refusals_; }
  // From any thread. Who wants to hear of them does so on the home reactor, once per peer.
  void tls_refused(const std::string& peer, TlsRefusal refusal);
  std::function<void(const std::string& traddr, TlsRefusal refusal)> on_tls_refused;

  // For subsystems and controllers.
  Task<Result<Listener*>> open_listener(ListenAddress address);
  Task<void> close_listener(Listener* listener);
  // Every reactor has run everything that was posted to it before.
  Task<void> pass_all_reactors();
  // Of all node links: attachments that `which` names are taken away (`hostnqn`: of whose association; empty:
  // anybody's). The caller keeps them until every reactor has passed.
  [[nodiscard]] Attachments::Taken end_attachments(const std::string& hostnqn,
                                                   const std::function<bool(const Attachment&)>& which);
  void attached_changed(const ns::Namespace& space);
  void free_later(Attachments::Taken taken);
  void discovery_changed();
  uint64_t discovery_generation() const { return discovery_generation_; }
  const std::vector<std::unique_ptr<Subsystem>>& all_subsystems() const { return subsystems_; }
  Subsystem& discovery() const { return *discovery_; }

  // Connect (connect.cc); the queue's executing command.
  static void connect_arrived(Work* work);
  static void admin_arrived(Work* work);
  static void queue_leaves(Work* work);
  const TargetLimits& limits() const { return limits_; }
  bool host_has_room(const std::string& hostnqn) const;

 private:
  Task<void> connect(Request* request);
  Task<nvme::Status> connect_admin(Request* request, const nvme::ConnectCommand* command, nvme::ConnectData* data);
  nvme::Status connect_io(Request* request, const nvme::ConnectCommand& command, const nvme::ConnectData& data);
  Task<void> free_attachments(Attachments::Taken taken);
  Task<void> tell_refusal(std::string traddr, TlsRefusal refusal);

  const std::vector<Reactor*> reactors_;
  const TargetLimits limits_;
  std::vector<std::unique_ptr<TargetTransport>> transports_;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::vector<std::unique_ptr<Subsystem>> subsystems_;
  std::unique_ptr<Subsystem> discovery_;
  friend class QueueAuthentication;
  List<QueueAuthentication, &QueueAuthentication::node> unauthenticated_;  // oldest first
  size_t unauthenticated_count_ = 0;
  auth::Policy authentication_policy_;
  TlsKeys tls_keys_;
  TlsRefusals tls_refusals_;
  Gate gate_;
  Attachments::Taken ended_attachments_;  // while the target closes
  uint16_t next_portid_ = 1;
  uint64_t discovery_generation_ = 1;
  DiscoveryAccess discovery_access_ = DiscoveryAccess::open;
  Referrals referrals_;
};

// Text as it may be shown or logged: bounded, printable ASCII.
std::string printable(const char* text, size_t length_max);
// A well-formed NQN: "nqn." and more, at most 223 bytes of printable ASCII.
bool valid_nqn(const std::string& nqn);

}  // namespace basalt::nvmf
