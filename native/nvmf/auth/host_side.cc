// SPDX-License-Identifier: Apache-2.0
#include "nvmf/auth/host_side.h"

#include <algorithm>

namespace basalt::nvmf::auth {
namespace {

template <class T>
bool has(const std::vector<T>& list, T id) {
  return std::find(list.begin(), list.end(), id) != list.end();
}

}  // namespace

HostSide::Next HostSide::fail(Reason reason) {
  step_ = Step::failed;
  failure_ = reason;
  return {write_failure(MessageId::failure2, transaction_, reason), false};
}

HostSide::Next HostSide::begin() {
  BASALT_ASSERT(step_ == Step::begun && settings_.host_secret != nullptr);
  step_ = Step::negotiating;
  settings_.random(&transaction_, sizeof(transaction_));
  Negotiate offer;
  offer.transaction = transaction_;
  offer.hashes = settings_.policy.hashes;
  offer.groups = settings_.policy.groups;
  return {write(offer), true};
}

HostSide::Next HostSide::receive(Bytes message) {
  BASALT_ASSERT(step_ == Step::negotiating || step_ == Step::replied);
  const auto header = read_header(message);
  if (!header) return fail(Reason::incorrect_payload);
  if (header->is(MessageId::failure1)) {
    step_ = Step::failed;
    failure_ = read_failure(message).value_or(Reason::failed);
    refused_ = true;
    return {};
  }
  const bool challenged = header->is(MessageId::challenge) && step_ == Step::negotiating;
  const bool answered = header->is(MessageId::success1) && step_ == Step::replied;
  if (!challenged && !answered) return fail(Reason::incorrect_message);
  if (header->transaction != transaction_) return fail(Reason::incorrect_payload);
  return challenged ? challenge(message) : success(message);
}

HostSide::Next HostSide::challenge(Bytes message) {
  const auto read = read_challenge(message);
  if (const auto* reason = std::get_if<Reason>(&read)) return fail(*reason);
  const auto& asked = std::get<Challenge>(read);
  // Only what was offered: nobody talks us into less.
  if (!has(settings_.policy.hashes, asked.hash)) return fail(Reason::hash_not_usable);
  if (!has(settings_.policy.groups, asked.group)) return fail(Reason::group_not_usable);
  hash_ = asked.hash;
  Question question{hash_, asked.challenge, asked.sequence, transaction_, nullptr};
  crypto::SecretBytes session;
  std::optional<crypto::DhKey> dh;
  Reply reply;
  reply.transaction = transaction_;
  if (const auto group = group_of(asked.group)) {
    crypto::SecretBytes entropy(crypto::dh_exponent_bytes(*group));
    settings_.random(entropy.data(), entropy.size());
    dh.emplace(*group, crypto::as_bytes(entropy));
    auto shared = dh->shared_secret(asked.dh_value);
    if (!shared) return fail(Reason::incorrect_payload);
    session = std::move(*shared);
    question.session = &session;
    reply.dh_value = dh->public_value();
  }
  const crypto::Digest response = response_of(Side::host, question, *settings_.host_secret, settings_.parties);
  reply.response = response.span();
  std::vector<uint8_t> own_challenge;
  if (settings_.controller_secret != nullptr) {
    own_challenge.resize(digest_bytes(hash_));
    settings_.random(own_challenge.data(), own_challenge.size());
    while (reply.sequence == 0)
      settings_.random(&reply.sequence, sizeof(reply.sequence));
    reply.challenge = own_challenge;
    question.challenge = own_challenge;
    question.sequence = reply.sequence;
    expected_ = response_of(Side::controller, question, *settings_.controller_secret, settings_.parties);
  }
  step_ = Step::replied;
  return {write(reply, hash_), true};
}

HostSide::Next HostSide::success(Bytes message) {
  const auto read = read_success1(message, hash_);
  if (const auto* reason = std::get_if<Reason>(&read)) return fail(*reason);
  if (!expected_) {
    step_ = Step::authenticated;
    return {};
  }
  // An absent response is as good as a wrong one: the controller was asked to prove itself.
  if (!crypto::equal(expected_->span(), std::get<Success1>(read).response)) return fail(Reason::failed);
  step_ = Step::authenticated;
  return {write_success2(transaction_), false};
}

}  // namespace basalt::nvmf::auth
