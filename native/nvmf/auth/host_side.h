// SPDX-License-Identifier: Apache-2.0
// HostSide: one authentication of a queue as the host sees it: bytes in, bytes out, no clock.
//
//   begin() gives AUTH_Negotiate to send; then, after each message was sent, what the controller has to say is
//   received and given to receive(), which says what to do next:
//
//   Challenge -> send Reply, receive;  Success1 -> done, or send Success2 and done;  anything wrong -> AUTH_Failure2
//
// Thread: one at a time. Each object serves one transaction.
#pragma once

#include <optional>

#include "nvmf/auth/exchange.h"

namespace basalt::nvmf::auth {

struct HostSettings {
  Parties parties;
  SharedSecret host_secret;
  SharedSecret controller_secret;  // not nullptr: the controller must prove that it knows it
  Policy policy;
  Random random;
};

class HostSide {
 public:
  struct Next {
    Message send;          // empty: nothing
    bool receive = false;  // afterwards, take the controller's next message
  };

  explicit HostSide(HostSettings settings) : settings_(std::move(settings)) {}
  Next begin();
  Next receive(Bytes message);

  // Both who had to have proven themselves. What is left to send must still be sent.
  bool authenticated() const { return step_ == Step::authenticated; }
  const std::optional<Reason>& failure() const { return failure_; }
  bool refused_by_controller() const { return refused_; }  // the failure is the controller's word

 private:
  enum class Step : uint8_t { begun, negotiating, replied, authenticated, failed };
  Next fail(Reason reason);
  Next challenge(Bytes message);
  Next success(Bytes message);

  const HostSettings settings_;
  Step step_ = Step::begun;
  std::optional<Reason> failure_;
  bool refused_ = false;
  uint16_t transaction_ = 0;
  HashId hash_ = HashId::sha256;
  std::optional<crypto::Digest> expected_;  // the controller's response
};

}  // namespace basalt::nvmf::auth
