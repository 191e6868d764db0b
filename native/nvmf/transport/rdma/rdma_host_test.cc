// SPDX-License-Identifier: Apache-2.0
// Goal: what a target does wrong on NVMe/RDMA loses the queue with an error that names it, touches nothing but the
// command's own data, and leaks nothing. Method: a target that is used by hand against the real host queue.
#include "nvmf/transport/rdma/rdma_host.h"

#include "nvmf/transport/rdma/raw_rdma_testing.h"
#include "nvmf/transport/target_world_testing.h"

namespace basalt::nvmf {
namespace {

using basalt::testing::MemoryNet;
using basalt::testing::RawRdma;
using State = env::RdmaConnection::State;

constexpr uint32_t command_bytes = 4096;

struct Owner : HostQueue::Owner {
  void queue_lost(HostQueue& queue, const Error& error) override { reason = error.message; }
  void queue_timed_out(HostQueue& queue, const HostCommand& command) override { timed_out++; }
  void queue_drained(HostQueue& queue) override { drained = true; }
  std::string reason;
  int timed_out = 0;
  bool drained = false;
};

struct Io : HostCommand {
  Io(Buffer* memory, nvme::NvmOpcode opcode) : piece{memory->data, command_bytes} {
    command.opcode = static_cast<uint8_t>(opcode);
    direction = nvme::data_direction(command.opcode);
    data_bytes = command_bytes;
    iov = &piece;
    iov_count = 1;
    done = [](HostCommand* ended) { static_cast<Io*>(ended)->ended_count++; };
  }
  Iovec piece;
  int ended_count = 0;
};

class RdmaHost : public ::testing::Test {
 protected:
  RdmaHost() {
    BASALT_ASSERT(reactor.init().ok() && far.init().ok());
    net.add(&reactor);
    net.add(&far);
    listener = far.poller().rdma()->listen({.host = "127.0.0.1", .port = 4420}).value();
    buffer = reactor.buffers().take(8192);
    std::memset(buffer->data, 0, 8192);
  }
  ~RdmaHost() override {
    if (queue) {
      queue->close();
      EXPECT_TRUE(net.run_until([&] { return owner.drained; }));
      queue.reset();
    }
    raw.end();
    listener.reset();
    net.run_for(milliseconds(5));
    reactor.buffers().give(buffer);
    EXPECT_EQ(reactor.buffers().in_use_count(), 0u);
    EXPECT_EQ(net.rdma().counts(), env::SimRdmaCounts{});
  }
  HostQueueOptions options() {
    HostQueueOptions out;
    out.qid = 1;
    out.slot_count = 4;
    out.capsule_data_bytes_max = 0;
    out.deadline = reactor.now() + seconds(3);
    return out;
  }
  struct Attempt {
    std::optional<Result<std::unique_ptr<HostQueue>>> result;
  };
  static Task<void> attempt(RdmaHostTransport& transport, Reactor& reactor, HostQueueOptions options, Attempt* out) {
    HostAddress address{"127.0.0.1", "4420"};
    auto connected = co_await transport.connect(reactor, std::move(address), options);
    out->result.emplace(std::move(connected));
  }
  void begin() { spawn(attempt(transport, reactor, options(), &connecting)); }
  void finish() {
    ASSERT_TRUE(net.run_until([&] { return connecting.result.has_value(); }));
    if (!connecting.result->ok()) return;
    queue = std::move(*connecting.result).value();
    queue->set_owner(&owner);
  }
  const Error& error() const { return connecting.result->error(); }
  void accept(uint16_t crqsize = 32, uint16_t recfmt = 0) {
    raw.take(*listener);
    raw.prepare(32);
    rdma::AcceptData data{};
    data.recfmt = recfmt;
    data.crqsize = crqsize;
    raw.connection->accept(rdma::private_bytes(data));
  }
  void connect() {
    begin();
    accept();
    finish();
    ASSERT_TRUE(queue != nullptr);
  }
  // The next command that came to the raw target.
  nvme::Command next() {
    BASALT_ASSERT(net.run_until([&] { return raw.has_message(); }));
    nvme::Command command{};
    std::memcpy(&command, raw.messages.front().bytes.data(), sizeof(command));
    raw.messages.pop_front();
    return command;
  }
  size_t respond(uint16_t cid, uint32_t invalidate_key = 0, size_t bytes = sizeof(nvme::Completion)) {
    nvme::Completion completion{};
    completion.cid = cid;
    std::memcpy(raw.memory.data(), &completion, sizeof(completion));
    const auto type = invalidate_key != 0 ? RawRdma::Type::send_invalidate : RawRdma::Type::send;
    return raw.post(type, 0, static_cast<uint32_t>(bytes), invalidate_key);
  }
  bool lost(const Io& io) {
    return net.run_until([&] { return io.ended_count > 0; }) && io.lost && owner.drained;
  }
  bool done(const Io& io) {
    return net.run_until([&] { return io.ended_count > 0; });
  }

