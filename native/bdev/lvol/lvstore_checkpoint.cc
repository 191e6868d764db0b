// SPDX-License-Identifier: Apache-2.0
// Checkpoint: writes what changed to the other slot of its page, flushes, then makes a superblock that says so. Until
// that superblock is stable, the previous one and all that it refers to stay as they were.
#include <algorithm>
#include <vector>

#include "bdev/lvol/lvstore.h"

namespace basalt::bdev {

struct LvStore::PendingPage {
  uint64_t address_blocks;
  uint8_t* block;
};

namespace {

constexpr size_t writes_in_flight_max = 32;

struct PageWriter;

struct PageWrite {
  PageWriter* writer = nullptr;
  Io io;
  Iovec iov;
};

// Keeps a number of page writes in flight until all have ended.
struct PageWriter {
  const lvs::Device& device;
  size_t in_flight = 0;
  size_t next = 0;
  nvme::Status status;
  Signal<Unit> ended;
};

}  // namespace

// What a checkpoint needs, kept from one to the next: there is one at a time.
struct LvStore::CheckpointMemory {
  std::vector<lvs::Page*> dirty;
  std::vector<uint32_t> given;
  std::vector<bool> written;          // pages
  std::vector<bool> directory_dirty;  // directories
  std::vector<PendingPage> pages;     // with the directories
  std::unique_ptr<lvs::BlockMemory> blocks;
  size_t block_count = 0;  // of `blocks`
  const std::unique_ptr<PageWrite[]> writes = std::make_unique<PageWrite[]>(writes_in_flight_max);

