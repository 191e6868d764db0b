// SPDX-License-Identifier: Apache-2.0
// Flight: one bdev Io on its way through an NVMe-oF association: the command, and how far a long Io has come. An Io
// that is larger than one command may be goes in parts, one after the other.
#pragma once

#include <memory>

#include "bdev/bdev.h"
#include "nvmf/host/controller.h"

namespace basalt::bdev {

struct Remnant;

// What a command to one namespace on one association needs to know.
struct NvmfGeometry {
  uint32_t nsid = 0;
  uint32_t block_size_bytes = 0;
  uint32_t transfer_blocks_max = 0;
  bool can_deallocate = false;  // Dataset Management, and deallocated blocks read as zeroes
};

struct Flight : nvmf::HostCommand {
  Io* io = nullptr;
  void* owner = nullptr;
  void* route = nullptr;  // the path it was sent on
  uint32_t done_blocks = 0;
  uint32_t part_blocks = 0;
  bool waited = false;
  Instant waiting_since;
  nvme::Status path_status;          // the last one for which it waits
  uint8_t later_count = 0;           // how often it was put off
  Instant not_before;                // then it may be sent again
  std::shared_ptr<Remnant> remnant;  // what it was lost with, and may still be carried out there
  ListNode flight_node;
  nvme::DsmRange range;
  Iovec range_iov;

  void begin(Io* submitted);
  // Fills the command for the next part.
  void prepare(const NvmfGeometry& geometry);
  // The part has succeeded; true: there is another.
  bool advance();
};

NvmfGeometry nvmf_geometry(const nvmf::HostNamespace& ns, const nvmf::HostControllerInfo& controller);
IoTypes nvmf_io_types(const nvmf::HostControllerInfo& controller);
void fill_nvmf_info(BdevInfo& info, const nvmf::HostNamespace& ns, const nvmf::HostControllerInfo& controller);

}  // namespace basalt::bdev
