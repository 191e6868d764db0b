// SPDX-License-Identifier: Apache-2.0
// A node's link over NVMe/TCP: two associations attach replicas, describe and detach them, take them over and send I/O
// under identities and epochs of their choice - with any bits of commands and data changed, with requests at the disk -
// while disks grow, and the management takes namespaces, hosts and listeners away and brings them back.
//
// Whatever comes: what is answered is right (link_node_fuzz_testing.h); what may not be attached is never written; and
// afterwards no queue, buffer or controller is left, a replica serves whoever takes it over and refuses what others
// were, and a link that is full has room again for what was detached.
#include <cstring>
#include <set>

#include "nvmf/transport/tcp/link_node_fuzz_testing.h"
#include "nvmf/transport/tcp/link_replicas_fuzz_testing.h"
#include "testing/fuzz_target.h"

namespace basalt::nvmf {
namespace {

using basalt::nvmf::testing::Bytes;
using basalt::nvmf::testing::LinkNode;
using basalt::nvmf::testing::LinkReplicas;
using basalt::nvmf::testing::RawHost;
using basalt::testing::FuzzBytes;
using basalt::testing::FuzzInput;
using basalt::testing::FuzzOutput;
using basalt::testing::FuzzSeed;
using nvme::AdminOpcode;
using nvme::NvmOpcode;

constexpr uint32_t block_bytes = LinkReplicas::block_bytes;
constexpr uint8_t place_count = LinkReplicas::place_count;
constexpr size_t association_count = 2;
constexpr unsigned steps_max = 64;

enum Step : uint8_t {
  step_associate,
  step_attach,
  step_describe,
  step_detach,
  step_take_over,
  step_io,
  step_admin,
  step_drop,
  step_wait,
  step_disk,
  step_manage,
  step_deaf,
  step_count,
  step_grow = 0xff  // apart: what the committed inputs say stays what it was
};

constexpr NvmOpcode io_opcodes[] = {NvmOpcode::write,
                                    NvmOpcode::read,
                                    NvmOpcode::flush,
                                    NvmOpcode::write_zeroes,
                                    NvmOpcode::dataset_management,
                                    NvmOpcode::compare,
                                    NvmOpcode::reservation_register,
                                    NvmOpcode::reservation_acquire,
                                    NvmOpcode::reservation_release,
                                    NvmOpcode::reservation_report,
                                    NvmOpcode::snapshot,
                                    NvmOpcode::write_note,
                                    NvmOpcode::read_note};

class Play {
 public:
  Play(FuzzInput& input, uint8_t seed) : input_(input), replicas_(seed) {}

  void perform() {
    for (unsigned i = 0; i < steps_max && !input_.empty(); i++) {
      step();
      listen();
    }
    finish();
  }

 private:
  void step() {
    const uint8_t number = input_.u8();
    const auto what = static_cast<Step>(number == step_grow ? number : number % step_count);
    LinkNode& by = nodes_[input_.u8() % association_count];
    switch (what) {
      case step_associate:
        (void)by.associate();
        return;
      case step_attach:
        return attach(by);
      case step_describe:
        return numbered(by, AdminOpcode::link_describe);
      case step_detach:
        return numbered(by, AdminOpcode::link_detach);
      case step_take_over:
        return take_over(by);
      case step_io:
        return io(by);
      case step_admin:
        return admin(by);
      case step_drop: {
        const uint8_t which = input_.u8();
        return by.drop((which & 1) != 0, (which & 2) != 0);
      }
      case step_wait:
        return replicas_.world.world.run_for(milliseconds(int64_t{input_.u8()} * input_.u8()));
      case step_disk: {
        const uint8_t how = input_.u8();
        return replicas_.set_disks((how & 1) != 0, (how & 2) != 0);
      }
      case step_manage:
        return replicas_.manage(input_);
      case step_deaf:
        by.deaf = !by.deaf;
        return;
      case step_grow: {
        const uint8_t place = input_.u8() % place_count;
        return replicas_.grow(place, input_.u8());
      }
      case step_count:
        return;
    }
  }
  void listen() {
    replicas_.world.world.run_for(microseconds(100));
    for (LinkNode& node : nodes_)
      node.listen();
  }

  // ---- what nodes do ----

