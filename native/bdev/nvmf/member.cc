// SPDX-License-Identifier: Apache-2.0
#include "bdev/nvmf/member.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "base/probe.h"
#include "bdev/nvmf/link_reach.h"
#include "bdev/nvmf/own_reach.h"

namespace basalt::bdev {
namespace {

constexpr size_t member_flights_max = 4096;
constexpr uint32_t register_key = 0;
constexpr uint32_t acquire_preempt_and_abort = 2;
constexpr uint32_t report_bytes = 4096;
// Reservation Report, extended data structure (128-bit host identifiers): a header of 64 bytes, then 64 per registrant.
constexpr uint32_t report_extended = 1;
constexpr size_t report_header_bytes = 64;
constexpr size_t report_registrant_bytes = 64;
constexpr size_t report_key_offset = 8;

}  // namespace

Member::Member(Reactor& home, nvmf::HostTransport& transport, MemberOptions options, Links* links)
    : Bdev(home), transport_(transport), links_(links), options_(std::move(options)), flights_(member_flights_max) {
  info_.name = options_.name;
  info_.product = "nvmf";
  info_.count_blocks = 0;
  deadline_timer_.member = this;
  deadline_timer_.run = [](Work* work) {
    Member* member = static_cast<DeadlineTimer*>(work)->member;
    if (member->reach_) {
      member->reach_->end({Errc::timed_out, member->options_.name + ": the takeover did not end in time"});
    }
  };
}

Member::~Member() {
  BASALT_ASSERT(reach_ == nullptr && gate_.count() == 0);
  if (pulse_) pulse_->remove(this);
}

Task<Result<MemberInfo>> Member::takeover(uint64_t epoch, Duration timeout) {
  if (epoch == 0) co_return Error{Errc::invalid_argument, "epoch: at least 1"};
  if (busy_) co_return Error{Errc::busy, options_.name + ": a takeover is running"};
  if (closing_ || !gate_.enter()) co_return Error{Errc::closed, options_.name + " is being detached"};
  Gate::Leaver leaver(gate_);
  busy_ = true;
  home().arm_after(&deadline_timer_, timeout);
  auto result = co_await takeover_steps(epoch, timeout);
  home().cancel(&deadline_timer_);
  if (result.ok() && closing_) result = Error{Errc::closed, options_.name + " is being detached"};
  if (result.ok() && !reach_->live()) result = Error{Errc::closed, options_.name + ": lost after the takeover"};
  if (result.ok()) {
    taken_ = true;
  } else if (reach_) {
    co_await reach_->close();
    reach_.reset();
  }
  busy_ = false;
  co_return result;
}

Task<Result<MemberInfo>> Member::takeover_steps(uint64_t epoch, Duration timeout) {
  taken_ = false;
  if (reach_) {
    // What is in flight under the old identity has ended when this returns.
    reach_->end({Errc::closed, options_.name + ": taken over anew"});
    co_await reach_->close();
    reach_.reset();
  }
  Outcome outcome = co_await open_reach(timeout);
  if (!outcome) co_return outcome.error();
  const nvmf::HostNamespace* ns = reach_->space();
  if (ns == nullptr) {
    co_return Error{Errc::not_found, options_.subnqn + " has no namespace " + std::to_string(options_.nsid)};
  }
  if ((reach_->info().oncs & nvmf::oncs_reservations) == 0) {
    co_return Error{Errc::unsupported, options_.subnqn + " has no reservations"};
  }
  if (info_.count_blocks != 0 && ns->block_size_bytes != info_.block_size_bytes) {
    co_return Error{Errc::invalid_argument, options_.name + ": the block size has changed"};
  }
  fill_nvmf_info(info_, *ns, reach_->info());
  geometry_ = nvmf_geometry(*ns, reach_->info());
  incarnation_ = reach_->incarnation();
  fencing_epoch_ = 0;
  reach_->set_epoch(epoch);
  outcome = co_await acquire(epoch);
  if (!outcome) co_return outcome.error();
  if (!reach_->live()) co_return Error{Errc::closed, options_.name + ": lost during the takeover"};
  epoch_ = epoch;
  reach_->set_command_timeout(options_.command_timeout);
  MemberInfo member;
  member.incarnation = incarnation_;
  member.count_blocks = info_.count_blocks;
  member.block_size_bytes = info_.block_size_bytes;
  co_return member;
}

// Where the node has no link, or none for this member: without one. What the replica itself refuses by the link, it
// refuses on connections of the member's own as well: one that came a moment later would only miss the link.
Task<Outcome> Member::open_reach(Duration timeout) {
  Reach::Listener& listener = *this;
  const Instant deadline = home().now() + timeout;
  if (links_ != nullptr && !options_.link_nqn.empty()) {
    reach_ = std::make_unique<LinkReach>(home(), *links_, options_, listener);
    Outcome opened = co_await reach_->open(timeout);
    if (opened.ok()) co_return opened;
    if (opened.error().code != Errc::unsupported) co_return opened;
    if (!deadline_timer_.armed()) co_return opened;
    co_await reach_->close();
    reach_.reset();
  }
  if (closing_) co_return Error{Errc::closed, options_.name + " is being detached"};
  reach_ = std::make_unique<OwnReach>(home(), transport_, options_, listener);
  Outcome opened = co_await reach_->open(std::max(milliseconds(1), deadline - home().now()));
  co_return opened;
}

Task<Outcome> Member::acquire(uint64_t epoch) {
  nvme::ReservationRegisterData keys{0, epoch};
  nvmf::HostController::Call call;
  call.command.opcode = static_cast<uint8_t>(nvme::NvmOpcode::reservation_register);
  call.command.nsid = options_.nsid;
  call.command.cdw10 = register_key;
  call.direction = nvme::DataDirection::host_to_controller;
  call.data = &keys;
  call.data_bytes = sizeof(keys);
  const Instant register_sent = home().now();
  auto answer = co_await reach_->call(call);
  if (answer.status.ok()) {
    last_success_sent_ = std::max(last_success_sent_, register_sent);
    const uint64_t holder_key = co_await reported_key();
    nvme::ReservationAcquireData acquire_keys{epoch, holder_key};
    call.command = {};
    call.command.opcode = static_cast<uint8_t>(nvme::NvmOpcode::reservation_acquire);
    call.command.nsid = options_.nsid;
    call.command.cdw10 = acquire_preempt_and_abort | static_cast<uint32_t>(nvme::ReservationType::exclusive_access)
                                                         << 8;
    call.data = &acquire_keys;
    call.data_bytes = sizeof(acquire_keys);
    const Instant acquire_sent = home().now();
    answer = co_await reach_->call(call);
    if (answer.status.ok()) {
      last_success_sent_ = std::max(last_success_sent_, acquire_sent);
      co_return success();
    }
  }
  if (answer.lost) {
    const bool late = !deadline_timer_.armed();
    co_return Error{late ? Errc::timed_out : Errc::unreachable,
                    options_.name + (late ? ": the takeover did not end in time" : ": lost during the takeover")};
  }
  if (!answer.status.is(nvme::status::reservation_conflict)) {
    co_return Error{Errc::io, options_.name + ": takeover: " + nvme::to_string(answer.status)};
  }
  const uint64_t higher = co_await reported_key();
  if (higher > epoch) fencing_epoch_ = higher;
  reach(Mark::takeover_refused);
  co_return Error{Errc::fenced, options_.name + ": epoch " + std::to_string(epoch) + " is fenced" +
                                    (higher > epoch ? " by epoch " + std::to_string(higher) : std::string())};
}

// The highest key that is registered; 0: none, or the report does not tell.
Task<uint64_t> Member::reported_key() {
  auto report = std::make_unique<uint8_t[]>(report_bytes);
  nvmf::HostController::Call call;
  call.command.opcode = static_cast<uint8_t>(nvme::NvmOpcode::reservation_report);
  call.command.nsid = options_.nsid;
  call.command.cdw10 = report_bytes / 4 - 1;
  call.command.cdw11 = report_extended;
  call.direction = nvme::DataDirection::controller_to_host;
  call.data = report.get();
  call.data_bytes = report_bytes;
  const auto answer = co_await reach_->call(call);
  uint64_t highest = 0;
  if (!answer.status.ok()) co_return highest;
  const size_t room = (report_bytes - report_header_bytes) / report_registrant_bytes;
  const auto told = load_le<uint16_t>(report.get() + offsetof(nvme::ReservationReportHeader, regctl));
  for (size_t i = 0; i < std::min<size_t>(told, room); i++) {
    const uint8_t* registrant = report.get() + report_header_bytes + i * report_registrant_bytes;
    highest = std::max(highest, load_le<uint64_t>(registrant + report_key_offset));
  }
  co_return highest;
}

Task<Outcome> Member::prepare_snapshot() {
  auto asking = snapshot_command(nvme::snapshot_prepare, std::string());
  Outcome prepared = co_await asking;
  co_return prepared;
}

Task<Outcome> Member::snapshot(std::string name, std::function<bool()> may_begin) {
  if (may_begin && !may_begin()) co_return Error{Errc::fenced, options_.name + ": another writer has it"};
  auto asking = snapshot_command(nvme::snapshot_cut, std::move(name));
  Outcome made = co_await asking;
  co_return made;
}

Task<Outcome> Member::snapshot_command(uint32_t step, std::string name) {
  char data[nvme::snapshot_name_bytes] = {};
  if (name.size() >= sizeof(data)) co_return Error{Errc::invalid_argument, name + ": has more than 63 characters"};
  std::memcpy(data, name.data(), name.size());
  nvmf::HostController::Call call;
  call.command.opcode = static_cast<uint8_t>(nvme::NvmOpcode::snapshot);
  call.command.cdw10 = step;
  call.direction = nvme::DataDirection::host_to_controller;
  call.data = data;
  call.data_bytes = sizeof(data);
  Outcome outcome = co_await replica_command(call, "snapshot");
  co_return outcome;
}

Task<Outcome> Member::write_note(std::string note) {
  if (note.empty() || note.size() > nvme::note_bytes_max) {
    co_return Error{Errc::invalid_argument, options_.name + ": a note has 1 to 944 bytes"};
  }
  char data[nvme::note_data_bytes] = {};
  store_le<uint16_t>(data, static_cast<uint16_t>(note.size()));
  std::memcpy(data + nvme::note_offset, note.data(), note.size());
  nvmf::HostController::Call call;
  call.command.opcode = static_cast<uint8_t>(nvme::NvmOpcode::write_note);
  call.direction = nvme::DataDirection::host_to_controller;
  call.data = data;
  call.data_bytes = sizeof(data);
  Outcome outcome = co_await replica_command(call, "note");
  co_return outcome;
}

Task<Result<std::string>> Member::read_note() {
  char data[nvme::note_data_bytes] = {};
  nvmf::HostController::Call call;
  call.command.opcode = static_cast<uint8_t>(nvme::NvmOpcode::read_note);
  call.direction = nvme::DataDirection::controller_to_host;
  call.data = data;
  call.data_bytes = sizeof(data);
  Outcome outcome = co_await replica_command(call, "note");
  if (!outcome) co_return std::move(outcome).error();
  const size_t length_bytes = load_le<uint16_t>(data);
  if (length_bytes > nvme::note_bytes_max) co_return Error{Errc::io, "the replica's note is too long"};
  co_return std::string(data + nvme::note_offset, length_bytes);
}

// Of our own commands, which only the nodes of a cluster know.
Task<Outcome> Member::replica_command(nvmf::HostController::Call call, const char* what) {
  if (!taken() || busy_ || closing_ || !gate_.enter()) {
    co_return Error{Errc::unreachable, options_.name + ": is not connected"};
  }
  Gate::Leaver leaver(gate_);
  call.command.nsid = options_.nsid;
  const auto answer = co_await reach_->call(call);
  if (answer.lost) co_return Error{Errc::unreachable, options_.name + ": lost while it was asked: " + what};
  if (answer.status.ok()) co_return success();
  Errc code = Errc::io;
  if (answer.status.is(nvme::status::reservation_conflict)) code = Errc::fenced;
  if (answer.status.is(nvme::status::capacity_exceeded)) code = Errc::no_space;
  if (answer.status.is(nvme::status::invalid_opcode)) code = Errc::unsupported;
  if (answer.status.is(nvme::status::invalid_field)) code = Errc::invalid_argument;
  co_return Error{code, options_.name + ": " + what + ": " + nvme::to_string(answer.status)};
}

void Member::fail(Error reason) {
  if (reach_) reach_->end(std::move(reason));
}

void Member::follow(std::shared_ptr<Pulse> pulse) {
  BASALT_ASSERT(pulse_ == nullptr && pulse != nullptr);
  pulse_ = std::move(pulse);
  pulse_->add(this);
}

void Member::pulse_stopped() {
  if (reach_) reach_->ask();
}

void Member::reach_lost(const Error& reason) {
  const bool was_taken = std::exchange(taken_, false);
  if (was_taken && !busy_ && !closing_ && listener_ != nullptr) listener_->member_failed(*this, reason);
}

void Member::reach_changed() {
  const nvmf::HostNamespace* ns = reach_->space();
  if (ns == nullptr || ns->block_size_bytes != info_.block_size_bytes) {
    return reach_->end({Errc::not_found, options_.name + ": the replica's namespace is gone"});
  }
  set_size(ns->count_blocks);
}

// ---- I/O -----------------------------------------------------------------------------------------------------------

void Member::submit(Io* io) {
  if (!taken() || closing_) return complete_later(io, nvme::status::host_path_error);
  const nvme::Status status = check(*io);
  if (!status.ok()) return complete_later(io, status);
  (void)gate_.enter();
  Flight* flight = flights_.take();
  if (flight == nullptr) {
    ios_without_flight_.push_back(io);
    return;
  }
  flight->begin(io);
  flight->owner = this;
  send(flight);
}

void Member::send(Flight* flight) {
  flight->prepare(geometry_);
  flight->done = [](nvmf::HostCommand* command) {
    auto* done = static_cast<Flight*>(command);
    static_cast<Member*>(done->owner)->answered(done);
  };
  reach_->submit(flight);
}

void Member::answered(Flight* flight) {
  reach_->answered(flight);
  const nvme::Status status = flight->status();
  if (!status.ok()) return finish(flight, status);
  last_success_sent_ = std::max(last_success_sent_, flight->submitted);
  if (!flight->advance()) return finish(flight, nvme::status::success);
  if (!taken()) return finish(flight, nvme::status::host_path_error);
  send(flight);
}

void Member::finish(Flight* flight, nvme::Status status) {
  Io* io = std::exchange(flight->io, nullptr);
  flights_.give(flight);
  complete_now(io, status);
  while (!ios_without_flight_.empty()) {
    if (!taken()) {
      complete_now(ios_without_flight_.pop_front(), nvme::status::host_path_error);
      gate_.leave();
      continue;
    }
    Flight* next = flights_.take();
    if (next == nullptr) break;
    next->begin(ios_without_flight_.pop_front());
    next->owner = this;
    send(next);
  }
  gate_.leave();
}

Task<Outcome> Member::close() {
  closing_ = true;
  if (busy_) fail({Errc::closed, options_.name + " is being detached"});
  while (busy_)
    co_await sleep_for(home(), milliseconds(1));
  if (reach_) co_await reach_->close();
  co_await gate_.close();
  reach_.reset();
  co_return success();
}

}  // namespace basalt::bdev
