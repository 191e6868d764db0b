// SPDX-License-Identifier: Apache-2.0
// Fused Compare and Write: two capsules that follow one another on a queue, the first a Compare, the second a Write of
// the same blocks. They are paired as they arrive, because their data may come in any order, and start when both have
// it. A half whose other half is missing, wrong or has failed is not carried out.
#include "nvmf/target/controller.h"
#include "nvmf/target/queue.h"

namespace basalt::nvmf {
namespace {

using nvme::NvmOpcode;
using nvme::Status;
namespace status = nvme::status;

struct FusedPair final : ns::CompareWrite {
  Request* compare = nullptr;
  Request* write = nullptr;
  Buffer* buffer = nullptr;
  Iovec read;
};

bool is(const Request& request, NvmOpcode opcode) {
  return request.command.opcode == static_cast<uint8_t>(opcode);
}

bool same_blocks(const nvme::Command& a, const nvme::Command& b) {
  return a.nsid == b.nsid && a.slba() == b.slba() && a.count_blocks() == b.count_blocks();
}

}  // namespace

// In the order of arrival. Not ok: the command ends with it.
Status TargetQueue::pair(Request* request) {
  const uint8_t fuse = request->command.flags & nvme::fuse_mask;
  Request* first = std::exchange(fused_first_, nullptr);
  const bool first_failed = std::exchange(fused_first_failed_, false);
  if (first != nullptr && fuse != nvme::fuse_second) abandon(first, status::missing_fused.dnr());
  if (fuse == 0) return status::success;
  if (!subsystem_->options().compare_write) return status::invalid_field.dnr();
  if (fuse == nvme::fuse_first) {
    fused_first_ = request;  // also when it ends here: its second half must not be carried out
    return is(*request, NvmOpcode::compare) ? status::success : status::invalid_field.dnr();
  }
  if (fuse != nvme::fuse_second) return status::invalid_field.dnr();
  if (first_failed) return status::failed_fused.dnr();
  if (first == nullptr) return status::missing_fused.dnr();
  if (!is(*request, NvmOpcode::write) || !same_blocks(first->command, request->command)) {
    abandon(first, status::invalid_field.dnr());
    return status::invalid_field.dnr();
  }
  first->fused = request;
  request->fused = first;
  return status::success;
}

void TargetQueue::abandon(Request* half, Status status) {
  half->fused = nullptr;
  half->fused_status = status;
  if (!half->fused_waits) return;  // when it has its data
  half->fused_waits = false;
  fused_waiting_.remove(half);
  complete_later(half, status);
}

// A half was answered before the pair could start.
void TargetQueue::half_ended(Request* half) {
  if (half == fused_first_) {
    fused_first_ = nullptr;
    fused_first_failed_ = true;
  }
  Request* other = std::exchange(half->fused, nullptr);
  if (other != nullptr) abandon(other, status::failed_fused.dnr());
}

void TargetQueue::abandon_waiting_halves() {
  fused_first_ = nullptr;
  while (Request* half = fused_waiting_.front())
    abandon(half, status::aborted_sq_deletion);
}

void TargetQueue::execute_fused(Request* request) {
  if (!request->fused_status.ok()) return complete_later(request, request->fused_status);
  Request* other = request->fused;
  if (other == nullptr || !other->fused_waits) {
    request->fused_waits = true;
    fused_waiting_.push_back(request);
    return;
  }
  other->fused_waits = false;
  fused_waiting_.remove(other);
  request->fused = other->fused = nullptr;
  const bool first = (request->command.flags & nvme::fuse_mask) == nvme::fuse_first;
  start_fused(first ? request : other, first ? other : request);
}

Status TargetQueue::judge_fused(Request* compare, Request* write, Addressee* to) {
  if (!controller_->enabled()) {
    return controller_->ended() ? status::controller_path_error : status::command_sequence_error.dnr();
  }
  const nvme::Command& command = compare->command;
  const Status found = find_addressee(command, to);
  if (!found.ok()) return found;
  const bool together = write->command.nsid == command.nsid && write->command.link_tag() == command.link_tag() &&
                        write->command.link_epoch() == command.link_epoch();
  if (attachments_ != nullptr && !together) return status::invalid_field.dnr();
  const Status access = ana_status(*to);
  if (!access.ok()) return access;
  if (command.count_blocks() > compare_write_blocks_max) return status::atomic_write_unit_exceeded.dnr();
  const uint64_t size_blocks = to->space->count_blocks();
  if (command.slba() >= size_blocks || command.count_blocks() > size_blocks - command.slba()) {
    return status::lba_out_of_range.dnr();
  }
  const uint64_t length_bytes = uint64_t{command.count_blocks()} * to->space->block_size_bytes();
  if (compare->data_bytes != length_bytes || write->data_bytes != length_bytes) {
    return status::data_sgl_length_invalid.dnr();
  }
  return status::success;
}

void TargetQueue::start_fused(Request* compare, Request* write) {
  Addressee to;
  Status judged = judge_fused(compare, write, &to);
  Buffer* buffer = nullptr;
  if (judged.ok()) {
    buffer = reactor_.buffers().take(compare->data_bytes, buffer_use(*compare));
    if (buffer == nullptr) judged = status::command_interrupted;  // the host tries again
  }
  if (!judged.ok()) {
    complete_later(compare, judged);
    complete_later(write, judged.type() == nvme::StatusType::path ? judged : status::failed_fused.dnr());
    return;
  }
  auto* pair = new FusedPair();
  pair->compare = compare;
  pair->write = write;
  pair->buffer = buffer;
  pair->read = {buffer->data, compare->data_bytes};
  pair->expected = compare->iov;
  pair->expected_count = compare->iov_count;
  pair->data = write->iov;
  pair->data_count = write->iov_count;
  pair->io.host = to.host;
  pair->io.offset_blocks = compare->command.slba();
  pair->io.count_blocks = compare->command.count_blocks();
  pair->io.fua = write->command.fua();
  pair->io.iov = &pair->read;
  pair->io.iov_count = 1;
  pair->done = [](ns::CompareWrite* done) {
    auto* ended = static_cast<FusedPair*>(done);
    Request* first = ended->compare;
    Request* second = ended->write;
    const Status compared = ended->compare_status;
    const Status written = ended->write_status;
    TargetQueue* queue = first->queue;
    queue->reactor_.buffers().give(ended->buffer);
    delete ended;
    queue->complete(first, compared);
    queue->complete(second, written);
  };
  to.space->compare_and_write(pair, reactor_);
}

}  // namespace basalt::nvmf