  void need_blocks(size_t count) {
    if (count > block_count) {
      block_count = std::max<size_t>(count + count / 4, 32);  // most need a few, now more and now less
      blocks = std::make_unique<lvs::BlockMemory>(block_count);
    }
    blocks->clear(count);
  }
};

FramedTask<nvme::Status> LvStore::write_pages(CheckpointMemory& memory) {
  if (memory.pages.empty()) co_return nvme::status::success;
  struct Writer : PageWriter {
    std::vector<PendingPage>& pages;
    void submit(PageWrite& write) {
      const PendingPage& page = pages[next++];
      device.prepare(write.io, IoType::write, page.address_blocks, 1);
      write.iov = {page.block, lvs::block_bytes};
      write.io.iov = &write.iov;
      write.io.iov_count = 1;
      write.writer = this;
      write.io.context = &write;
      write.io.done = [](Io* io) {
        auto& write = *static_cast<PageWrite*>(io->context);
        static_cast<Writer*>(write.writer)->done(write);
      };
      in_flight++;
      device.submit(&write.io);
    }
    void done(PageWrite& write) {
      in_flight--;
      if (!write.io.status.ok() && status.ok()) status = write.io.status;
      if (status.ok() && next < pages.size()) {
        submit(write);
      } else if (in_flight == 0) {
        ended.set(Unit{});
      }
    }
  };
  Writer writer{{.device = device_, .status = {}, .ended = {}}, memory.pages};
  for (size_t i = 0; i < std::min(memory.pages.size(), writes_in_flight_max); i++)
    writer.submit(memory.writes[i]);
  co_await writer.ended;
  co_return writer.status;
}

void LvStore::write_layer(const Layer& layer, lvs::LvolPage& out) {
  out.size_bytes = layer.count_blocks * lvs::block_bytes;
  std::memcpy(out.uuid, layer.uuid.bytes.data(), 16);
  out.flags = layer.flags;
  out.parent_id = layer.parent == nullptr ? 0 : layer.parent->id;
  out.overlap_blocks = layer.overlap_blocks;
  out.name_length_bytes = static_cast<uint16_t>(layer.name.size());
  out.attribute_length_bytes = static_cast<uint16_t>(layer.attribute.size());
  std::memcpy(out.name, layer.name.data(), layer.name.size());
  std::memcpy(out.attribute, layer.attribute.data(), layer.attribute.size());
}

// The payload and the header's owner and index; sealed by the caller.
void LvStore::serialize_page(lvs::Page& page, uint8_t* block) {
  uint8_t* payload = block + sizeof(lvs::BlockHeader);
  lvs::BlockIdentity identity{page.type,       uuid_, layout_.page_block(page.number, pages_.slot(page.number)),
                              generation_ + 1, 0,     0};
  uint32_t length_bytes = lvs::payload_bytes_max;
  switch (page.type) {
    case lvs::BlockType::dirty_map:
      identity.index = page.number;
      space_.write_page(page.number, payload);
      break;
    case lvs::BlockType::extents: {
      auto& window = static_cast<lvs::Window&>(page);
      Layer* layer = by_id(window.lvol_id);
      BASALT_ASSERT(layer != nullptr);
      identity.owner = window.lvol_id;
      identity.index = window.index;
      length_bytes = layout_.clusters_per_extents() * layout_.entry_bytes();
      layer->map.write_window(window, layer->parent == nullptr, payload);
      break;
    }
    default: {
      BASALT_ASSERT(page.type == lvs::BlockType::lvol);
      const Layer& layer = *static_cast<lvs::LayerPage&>(page).layer;
      identity.owner = layer.id;
      write_layer(layer, *reinterpret_cast<lvs::LvolPage*>(block));
    }
  }
  lvs::seal_block(block, identity, length_bytes);
}

// Their new slots, and the directories that tell of them.
void LvStore::take_dirty_pages(CheckpointMemory& memory) {
  memory.directory_dirty.assign(layout_.directory_pages, generation_ == 0);
  memory.written.assign(layout_.page_count, false);
  memory.dirty.clear();
  while (lvs::Page* page = pages_.pop_dirty())
    memory.dirty.push_back(page);
  for (const lvs::Page* page : memory.dirty)
    memory.written[page->number] = true;
  pages_.take_given(&memory.given);
  for (const uint32_t number : memory.given) {
    if (memory.written[number]) continue;  // taken again: the new page replaces the old copy
    pages_.set_slot(number, lvs::Slot::none);
    memory.directory_dirty[number / lvs::pages_per_directory] = true;
  }
  for (const lvs::Page* page : memory.dirty) {
    const lvs::Slot other = pages_.slot(page->number) == lvs::Slot::a ? lvs::Slot::b : lvs::Slot::a;
    pages_.set_slot(page->number, other);
    memory.directory_dirty[page->number / lvs::pages_per_directory] = true;
  }
}

void LvStore::fill_pages(CheckpointMemory& memory) {
  std::vector<PendingPage>& pages = memory.pages;
  pages.clear();
  for (lvs::Page* page : memory.dirty) {
    uint8_t* block = memory.blocks->block(pages.size());
    serialize_page(*page, block);
    pages.push_back({layout_.page_block(page->number, pages_.slot(page->number)), block});
  }
  for (uint32_t d = 0; d < layout_.directory_pages; d++) {
    if (!memory.directory_dirty[d]) continue;
    directory_in_b_[d] = !directory_in_b_[d];
    const uint64_t address_blocks = layout_.directory_block(d, directory_in_b_[d]);
    uint8_t* block = memory.blocks->block(pages.size());
    pages_.write_directory(d, block + sizeof(lvs::BlockHeader));
    lvs::seal_block(block, {lvs::BlockType::directory, uuid_, address_blocks, generation_ + 1, 0, d},
                    lvs::payload_bytes_max);
    pages.push_back({address_blocks, block});
  }
}

uint8_t* LvStore::fill_superblock(CheckpointMemory& memory, uint64_t start_sequence, bool clean) {
  uint8_t* block = memory.blocks->block(memory.pages.size());
  auto& superblock = *reinterpret_cast<lvs::Superblock*>(block);
  superblock.version = lvs::format_version;
  superblock.clean = clean;
  superblock.incompatible = incompatible_;
  lvs::layout_to(layout_, superblock);
  superblock.incarnation = incarnation_;
  superblock.journal_start_sequence = start_sequence;
  superblock.lvol_id_next = lvol_id_next_;
  superblock.name_length_bytes = static_cast<uint32_t>(name_.size());
  std::memcpy(superblock.name, name_.data(), name_.size());
  for (uint32_t d = 0; d < layout_.directory_pages; d++) {
    if (directory_in_b_[d]) superblock.directory_selector[d / 8] |= static_cast<uint8_t>(1u << d % 8);
  }
  lvs::seal_block(block,
                  {lvs::BlockType::superblock, uuid_, layout_.superblock_block(generation_ + 1), generation_ + 1, 0, 0},
                  lvs::payload_bytes_max);
  return block;
}

FramedTask<nvme::Status> LvStore::checkpoint(uint64_t start_sequence, bool clean) {
  // All that is serialized is the state of one instant: the records before start_sequence, no more and no less.
  const uint64_t generation = generation_ + 1;
  if (checkpoint_memory_ == nullptr) checkpoint_memory_ = std::make_unique<CheckpointMemory>();
  CheckpointMemory& memory = *checkpoint_memory_;
  take_dirty_pages(memory);
  const auto directory_count =
      static_cast<size_t>(std::count(memory.directory_dirty.begin(), memory.directory_dirty.end(), true));
  memory.need_blocks(memory.dirty.size() + directory_count + 1);
  fill_pages(memory);
  uint8_t* superblock = fill_superblock(memory, start_sequence, clean);

  nvme::Status status = co_await write_pages(memory);
  if (status.ok()) status = co_await flush_device();
  if (status.ok()) {
    status = co_await device_io(IoType::write, layout_.superblock_block(generation), 1, superblock);
  }
  if (status.ok()) status = co_await flush_device();
  // An unusually large one: that much is not needed again.
  if (memory.block_count > 2 * dirty_pages_max) checkpoint_memory_.reset();
  if (!status.ok()) {
    fail();
    co_return status;
  }
  generation_ = generation;
  checkpoint_count_++;
  co_return status;
}

FramedTask<void> LvStore::checkpoint_in_background() {
  const uint64_t start_sequence = journal_.completed_sequence() + 1;
  const nvme::Status status = co_await checkpoint(start_sequence, false);
  checkpointing_ = false;
  if (status.ok() && !failed()) {
    journal_.flushed(start_sequence - 1);
    journal_.trim(start_sequence, generation_);
  }
  checkpoint_ended_.wake_all();
  background_left();
}

FramedSpawn LvStore::begin_checkpoint() {
  co_await checkpoint_in_background();
}

}  // namespace basalt::bdev