  void attach(LinkNode& by) {
    const uint8_t how = input_.u8();
    const uint8_t place = input_.u8() % (place_count + 1);
    Bytes data =
        LinkNode::attach_data(how & 3, place < place_count ? LinkReplicas::nqns[place] : "nqn.2026-01.test:none");
    if ((how & 4) != 0) input_.patch(data);
    if ((how & 8) != 0) data.resize(1 + input_.u16() % 1024);
    by.attach(data, (how & 16) != 0);
  }
  void numbered(LinkNode& by, AdminOpcode opcode) {
    const uint8_t how = input_.u8();
    nvme::Command command{};
    command.opcode = static_cast<uint8_t>(opcode);
    command.nsid = (how & 1) != 0 ? input_.u32() : input_.u8();
    const uint32_t length_bytes = (how & 2) != 0 ? input_.u16() : uint32_t{sizeof(nvme::LinkDescription)};
    by.send_admin(command, {}, opcode == AdminOpcode::link_describe ? length_bytes : 0, (how & 16) != 0);
  }
  nvme::Command addressed(NvmOpcode opcode) {
    nvme::Command command = RawHost::io_command(opcode, input_.u8(), 0, 1);
    const uint8_t identity = input_.u8();
    const uint64_t epoch = input_.u8();
    command.set_link(LinkNode::tag_of_identity(identity), epoch);
    return command;
  }
  void take_over(LinkNode& by) {
    const nvme::Command command = addressed(NvmOpcode::reservation_register);
    by.send_io(command, LinkNode::keys_of(0, command.link_epoch()), 0, false);
    listen();
    by.send_io(LinkNode::acquire(command), LinkNode::keys_of(command.link_epoch(), 0), 0, false);
  }
  // As many bytes as the command moves.
  static uint32_t length_of(const nvme::Command& command) {
    const auto opcode = static_cast<NvmOpcode>(command.opcode);
    switch (opcode) {
      case NvmOpcode::write:
      case NvmOpcode::read:
      case NvmOpcode::compare:
        return command.count_blocks() * block_bytes;
      case NvmOpcode::snapshot:
        return nvme::snapshot_name_bytes;
      case NvmOpcode::write_note:
      case NvmOpcode::read_note:
        return nvme::note_data_bytes;
      case NvmOpcode::reservation_report:
        return 512;
      case NvmOpcode::flush:
      case NvmOpcode::write_zeroes:
        return 0;
      default:
        return 16;
    }
  }
  void io(LinkNode& by) {
    const uint8_t how = input_.u8();
    nvme::Command command = addressed(io_opcodes[input_.u8() % std::size(io_opcodes)]);
    const auto opcode = static_cast<NvmOpcode>(command.opcode);
    const bool by_blocks = command.opcode < 0x09;
    if (by_blocks) command.cdw12 = (how & 1) != 0 ? 31 : 0;
    if (opcode == NvmOpcode::dataset_management) command.cdw11 = 4;
    if (opcode == NvmOpcode::reservation_report) command.cdw10 = 127, command.cdw11 = 1;
    if ((how & 32) != 0) command.flags = input_.u8() & nvme::fuse_mask;
    const uint32_t length_bytes = length_of(command);
    const bool writes = nvme::data_direction(command.opcode) == nvme::DataDirection::host_to_controller;
    Bytes data;
    if (writes && (how & 2) != 0) data.assign(std::min<uint32_t>(length_bytes, 8192), static_cast<uint8_t>(how >> 2));
    if ((how & 4) != 0) input_.patch(data);
    by.send_io(command, data, length_bytes, (how & 16) != 0);
  }
  void admin(LinkNode& by) {
    nvme::Command command{};
    const uint8_t how = input_.u8();
    uint32_t length_bytes = 0;
    switch (how % 6) {
      case 0:
        command.opcode = static_cast<uint8_t>(AdminOpcode::async_event_request);
        break;
      case 1:
        command.opcode = static_cast<uint8_t>(AdminOpcode::set_features);
        command.cdw10 = 0x0b;
        command.cdw11 = 0x900;
        break;
      case 2:
        command.opcode = static_cast<uint8_t>(AdminOpcode::get_log_page);
        length_bytes = 4096;
        command.cdw10 = 0x04 | (length_bytes / 4 - 1) << 16;
        break;
      case 3:
        command.opcode = static_cast<uint8_t>(AdminOpcode::identify);
        command.cdw10 = 1;
        length_bytes = 4096;
        break;
      case 4:
        command.opcode = static_cast<uint8_t>(AdminOpcode::abort);
        command.cdw10 = uint32_t{input_.u8()} << 16;
        break;
      default:
        command.opcode = input_.u8();
        length_bytes = 512;
        break;
    }
    by.send_admin(command, {}, length_bytes, (how & 128) != 0);
  }

  // ---- the end ----

