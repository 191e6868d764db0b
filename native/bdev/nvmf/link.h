// SPDX-License-Identifier: Apache-2.0
// Link: one association with a node's link subsystem (nvmf/target/attachments.h), shared by all members on that node.
// It connects once, for whoever needs it first; when it has ended it stays ended, and Links makes the next one.
//
// It asks for itself whether the node answers, twice a second: its users need not.
// Takeovers take turns, so many at a time. Requests of theirs that nobody waits for any more, because the replica does
// not answer, keep their places in the queues: with too many of those the link takes nobody new before some have ended.
// Links: the links of one reactor, one for each node and name.
// Thread: one reactor.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/gate.h"
#include "nvmf/host/controller.h"
#include "nvmf/host/wake_up.h"

namespace basalt::bdev {

struct LinkOptions {
  nvmf::HostAddress address;
  std::string subnqn;
  std::string hostnqn;
  nvmf::HostAuthentication authentication;
  uint32_t keep_alive_ms = 1000;         // no answer for so long ends it
  uint32_t keep_alive_told_ms = 10'000;  // what the node waits for us
  Duration connect_timeout = seconds(2);
  uint16_t io_queue_count = 4;
  uint16_t io_queue_depth = 127;
};

class Link final : nvmf::HostController::Listener {
 public:
  // An attachment, by its number.
  class User {
   public:
    virtual ~User() = default;
    virtual void link_lost(const Error& reason) = 0;  // all commands have completed
    virtual void link_changed() = 0;
  };

  Link(Reactor& reactor, nvmf::HostTransport& transport, LinkOptions options);
  ~Link() override;

  Task<Outcome> ready(Instant deadline);
  // Not live any more from the moment that its connections are gone, before anybody is told.
  bool live() const { return state_ == State::live && controller_.live(); }
  bool ended() const { return state_ == State::ended || (state_ == State::live && !controller_.live()); }
  const LinkOptions& options() const { return options_; }
  nvmf::HostController& controller() { return controller_; }
  const nvmf::HostController& controller() const { return controller_; }
  size_t user_count() const { return users_.size(); }

  // False: another one has that number.
  bool add(uint32_t number, User* user) { return users_.emplace(number, user).second; }
  void remove(uint32_t number) { users_.erase(number); }
  size_t next_queue() { return queue_next_++ % std::max<size_t>(1, controller_.io_queue_count()); }
  void abort(Error reason) { controller_.abort(std::move(reason)); }
  bool takes_turns() const;
  // False: it takes nobody now, or there was none in time. Otherwise turn_ended() follows.
  Task<bool> turn(Instant deadline);
  void turn_ended();
  // A request that is no I/O was left to itself; it has ended after all.
  void given_up() { given_up_count_++; }
  void given_up_ended() { given_up_count_--; }
  // Its users have gone.
  Task<void> close();

 private:
  enum class State : uint8_t { idle, connecting, live, ended };
  Task<void> connect();
  void wake_all();
  void controller_lost(const Error& reason) override;
  void namespaces_changed() override {}
  void attachments_changed(const std::vector<uint32_t>& numbers, bool all) override;

  Reactor& reactor_;
  const LinkOptions options_;
  State state_ = State::idle;
  Error why_{Errc::closed, "closed"};
  std::map<uint32_t, User*> users_;
  std::vector<nvmf::WakeUp*> waiting_;
  std::vector<nvmf::WakeUp*> turn_waiting_;  // in the order in which they came
  size_t turn_count_ = 0;
  size_t given_up_count_ = 0;
  size_t queue_next_ = 0;
  Gate gate_;
  nvmf::HostController controller_;
};

class Links {
 public:
  Links(Reactor& reactor, nvmf::HostTransport& transport) : reactor_(reactor), transport_(transport) {}
  ~Links();

  // nullptr: the node has none for this host, as it said a moment ago.
  std::shared_ptr<Link> get(const LinkOptions& options);
  // The node has none, or does not let this host in. It is not asked again for a moment: it may just be starting, or
  // not have heard of this host yet.
  void absent(const LinkOptions& options);
  // Gives one back; the last user ends it.
  void release(std::shared_ptr<Link> link);
  Task<void> close();

  struct Info {
    std::string address;
    std::string hostnqn;
    bool live = false;
    size_t connection_count = 0;
    size_t member_count = 0;
  };
  std::vector<Info> list() const;

 private:
  static std::string key_of(const LinkOptions& options);
  Task<void> end(std::shared_ptr<Link> link);

  Reactor& reactor_;
  nvmf::HostTransport& transport_;
  std::map<std::string, std::shared_ptr<Link>> links_;
  std::map<std::string, Instant> absent_until_;
  Gate gate_;
};

}  // namespace basalt::bdev
