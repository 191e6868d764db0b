// SPDX-License-Identifier: Apache-2.0
#include "bdev/lvol/fsck.h"

#include <algorithm>
#include <cinttypes>
#include <cstdarg>
#include <cstdio>

namespace basalt::bdev {
namespace {

using State = FsckReport::Slot::State;

// Why a block is not the one that belongs to a place; nullptr: it is.
const char* wrong_with(const uint8_t* block, lvs::BlockType type, const FsckReport& report, uint64_t address_blocks) {
  const lvs::BlockHeader& header = lvs::header_of(block);
  if (std::all_of(block, block + lvs::block_bytes, [](uint8_t byte) { return byte == 0; })) return "it is all zeroes";
  if (header.magic != lvs::block_magic) return "it is no metadata block";
  if (!lvs::block_intact(block)) return "its checksum does not match";
  if (lvs::uuid_of(header.store_uuid) != report.uuid) return "it belongs to another store";
  if (header.address_blocks != address_blocks) return "it was written for another place";
  if (header.type != static_cast<uint16_t>(type)) return "it is of another type";
  if (header.generation > report.generation) return "it is newer than the newest superblock";
  return nullptr;
}

// One walk over a store; each part goes on as far as what came before allows.
struct Walk {
  Walk(Handle base, FsckReport& report) : device(base), report(report) {}
  lvs::Device device;
  FsckReport& report;
  lvs::Superblock superblock;
  std::vector<lvs::Slot> slots;

  void problem(std::string message, bool error = true) { report.problems.push_back({error, std::move(message)}); }
  bool failed(const char* what, nvme::Status status) {
    if (!status.ok()) problem(lvs::io_error(what, status).message);
    return !status.ok();
  }

