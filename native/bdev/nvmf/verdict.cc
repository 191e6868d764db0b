// SPDX-License-Identifier: Apache-2.0
#include "bdev/nvmf/verdict.h"

namespace basalt::bdev {
namespace {

struct Row {
  nvme::Status status;
  Verdict verdict;
};

// What is neither here nor of the type "path" goes up.
constexpr Row rows[] = {
    // Ended by its controller without having been carried out, as far as the host is told: nothing that it sent asked
    // for that.
    {nvme::status::abort_requested, Verdict::elsewhere},
    {nvme::status::aborted_sq_deletion, Verdict::elsewhere},
    {nvme::status::internal_error, Verdict::later},
    {nvme::status::command_interrupted, Verdict::later},
    {nvme::status::transient_transport_error, Verdict::later},
    {nvme::status::namespace_not_ready, Verdict::later},
};

}  // namespace

Verdict judge(nvme::Status status) {
  if (status.ok()) return Verdict::done;
  if (status.do_not_retry()) return Verdict::up;
  if (status.type() == nvme::StatusType::path) return Verdict::elsewhere;
  for (const Row& row : rows) {
    if (row.status.is(status)) return row.verdict;
  }
  return Verdict::up;
}

}  // namespace basalt::bdev
