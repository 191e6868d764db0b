// SPDX-License-Identifier: Apache-2.0
// I/O commands of a queue, on the queue's reactor. No allocation for Read, Write, Flush, Write Zeroes and Dataset
// Management.
#include <cstring>

#include "base/bytes.h"
#include "nvmf/target/ana.h"
#include "nvmf/target/attachments.h"
#include "nvmf/target/controller.h"
#include "nvmf/target/queue.h"

namespace basalt::nvmf {
namespace {

using nvme::NvmOpcode;
using nvme::Status;
namespace status = nvme::status;

constexpr uint32_t dsm_deallocate = 1u << 2;

NvmOpcode opcode_of(const Request* request) {
  return static_cast<NvmOpcode>(request->command.opcode);
}

bool in_range(const ns::Namespace& space, uint64_t slba, uint64_t count_blocks) {
  const uint64_t size_blocks = space.count_blocks();
  return slba < size_blocks && count_blocks <= size_blocks - slba;
}

// On any reactor, while the bdev's own one may make it read-only.
bool takes_unmap(const ns::Namespace& space) {
  const bdev::IoTypes types{__atomic_load_n(&space.bdev().info().io_types.mask, __ATOMIC_RELAXED)};
  return types.has(bdev::IoType::unmap);
}

// Dataset Management keeps its place here.
uint64_t& range_index(Request* request) {
  return request->target_private[0];
}
// Compare keeps the buffer it reads into here, and its Iovec.
Buffer* compare_buffer(Request* request) {
  return reinterpret_cast<Buffer*>(request->target_private[1]);
}

nvme::DsmRange dsm_range(const Request* request, uint64_t index) {
  nvme::DsmRange range;
  Iovec pieces[2];  // a range may lie across two pieces
  const size_t count = iovec_slice(request->iov, request->iov_count, index * sizeof(range), sizeof(range), pieces, 2);
  BASALT_ASSERT(count > 0);
  iovec_copy_out(pieces, count, &range);
  return range;
}

}  // namespace

Status TargetQueue::find_addressee(const nvme::Command& command, Addressee* out) const {
  if (attachments_ != nullptr) {
    const Attachments::Found found = attachments_->find(command);
    *out = {found.space, found.host, found.path};
    return found.status;
  }
  *out = {subsystem_->find_namespace(command.nsid), hostid_, path_};
  return out->space == nullptr ? status::invalid_namespace.dnr() : status::success;
}

BufferUse TargetQueue::buffer_use(const Request& request) const {
  const bool fabrics = request.command.opcode == static_cast<uint8_t>(nvme::AdminOpcode::fabrics);
  if (!connected() || qid_ == 0 || fabrics) return BufferUse::local;
  Addressee to;
  const bool found = find_addressee(request.command, &to).ok();
  if (!found) return BufferUse::local;
  const ns::NamespaceOptions& options = to.space->options();
  if (!options.one_writer) return BufferUse::upper;
  return options.gate_epoch == 0 ? BufferUse::local : BufferUse::middle;
}

// Read, Write and Compare: the data must be what the block count says, before any of it moves.
Status TargetQueue::plan_io(Request* request) {
  const NvmOpcode opcode = opcode_of(request);
  if (opcode != NvmOpcode::read && opcode != NvmOpcode::write && opcode != NvmOpcode::compare) {
    return status::success;
  }
  Addressee to;
  const Status found = find_addressee(request->command, &to);
  if (!found.ok()) return found;
  const uint64_t length_bytes = uint64_t{request->command.count_blocks()} * to.space->block_size_bytes();
  if (length_bytes > data_bytes_max) return status::invalid_field.dnr();
  if (length_bytes != request->command.sgl.length_bytes) return status::data_sgl_length_invalid.dnr();
  return status::success;
}

Status TargetQueue::ana_status(const Addressee& to) {
  if (to.path == nullptr) return status::success;
  switch (to.path->state(to.space->options().ana_group)) {
    case nvme::AnaState::optimized:
    case nvme::AnaState::non_optimized:
      return status::success;
    case nvme::AnaState::inaccessible:
      return status::ana_inaccessible;
    case nvme::AnaState::persistent_loss:
      return status::ana_persistent_loss;
    case nvme::AnaState::change:
      return status::ana_transition;
  }
  return status::ana_inaccessible;
}

void TargetQueue::execute_io(Request* request) {
  if ((request->command.flags & nvme::fuse_mask) != 0) [[unlikely]]
    return execute_fused(request);
  const Status status = start_io(request);
  if (!status.ok()) complete_later(request, status);
}

// ok: on its way; io_done() or a coroutine completes it.
Status TargetQueue::start_io(Request* request) {
  if (!controller_->enabled()) {
    // A command that meets the end of its controller belongs on another path: the host must not see it fail.
    return controller_->ended() ? status::controller_path_error : status::command_sequence_error.dnr();
  }
  switch (opcode_of(request)) {
    case NvmOpcode::flush:
    case NvmOpcode::write:
    case NvmOpcode::read:
    case NvmOpcode::compare:
    case NvmOpcode::write_zeroes:
    case NvmOpcode::dataset_management:
    case NvmOpcode::reservation_register:
    case NvmOpcode::reservation_report:
    case NvmOpcode::reservation_acquire:
    case NvmOpcode::reservation_release:
    case NvmOpcode::snapshot:
    case NvmOpcode::write_note:
    case NvmOpcode::read_note:
      break;
    default:
      return status::invalid_opcode.dnr();
  }
  Addressee to;
  const Status found = find_addressee(request->command, &to);
  if (!found.ok()) return found;
  // Only who drives a replica may: to hosts of volumes there are no such commands.
  const NvmOpcode opcode = opcode_of(request);
  const bool ours = opcode == NvmOpcode::snapshot || opcode == NvmOpcode::write_note || opcode == NvmOpcode::read_note;
  if (ours && !to.space->options().one_writer) return status::invalid_opcode.dnr();
  const Status access = ana_status(to);
  if (!access.ok()) return access;
  switch (opcode) {
    case NvmOpcode::read:
    case NvmOpcode::write:
    case NvmOpcode::write_zeroes:
      return start_read_write(request, to);
    case NvmOpcode::flush:
      request->io.type = bdev::IoType::flush;
      submit(request, to);
      return status::success;
    case NvmOpcode::compare:
      return start_compare(request, to);
    case NvmOpcode::dataset_management:
      return start_deallocate(request, to);
    case NvmOpcode::snapshot:
      spawn(run_snapshot(request, to));
      return status::success;
    case NvmOpcode::write_note:
    case NvmOpcode::read_note:
      spawn(run_note(request, to));
      return status::success;
    default:
      spawn(run_reservation(request, to));
      return status::success;
  }
}

void TargetQueue::submit(Request* request, const Addressee& to) {
  request->io.host = to.host;
  request->io.context = request;
  request->io.done = io_done;
  to.space->submit(&request->io, reactor_);
}

Status TargetQueue::start_read_write(Request* request, const Addressee& to) {
  ns::Namespace& space = *to.space;
  const nvme::Command& command = request->command;
  ns::NsIo& io = request->io;
  if (!in_range(space, command.slba(), command.count_blocks())) return status::lba_out_of_range.dnr();
  io.offset_blocks = command.slba();
  io.count_blocks = command.count_blocks();
  io.fua = command.fua();
  io.iov = nullptr;
  io.iov_count = 0;
  if (opcode_of(request) == NvmOpcode::write_zeroes) {
    io.type = bdev::IoType::write_zeroes;
  } else {
    // Checked again: the namespace may be another one since the plan.
    if (request->data_bytes != uint64_t{io.count_blocks} * space.block_size_bytes()) {
      return status::data_sgl_length_invalid.dnr();
    }
    io.type = opcode_of(request) == NvmOpcode::read ? bdev::IoType::read : bdev::IoType::write;
    io.iov = request->iov;
    io.iov_count = request->iov_count;
    io.borrows = request->borrows && io.type == bdev::IoType::read && &space.home() == &reactor_;
  }
  submit(request, to);
  return status::success;
}

void TargetQueue::io_done(bdev::Io* io) {
  auto* request = static_cast<Request*>(io->context);
  request->queue->step(request);
}

// The request's Io has ended: complete, or go on with the next one.
void TargetQueue::step(Request* request) {
  Status result = request->io.status;
  if (opcode_of(request) == NvmOpcode::compare) result = compare_step(request);
  if (opcode_of(request) == NvmOpcode::dataset_management && result.ok()) {
    const uint64_t ranges = (request->command.cdw10 & 0xff) + 1;
    if (++range_index(request) < ranges) {
      result = deallocate_step(request);
      if (result.ok() && range_index(request) < ranges) return;
    }
  }
  complete(request, result);
}

Status TargetQueue::start_compare(Request* request, const Addressee& to) {
  ns::Namespace& space = *to.space;
  const nvme::Command& command = request->command;
  if (!in_range(space, command.slba(), command.count_blocks())) return status::lba_out_of_range.dnr();
  if (request->data_bytes != uint64_t{command.count_blocks()} * space.block_size_bytes()) {
    return status::data_sgl_length_invalid.dnr();
  }
  Buffer* buffer = reactor_.buffers().take(request->data_bytes, buffer_use(*request));
  if (buffer == nullptr) return status::command_interrupted;  // the host tries again
  request->target_private[1] = reinterpret_cast<uint64_t>(buffer);
  static_assert(sizeof(Iovec) == 2 * sizeof(uint64_t));
  auto* iov = new (&request->target_private[2]) Iovec{buffer->data, request->data_bytes};
  ns::NsIo& io = request->io;
  io.type = bdev::IoType::read;
  io.fua = false;
  io.offset_blocks = command.slba();
  io.count_blocks = command.count_blocks();
  io.iov = iov;
  io.iov_count = 1;
  submit(request, to);
  return status::success;
}

Status TargetQueue::compare_step(Request* request) {
  Buffer* buffer = compare_buffer(request);
  Status result = request->io.status;
  const char* at = static_cast<const char*>(buffer->data);
  for (size_t i = 0; i < request->iov_count && result.ok(); i++) {
    if (std::memcmp(request->iov[i].base, at, request->iov[i].length_bytes) != 0)
      result = status::compare_failure.dnr();
    at += request->iov[i].length_bytes;
  }
  reactor_.buffers().give(buffer);
  return result;
}

Status TargetQueue::start_deallocate(Request* request, const Addressee& to) {
  ns::Namespace& space = *to.space;
  const uint64_t ranges = (request->command.cdw10 & 0xff) + 1;
  if (iovec_bytes(request->iov, request->iov_count) < ranges * sizeof(nvme::DsmRange)) {
    return status::data_sgl_length_invalid.dnr();
  }
  for (uint64_t i = 0; i < ranges; i++) {
    const nvme::DsmRange range = dsm_range(request, i);
    if (range.count_blocks > 0 && !in_range(space, range.slba, range.count_blocks)) {
      return status::lba_out_of_range.dnr();
    }
  }
  range_index(request) = 0;
  // The other attributes are hints about access; they may be ignored.
  if ((request->command.cdw11 & dsm_deallocate) == 0 || !takes_unmap(space)) {
    complete_later(request, status::success);
    return status::success;
  }
  const Status first = deallocate_step(request);
  if (first.ok() && range_index(request) == ranges) complete_later(request, status::success);
  return first;
}

// Submits the next range that is not empty. Afterwards range_index == the count of ranges: none was left.
Status TargetQueue::deallocate_step(Request* request) {
  const uint64_t ranges = (request->command.cdw10 & 0xff) + 1;
  while (range_index(request) < ranges && dsm_range(request, range_index(request)).count_blocks == 0)
    range_index(request)++;
  if (range_index(request) == ranges) return status::success;
  // Looked up each time: between two steps the namespace may have been removed.
  Addressee to;
  const Status found = find_addressee(request->command, &to);
  if (!found.ok()) return found;
  const nvme::DsmRange range = dsm_range(request, range_index(request));
  ns::NsIo& io = request->io;
  io.type = bdev::IoType::unmap;
  io.fua = false;
  io.offset_blocks = range.slba;
  io.count_blocks = range.count_blocks;
  io.iov = nullptr;
  io.iov_count = 0;
  submit(request, to);
  return status::success;
}

}  // namespace basalt::nvmf
