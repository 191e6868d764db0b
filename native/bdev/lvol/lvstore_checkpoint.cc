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

Task<nvme::Status> LvStore::write_pages(std::vector<PendingPage>& pages) {
  if (pages.empty()) co_return nvme::status::success;
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
  Writer writer{{.device = device_, .status = {}, .ended = {}}, pages};
  std::vector<PageWrite> writes(std::min(pages.size(), writes_in_flight_max));
  for (PageWrite& write : writes)
    writer.submit(write);
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

Task<nvme::Status> LvStore::checkpoint(uint64_t start_sequence, bool clean) {
  // All that is serialized is the state of one instant: the records before start_sequence, no more and no less.
  const uint64_t generation = generation_ + 1;
  std::vector<bool> directory_dirty(layout_.directory_pages, generation == 1);
  std::vector<lvs::Page*> dirty;
  while (lvs::Page* page = pages_.pop_dirty())
    dirty.push_back(page);
  std::vector<bool> written(layout_.page_count);
  for (const lvs::Page* page : dirty)
    written[page->number] = true;
  for (uint32_t number : pages_.take_given()) {
    if (written[number]) continue;  // taken again: the new page replaces the old copy
    pages_.set_slot(number, lvs::Slot::none);
    directory_dirty[number / lvs::pages_per_directory] = true;
  }
  for (const lvs::Page* page : dirty) {
    const lvs::Slot other = pages_.slot(page->number) == lvs::Slot::a ? lvs::Slot::b : lvs::Slot::a;
    pages_.set_slot(page->number, other);
    directory_dirty[page->number / lvs::pages_per_directory] = true;
  }
  const auto directory_count = static_cast<size_t>(std::count(directory_dirty.begin(), directory_dirty.end(), true));
  lvs::BlockMemory memory(dirty.size() + directory_count + 1);
  std::vector<PendingPage> pages;
  for (lvs::Page* page : dirty) {
    uint8_t* block = memory.block(pages.size());
    serialize_page(*page, block);
    pages.push_back({layout_.page_block(page->number, pages_.slot(page->number)), block});
  }
  for (uint32_t d = 0; d < layout_.directory_pages; d++) {
    if (!directory_dirty[d]) continue;
    directory_in_b_[d] = !directory_in_b_[d];
    const uint64_t address_blocks = layout_.directory_block(d, directory_in_b_[d]);
    uint8_t* block = memory.block(pages.size());
    pages_.write_directory(d, block + sizeof(lvs::BlockHeader));
    lvs::seal_block(block, {lvs::BlockType::directory, uuid_, address_blocks, generation, 0, d},
                    lvs::payload_bytes_max);
    pages.push_back({address_blocks, block});
  }
  uint8_t* block = memory.block(pages.size());
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
  const uint64_t address_blocks = layout_.superblock_block(generation);
  lvs::seal_block(block, {lvs::BlockType::superblock, uuid_, address_blocks, generation, 0, 0}, lvs::payload_bytes_max);

  nvme::Status status = co_await write_pages(pages);
  if (status.ok()) status = co_await device_.flush();
  if (status.ok()) status = co_await device_.transfer(IoType::write, address_blocks, 1, block);
  if (status.ok()) status = co_await device_.flush();
  if (!status.ok()) {
    fail();
    co_return status;
  }
  generation_ = generation;
  checkpoint_count_++;
  co_return status;
}

Task<void> LvStore::checkpoint_in_background() {
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

}  // namespace basalt::bdev
