// SPDX-License-Identifier: Apache-2.0
#include "bdev/fault/fault.h"

namespace basalt::bdev {

FaultBdev::FaultBdev(Reactor& home, std::string name, Uuid uuid, Handle base) : Bdev(home), base_(base) {
  info_ = base.info();
  info_.name = std::move(name);
  info_.product = "fault";
  info_.uuid = uuid;
}

void FaultBdev::submit(Io* io) {
  const nvme::Status checked = check(*io);
  if (!checked.ok()) return complete_later(io, checked);
  if (!fault_ || !fault_->types.has(io->type)) return pass(io, false);
  const FaultKind kind = fault_->kind;
  if (fault_->count != UINT64_MAX && --fault_->count == 0) fault_.reset();
  injected_count_++;
  switch (kind) {
    case FaultKind::failure:
      return complete_later(
          io, io->type == IoType::read ? nvme::status::unrecovered_read_error : nvme::status::write_fault);
    case FaultKind::pending:
      pending_.push_back(io);
      pending_count_++;
      return;
    case FaultKind::corrupt_data:
      return pass(io, true);
  }
}

void FaultBdev::pass(Io* io, bool corrupt) {
  ChildIo* child = children_.take();
  BASALT_ASSERT(child != nullptr);
  child->mirror(io, child_done, this);
  child->member = corrupt ? 1 : 0;
  base_.submit(child);
}

void FaultBdev::child_done(Io* io) {
  auto* bdev = static_cast<FaultBdev*>(io->context);
  ChildIo* child = ChildIo::of(io);
  Io* parent = child->parent;
  if (child->member == 1 && io->type == IoType::read && parent->iov_count > 0) {
    *static_cast<uint8_t*>(parent->iov[0].base) ^= 0x01;
  }
  const nvme::Status status = io->status;
  bdev->children_.give(child);
  complete_now(parent, status);
}

void FaultBdev::clear() {
  fault_.reset();
  List<Io, &Io::node> going;
  going.splice_back(pending_);
  pending_count_ = 0;
  while (Io* io = going.pop_front())
    pass(io, false);
}

Task<Outcome> FaultBdev::close() {
  BASALT_ASSERT(pending_.empty() && children_.in_use() == 0);
  co_return success();
}

}  // namespace basalt::bdev
