// SPDX-License-Identifier: Apache-2.0
// Requests of a leg with parity: through the raid, then the lease.
#include "bdev/raid/parity_leg.h"

#include <algorithm>

#include "bdev/raid/parity_leg_internal.h"
#include "bdev/raid/raid_parity_internal.h"

namespace basalt::bdev {
namespace {

constexpr Duration parity_lease_max = seconds(1);
// A member that cannot read any of so many blocks, spread over it, gives no lease.
constexpr uint32_t parity_renewal_tries_max = 8;

Outcome check_parity_leg(Reactor& home, const ParityLegOptions& options, const std::vector<LegMember>& members) {
  if (options.lease <= Duration{} || options.lease > parity_lease_max) {
    return Error{Errc::invalid_argument, "lease_ms: 1 to 1000"};
  }
  if (options.identity.empty() || options.identity.size() > parity::name_bytes_max) {
    return Error{Errc::invalid_argument, "identity: 1 to 63 bytes"};
  }
  if (options.origin == options.identity || options.origin.size() > parity::name_bytes_max) {
    return Error{Errc::invalid_argument, "origin: at most 63 bytes, and not the leg's own identity"};
  }
  for (size_t i = 0; i < members.size(); i++) {
    if (&members[i].handle.bdev().home() != &home) {
      return Error{Errc::invalid_argument,
                   "members: " + members[i].handle.info().name + " lives on another reactor than the leg"};
    }
    for (size_t j = 0; j < i; j++) {
      if (members[j].replica == members[i].replica) {
        return Error{Errc::invalid_argument, "members: two are replica " + members[i].replica};
      }
    }
  }
  return success();
}

}  // namespace

Task<Result<std::unique_ptr<ParityLegBdev>>> ParityLegBdev::open(Reactor& home, ParityLegOptions options,
                                                                 std::vector<LegMember> in_sync, LegEvents events) {
  auto checked = check_parity_leg(home, options, in_sync);
  if (!checked) co_return std::move(checked).error();
  RaidParityOptions raid;
  raid.name = options.identity;
  raid.origin = options.origin;
  raid.parity_count = options.parity_count;
  raid.data_count = options.data_count;
  raid.count_blocks = options.count_blocks;
  raid.grown_blocks = options.grown_blocks;
  raid.strip_bytes = strip_bytes;
  raid.log_slot_count = options.log_slot_count;
  raid.bugs = options.planted.raid;
  std::unique_ptr<ParityLegBdev> leg(new ParityLegBdev(home, std::move(options), std::move(events)));
  std::vector<Handle> taps;
  for (LegMember& member : in_sync)
    taps.emplace_back(*leg->put(std::move(member), MemberState::in_sync).tap, home);
  auto opening = RaidParityBdev::open_driven(home, std::move(raid), std::move(taps), leg->raid_events());
  auto opened = co_await opening;
  if (!opened || leg->fenced_) {
    leg->events_ = {};
    if (opened) {
      leg->raid_ = std::move(*opened);
      leg->raid_->fence();
    }
    const bool fenced = leg->fenced_;
    (void)co_await leg->close();
    if (fenced) co_return Error{Errc::fenced, leg->info_.name + ": a member obeys another epoch"};
    if (opened) co_return Error{Errc::io, leg->info_.name + ": a member failed"};
    co_return std::move(opened).error();
  }
  leg->raid_ = std::move(*opened);
  const BdevInfo& below = leg->raid_->info();
  leg->info_.block_size_bytes = below.block_size_bytes;
  leg->info_.memory_alignment_bytes = below.memory_alignment_bytes;
  leg->lists_->scratch = std::make_unique<char[]>(below.block_size_bytes);
  leg->tell_failures();
  co_return leg;
}

ParityLegBdev::ParityLegBdev(Reactor& home, ParityLegOptions options, LegEvents events)
    : DrivenLeg(home),
      options_(std::move(options)),
      events_(std::move(events)),
      ops_(std::make_unique<Pool<Op>>(child_io_count_max)),
      lists_(std::make_unique<Lists>()) {
  info_.name = options_.name;
  info_.product = "leg";
  info_.uuid = options_.uuid;
  info_.count_blocks = options_.count_blocks;
  info_.volatile_cache = true;
}

ParityLegBdev::~ParityLegBdev() = default;

void ParityLegBdev::submit(Io* io) {
  const nvme::Status checked = check(*io);
  if (!checked.ok()) return complete_later(io, checked);
  if (fenced_ || !gate_.enter()) return complete_later(io, nvme::status::ana_inaccessible);
  Op* op = ops_->take();
  BASALT_ASSERT(op != nullptr);
  op->leg = this;
  op->io = io;
  forward(op);
}

void ParityLegBdev::forward(Op* op) {
  Io& below = op->below;
  below.type = op->io->type;
  below.fua = op->io->fua;
  below.offset_blocks = op->io->offset_blocks;
  below.count_blocks = op->io->count_blocks;
  below.iov = op->io->iov;
  below.iov_count = op->io->iov_count;
  below.context = op;
  below.done = forwarded_done;
  op->set_version = set_version_;
  raid_->submit(&below);
}

void ParityLegBdev::forwarded_done(Io* io) {
  Op* op = static_cast<Op*>(io->context);
  ParityLegBdev* leg = op->leg;
  const nvme::Status status = io->status;
  if (leg->fenced_) return leg->finish(op, nvme::status::ana_inaccessible);
  if (status.type() == nvme::StatusType::path) {
    // Too few members had it. Once the set is another one it may be had, and there is no other answer until then.
    if (op->set_version != leg->set_version_) return leg->forward(op);
    return leg->lists_->held.push_back(op);
  }
  if (status.ok() && op->io->type == IoType::read) return leg->answer_read(op);
  leg->finish(op, status);
}

void ParityLegBdev::answer_read(Op* op) {
  if (fenced_) return finish(op, nvme::status::ana_inaccessible);
  if (!leases_valid()) return lists_->lease_waits.push_back(op);
  finish(op, nvme::status::success);
}

void ParityLegBdev::finish(Op* op, nvme::Status status) {
  Io* io = op->io;
  ops_->give(op);
  complete_now(io, status);
  gate_.leave();
}

// Something about the set or the leases changed: let go what was waiting for it.
void ParityLegBdev::recheck() {
  tell_failures();
  List<Op, &Op::node> waiting_ops;
  waiting_ops.splice_back(lists_->lease_waits);
  while (Op* op = waiting_ops.pop_front())
    answer_read(op);
  waiting_ops.splice_back(lists_->held);
  while (Op* op = waiting_ops.pop_front()) {
    if (fenced_) {
      finish(op, nvme::status::ana_inaccessible);
    } else {
      forward(op);
    }
  }
}

// The clock is read here, after the data came: the process may have been stopped at any point before.
bool ParityLegBdev::leases_valid() {
  if (options_.planted.ignore_lease) return true;
  const Instant now = home().env().now();
  bool valid = true;
  for_each_of_set([&](Slot& slot) {
    const Duration age = now - slot.member.handle.bdev().last_success_sent();
    if (age >= options_.lease) valid = false;
    if (age >= options_.lease / 3) renew(slot);
  });
  return valid;
}

void ParityLegBdev::renew(Slot& slot) {
  if (slot.renewing || slot.failed || fenced_ || !gate_.enter()) return;
  Io& io = slot.renewal;
  slot.iov = {lists_->scratch.get(), info_.block_size_bytes};
  io.type = IoType::read;
  // Another block after a media error: the lease must not hang on one bad block.
  io.offset_blocks = slot.member.handle.info().count_blocks / parity_renewal_tries_max * slot.refused_count;
  io.count_blocks = 1;
  io.iov = &slot.iov;
  io.iov_count = 1;
  io.context = &slot;
  io.done = renewal_done;
  slot.renewing = true;
  slot.member.handle.submit(&io);
}

void ParityLegBdev::renewal_done(Io* io) {
  auto& slot = *static_cast<Slot*>(io->context);
  ParityLegBdev* leg = slot.leg;
  const nvme::Status status = io->status;
  slot.renewing = false;
  if (status.is(nvme::status::reservation_conflict)) {
    leg->conflict();
  } else if (status.ok()) {
    slot.refused_count = 0;
  } else if (is_member_failure(status) || ++slot.refused_count == parity_renewal_tries_max) {
    slot.refused_count = 0;
    if (slot.of_set()) leg->raid_->member_lost(slot.member.handle.info().name);
  }
  if (slot.state == MemberState::empty) leg->wake_released();
  leg->recheck();
  leg->gate_.leave();
}

void ParityLegBdev::fence() {
  if (fenced_) return;
  fenced_ = true;
  // While it opens there is no raid yet: who opens it looks at fenced_.
  if (raid_ != nullptr) raid_->fence();
  recheck();
  if (events_.fenced) events_.fenced();
}

Task<bool> ParityLegBdev::settle_all() {
  if (fenced_ || !gate_.enter()) co_return false;
  Gate::Leaver leaver(gate_);
  const Counted counted(settling_count_);
  std::vector<Slot*> asked;
  for_each_of_set([&](Slot& slot) { asked.push_back(&slot); });
  // By the members themselves: a flush of the raid waits for the orchestrator's word about one that fails.
  for (Slot* slot : asked) {
    if (slot->failed || fenced_) co_return false;
    Io flush;
    flush.type = IoType::flush;
    const Handle tap(*slot->tap, home());
    const nvme::Status status = co_await io_wait(tap, flush);
    if (status.ok()) continue;
    // A failed flush expels the member, whatever its error.
    if (slot->of_set()) raid_->member_lost(slot->member.handle.info().name);
    co_return false;
  }
  bool whole = !fenced_;
  for_each_of_set([&](const Slot& slot) {
    const bool was_asked = std::find(asked.begin(), asked.end(), &slot) != asked.end();
    whole = whole && was_asked && !slot.failed && slot.state == MemberState::in_sync;
  });
  co_return whole;
}

Task<Outcome> ParityLegBdev::close() {
  events_ = {};
  fence();
  co_await gate_.close();
  if (raid_ != nullptr) (void)co_await raid_->close();
  BASALT_ASSERT(children_.in_use() == 0);
  co_return success();
}

}  // namespace basalt::bdev
