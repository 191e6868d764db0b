// SPDX-License-Identifier: Apache-2.0
// Loading a store from a damaged image: a good one, with blocks overwritten, moved, blanked and sealed again (so that
// the damage lies behind a right checksum), and journal blocks of any records.
//
// A load that fails has written nothing. One that succeeds gives a store that works: its lvols are read and written, it
// closes, and loads again with the same lvols.
#include <cstring>

#include "base/crc32c.h"
#include "bdev/lvol/lvstore.h"
#include "testing/fuzz_target.h"
#include "testing/fuzz_world.h"

namespace basalt::bdev {
namespace {

using basalt::testing::FuzzBytes;
using basalt::testing::FuzzDisk;
using basalt::testing::FuzzInput;
using basalt::testing::FuzzOutput;
using basalt::testing::FuzzSeed;
using basalt::testing::FuzzWorld;

constexpr uint64_t device_blocks = 480;  // as few as give some clusters: each input begins with a copy
enum Edit : uint8_t { edit_patch = 0, edit_copy = 1, edit_blank = 2, edit_journal = 3, edit_cut = 4, edit_count = 5 };
constexpr uint8_t flag_reseal = 0x80;

using Store = std::unique_ptr<LvStore>;

nvme::Status io(FuzzWorld& world, Bdev& bdev, IoType type, uint64_t offset_blocks, std::vector<uint8_t>* data) {
  struct Waiting : Io {
    bool ended = false;
  } request;
  Iovec iov{data->data(), data->size()};
  request.type = type;
  request.offset_blocks = offset_blocks;
  request.count_blocks = static_cast<uint32_t>(data->size() / bdev.info().block_size_bytes);
  request.iov = &iov;
  request.iov_count = 1;
  request.done = [](Io* io) { static_cast<Waiting*>(io)->ended = true; };
  bdev.submit(&request);
  world.must([&] { return request.ended; });
  return request.status;
}

Result<Store> load(FuzzWorld& world, FuzzDisk& disk) {
  return world.run(LvStore::load(world.home(), Handle(disk, world.home())));
}
void close(FuzzWorld& world, Store& store) {
  const Outcome closed = world.run(store->close());
  BASALT_ASSERT(closed.ok());
  store.reset();
}
Lvol* make_lvol(FuzzWorld& world, LvStore& store, const std::string& name, uint64_t size_bytes, uint8_t uuid) {
  LvolOptions options;
  options.name = name;
  options.size_bytes = size_bytes;
  options.uuid.bytes[0] = uuid;
  auto made = world.run(store.create_lvol(options));
  BASALT_ASSERT(made.ok());
  return made.value();
}

// A store with every kind of page and record, not closed.
FuzzBytes make_image() {
  FuzzWorld world(1);
  FuzzDisk disk(world.home(), lvs::block_bytes, device_blocks);
  LvStoreOptions options;
  options.name = "pool";
  options.uuid.bytes[0] = 1;
  options.cluster_bytes = lvs::cluster_bytes_min;
  auto made = world.run(LvStore::create(world.home(), Handle(disk, world.home()), options));
  BASALT_ASSERT(made.ok());
  Store store = std::move(made).value();
  std::vector<uint8_t> data(4096 * 20, 0x5a);
  Lvol* alpha = make_lvol(world, *store, "alpha", 1 << 20, 0xa);
  make_lvol(world, *store, "beta", uint64_t{1} << 40, 0xb);
  BASALT_ASSERT(io(world, *alpha, IoType::write, 3, &data).ok());
  close(world, store);
  auto loaded = load(world, disk);
  BASALT_ASSERT(loaded.ok());
  store = std::move(loaded).value();
  BASALT_ASSERT(io(world, *store->find("alpha"), IoType::write, 60, &data).ok());
  BASALT_ASSERT(world.run(store->find("beta")->set_attribute("epoch 7")).ok());
  BASALT_ASSERT(world.run(store->delete_lvol("beta")).ok());
  make_lvol(world, *store, "gamma", 1 << 20, 0xc);
  FuzzBytes image = disk.bytes;
  close(world, store);
  return image;
}

const FuzzBytes& good_image() {
  static const FuzzBytes image = make_image();
  return image;
}

void reseal(uint8_t* block) {
  std::memset(block + offsetof(lvs::BlockHeader, crc32c), 0, 4);
  const uint32_t crc = crc32c(0, block, lvs::block_bytes);
  std::memcpy(block + offsetof(lvs::BlockHeader, crc32c), &crc, 4);
}

lvs::Superblock newest_superblock(const FuzzBytes& image) {
  lvs::Superblock newest{};
  for (uint32_t slot = 0; slot < lvs::superblock_slot_count; slot++) {
    const uint8_t* block = image.data() + size_t{slot} * lvs::superblock_stride_blocks * lvs::block_bytes;
    lvs::Superblock candidate;
    std::memcpy(&candidate, block, sizeof(candidate));
    if (lvs::block_intact(block) && candidate.header.generation >= newest.header.generation) newest = candidate;
  }
  return newest;
}

// A journal block as the store would write it, of any records.
void put_journal_block(FuzzBytes& image, uint64_t number, std::span<const uint8_t> records) {
  const lvs::Superblock superblock = newest_superblock(image);
  if (superblock.journal_blocks == 0) return;
  const uint64_t sequence = superblock.journal_start_sequence + number;
  const uint64_t address = superblock.journal_first_block + sequence % superblock.journal_blocks;
  if (address >= device_blocks) return;
  lvs::JournalBlock block{};
  block.incarnation = superblock.incarnation;
  block.stable_sequence = superblock.journal_start_sequence;
  const size_t length = std::min<size_t>(records.size(), lvs::journal_block_records_bytes_max);
  std::copy_n(records.begin(), length, block.records);
  Uuid uuid;
  std::memcpy(uuid.bytes.data(), superblock.header.store_uuid, 16);
  lvs::seal_block(&block,
                  {.type = lvs::BlockType::journal,
                   .store_uuid = uuid,
                   .address_blocks = address,
                   .generation = superblock.header.generation,
                   .owner = sequence},
                  static_cast<uint32_t>(length) + 16);
  std::memcpy(image.data() + address * lvs::block_bytes, &block, sizeof(block));
}

FuzzBytes damaged_image(FuzzInput& input) {
  FuzzBytes image = good_image();
  for (unsigned left = 64; left > 0 && !input.empty(); left--) {
    const uint8_t what = input.u8();
    const size_t index = input.u16() % device_blocks;
    uint8_t* block = image.data() + index * lvs::block_bytes;
    switch ((what & ~flag_reseal) % edit_count) {
      case edit_patch: {
        const size_t offset = input.u16() % lvs::block_bytes;
        const auto bytes = input.take(input.u8());
        std::copy_n(bytes.begin(), std::min(bytes.size(), lvs::block_bytes - offset), block + offset);
        break;
      }
      case edit_copy:
        std::memmove(block, image.data() + input.u16() % device_blocks * lvs::block_bytes, lvs::block_bytes);
        break;
      case edit_blank:
        std::memset(block, input.u8(), lvs::block_bytes);
        break;
      case edit_journal:
        put_journal_block(image, index % 64, input.blob());
        continue;
      case edit_cut:  // a device that shrank
        if (index > 0) image.resize(std::min(image.size(), index * lvs::block_bytes));
        image.resize(device_blocks * lvs::block_bytes);
        continue;
      default:
        break;
    }
    if ((what & flag_reseal) != 0) reseal(block);
  }
  return image;
}

std::vector<std::string> names(LvStore& store) {
  std::vector<std::string> out;
  for (Lvol* lvol : store.list())
    out.push_back(lvol->name());
  std::sort(out.begin(), out.end());
  return out;
}

// What a user does with it next.
void exercise(FuzzWorld& world, LvStore& store) {
  std::vector<uint8_t> data(4096);
  for (Lvol* lvol : store.list()) {
    const uint64_t last = lvol->info().count_blocks - 1;
    for (const uint64_t block : {uint64_t{0}, uint64_t{3}, uint64_t{62}, last}) {
      if (block > last) continue;
      BASALT_ASSERT(io(world, *lvol, IoType::read, block, &data).ok());
      std::fill(data.begin(), data.end(), uint8_t{0x77});
      const nvme::Status written = io(world, *lvol, IoType::write, block, &data);
      std::fill(data.begin(), data.end(), uint8_t{0});
      if (!written.ok()) continue;
      BASALT_ASSERT(io(world, *lvol, IoType::read, block, &data).ok());
      BASALT_ASSERT(std::all_of(data.begin(), data.end(), [](uint8_t byte) { return byte == 0x77; }));
    }
    (void)world.run(lvol->set_attribute("again")).ok();
  }
  LvolOptions options;
  options.name = "another";
  options.size_bytes = 1 << 20;
  (void)world.run(store.create_lvol(options)).ok();
}

void run(std::span<const uint8_t> bytes) {
  FuzzInput input(bytes);
  FuzzWorld world(2);
  FuzzDisk disk(world.home(), lvs::block_bytes, device_blocks);
  disk.bytes = damaged_image(input);
  auto loaded = load(world, disk);
  if (!loaded.ok()) {
    BASALT_ASSERT(disk.write_count == 0);
    BASALT_ASSERT(!loaded.error().message.empty());
    return;
  }
  Store store = std::move(loaded).value();
  exercise(world, *store);
  const auto before = names(*store);
  close(world, store);
  auto again = load(world, disk);
  BASALT_ASSERT(again.ok());
  store = std::move(again).value();
  BASALT_ASSERT(names(*store) == before);
  close(world, store);
}

FuzzBytes record_bytes(const lvs::Record& record) {
  FuzzBytes bytes(lvs::record_bytes_max);
  bytes.resize(lvs::encode_record(record, bytes.data()));
  return bytes;
}

std::vector<FuzzSeed> seeds() {
  using lvs::Record;
  using lvs::RecordType;
  std::vector<FuzzSeed> out = {{"good", {}}};
  const lvs::Superblock superblock = newest_superblock(good_image());
  // One byte of each metadata block of each kind, behind a right checksum and behind a wrong one.
  const auto patch = [&](const std::string& name, uint64_t block, unsigned offset, unsigned value) {
    const auto edit = [&](unsigned what) {
      return FuzzOutput().u8(what).u16(static_cast<unsigned>(block)).u16(offset).u8(1).u8(value).bytes();
    };
    out.push_back({name, edit(edit_patch | flag_reseal)});
    out.push_back({name + "-torn", edit(edit_patch)});
  };
  const uint64_t newest = superblock.header.address_blocks;
  for (unsigned offset = 64; offset < 180; offset += 4)
    patch("superblock-" + std::to_string(offset), newest, offset, 0x41);
  for (unsigned page = 0; page < 8; page++) {
    for (const unsigned offset : {8u, 40u, 48u, 56u, 64u, 68u, 96u, 100u, 104u})
      patch("page-" + std::to_string(page) + "-" + std::to_string(offset), superblock.pages_first_block + page, offset,
            3);
  }
  patch("directory", superblock.directory_first_block, 64, 0xff);
  out.push_back({"blank", FuzzOutput().u8(edit_blank).u16(static_cast<unsigned>(newest)).u8(0).bytes()});
  out.push_back({"copy", FuzzOutput().u8(edit_copy).u16(static_cast<unsigned>(newest)).u16(0).bytes()});
  out.push_back({"cut", FuzzOutput().u8(edit_cut).u16(100).bytes()});
  const Record records[] = {
      {.type = RecordType::lvol_create, .lvol_id = 9, .size_bytes = 1 << 20, .text = "delta"},
      {.type = RecordType::lvol_delete, .lvol_id = 1},
      {.type = RecordType::attribute, .lvol_id = 1, .text = "epoch 9"},
      {.type = RecordType::reserve, .cluster = 0, .count = 2},
      {.type = RecordType::map, .lvol_id = 1, .cluster = 9, .count = 2, .physical = 1, .first_block = 1},
      {.type = RecordType::zero, .lvol_id = 1, .cluster = 0, .count = 2, .first_block = 4},
      {.type = RecordType::unmap, .lvol_id = 1, .cluster = 0, .count = 2},
      {.type = RecordType::clean, .cluster = 5, .count = 2},
  };
  for (const Record& record : records) {
    out.push_back({"journal-" + std::to_string(static_cast<int>(record.type)),
                   FuzzOutput().u8(edit_journal).u16(0).blob(record_bytes(record)).bytes()});
  }
  return out;
}

}  // namespace
}  // namespace basalt::bdev

BASALT_FUZZ_TARGET(lvol_image, basalt::bdev::run, basalt::bdev::seeds)
