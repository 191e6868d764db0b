// SPDX-License-Identifier: Apache-2.0
// LinkReach: an attachment of a shared link. Every command carries the attachment's number and tag, and the epoch that
// it is sent under: the replica's gate tells from these who asks.
//
// The link goes on when this ends. What has no answer then completes as lost at once; the connection keeps what it
// needs of it (HostQueue::disown). Where it cannot - a write stands half in the socket, or too many were let go - the
// link itself ends, and with it all that go by it. Shares: no more than half of its queue's places are one
// attachment's: a replica that does not answer leaves the rest to others. Its commands have a time-out of their own.
// Thread: the member's.
#pragma once

#include <memory>
#include <string>

#include "base/gate.h"
#include "bdev/nvmf/link.h"
#include "bdev/nvmf/reach.h"

namespace basalt::bdev {

class LinkReach final : public Reach, Link::User {
 public:
  LinkReach(Reactor& reactor, Links& links, const MemberOptions& options, Reach::Listener& listener);
  ~LinkReach() override;

  // unsupported: it has to be reached without a link. Other errors: what it meets there it would meet alone as well.
  Task<Outcome> open(Duration timeout) override;
  void end(Error reason) override;
  Task<void> close() override;
  bool live() const override { return attached_ && !ended_ && link_->live(); }
  bool shared() const override { return true; }
  const nvmf::HostNamespace* space() const override { return space_.nsid == 0 ? nullptr : &space_; }
  const nvmf::HostControllerInfo& info() const override { return link_->controller().info(); }
  const std::string& incarnation() const override { return incarnation_; }
  void set_epoch(uint64_t epoch) override { epoch_ = epoch; }
  void submit(nvmf::HostCommand* command) override;
  void answered(nvmf::HostCommand* command) override;
  Task<nvmf::HostController::Answer> call(nvmf::HostController::Call call) override;
  void set_command_timeout(Duration timeout) override;
  void ask() override {}  // the link does, all the time

 private:
  using Call = nvmf::HostController::Call;
  using Answer = nvmf::HostController::Answer;
  struct Owned;
  class Wait;
  struct OwnedWork : Work {
    LinkReach* reach = nullptr;
  };
  struct AgeTimer : Timer {
    LinkReach* reach = nullptr;
  };

  Task<Outcome> attach();
  Task<Outcome> describe();
  Task<void> look_again();
  Task<Answer> call_on(nvmf::HostQueue& queue, Call call);
  Owned* make_call(const Call& call);
  void detach();
  // Commands that it may have on the link at once, which others use too. Where they may wait for longer than a node is
  // missed, some that wait must not keep the others from going on: neither here nor in the node's buffers.
  size_t share() const;
  void send(nvmf::HostCommand* command);
  void end_turn();
  void stamp(nvme::Command& command) const { command.set_link(tag_, epoch_); }
  nvmf::HostQueue& queue() { return link_->controller().io_queue(queue_); }
  void watch_age(const nvmf::HostCommand& command);
  void check_age();
  void end_now();
  void maybe_told();
  void link_lost(const Error& reason) override;
  void link_changed() override;

  Reactor& reactor_;
  Links& links_;
  const MemberOptions& options_;
  Reach::Listener& listener_;
  std::shared_ptr<Link> link_;
  Uuid identity_;
  uint64_t tag_ = 0;
  uint64_t epoch_ = 0;
  uint32_t number_ = 0;
  size_t queue_ = 0;
  nvmf::HostNamespace space_;
  std::string incarnation_;
  bool has_turn_ = false;
  bool attached_ = false;  // was live once
  bool ended_ = false;
  bool closing_ = false;
  bool ending_ran_ = false;
  bool told_ = false;
  bool looking_ = false;
  bool look_again_ = false;
  Error reason_{Errc::closed, "closed"};
  Duration command_timeout_;
  size_t in_flight_count_ = 0;
  List<nvmf::HostCommand, &nvmf::HostCommand::user_node> in_flight_;  // oldest first
  List<nvmf::HostCommand, &nvmf::HostCommand::user_node> held_;       // beyond its share
  List<nvmf::HostCommand, &nvmf::HostCommand::user_node> calls_;      // each an Owned
  AgeTimer age_timer_;
  OwnedWork end_work_;
  Gate gate_;
};

}  // namespace basalt::bdev
