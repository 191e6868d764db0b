// SPDX-License-Identifier: Apache-2.0
// What becomes of each status that a controller can give: the table, and what the host then does.
#include "bdev/nvmf/verdict.h"

#include "bdev/nvmf/nvmf_world_testing.h"

namespace basalt::bdev {
namespace {

using basalt::testing::TestIo;
using nvme::make_status;
using nvme::Status;
using nvme::StatusType;
using testing::NvmfWorld;
namespace status = nvme::status;

struct Row {
  Status status;
  Verdict verdict;
};

const Row rows[] = {
    {status::success, Verdict::done},
    // The command, its arguments, its namespace.
    {status::invalid_opcode, Verdict::up},
    {status::invalid_field, Verdict::up},
    {status::command_id_conflict, Verdict::up},
    {status::data_transfer_error, Verdict::up},
    {status::invalid_namespace, Verdict::up},
    {status::command_sequence_error, Verdict::up},
    {status::data_sgl_length_invalid, Verdict::up},
    {status::namespace_write_protected, Verdict::up},
    {status::lba_out_of_range, Verdict::up},
    {status::capacity_exceeded, Verdict::up},
    {status::reservation_conflict, Verdict::up},
    {status::failed_fused, Verdict::up},
    {status::missing_fused, Verdict::up},
    {make_status(StatusType::command_specific, 0x81), Verdict::up},
    // The medium.
    {status::write_fault, Verdict::up},
    {status::unrecovered_read_error, Verdict::up},
    {status::compare_failure, Verdict::up},
    {make_status(StatusType::vendor, 0x12), Verdict::up},
    // What passes.
    {status::internal_error, Verdict::later},
    {status::command_interrupted, Verdict::later},
    {status::transient_transport_error, Verdict::later},
    {status::namespace_not_ready, Verdict::later},
    // Aborted: ended at its controller.
    {status::abort_requested, Verdict::elsewhere},
    {status::aborted_sq_deletion, Verdict::elsewhere},
    // The path.
    {status::internal_path_error, Verdict::elsewhere},
    {status::ana_persistent_loss, Verdict::elsewhere},
    {status::ana_inaccessible, Verdict::elsewhere},
    {status::ana_transition, Verdict::elsewhere},
    {status::controller_path_error, Verdict::elsewhere},
    {status::host_path_error, Verdict::elsewhere},
    {make_status(StatusType::path, 0x7e), Verdict::elsewhere},
};

TEST(Verdict, IsThatOfTheTableAndUpWithDoNotRetry) {
  for (const Row& row : rows) {
    EXPECT_EQ(judge(row.status), row.verdict) << nvme::to_string(row.status);
    if (!row.status.ok()) EXPECT_EQ(judge(row.status.dnr()), Verdict::up) << nvme::to_string(row.status.dnr());
  }
}

// The disk gives the status to the first `count` requests.
void fail_first(NvmfWorld& world, Status status, size_t count) {
  world.disk.on_io = [status, count](const Io&) mutable {
    return count == 0 ? nvme::status::success : (count--, status);
  };
}

TEST(Verdict, WhatPassesIsTriedAFewTimesAndThenGoesUpUnchanged) {
  NvmfWorld w("TCP");
  ASSERT_TRUE(w.attach(true).ok());
  for (const Row& row : rows) {
    if (row.verdict != Verdict::later) continue;
    SCOPED_TRACE(nvme::to_string(row.status));
    fail_first(w, row.status, later_count_max);
    EXPECT_TRUE(w.world.write(w.bdev(), 0, 1, 1).ok());
    fail_first(w, row.status, SIZE_MAX);
    const size_t before = w.disk.submit_count;
    const Instant begin = w.world.net.now();
    EXPECT_EQ(w.world.write(w.bdev(), 0, 1, 1), row.status);
    EXPECT_EQ(w.disk.submit_count, before + 1 + later_count_max);
    EXPECT_LE((w.world.net.now() - begin).to_ms(), 500);
    // It keeps nobody else waiting.
    TestIo slow(IoType::write, 0, 1);
    w.bdev().submit(&slow);
    ASSERT_TRUE(w.world.net.run_until([&] { return w.bdev().waiting_count() == 1; }));
    w.disk.on_io = nullptr;
    EXPECT_TRUE(w.world.write(w.bdev(), 8, 1, 1).ok());
    ASSERT_TRUE(w.world.net.run_until([&] { return slow.ended; }));
  }
}

TEST(Verdict, AFlushThatFailedIsNotTriedAgain) {
  NvmfWorld w("TCP");
  ASSERT_TRUE(w.attach(true).ok());
  const auto flush = [&w] {
    TestIo io(IoType::flush, 0, 0);
    w.bdev().submit(&io);
    EXPECT_TRUE(w.world.net.run_until([&] { return io.ended; }));
    return io.status;
  };
  // The second one would succeed, and say that what the first one lost is safe.
  fail_first(w, status::internal_error, 1);
  const size_t before = w.disk.submit_count;
  EXPECT_EQ(flush(), status::internal_error);
  EXPECT_EQ(w.disk.submit_count, before + 1);
  // One that was not carried out is.
  fail_first(w, status::command_interrupted, 1);
  EXPECT_TRUE(flush().ok());
}

TEST(Verdict, PathErrorsAreTriedUntilItIsTooLateAndThenGoUpUnchanged) {
  NvmfWorld w("TCP");
  w.options.fast_io_fail_timeout = milliseconds(400);
  ASSERT_TRUE(w.attach(true).ok());
  for (const Row& row : rows) {
    if (row.verdict != Verdict::elsewhere) continue;
    SCOPED_TRACE(nvme::to_string(row.status));
    fail_first(w, row.status, 3);
    EXPECT_TRUE(w.world.write(w.bdev(), 0, 1, 1).ok());
    fail_first(w, row.status, SIZE_MAX);
    const Instant begin = w.world.net.now();
    EXPECT_EQ(w.world.write(w.bdev(), 0, 1, 1), row.status);
    EXPECT_GE((w.world.net.now() - begin).to_ms(), 380);
    EXPECT_LE((w.world.net.now() - begin).to_ms(), 460);
  }
}

TEST(Verdict, TheRestGoesUpUnchangedAfterOneAttempt) {
  NvmfWorld w("TCP");
  ASSERT_TRUE(w.attach(true).ok());
  for (const Row& row : rows) {
    for (const Status status : {row.status, row.status.dnr()}) {
      if (status.ok() || judge(status) != Verdict::up) continue;
      SCOPED_TRACE(nvme::to_string(status));
      fail_first(w, status, SIZE_MAX);
      const size_t before = w.disk.submit_count;
      EXPECT_EQ(w.world.write(w.bdev(), 0, 1, 1), status);
      EXPECT_EQ(w.disk.submit_count, before + 1);
    }
  }
}

TEST(Verdict, ANamespaceThatIsGoneFailsAndIsLookedForAgain) {
  NvmfWorld w("TCP");
  ASSERT_TRUE(w.attach(false).ok());
  ASSERT_TRUE(w.world.net.run(w.subsystem->remove_namespace(1)).ok());
  EXPECT_TRUE(w.world.write(w.bdev(), 0, 1, 1).is(status::invalid_namespace));
  ns::NamespaceOptions options;
  options.nsid = 1;
  ASSERT_TRUE(w.world.net.run(w.subsystem->add_namespace(options, &w.disk)).ok());
  EXPECT_TRUE(w.world.write(w.bdev(), 0, 1, 1).ok());
}

}  // namespace
}  // namespace basalt::bdev
