// SPDX-License-Identifier: Apache-2.0
// ControllerSide: one authentication of a queue as the controller sees it: bytes in, bytes out, no clock.
//
//   AUTH_Negotiate -> Challenge -> Reply -> Success1 [-> Success2]        anything wrong: -> AUTH_Failure1
//
// Begins with AUTH_Negotiate; each object serves one transaction, the next one takes a new object (with the keys that
// are right then). Thread: one at a time.
// Invariants: - a challenge is answered at most once
//             - what was wrong is told in AUTH_Failure1; why a response did not fit is not
#pragma once

#include <optional>

#include "nvmf/auth/exchange.h"

namespace basalt::nvmf::auth {

struct ControllerSettings {
  Parties parties;
  SharedSecret host_secret;        // nullptr: no authentication with this host
  SharedSecret controller_secret;  // nullptr: hosts that ask for it are refused
  Policy policy;
  Random random;
};

class ControllerSide {
 public:
  explicit ControllerSide(ControllerSettings settings) : settings_(std::move(settings)) {}

  // What an Authentication Send brought.
  void receive(Bytes message);
  // What the next Authentication Receive gets; nullptr: nothing is due.
  const Message* pending() const { return pending_ ? &*pending_ : nullptr; }
  // It was handed over.
  void delivered();

  // The host has proven itself, and, when it asked for that, has seen the proof of this side.
  bool authenticated() const { return step_ == Step::authenticated; }
  // The end, too. AUTH_Failure1 may still be pending.
  const std::optional<Reason>& failure() const { return failure_; }
  // The host has proven itself, and only the delivery (or Success2) is missing.
  bool host_proven() const { return step_ == Step::proven || step_ == Step::awaiting_success2; }

 private:
  enum class Step : uint8_t { begun, challenged, proven, awaiting_success2, authenticated, failed };
  void fail(Reason reason);
  void negotiate(Bytes message);
  void reply(Bytes message);
  std::optional<Reason> judge(const Reply& reply);

  const ControllerSettings settings_;
  Step step_ = Step::begun;
  std::optional<Message> pending_;
  std::optional<Reason> failure_;
  uint16_t transaction_ = 0;
  HashId hash_ = HashId::sha256;
  GroupId group_ = GroupId::none;
  uint32_t sequence_ = 0;
  std::vector<uint8_t> challenge_;
  std::optional<crypto::DhKey> dh_;
  bool two_way_ = false;
};

}  // namespace basalt::nvmf::auth
