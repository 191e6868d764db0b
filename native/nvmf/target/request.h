// SPDX-License-Identifier: Apache-2.0
// The seam between the target (controllers, namespaces) and its transports (tcp, loopback, rdma...).
//
// A transport owns its queues' Requests, moves bytes, and knows nothing of controllers. The target judges and executes
// commands, and knows nothing of bytes on wires.
//
//   transport: a command capsule arrived -> fill Request.command -> queue.transfer_plan(request): how much data moves
//   transport: gives it memory (iov) and, for writes, moves the data in -> queue.execute(request)
//   target:    ... -> request.completion is filled -> request.finish(request)      (later; never inside execute())
//   transport: moves read data out, sends the completion, recycles the Request
//
// All calls for one queue happen on the queue's reactor. When the connection is gone the transport calls
// TargetQueue::disconnect(); the queue still finishes every Request that it executes, and `drained` tells when none is
// left: only then may the transport free Requests and buffers.
#pragma once

#include <cstdint>

#include "base/iovec.h"
#include "base/list.h"
#include "base/work.h"
#include "ns/namespace.h"
#include "nvme/spec.h"
#include "nvme/status.h"

namespace basalt::nvmf {

class TargetQueue;

struct Request {
  nvme::Command command;
  nvme::Completion completion;
  TargetQueue* queue = nullptr;

  // The data of the command. The transport sets these before execute(); for controller-to-host commands the target
  // writes at most data_bytes into them.
  Iovec* iov = nullptr;
  uint16_t iov_count = 0;
  uint32_t data_bytes = 0;
  // The transport can send a read's data from where a bdev lent it (io.lent), before the turn ends.
  bool borrows = false;

  // Set by transfer_plan(): where data flows and how many bytes; a status that is not ok means: do not move data,
  // complete with it (the transport still consumes in-capsule data).
  nvme::DataDirection direction = nvme::DataDirection::none;

  void (*finish)(Request*) = nullptr;  // the transport's
  void* transport_context = nullptr;   // the transport's

  // Of a fused pair: the other half; what keeps this one from being carried out; that it executes and waits for the
  // other.
  Request* fused = nullptr;
  nvme::Status fused_status;
  bool fused_waits = false;

  // The target's, while it executes.
  ns::NsIo io;
  ListNode node;
  uint64_t target_private[6] = {};
};

}  // namespace basalt::nvmf
