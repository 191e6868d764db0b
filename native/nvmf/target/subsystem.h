// SPDX-License-Identifier: Apache-2.0
// Subsystem: namespaces, the hosts that may use them, and the listeners where they are reached.
//
// Thread: lives on the target's home reactor; all its functions are called there, and its tasks return there. Queues on
// other reactors read the namespace table and ANA states, which are atomics; a removed namespace is destroyed only
// after every reactor has passed a message since (so no queue still holds it) and its commands have ended. Reservations
// belong to the namespace and so are shared by all controllers of the subsystem.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "base/gate.h"
#include "base/result.h"
#include "base/task.h"
#include "ns/namespace.h"
#include "nvmf/auth/secret.h"
#include "nvmf/auth/tls_key.h"
#include "nvmf/target/ana.h"
#include "nvmf/target/attachments.h"

namespace basalt::nvmf {

class Controller;
class Target;

struct SubsystemOptions {
  std::string nqn;
  std::string serial_number;
  std::string model_number = "Basalt";
  bool allow_any_host = false;
  bool internal = false;  // never in the discovery log
  bool discovery = false;
  bool ana_reporting = true;
  // Its controllers on other nodes can change nothing any more while this one is accessible (the volume's epoch fences
  // them): a cross-controller reset of one of them has nothing left to wait for.
  bool one_active = false;
  // Fused Compare and Write is atomic among the hosts of this subsystem only: not offered where others reach the same
  // blocks by another one.
  bool compare_write = true;
  // It has no namespaces of its own: nodes attach those of others, each for itself (attachments.h).
  bool node_link = false;
  uint32_t attachments_max = 8192;    // of each of its associations
  bool planted_ignore_epoch = false;  // a bug for tests to catch; nothing else sets it
  uint16_t cntlid_min = 1;
  uint16_t cntlid_max = 0xffef;
  uint32_t namespaces_max = 32;  // also the number of ANA groups
};

struct NamespaceInfo {
  uint32_t nsid;
  std::string bdev_name;
  Uuid uuid;
  Uuid nguid;
  uint32_t ana_group;
  bool one_writer;
};
struct ControllerInfo {
  uint16_t cntlid;
  std::string hostnqn;
  Uuid hostid;
  size_t io_queue_count;
};
// What a host authenticates with, and the key of its connections. The names are for people; the secrets go nowhere.
struct HostKeys {
  auth::SharedSecret host;        // nullptr: it does not have to
  auth::SharedSecret controller;  // nullptr: this side cannot prove itself to the host
  std::string host_name;
  std::string controller_name;
  auth::SharedTlsKey tls;  // not nullptr: it comes by TLS, and not otherwise
  std::string tls_name;
  // A change that names keys of one kind only leaves the other kind; one that names none takes the first kind away.
  void keep_unnamed(const HostKeys& before);
};
struct HostInfo {
  std::string nqn;
  HostKeys keys;
};
struct SubsystemInfo {
  SubsystemOptions options;
  std::vector<HostInfo> hosts;
  std::vector<ListenAddress> listeners;
  std::vector<NamespaceInfo> namespaces;
};

class Subsystem {
 public:
  Subsystem(Target& target, const SubsystemOptions& options);
  ~Subsystem();
  Subsystem(const Subsystem&) = delete;
  Subsystem& operator=(const Subsystem&) = delete;

  const SubsystemOptions& options() const { return options_; }
  SubsystemInfo info() const;
  std::vector<ControllerInfo> controllers() const;

  // The bdev stays open until remove_namespace() has ended. Gives the nsid.
  Task<Result<uint32_t>> add_namespace(ns::NamespaceOptions options, bdev::Bdev* bdev);
  Task<Outcome> remove_namespace(uint32_t nsid);

  // Gives the address with the bound port.
  Task<Result<ListenAddress>> add_listener(ListenAddress address);
  Task<Outcome> remove_listener(ListenAddress address);
  // In force on every reactor when it returns; hosts were told. group 0: all groups.
  Task<Outcome> set_ana_state(ListenAddress address, uint32_t group, nvme::AnaState state);

  Outcome add_host(std::string hostnqn, HostKeys keys = {});
  // For the next authentications; what is connected stays.
  Outcome set_host_keys(const std::string& hostnqn, HostKeys keys);
  Task<Outcome> remove_host(std::string hostnqn);  // its controllers are closed and drained
  Task<Outcome> set_allow_any_host(bool allow);
  bool allows(const std::string& hostnqn) const;
  bool lists(const std::string& hostnqn) const;  // by name, whoever else is allowed
  bool authenticates(const std::string& hostnqn) const { return login_keys_of(hostnqn).host != nullptr; }
  // What it proves itself with; to the discovery subsystem, if that asks at all, as to the others.
  const HostKeys& login_keys_of(const std::string& hostnqn) const;
  const HostKeys& keys_of(const std::string& hostnqn) const;

  // For controllers and queues.
  ns::Namespace* find_namespace(uint32_t nsid) const {
    if (nsid == 0 || nsid > options_.namespaces_max) return nullptr;
    return table_[nsid - 1].load(std::memory_order_acquire);
  }
  SubsystemListener* path(const Listener& listener) const;
  const std::vector<std::unique_ptr<SubsystemListener>>& paths() const { return paths_; }
  uint64_t ana_change_count() const { return ana_change_count_; }
  // Whether what a controller instance that is not here had been asked to do can still happen, as seen at `path`.
  bool has_ended(uint16_t cntlid, const SubsystemListener* path) const;

 private:
  friend class Target;
  friend class Controller;

  // Whatever waits holds the gate, so that the subsystem is not deleted under it.
  Task<void> close();
  Task<Outcome> drop_namespace(uint32_t nsid);
  Task<Outcome> drop_listener(ListenAddress address);
  Task<void> close_controllers(const SubsystemListener* path, const std::string* hostnqn);
  Task<void> close_controller(Controller* controller);
  Attachments::Taken end_strangers_attachments();
  // Closes the host's controllers at a listener that are older than `newest` (nullptr: all of them).
  Task<void> supersede(std::string hostnqn, ns::HostId hostid, const Listener& listener, const Controller* newest);
  SubsystemListener* path_at(const ListenAddress& address) const;
  void namespaces_changed(uint32_t nsid);
  void reservation_notice(uint32_t nsid, const ns::Notice& notice);
  uint16_t take_cntlid();

  Target& target_;
  SubsystemOptions options_;
  Gate gate_;
  // Tells the hosts when a namespace's bdev has grown, and what became of their reservations.
  struct Ear;
  std::vector<HostInfo> hosts_;
  const HostKeys no_keys_{};
  std::vector<std::unique_ptr<SubsystemListener>> paths_;
  std::unique_ptr<std::atomic<ns::Namespace*>[]> table_;
  std::vector<std::unique_ptr<ns::Namespace>> namespaces_;
  std::vector<std::unique_ptr<Ear>> ears_;  // one for each of them
  std::vector<uint32_t> nsids_busy_;        // being added or removed
  std::vector<std::unique_ptr<Controller>> controllers_;
  uint16_t next_cntlid_ = 0;
  uint64_t ana_change_count_ = 1;
};

}  // namespace basalt::nvmf