  MemoryNet net{5};
  Arena arena{size_t{64} << 20};
  Reactor reactor{net, arena, {}};
  Reactor far{net, arena, {.index = 1}};
  RdmaHostTransport transport;
  std::unique_ptr<env::RdmaListener> listener;
  RawRdma raw{net, far};
  Buffer* buffer = nullptr;
  Owner owner;
  Attempt connecting;
  std::unique_ptr<HostQueue> queue;
};

TEST_F(RdmaHost, SaysWithItsPrivateDataWhatItIs) {
  begin();
  raw.take(*listener);
  rdma::RequestData request;
  ASSERT_TRUE(rdma::read_private_data(raw.connection->private_data(), &request));
  EXPECT_EQ(request.recfmt, rdma::record_format);
  EXPECT_EQ(request.qid, 1);
  EXPECT_EQ(request.hrqsize, 5);
  EXPECT_EQ(request.hsqsize, 4);
  const rdma::RejectData reason{.recfmt = 0, .status = 6};
  raw.connection->reject(rdma::private_bytes(reason));
  finish();
  EXPECT_EQ(error().code, Errc::busy);
  EXPECT_NE(error().message.find("no resources"), std::string::npos) << error().message;
}

TEST_F(RdmaHost, RefusesAnAcceptThatItDoesNotUnderstand) {
  net.rdma().knobs.pad_private_data_chance = 0;
  begin();
  raw.take(*listener);
  raw.prepare(8);
  raw.connection->accept({});
  finish();
  EXPECT_EQ(error().code, Errc::io);
  EXPECT_NE(error().message.find("private data"), std::string::npos) << error().message;
}

TEST_F(RdmaHost, RefusesAnAcceptOfAnotherFormatOrWithTooFewReceives) {
  begin();
  accept(32, 1);
  finish();
  EXPECT_NE(error().message.find("private data"), std::string::npos) << error().message;
  raw.end();
  connecting.result.reset();
  begin();
  accept(3);
  finish();
  EXPECT_NE(error().message.find("receives only 3"), std::string::npos) << error().message;
}

TEST_F(RdmaHost, GivesUpOnATargetThatDoesNotAnswer) {
  begin();
  finish();
  EXPECT_EQ(error().code, Errc::timed_out);
}

// `unreachable` would say that the target's process is gone.
TEST_F(RdmaHost, ATargetThatIsSilentIsNotTakenForGone) {
  net.rdma().knobs.connect_give_up = seconds(1);
  begin();
  finish();
  EXPECT_EQ(error().code, Errc::timed_out);
  EXPECT_NE(error().message.find("no answer"), std::string::npos) << error().message;
}

TEST_F(RdmaHost, ATargetThatRejectsIsNotTakenForGone) {
  net.rdma().knobs.pad_private_data_chance = 0;
  begin();
  raw.take(*listener);
  raw.connection->reject({});
  finish();
  EXPECT_EQ(error().code, Errc::io);
  EXPECT_NE(error().message.find("does not say why"), std::string::npos) << error().message;
}

TEST_F(RdmaHost, SaysWhenTheMachineRefusesToRegisterMemory) {
  net.rdma().knobs.pinned_bytes_max = 0;
  begin();
  finish();
  EXPECT_EQ(error().code, Errc::no_memory);
  EXPECT_NE(error().message.find("RLIMIT_MEMLOCK"), std::string::npos) << error().message;
}

TEST_F(RdmaHost, OpensExactlyItsCommandsDataAndClosesItBeforeItCompletes) {
  connect();
  Io io(buffer, nvme::NvmOpcode::read);
  queue->submit(&io);
  const nvme::Command command = next();
  const rdma::KeyedSgl keyed = rdma::decode_keyed(command.sgl);
  EXPECT_EQ(keyed.address, reinterpret_cast<uint64_t>(buffer->data));
  EXPECT_EQ(keyed.length_bytes, command_bytes);
  EXPECT_TRUE(keyed.invalidate);
  raw.memory[100] = 0x42;
  ASSERT_EQ(raw.wait(raw.post(RawRdma::Type::write, 100, 16, keyed.key, keyed.address)), env::RdmaStatus::success);
  respond(command.cid);  // without invalidating: the host does it itself
  ASSERT_TRUE(done(io));
  EXPECT_EQ(*static_cast<uint8_t*>(buffer->data), 0x42);
  EXPECT_EQ(transport.stats().copied_bytes.load(), 0u);
  EXPECT_EQ(transport.stats().in_place_bytes.load(), command_bytes);
  EXPECT_EQ(raw.wait(raw.post(RawRdma::Type::write, 100, 16, keyed.key, keyed.address)),
            env::RdmaStatus::remote_access_error);
}

TEST_F(RdmaHost, WhatIsNotInRegisteredMemoryIsCopiedAndCounted) {
  connect();
  std::vector<uint8_t> elsewhere(command_bytes, 1);
  Io io(buffer, nvme::NvmOpcode::read);
  io.piece = {elsewhere.data(), elsewhere.size()};
  queue->submit(&io);
  const nvme::Command command = next();
  const rdma::KeyedSgl keyed = rdma::decode_keyed(command.sgl);
  raw.memory[0] = 0x42;
  ASSERT_EQ(raw.wait(raw.post(RawRdma::Type::write, 0, 1, keyed.key, keyed.address)), env::RdmaStatus::success);
  respond(command.cid, keyed.key);
  ASSERT_TRUE(done(io));
  EXPECT_EQ(elsewhere[0], 0x42);
  EXPECT_EQ(elsewhere[1], 0);  // nothing of what was in the buffer before
  EXPECT_EQ(transport.stats().copied_bytes.load(), command_bytes);
}

TEST_F(RdmaHost, AnEmptyPoolMakesCommandsWaitForEachOtherAndForNobodyElse) {
  connect();
  std::vector<Buffer*> taken;
  while (Buffer* more = reactor.buffers().take(command_bytes))
    taken.push_back(more);
  std::vector<uint8_t> elsewhere(3 * command_bytes);
  std::deque<Io> ios;
  for (size_t i = 0; i < 3; i++) {
    Io& io = ios.emplace_back(buffer, nvme::NvmOpcode::read);
    io.piece = {elsewhere.data() + i * command_bytes, command_bytes};
    queue->submit(&io);
  }
  for (size_t i = 0; i < 3; i++) {
    const nvme::Command command = next();
    EXPECT_FALSE(raw.has_message());
    const rdma::KeyedSgl keyed = rdma::decode_keyed(command.sgl);
    raw.memory[100] = static_cast<uint8_t>(0x40 + i);
    ASSERT_EQ(raw.wait(raw.post(RawRdma::Type::write, 100, 1, keyed.key, keyed.address)), env::RdmaStatus::success);
    respond(command.cid, keyed.key);
    ASSERT_TRUE(done(ios[i]));
    EXPECT_EQ(elsewhere[i * command_bytes], 0x40 + i);
  }
  for (Buffer* back : taken)
    reactor.buffers().give(back);
}

TEST_F(RdmaHost, ClosingLosesCommandsThatWaitForABuffer) {
  connect();
  std::vector<Buffer*> taken;
  while (Buffer* more = reactor.buffers().take(command_bytes))
    taken.push_back(more);
  std::vector<uint8_t> elsewhere(command_bytes);
  std::deque<Io> ios;
  for (size_t i = 0; i < 3; i++) {
    Io& io = ios.emplace_back(buffer, nvme::NvmOpcode::read);
    io.piece = {elsewhere.data(), command_bytes};
    queue->submit(&io);
  }
  (void)next();
  queue->close();
  for (Io& io : ios)
    EXPECT_TRUE(lost(io));
  for (Buffer* back : taken)
    reactor.buffers().give(back);
}

TEST_F(RdmaHost, ATargetThatWritesBeyondTheDataLosesTheQueueAndHasWrittenNothing) {
  connect();
  Io io(buffer, nvme::NvmOpcode::read);
  queue->submit(&io);
  const rdma::KeyedSgl keyed = rdma::decode_keyed(next().sgl);
  raw.memory[0] = 0x42;
  EXPECT_EQ(raw.wait(raw.post(RawRdma::Type::write, 0, 16, keyed.key, keyed.address + command_bytes - 8)),
            env::RdmaStatus::remote_access_error);
  ASSERT_TRUE(lost(io));
  EXPECT_EQ(static_cast<uint8_t*>(buffer->data)[command_bytes], 0);
  EXPECT_EQ(static_cast<uint8_t*>(buffer->data)[command_bytes - 8], 0);
}

TEST_F(RdmaHost, AResponseThatFitsNoCommandLosesTheQueue) {
  connect();
  Io io(buffer, nvme::NvmOpcode::read);
  queue->submit(&io);
  respond(static_cast<uint16_t>(next().cid + 1));
  ASSERT_TRUE(lost(io));
  EXPECT_NE(owner.reason.find("not outstanding"), std::string::npos) << owner.reason;
}

TEST_F(RdmaHost, AResponseTwiceLosesTheQueue) {
  connect();
  Io first(buffer, nvme::NvmOpcode::read);
  queue->submit(&first);
  const nvme::Command command = next();
  respond(command.cid, rdma::decode_keyed(command.sgl).key);
  ASSERT_TRUE(done(first));
  Io second(buffer, nvme::NvmOpcode::read);
  queue->submit(&second);
  (void)next();
  respond(command.cid);
  ASSERT_TRUE(lost(second));
}

TEST_F(RdmaHost, AResponseOfAWrongLengthLosesTheQueue) {
  for (const size_t bytes : {size_t{15}, size_t{17}, size_t{65}}) {
    owner = {};
    connecting.result.reset();
    connect();
    Io io(buffer, nvme::NvmOpcode::read);
    queue->submit(&io);
    respond(next().cid, 0, bytes);
    ASSERT_TRUE(lost(io));
    EXPECT_NE(owner.reason.find("respon"), std::string::npos) << owner.reason;
    queue.reset();
    raw.end();
  }
}

TEST_F(RdmaHost, AResponseThatInvalidatesAnotherCommandsKeyLosesTheQueue) {
  connect();
  Io one(buffer, nvme::NvmOpcode::read);
  Io two(buffer, nvme::NvmOpcode::read);
  queue->submit(&one);
  queue->submit(&two);
  const nvme::Command first = next();
  const nvme::Command second = next();
  respond(first.cid, rdma::decode_keyed(second.sgl).key);
  ASSERT_TRUE(lost(one));
  EXPECT_TRUE(done(two));
  EXPECT_NE(owner.reason.find("invalidated a key"), std::string::npos) << owner.reason;
}

TEST_F(RdmaHost, AQueueThatIsGivenUpWhileConnectedLeavesNothingBehind) {
  connect();
  queue.reset();
  net.run_for(milliseconds(50));
  EXPECT_TRUE(raw.over());
}

TEST_F(RdmaHost, ADeviceThatGoesLosesTheQueue) {
  connect();
  Io io(buffer, nvme::NvmOpcode::read);
  queue->submit(&io);
  net.rdma().remove_device("memory", "rdma0");
  ASSERT_TRUE(lost(io));
  EXPECT_NE(owner.reason.find("device went away"), std::string::npos) << owner.reason;
}

}  // namespace
}  // namespace basalt::nvmf
