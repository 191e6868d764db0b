// SPDX-License-Identifier: Apache-2.0
#include "nvmf/auth/controller_side.h"

#include <algorithm>

namespace basalt::nvmf::auth {
namespace {

// The first of ours that the host has, too.
template <class T>
std::optional<T> choose(const std::vector<T>& ours, const std::vector<T>& theirs) {
  for (const T id : ours) {
    if (std::find(theirs.begin(), theirs.end(), id) != theirs.end()) return id;
  }
  return std::nullopt;
}

}  // namespace

void ControllerSide::fail(Reason reason) {
  step_ = Step::failed;
  failure_ = reason;
  pending_ = write_failure(MessageId::failure1, transaction_, reason);
  dh_.reset();
}

void ControllerSide::receive(Bytes message) {
  if (step_ == Step::failed) return;  // AUTH_Failure1 is the last word
  const auto header = read_header(message);
  if (!header) return fail(Reason::incorrect_payload);
  if (step_ == Step::begun) {
    transaction_ = header->transaction;
    return header->is(MessageId::negotiate) ? negotiate(message) : fail(Reason::incorrect_message);
  }
  if (header->is(MessageId::failure2)) {
    step_ = Step::failed;
    failure_ = read_failure(message).value_or(Reason::failed);
    pending_.reset();
    return;
  }
  if (pending_) return fail(Reason::incorrect_message);  // it has not taken our last one
  const MessageId wanted = step_ == Step::challenged ? MessageId::reply : MessageId::success2;
  if (step_ == Step::authenticated || !header->is(wanted)) return fail(Reason::incorrect_message);
  if (header->transaction != transaction_) return fail(Reason::incorrect_payload);
  if (step_ == Step::challenged) return reply(message);
  step_ = Step::authenticated;
}

void ControllerSide::negotiate(Bytes message) {
  const auto read = read_negotiate(message);
  if (const auto* reason = std::get_if<Reason>(&read)) return fail(*reason);
  const auto& offer = std::get<Negotiate>(read);
  if (settings_.host_secret == nullptr) return fail(Reason::protocol_not_usable);
  const auto hash = choose(settings_.policy.hashes, offer.hashes);
  if (!hash) return fail(Reason::hash_not_usable);
  const auto group = choose(settings_.policy.groups, offer.groups);
  if (!group) return fail(Reason::group_not_usable);
  hash_ = *hash;
  group_ = *group;
  challenge_.resize(digest_bytes(hash_));
  settings_.random(challenge_.data(), challenge_.size());
  while (sequence_ == 0)
    settings_.random(&sequence_, sizeof(sequence_));
  Challenge challenge;
  challenge.transaction = transaction_;
  challenge.hash = hash_;
  challenge.group = group_;
  challenge.sequence = sequence_;
  challenge.challenge = challenge_;
  if (const auto dh_group = group_of(group_)) {
    crypto::SecretBytes entropy(crypto::dh_exponent_bytes(*dh_group));
    settings_.random(entropy.data(), entropy.size());
    dh_.emplace(*dh_group, crypto::as_bytes(entropy));
    challenge.dh_value = dh_->public_value();
  }
  pending_ = write(challenge);
  step_ = Step::challenged;
}

void ControllerSide::reply(Bytes message) {
  const auto read = read_reply(message, hash_, group_);
  if (const auto* reason = std::get_if<Reason>(&read)) return fail(*reason);
  if (const auto reason = judge(std::get<Reply>(read))) return fail(*reason);
  step_ = Step::proven;
}

std::optional<Reason> ControllerSide::judge(const Reply& reply) {
  Question question{hash_, challenge_, sequence_, transaction_, nullptr};
  crypto::SecretBytes session;
  if (dh_) {
    auto shared = dh_->shared_secret(reply.dh_value);
    if (!shared) return Reason::incorrect_payload;
    session = std::move(*shared);
    question.session = &session;
    dh_.reset();
  }
  const crypto::Digest right = response_of(Side::host, question, *settings_.host_secret, settings_.parties);
  if (!crypto::equal(right.span(), reply.response)) return Reason::failed;
  Success1 success;
  success.transaction = transaction_;
  crypto::Digest answer(hash_of(hash_));
  // A sequence number of zero with a challenge is for keys of a secure channel, which are not made here.
  two_way_ = !reply.challenge.empty() && reply.sequence != 0;
  if (two_way_) {
    if (settings_.controller_secret == nullptr) return Reason::failed;
    // Our own challenge come back: an answer to it would be of use to somebody else.
    if (crypto::equal(reply.challenge, challenge_)) return Reason::failed;
    question.challenge = reply.challenge;
    question.sequence = reply.sequence;
    answer = response_of(Side::controller, question, *settings_.controller_secret, settings_.parties);
    success.response = answer.span();
  }
  pending_ = write(success, hash_);
  return std::nullopt;
}

void ControllerSide::delivered() {
  pending_.reset();
  if (step_ == Step::proven) step_ = two_way_ ? Step::awaiting_success2 : Step::authenticated;
}

}  // namespace basalt::nvmf::auth