  Task<bool> superblocks();
  Task<bool> directory();
  Task<void> pages();
  Task<void> journal();
};

Task<bool> Walk::superblocks() {
  if (device.count_blocks() < lvs::superblock_area_blocks) {
    problem("no lvstore: the device is too small");
    co_return false;
  }
  lvs::BlockMemory area(lvs::superblock_area_blocks);
  const nvme::Status status = co_await device.transfer(IoType::read, 0, lvs::superblock_area_blocks, area.data());
  if (failed("reading the superblocks", status)) co_return false;
  const uint8_t* newest = nullptr;
  bool traces = false;
  for (uint32_t slot = 0; slot < lvs::superblock_slot_count; slot++) {
    const uint64_t address_blocks = uint64_t{slot} * lvs::superblock_stride_blocks;
    const uint8_t* block = area.block(address_blocks);
    const lvs::BlockHeader& header = lvs::header_of(block);
    if (std::all_of(block, block + lvs::block_bytes, [](uint8_t byte) { return byte == 0; })) continue;
    traces |= header.magic == lvs::block_magic;
    const bool intact =
        lvs::block_matches(block, lvs::BlockType::superblock, lvs::uuid_of(header.store_uuid), address_blocks);
    report.superblocks[slot] = {intact ? State::intact : State::damaged, intact ? header.generation : 0};
    if (intact && (newest == nullptr || header.generation > lvs::header_of(newest).generation)) newest = block;
  }
  if (newest == nullptr) {
    problem(traces ? "no superblock is intact" : "the device carries no lvstore");
    co_return false;
  }
  for (uint32_t slot = 0; slot < lvs::superblock_slot_count; slot++) {
    if (report.superblocks[slot].state != State::damaged) continue;
    problem("superblock slot " + std::to_string(slot) + " is damaged; slot " +
                std::to_string(lvs::header_of(newest).address_blocks / lvs::superblock_stride_blocks) +
                " is the newest intact one",
            false);
  }
  std::memcpy(&superblock, newest, sizeof(superblock));
  report.uuid = lvs::uuid_of(superblock.header.store_uuid);
  report.generation = superblock.header.generation;
  report.incarnation = superblock.incarnation;
  report.incompatible = superblock.incompatible;
  report.clean = superblock.clean == 1;
  report.journal_start_sequence = superblock.journal_start_sequence;
  report.layout = lvs::layout_of(superblock);
  Outcome known = lvs::check_superblock(superblock, device.count_blocks());
  if (!known) {
    problem(known.error().message);
    co_return false;
  }
  report.name = std::string(superblock.name, superblock.name_length_bytes);
  co_return true;
}

Task<bool> Walk::directory() {
  const lvs::Layout& layout = report.layout;
  slots.assign(layout.page_count, lvs::Slot::none);
  lvs::BlockMemory memory(1);
  bool whole = true;
  for (uint32_t d = 0; d < layout.directory_pages; d++) {
    const bool in_b = superblock.directory_selector[d / 8] >> d % 8 & 1;
    const uint64_t address_blocks = layout.directory_block(d, in_b);
    const nvme::Status status = co_await device.transfer(IoType::read, address_blocks, 1, memory.data());
    if (failed("reading the directory", status)) co_return false;
    const char* wrong = wrong_with(memory.data(), lvs::BlockType::directory, report, address_blocks);
    if (wrong == nullptr && lvs::header_of(memory.data()).index != d) wrong = "it is another directory page";
    if (wrong != nullptr) {
      problem("directory page " + std::to_string(d) + " (block " + std::to_string(address_blocks) + "): " + wrong);
      whole = false;
      continue;
    }
    const uint8_t* payload = memory.data() + sizeof(lvs::BlockHeader);
    for (uint32_t i = 0; i < lvs::pages_per_directory; i++) {
      const uint64_t page = uint64_t{d} * lvs::pages_per_directory + i;
      if (page >= layout.page_count) break;
      slots[page] = static_cast<lvs::Slot>(payload[i / 4] >> i % 4 * 2 & 3);
    }
  }
  co_return whole;
}

Task<void> Walk::pages() {
  const lvs::Layout& layout = report.layout;
  lvs::BlockMemory memory(1);
  for (uint32_t page = 0; page < layout.page_count; page++) {
    if (slots[page] == lvs::Slot::none) continue;
    report.pages_used++;
    const uint64_t address_blocks = layout.page_block(page, slots[page]);
    const nvme::Status status = co_await device.transfer(IoType::read, address_blocks, 1, memory.data());
    if (failed("reading the pages", status)) co_return;
    auto type = static_cast<lvs::BlockType>(lvs::header_of(memory.data()).type);
    if (page < layout.dirty_map_pages) {
      type = lvs::BlockType::dirty_map;
    } else if (type != lvs::BlockType::extents) {
      type = lvs::BlockType::lvol;
    }
    const char* wrong = wrong_with(memory.data(), type, report, address_blocks);
    if (wrong != nullptr) {
      problem("page " + std::to_string(page) + " (block " + std::to_string(address_blocks) + "): " + wrong);
    }
  }
}

Task<void> Walk::journal() {
  const lvs::Layout& layout = report.layout;
  lvs::BlockMemory memory(1);
  uint64_t sequence = report.journal_start_sequence;
  for (; sequence - report.journal_start_sequence < layout.journal_blocks; sequence++) {
    const uint64_t address_blocks = layout.journal_block(sequence);
    const nvme::Status status = co_await device.transfer(IoType::read, address_blocks, 1, memory.data());
    if (failed("reading the journal", status)) co_return;
    const auto& block = *reinterpret_cast<const lvs::JournalBlock*>(memory.data());
    const bool next = wrong_with(memory.data(), lvs::BlockType::journal, report, address_blocks) == nullptr &&
                      block.header.owner == sequence && block.incarnation == report.incarnation;
    if (!next) break;
  }
  report.journal_blocks = sequence - report.journal_start_sequence;
}

void add(std::string& out, const char* format, ...) __attribute__((format(printf, 2, 3)));
void add(std::string& out, const char* format, ...) {
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(line, sizeof(line), format, arguments);
  va_end(arguments);
  out += line;
  out += '\n';
}

void add_dump(const FsckReport& report, std::string& out) {
  const lvs::Layout& layout = report.layout;
  for (uint32_t slot = 0; slot < lvs::superblock_slot_count; slot++) {
    const char* state[] = {"blank", "intact", "damaged"};
    add(out, "superblock slot %u: %s, generation %" PRIu64, slot,
        state[static_cast<size_t>(report.superblocks[slot].state)], report.superblocks[slot].generation);
  }
  add(out, "areas (first block): journal %" PRIu64 ", directory %" PRIu64 ", pages %" PRIu64 ", data %" PRIu64,
      layout.journal_first_block, layout.directory_first_block, layout.pages_first_block, layout.data_first_block);
  add(out, "pages: %u of %u in use; journal: %" PRIu64 " blocks from %" PRIu64, report.pages_used, layout.page_count,
      report.journal_blocks, report.journal_start_sequence);
  for (const LayerInfo& layer : report.layers) {
    const bool hidden = (layer.flags & lvs::layer_hidden) != 0;
    const bool area = (layer.flags & lvs::layer_area) != 0;
    add(out, "lvol %u: %s, parent %u, %s%s%s%" PRIu64 " bytes, overlap %" PRIu64 ", %u clusters, %u extents pages, %s",
        layer.id,
        area     ? "(checksums)"
        : hidden ? "(hidden)"
                 : layer.name.c_str(),
        layer.parent_id, (layer.flags & lvs::layer_snapshot) != 0 ? "snapshot, " : "",
        (layer.flags & lvs::layer_read_only) != 0 ? "read-only, " : "",
        (layer.flags & lvs::layer_checksums) != 0 ? "checksums, " : "", layer.size_bytes, layer.overlap_bytes,
        layer.mapped_clusters, layer.extents_pages, layer.uuid.to_string().c_str());
  }
}

}  // namespace

bool FsckReport::sound() const {
  return std::none_of(problems.begin(), problems.end(), [](const Problem& problem) { return problem.error; });
}

Task<FsckReport> fsck(Reactor& reactor, Handle base) {
  FsckReport report;
  Walk walk(base, report);
  const bool known = co_await walk.superblocks();
  if (!known) co_return report;
  const bool whole = co_await walk.directory();
  co_await walk.pages();
  co_await walk.journal();
  // What the blocks say together: clusters, names, parents, the journal's records.
  const bool blocks_right = whole && report.sound();
  Result<std::unique_ptr<LvStore>> read = co_await LvStore::inspect(reactor, base);
  if (!read) {
    if (blocks_right) walk.problem(read.error().message);
    co_return report;
  }
  if ((*read)->refusal() && blocks_right) walk.problem((*read)->refusal()->message);
  report.readable = true;
  report.stats = (*read)->stats();
  report.layers = (*read)->layers();
  if (report.stats.checksum_lost_records > 0) {
    walk.problem("the log of the checksums lacks " + std::to_string(report.stats.checksum_lost_records) +
                     " records; blocks that they may have been about read as damaged",
                 false);
  }
  co_return report;
}

std::string fsck_text(const FsckReport& report, bool dump) {
  std::string out;
  if (!report.name.empty()) {
    add(out, "lvstore %s %s, generation %" PRIu64 ", %s", report.name.c_str(), report.uuid.to_string().c_str(),
        report.generation, report.clean ? "closed in order" : "not closed in order");
  }
  if (report.readable) {
    add(out, "%" PRIu64 " clusters of %u bytes, %" PRIu64 " free; %zu layers, %u of them hidden",
        report.stats.total_clusters, report.stats.cluster_bytes, report.stats.free_clusters, report.layers.size(),
        report.stats.hidden_layers);
  }
  if (dump && report.generation > 0) add_dump(report, out);
  for (const FsckReport::Problem& problem : report.problems)
    add(out, "%s: %s", problem.error ? "error" : "warning", problem.message.c_str());
  add(out, "%s", report.sound() ? "no errors" : "errors were found; nothing was written");
  return out;
}

}  // namespace basalt::bdev
