// SPDX-License-Identifier: Apache-2.0
#include "bdev/nvmf/flight.h"

#include <algorithm>

#include "bdev/nvmf/remnant.h"

namespace basalt::bdev {
namespace {

constexpr uint32_t zeroes_blocks_max = 1u << 16;  // NLB has 16 bits
constexpr uint32_t cdw12_fua = 1u << 30;
constexpr uint32_t cdw12_deallocate = 1u << 25;
constexpr uint32_t dsm_deallocate = 1u << 2;
constexpr uint8_t dlfeat_reads_zero = 1;

constexpr uint8_t mask_of(IoType type) {
  return static_cast<uint8_t>(1u << static_cast<unsigned>(type));
}

}  // namespace

void Flight::begin(Io* submitted) {
  io = submitted;
  done_blocks = part_blocks = 0;
  waited = false;
  path_status = {};
  later_count = 0;
  not_before = {};
  remnant.reset();
}

bool Flight::advance() {
  done_blocks += part_blocks;
  return io->type != IoType::flush && done_blocks < io->count_blocks;
}

void Flight::prepare(const NvmfGeometry& geometry) {
  const uint32_t left_blocks = io->count_blocks - done_blocks;
  const uint64_t offset_blocks = io->offset_blocks + done_blocks;
  command = {};
  command.nsid = geometry.nsid;
  direction = nvme::DataDirection::none;
  iov = nullptr;
  iov_count = 0;
  iov_offset_bytes = 0;
  data_bytes = 0;
  part_blocks = 0;
  if (io->type == IoType::flush) {
    command.opcode = static_cast<uint8_t>(nvme::NvmOpcode::flush);
    return;
  }
  if (io->type == IoType::unmap && geometry.can_deallocate && !io->fua) {
    part_blocks = left_blocks;
    range = {0, left_blocks, offset_blocks};
    range_iov = {&range, sizeof(range)};
    command.opcode = static_cast<uint8_t>(nvme::NvmOpcode::dataset_management);
    command.cdw11 = dsm_deallocate;
    direction = nvme::DataDirection::host_to_controller;
    iov = &range_iov;
    iov_count = 1;
    data_bytes = sizeof(range);
    return;
  }
  const bool moves_data = io->type == IoType::read || io->type == IoType::write;
  part_blocks = std::min(left_blocks, moves_data ? geometry.transfer_blocks_max : zeroes_blocks_max);
  command.cdw10 = static_cast<uint32_t>(offset_blocks);
  command.cdw11 = static_cast<uint32_t>(offset_blocks >> 32);
  command.cdw12 = (part_blocks - 1) | (io->fua && io->type != IoType::read ? cdw12_fua : 0);
  if (moves_data) {
    const bool reads = io->type == IoType::read;
    command.opcode = static_cast<uint8_t>(reads ? nvme::NvmOpcode::read : nvme::NvmOpcode::write);
    direction = reads ? nvme::DataDirection::controller_to_host : nvme::DataDirection::host_to_controller;
    iov = io->iov;
    iov_count = io->iov_count;
    iov_offset_bytes = uint64_t{done_blocks} * geometry.block_size_bytes;
    data_bytes = part_blocks * geometry.block_size_bytes;
  } else {
    // Write Zeroes also stands in for unmap where deallocation promises less: its blocks do read as zeroes.
    command.opcode = static_cast<uint8_t>(nvme::NvmOpcode::write_zeroes);
    if (io->type == IoType::unmap) command.cdw12 |= cdw12_deallocate;
  }
}

NvmfGeometry nvmf_geometry(const nvmf::HostNamespace& ns, const nvmf::HostControllerInfo& controller) {
  NvmfGeometry geometry;
  geometry.nsid = ns.nsid;
  geometry.block_size_bytes = ns.block_size_bytes;
  const uint64_t bytes_max = std::min<uint64_t>(controller.transfer_bytes_max, io_bytes_max);
  geometry.transfer_blocks_max = static_cast<uint32_t>(bytes_max / ns.block_size_bytes);
  geometry.can_deallocate =
      (controller.oncs & nvmf::oncs_dataset_management) != 0 && (ns.dlfeat & 7) == dlfeat_reads_zero;
  return geometry;
}

IoTypes nvmf_io_types(const nvmf::HostControllerInfo& controller) {
  IoTypes types{mask_of(IoType::read) | mask_of(IoType::write) | mask_of(IoType::flush)};
  if ((controller.oncs & nvmf::oncs_write_zeroes) != 0) {
    types.mask |= mask_of(IoType::write_zeroes) | mask_of(IoType::unmap);
  }
  return types;
}

void fill_nvmf_info(BdevInfo& info, const nvmf::HostNamespace& ns, const nvmf::HostControllerInfo& controller) {
  info.product = "nvmf";
  info.uuid = ns.uuid.is_zero() ? ns.nguid : ns.uuid;
  info.block_size_bytes = ns.block_size_bytes;
  info.count_blocks = ns.count_blocks;
  info.io_types = nvmf_io_types(controller);
  info.volatile_cache = controller.volatile_write_cache;
  info.memory_alignment_bytes = 1;
}

}  // namespace basalt::bdev