  void finish() {
    for (LinkNode& node : nodes_)
      node.drop(true, true);
    replicas_.must_be_left_alone();
    replicas_.open_the_closed();
    LinkNode& node = nodes_[0];
    BASALT_ASSERT(node.associate());
    fill(node);
    serve(node);
    node.drop(true, true);
    replicas_.close();
  }

  static uint32_t must_attach(LinkNode& node, uint8_t identity) {
    nvme::Command command{};
    command.opcode = static_cast<uint8_t>(AdminOpcode::link_attach);
    const auto attached = node.admin().command(command, attach_closed(identity));
    BASALT_ASSERT(attached.came && attached.status.ok() && attached.dw0 != 0);
    return attached.dw0;
  }
  static Bytes attach_closed(uint8_t identity) {
    return LinkNode::attach_data(identity, LinkReplicas::nqns[LinkReplicas::place_closed]);
  }
  static void must_detach(LinkNode& node, uint32_t number) {
    BASALT_ASSERT(node.admin().admin(AdminOpcode::link_detach, 0, 0, number).status.ok());
  }
  // As many as it holds and no more, and again when one has gone.
  static void fill(LinkNode& node) {
    std::set<uint32_t> numbers;
    for (uint8_t identity = 1; identity <= LinkReplicas::attachments_max; identity++)
      BASALT_ASSERT(numbers.insert(must_attach(node, identity)).second);
    nvme::Command command{};
    command.opcode = static_cast<uint8_t>(AdminOpcode::link_attach);
    const auto refused = node.admin().command(command, attach_closed(77));
    BASALT_ASSERT(refused.came && refused.status.is(nvme::status::connect_controller_busy));
    const uint32_t freed = *numbers.begin();
    must_detach(node, freed);
    BASALT_ASSERT(must_attach(node, 78) == freed);
    for (const uint32_t number : numbers)
      must_detach(node, number);
  }
  static RawHost::Answer write(RawHost& io, uint32_t number, uint8_t identity, uint64_t lba) {
    nvme::Command command = RawHost::io_command(NvmOpcode::write, number, lba, 1);
    command.set_link(LinkNode::tag_of_identity(identity), identity);
    return io.command(command, Bytes(block_bytes, identity));
  }
  static RawHost::Answer read(RawHost& io, uint32_t number, uint8_t identity, uint64_t lba) {
    nvme::Command command = RawHost::io_command(NvmOpcode::read, number, lba, 1);
    command.set_link(LinkNode::tag_of_identity(identity), identity);
    return io.command(command, {}, block_bytes);
  }
  // The replica that nobody was let into so far, under two identities: the second one fences the first. Then it grows.
  void serve(LinkNode& node) {
    RawHost& io = node.io();
    uint32_t numbers[3] = {};
    for (const uint8_t identity : {uint8_t{1}, uint8_t{2}}) {
      numbers[identity] = must_attach(node, identity);
      nvme::Command takes = RawHost::io_command(NvmOpcode::reservation_register, numbers[identity], 0, 1);
      takes.set_link(LinkNode::tag_of_identity(identity), identity);
      BASALT_ASSERT(must(io.command(takes, LinkNode::keys_of(0, identity))));
      BASALT_ASSERT(must(io.command(LinkNode::acquire(takes), LinkNode::keys_of(identity, 0))));
      BASALT_ASSERT(must(write(io, numbers[identity], identity, 7)));
    }
    const auto late = write(io, numbers[1], 1, 7);
    BASALT_ASSERT(late.came && late.status.is(nvme::status::reservation_conflict));
    BASALT_ASSERT(read(io, numbers[2], 2, 7).data == Bytes(block_bytes, 2));
    const uint64_t end = replicas_.size_blocks(LinkReplicas::place_closed);
    if (end == LinkReplicas::count_blocks_max) return;
    const auto beyond = write(io, numbers[2], 2, end);
    BASALT_ASSERT(beyond.came && beyond.status.is(nvme::status::lba_out_of_range));
    replicas_.grow(LinkReplicas::place_closed, 1);
    BASALT_ASSERT(must(write(io, numbers[2], 2, end)));
    BASALT_ASSERT(read(io, numbers[2], 2, end).data == Bytes(block_bytes, 2));
    nvme::LinkDescription told{};
    const auto described = node.admin().admin(AdminOpcode::link_describe, 0, 0, numbers[2], sizeof(told));
    BASALT_ASSERT(must(described) && described.data.size() == sizeof(told));
    std::memcpy(&told, described.data.data(), sizeof(told));
    BASALT_ASSERT(told.count_blocks == end + 1);
  }
  static bool must(const RawHost::Answer& answer) { return answer.came && answer.status.ok(); }

