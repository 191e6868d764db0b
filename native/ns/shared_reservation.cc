// SPDX-License-Identifier: Apache-2.0
#include "ns/shared_reservation.h"

#include <algorithm>

#include "bdev/handle.h"
#include "ns/namespace.h"

namespace basalt::ns {
namespace {

using Answer = SharedReservation::Answer;
using nvme::Status;
namespace status = nvme::status;

// How often a command is judged anew because the state was changed by others.
constexpr int judgements_max = 16;
constexpr Duration drain_look = milliseconds(1);

Uuid draw(env::Env& env) {
  Uuid id;
  env.random(id.bytes.data(), id.bytes.size());
  return id;
}

}  // namespace

Task<Status> Namespace::change_shared(HostId host, ReservationCommand command) {
  in_flight_count_++;
  const Instant deadline = home().now() + options_.reservation_timeout;
  co_await lock();
  auto changing = change_locked(host, command, deadline);
  const Status result = co_await changing;
  unlock();
  leave();
  co_return result;
}

Task<Status> Namespace::change_locked(HostId host, ReservationCommand command, Instant deadline) {
  for (int i = 0; i < judgements_max && home().now() < deadline; i++) {
    if (closed_) co_return status::invalid_namespace.dnr();
    if (!shared_->known) co_return status::ana_inaccessible;
    if (host.is_zero()) co_return status::invalid_field.dnr();
    Reservation next = reservation_;
    const Status judged = carry_out(command, host, &next);
    if (!judged.ok() || next.state() == reservation_.state()) {
      const Status confirmed = co_await confirm_serving();
      if (!confirmed.ok()) co_return confirmed;
      if (!judged.ok()) co_return judged;
      break;
    }
    const Answer answer = co_await ask(host, command, next, deadline);
    if (answer == Answer::made) break;
    if (answer == Answer::refused) co_return shared_->refusal;
    if (answer == Answer::late) co_return status::command_interrupted;
  }
  if (home().now() >= deadline) co_return status::command_interrupted;
  const bool ended = co_await outlasted(deadline);
  co_return ended ? status::success : status::command_interrupted;
}

Task<Answer> Namespace::ask(HostId host, ReservationCommand command, Reservation next, Instant deadline) {
  SharedReservation& shared = *shared_;
  ReservationChange change;
  change.id = draw(home().env());
  change.version = shared.version + 1;
  change.host = host;
  change.next = next.state();
  change.notices = notices_of(command, host, reservation_, next);
  shared.asked = change;
  shared.late_timer.shared = &shared;
  shared.late_timer.run = [](Work* work) {
    static_cast<SharedReservation::LateTimer*>(work)->shared->answered(Answer::late);
  };
  home().arm(&shared.late_timer, deadline);
  options_.keeper->asked(*this, change);
  const Answer answer = co_await shared;
  home().cancel(&shared.late_timer);
  co_return answer;
}

void Namespace::set_reservation(const KeptReservation& kept) {
  SharedReservation& shared = *shared_;
  const Reservation before = std::move(reservation_);
  const uint64_t version_before = shared.version;
  const bool was_known = shared.known;
  reservation_ = Reservation(kept.state);
  shared.known = true;
  shared.version = kept.version;
  shared.change = kept.change;
  for (const Registrant& registrant : before.registrants()) {
    if (reservation_.is_registrant(registrant.host)) continue;
    std::erase_if(shared.leaving, [&](const auto& known) { return known.host == registrant.host; });
    shared.leaving.push_back({registrant.host, admitted_count_});
  }
  (void)is_outlasted();  // forgets those who have nothing in flight
  if (was_known) {
    for (const KeptNotice& one : kept.notices) {
      if (one.version > version_before && one.version <= kept.version) tell(one.notice);
    }
  }
  // The last thing: whoever waited may end this namespace.
  if (!shared.asked) return;
  if (shared.asked->id == kept.change) {
    shared.answered(Answer::made);
  } else if (kept.version != version_before || !was_known) {
    shared.answered(Answer::other);
  }
}

void Namespace::refuse_change(const Uuid& change, Status with) {
  if (!shared_->asked || shared_->asked->id != change) return;
  shared_->refusal = with;
  shared_->answered(Answer::refused);
}

// Whether nothing is in flight any more that the state in force would not admit, or that a host had sent which has lost
// its registration since.
bool Namespace::is_outlasted() {
  bool outlasted = true;
  std::vector<SharedReservation::Leaving> still;
  in_flight_.for_each([&](NsIo* io) {
    const Access access = io->type == bdev::IoType::read ? Access::read : Access::write;
    if (!reservation_.allows(io->host, access)) outlasted = false;
    for (const auto& gone : shared_->leaving) {
      if (gone.host != io->host || io->admitted_count > gone.admitted_count) continue;
      outlasted = false;
      const bool noted = std::any_of(still.begin(), still.end(), [&](const auto& o) { return o.host == gone.host; });
      if (!noted) still.push_back(gone);
    }
  });
  shared_->leaving = std::move(still);
  return outlasted;
}

Task<bool> Namespace::outlasted(Instant deadline) {
  while (!is_outlasted()) {
    if (closed_ || home().now() >= deadline) co_return false;
    co_await sleep_for(home(), drain_look);
  }
  co_return true;
}

// The caller is counted as in flight.
Task<Status> Namespace::confirm_serving() {
  if (shared_ == nullptr) co_return status::success;
  if (closed_) co_return status::invalid_namespace.dnr();
  if (!shared_->known) co_return status::ana_inaccessible;
  Buffer* buffer = home().buffers().take(block_size_bytes_, BufferUse::upper);
  if (buffer == nullptr) co_return status::command_interrupted;
  const Iovec iov{buffer->data, block_size_bytes_};
  bdev::Io io;
  io.type = bdev::IoType::read;
  io.offset_blocks = 0;
  io.count_blocks = 1;
  io.iov = &iov;
  io.iov_count = 1;
  const bdev::Handle handle(bdev_, home());
  const Status result = co_await bdev::io_wait(handle, io);
  home().buffers().give(buffer);
  co_return result;
}

Task<Status> Namespace::report(Reservation* out) {
  in_flight_count_++;
  const Status result = co_await confirm_serving();
  if (result.ok()) *out = reservation_;
  leave();
  co_return result;
}

void Namespace::tell(const Notice& notice) {
  if (watcher_ != nullptr) watcher_->reservation_notice(notice);
}

}  // namespace basalt::ns
