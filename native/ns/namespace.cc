// SPDX-License-Identifier: Apache-2.0
#include "ns/namespace.h"

#include <utility>

#include "base/probe.h"

namespace basalt::ns {
namespace {

void run_user_done(Work* work) {
  auto* io = static_cast<NsIo*>(work);
  io->done(io);
}

Access access_of(bdev::IoType type) {
  // A flush changes nothing that another host could see, but belongs to who may write.
  return type == bdev::IoType::read ? Access::read : Access::write;
}

}  // namespace

Task<Result<std::unique_ptr<Namespace>>> Namespace::open(bdev::Bdev* bdev, NamespaceOptions options) {
  GateRecord record;
  std::string note;
  if (options.one_writer && options.gate_epoch != 0) {
    record.highest_epoch = options.planted_forget_epoch ? 0 : options.gate_epoch;
  } else if (options.one_writer && !options.planted_forget_epoch) {
    const std::string attribute = bdev->attribute();
    auto decoded = decode_gate(attribute);
    if (!decoded) co_return Error{decoded.error().code, bdev->info().name + ": " + decoded.error().message};
    record = *decoded;
    auto left = decode_note(attribute);
    BASALT_ASSERT(left.ok());
    note = std::move(*left);
    if (attribute.empty()) {
      // Also finds out now, and not at the first takeover, whether the device can keep a gate.
      std::string empty = encode_gate(record);
      auto stored = co_await bdev->set_attribute(std::move(empty));
      if (!stored) co_return Error{stored.error().code, "one_writer: " + stored.error().message};
    }
  }
  if (options.uuid.is_zero()) options.uuid = bdev->info().uuid;
  co_return std::unique_ptr<Namespace>(new Namespace(*bdev, options, record, std::move(note)));
}

Namespace::Namespace(bdev::Bdev& bdev, const NamespaceOptions& options, const GateRecord& record, std::string note)
    : bdev_(bdev),
      options_(options),
      block_size_bytes_(bdev.info().block_size_bytes),
      reservation_(options.one_writer, record),
      note_(std::move(note)),
      shared_(options.keeper == nullptr ? nullptr : std::make_unique<SharedReservation>()) {}

Namespace::~Namespace() {
  BASALT_ASSERT(in_flight_count_ == 0);
}

void Namespace::submit(NsIo* io, Reactor& user) {
  io->owner = this;
  io->user = &user;
  io->user_done = io->done;
  if (&user == &home()) [[likely]] {
    dispatch(io);
  } else {
    io->run = arrive;
    home().post(io);
  }
}

void Namespace::arrive(Work* work) {
  auto* io = static_cast<NsIo*>(work);
  io->owner->dispatch(io);
}

nvme::Status Namespace::judge(const HostId& host, Access access) {
  if (closed_) return nvme::status::invalid_namespace.dnr();
  if (options_.planted_no_gate) return nvme::status::success;
  if (shared_ != nullptr && !shared_->known) [[unlikely]]
    return nvme::status::ana_inaccessible;
  if (taking_over_ || !reservation_.allows(host, access)) {
    stats_.conflict_count++;
    if (reservation_.one_writer()) reach(Mark::fence_hit);
    return nvme::status::reservation_conflict.dnr();
  }
  return nvme::status::success;
}

void Namespace::dispatch(NsIo* io) {
  const nvme::Status status = judge(io->host, access_of(io->type));
  if (!status.ok()) {
    io->status = status;
    io->done = io->user_done;
    io->run = run_user_done;
    if (io->user == &home()) {
      home().defer(io);
    } else {
      io->user->post(io);
    }
    return;
  }
  if (!compares_.empty() && is_kept_out(*io)) {
    kept_out_.push_back(io);
    return;
  }
  in_flight_count_++;
  admit(io, device_done);
}

void Namespace::admit(NsIo* io, bdev::IoDone done) {
  (io->type == bdev::IoType::read ? stats_.read_count : stats_.write_count)++;
  in_flight_.push_back(io);
  io->drain = nullptr;
  io->admitted_count = ++admitted_count_;
  io->done = done;
  bdev_.submit(io);
}

void Namespace::device_done(bdev::Io* done) {
  auto* io = static_cast<NsIo*>(done);
  Namespace& self = *io->owner;
  Drain* drain = io->drain;
  self.device_ended(io);
  send_back(io);
  if (drain != nullptr && --drain->count == 0 && drain->waiter) std::exchange(drain->waiter, {}).resume();
  if (!self.compares_.empty()) self.run_compares();
  self.leave();
}

void Namespace::device_ended(NsIo* io) {
  if (!io->status.ok()) stats_.failed_count++;
  in_flight_.remove(io);
}

// Not to be touched here afterwards: the submitter may free it.
void Namespace::send_back(NsIo* io) {
  io->done = io->user_done;
  if (io->user == &io->owner->home()) {
    io->done(io);
  } else {
    io->run = run_user_done;
    io->user->post(io);
  }
}

void Namespace::leave() {
  in_flight_count_--;
  if (in_flight_count_ == 0 && close_waiter_) std::exchange(close_waiter_, {}).resume();
}

bool Namespace::LockAwaiter::await_ready() const noexcept {
  if (owner.locked_) return false;
  owner.locked_ = true;
  return true;
}

void Namespace::LockAwaiter::await_suspend(std::coroutine_handle<> waiter) {
  owner.lock_waiters_.push_back(waiter);
}

void Namespace::unlock() {
  if (lock_waiters_.empty()) {
    locked_ = false;
    return;
  }
  const auto waiter = lock_waiters_.front();
  lock_waiters_.pop_front();
  waiter.resume();
}

Task<nvme::Status> Namespace::register_host(HostId host, RegisterFields fields) {
  const ReservationCommand command{ReservationCommand::Kind::register_host, fields, {}, {}};
  auto changing = shared_ != nullptr ? change_shared(host, command) : change_here(host, command);
  const nvme::Status status = co_await changing;
  co_return status;
}

Task<nvme::Status> Namespace::acquire(HostId host, AcquireFields fields) {
  const ReservationCommand command{ReservationCommand::Kind::acquire, {}, fields, {}};
  auto changing = shared_ != nullptr ? change_shared(host, command) : change_here(host, command);
  const nvme::Status status = co_await changing;
  co_return status;
}

Task<nvme::Status> Namespace::release(HostId host, ReleaseFields fields) {
  const ReservationCommand command{ReservationCommand::Kind::release, {}, {}, fields};
  auto changing = shared_ != nullptr ? change_shared(host, command) : change_here(host, command);
  const nvme::Status status = co_await changing;
  co_return status;
}

Task<nvme::Status> Namespace::change_here(HostId host, ReservationCommand command) {
  in_flight_count_++;
  co_await lock();
  const Reservation before = reservation_;
  Reservation next = reservation_;
  nvme::Status status = carry_out(command, host, &next);
  if (status.ok()) {
    status = co_await apply(std::move(next), host);
    constexpr uint8_t preempt_and_abort = 2;
    const bool aborts =
        command.kind == ReservationCommand::Kind::acquire && command.acquiring.action == preempt_and_abort;
    if (!reservation_.one_writer() && aborts) {
      Drain drain;
      in_flight_.for_each([&](NsIo* io) {
        const bool preempted = before.is_registrant(io->host) && !reservation_.is_registrant(io->host);
        if (!preempted || io->drain != nullptr) return;
        io->drain = &drain;
        drain.count++;
      });
      co_await drain;
    }
  }
  if (status.ok() && !before.one_writer()) {
    for (const Notice& notice : notices_of(command, host, before, reservation_))
      tell(notice);
  }
  unlock();
  leave();
  co_return status;
}

// Makes `next` the state. When the gate's record changes, everybody is shut out until the change is durable.
Task<nvme::Status> Namespace::apply(Reservation next, HostId host) {
  const GateRecord record = next.record();
  if (!reservation_.one_writer() || record == reservation_.record()) {
    reservation_ = std::move(next);
    co_return nvme::status::success;
  }
  taking_over_ = true;
  Drain drain;
  in_flight_.for_each([&](NsIo* io) {
    if (io->host == host) return;
    io->drain = &drain;
    drain.count++;
  });
  if (drain.count > 0) reach(Mark::gate_closed);
  co_await drain;
  co_await snapshots_;
  Outcome stored = success();
  if (options_.gate_epoch == 0) {
    std::string encoded = encode_gate(record, note_);
    auto storing = bdev_.set_attribute(std::move(encoded));
    stored = co_await storing;
  }
  reservation_ = std::move(next);
  // Which of the two records the medium holds is unknown now.
  if (!stored) reservation_.close_gate(record.highest_epoch);
  taking_over_ = false;
  co_return stored ? nvme::status::success : nvme::status::internal_error;
}

Task<void> Namespace::close() {
  closed_ = true;
  if (shared_ != nullptr) shared_->answered(SharedReservation::Answer::closed);
  struct Idle {
    Namespace& owner;
    bool await_ready() const noexcept { return owner.in_flight_count_ == 0; }
    void await_suspend(std::coroutine_handle<> waiter) noexcept { owner.close_waiter_ = waiter; }
    void await_resume() const noexcept {}
  };
  Idle idle{*this};
  co_await idle;
}

}  // namespace basalt::ns