  FuzzInput& input_;
  LinkReplicas replicas_;
  LinkNode nodes_[association_count] = {{replicas_, input_, 1}, {replicas_, input_, 2}};
};

// ---- seeds ----------------------------------------------------------------------------------------------------------

// Association 0 with attachments 1 (replica a) and 2 (replica b), of identities 1 and 2, taken over under epoch 3.
FuzzOutput taken() {
  FuzzOutput out;
  out.u8(1).u8(step_associate).u8(0);
  for (const unsigned which : {0u, 1u}) {
    out.u8(step_attach).u8(0).u8(1 + which).u8(which);
    out.u8(step_take_over).u8(0).u8(1 + which).u8(1 + which).u8(3);
  }
  return out;
}
FuzzOutput& add_io(FuzzOutput& out, unsigned how, unsigned opcode, unsigned number = 1, unsigned identity = 1,
                   unsigned epoch = 3) {
  return out.u8(step_io).u8(0).u8(how).u8(opcode).u8(number).u8(identity).u8(epoch);
}

// With events asked for, described before and after, and with requests at the disk meanwhile.
void add_growth(std::vector<FuzzSeed>& out) {
  for (unsigned place = 0; place < place_count; place++) {
    FuzzOutput play = taken();
    play.u8(step_admin).u8(0).u8(1).u8(step_admin).u8(0).u8(0);
    play.u8(step_describe).u8(0).u8(0).u8(1).u8(step_grow).u8(0).u8(place).u8(9);
    play.u8(step_describe).u8(0).u8(0).u8(1).u8(step_admin).u8(0).u8(2);
    play.u8(step_disk).u8(0).u8(1);
    add_io(play, 2, 0).u8(step_grow).u8(0).u8(place).u8(200).u8(step_grow).u8(0).u8(place).u8(200);
    play.u8(step_disk).u8(0).u8(0).u8(step_wait).u8(0).u8(1).u8(1);
    out.push_back({"grow-" + std::to_string(place), play.bytes()});
  }
}

// More than the link holds, all of one replica and of two; then one goes, and one comes.
void add_full(std::vector<FuzzSeed>& out) {
  for (const unsigned places : {1u, 2u}) {
    FuzzOutput play = taken();
    for (unsigned i = 0; i < LinkReplicas::attachments_max + 2; i++)
      play.u8(step_attach).u8(0).u8(1 + i % 3).u8(i % places);
    play.u8(step_detach).u8(0).u8(0).u8(4).u8(step_attach).u8(0).u8(3).u8(0).u8(step_attach).u8(0).u8(3).u8(0);
    add_io(play, 2, 0, 4, 3, 3);
    // A namespace goes, and all of its attachments.
    play.u8(step_manage).u8(0).u8(0).u8(step_manage).u8(0).u8(1).u8(step_attach).u8(0).u8(3).u8(0);
    out.push_back({"full-" + std::to_string(places), play.bytes()});
  }
}

std::vector<FuzzSeed> seeds() {
  std::vector<FuzzSeed> out = {{"empty", {}}};
  const auto add = [&](const std::string& name, const FuzzOutput& from) { out.push_back({name, from.bytes()}); };
  // Each command: with its data in the capsule, and asked for; by the wrong number, identity, epoch, and none.
  for (unsigned opcode = 0; opcode < std::size(io_opcodes); opcode++) {
    for (const unsigned how : {0u, 1u, 2u}) {
      FuzzOutput play = taken();
      add_io(play, how, opcode).u8(step_wait).u8(0).u8(1).u8(1);
      add("io-" + std::to_string(opcode) + "-" + std::to_string(how), play);
    }
    FuzzOutput wrong = taken();
    for (const unsigned which : {0u, 1u, 2u, 3u})
      add_io(wrong, 2, opcode, which == 0 ? 9 : 1, which == 1 ? 2 : 1, which == 2 ? 4 : (which == 3 ? 0 : 3));
    add("wrong-" + std::to_string(opcode), wrong);
    // At the disk while its attachment, then its association, ends.
    for (const unsigned ends : {0u, 1u}) {
      FuzzOutput held = taken();
      held.u8(step_disk).u8(0).u8(1);
      add_io(held, 2, opcode);
      if (ends == 0) held.u8(step_detach).u8(0).u8(0).u8(1);
      if (ends == 1) held.u8(step_drop).u8(0).u8(3);
      held.u8(step_wait).u8(0).u8(1).u8(1).u8(step_attach).u8(0).u8(3).u8(0);
      add("held-" + std::to_string(opcode) + "-" + std::to_string(ends), held);
    }
  }
  // Whatever may be attached, and may not; numbers that are none; data of other lengths.
  for (unsigned place = 0; place <= place_count; place++)
    add("attach-" + std::to_string(place), FuzzOutput(taken()).u8(step_attach).u8(0).u8(3).u8(place));
  add("no-tag", FuzzOutput(taken()).u8(step_attach).u8(0).u8(0).u8(0));
  for (const unsigned length : {0u, 255u, 510u, 600u})
    add("attach-bytes-" + std::to_string(length),
        FuzzOutput(taken()).u8(step_attach).u8(0).u8(8 | 3).u8(0).u16(length));
  const FuzzBytes long_name(31, 'n');
  FuzzOutput full = taken();
  full.u8(step_attach).u8(0).u8(4 | 3).u8(0).u8(8);
  for (unsigned at = 0; at < 8; at++)
    full.u16(256 + at * 31).u8(31).add(long_name);
  add("long-name", full);
  for (const unsigned number : {0u, 1u, 2u, 3u, 255u}) {
    add("describe-" + std::to_string(number), FuzzOutput(taken()).u8(step_describe).u8(0).u8(0).u8(number));
    add("detach-" + std::to_string(number), FuzzOutput(taken()).u8(step_detach).u8(0).u8(0).u8(number));
  }
  add("describe-any", FuzzOutput(taken()).u8(step_describe).u8(0).u8(3).u32(8193).u16(100));
  // With somebody who hears of it: events, the list, and I/O afterwards.
  for (unsigned how = 0; how < 10; how++) {
    FuzzOutput play = taken();
    play.u8(step_admin).u8(0).u8(1).u8(step_admin).u8(0).u8(0);
    play.u8(step_manage).u8(0).u8(how);
    if (how == 4) play.u8(1);
    add_io(play, 2, 0).u8(step_wait).u8(0).u8(1).u8(1);
    play.u8(step_admin).u8(0).u8(2).u8(step_attach).u8(0).u8(3).u8(0);
    play.u8(step_manage).u8(0).u8(how == 4 ? 5 : how + 1).u8(step_attach).u8(0).u8(3).u8(0);
    add("manage-" + std::to_string(how), play);
  }
  for (unsigned state = 0; state < 4; state++) {
    FuzzOutput play = taken();
    play.u8(step_manage).u8(0).u8(4).u8(state);
    add("ana-" + std::to_string(state), add_io(play, 2, 0));
  }
  // Commands that a link has and others do not, and what it has none of.
  for (const unsigned opcode : {0x06u, 0x0cu, 0x18u, 0xc0u, 0xc3u, 0xffu})
    add("admin-" + std::to_string(opcode), FuzzOutput(taken()).u8(step_admin).u8(0).u8(5).u8(opcode));
  for (const unsigned type : {0u, 4u, 5u, 6u, 9u}) {
    FuzzOutput play = taken();
    play.u8(step_admin).u8(0).u8(128 + 1).u8(2).u16(0).u8(1).u8(0x7f).u16(4).u8(1).u8(type);
    add("fabrics-" + std::to_string(type), play);
  }
  // Fused halves: a pair, of two epochs, of two attachments, alone.
  for (const unsigned which : {0u, 1u, 2u, 3u}) {
    FuzzOutput play = taken();
    add_io(play, 32 | 2, 5).u8(1);
    if (which < 3) add_io(play, 32 | 2, 0, which == 2 ? 2 : 1, which == 2 ? 2 : 1, which == 1 ? 4 : 3).u8(2);
    add("fused-" + std::to_string(which), play.u8(step_wait).u8(0).u8(1).u8(1));
  }
  // Another association takes over while the first one has requests at the disk.
  FuzzOutput over = taken();
  over.u8(step_disk).u8(0).u8(1);
  add_io(over, 2, 0);
  over.u8(step_associate).u8(1).u8(step_attach).u8(1).u8(3).u8(0).u8(step_take_over).u8(1).u8(1).u8(3).u8(4);
  add_io(over, 2, 0).u8(step_disk).u8(0).u8(0).u8(step_wait).u8(0).u8(1).u8(1);
  add("taken-over", add_io(over, 2, 0));
  add_growth(out);
  add_full(out);
  return out;
}

BASALT_FUZZ_TARGET(node_link, basalt::testing::fuzz_play<Play>, seeds)

}  // namespace
}  // namespace basalt::nvmf
