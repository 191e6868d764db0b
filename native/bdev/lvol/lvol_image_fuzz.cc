// SPDX-License-Identifier: Apache-2.0
// Loading a store from a damaged image: a good one, with blocks overwritten, moved, blanked and sealed again (so that
// the damage lies behind a right checksum), and journal blocks of any records. There are three: of plain lvols, of
// layers, and of lvols with checksums whose log is to be carried out.
//
// A load that fails has written nothing, and neither does an inspection, whatever it opens. A load that succeeds gives
// a store that works: its lvols are read and written, layers come and go, it closes, and loads again with the same
// lvols. What fsck calls sound loads, and so does what a store left behind. A device that fails while it is loaded
// keeps none of that from being so at the next try.
#include <cstring>

#include "base/crc32c.h"
#include "bdev/lvol/fsck.h"
#include "bdev/lvol/lvstore.h"
#include "testing/fuzz_target.h"
#include "testing/fuzz_world.h"

namespace basalt::bdev {
namespace {

using basalt::testing::FuzzBytes;
using basalt::testing::FuzzDisk;
using basalt::testing::FuzzFault;
using basalt::testing::FuzzInput;
using basalt::testing::FuzzOutput;
using basalt::testing::FuzzSeed;
using basalt::testing::FuzzWorld;

constexpr uint64_t device_blocks = 480;  // as few as give some clusters: each input begins with a copy
enum Edit : uint8_t {
  edit_patch = 0,
  edit_copy = 1,
  edit_blank = 2,
  edit_journal = 3,
  edit_cut = 4,
  edit_layers = 5,
  edit_count = 6,
  // Apart: what the committed inputs say stays what it was.
  edit_checksums = 0x7f,
  edit_fault = 0x7e  // no edit: the device will fail
};
constexpr uint8_t flag_reseal = 0x80;

using Store = std::unique_ptr<LvStore>;

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

Store make_store(FuzzWorld& world, FuzzDisk& disk) {
  LvStoreOptions options;
  options.name = "pool";
  options.uuid.bytes[0] = 1;
  options.cluster_bytes = lvs::cluster_bytes_min;
  auto made = world.run(LvStore::create(world.home(), Handle(disk, world.home()), options));
  BASALT_ASSERT(made.ok());
  return std::move(made).value();
}
Store load_good(FuzzWorld& world, FuzzDisk& disk) {
  auto loaded = load(world, disk);
  BASALT_ASSERT(loaded.ok());
  return std::move(loaded).value();
}

// A store with every kind of page and record that needs no layers, not closed.
FuzzBytes make_image() {
  FuzzWorld world(1);
  FuzzDisk disk(world.home(), lvs::block_bytes, device_blocks);
  Store store = make_store(world, disk);
  std::vector<uint8_t> data(4096 * 20, 0x5a);
  Lvol* alpha = make_lvol(world, *store, "alpha", 1 << 20, 0xa);
  make_lvol(world, *store, "beta", uint64_t{1} << 40, 0xb);
  BASALT_ASSERT(world.io(*alpha, IoType::write, 3, &data).ok());
  close(world, store);
  store = load_good(world, disk);
  BASALT_ASSERT(world.io(*store->find("alpha"), IoType::write, 60, &data).ok());
  BASALT_ASSERT(world.run(store->find("beta")->set_attribute("epoch 7")).ok());
  BASALT_ASSERT(world.run(store->delete_lvol("beta")).ok());
  make_lvol(world, *store, "gamma", 1 << 20, 0xc);
  FuzzBytes image = disk.bytes;
  close(world, store);
  return image;
}

LvolOptions named(const std::string& name) {
  LvolOptions options;
  options.name = name;
  return options;
}

// Snapshots, clones and a hidden layer, in pages and in the journal; not closed.
FuzzBytes make_layers_image() {
  FuzzWorld world(1);
  FuzzDisk disk(world.home(), lvs::block_bytes, device_blocks);
  Store store = make_store(world, disk);
  std::vector<uint8_t> data(4096, 0x5a);
  make_lvol(world, *store, "alpha", 1 << 20, 0xa);
  const auto write = [&](const char* name, uint64_t block) {
    BASALT_ASSERT(world.io(*store->find(name), IoType::write, block, &data).ok());
  };
  write("alpha", 3);
  BASALT_ASSERT(world.run(store->snapshot_lvol("alpha", named("s1"))).ok());
  write("alpha", 4);
  BASALT_ASSERT(world.run(store->clone_lvol("s1", named("c1"))).ok());
  BASALT_ASSERT(world.run(store->snapshot_lvol("alpha", named("s2"))).ok());
  close(world, store);
  store = load_good(world, disk);
  BASALT_ASSERT(world.run(store->clone_lvol("s2", named("c2"))).ok());
  write("c2", 20);
  BASALT_ASSERT(world.run(store->resize_lvol("c2", 1 << 19)).ok());
  BASALT_ASSERT(world.run(store->rename_lvol("c1", "d1")).ok());
  BASALT_ASSERT(world.run(store->delete_lvol("s1")).ok());
  BASALT_ASSERT(world.run(store->snapshot_lvol("d1", named("s3"))).ok());
  BASALT_ASSERT(world.run(store->set_read_only("d1")).ok());
  world.world.run_for(seconds(1));
  FuzzBytes image = disk.bytes;
  close(world, store);
  return image;
}

// Data and tags in place, and records in the log that say the same and newer things; not closed.
FuzzBytes make_checksums_image() {
  FuzzWorld world(1);
  FuzzDisk disk(world.home(), lvs::block_bytes, device_blocks);
  Store store = make_store(world, disk);
  LvolOptions options = named("alpha");
  options.size_bytes = 1 << 18;
  options.checksums = true;
  BASALT_ASSERT(world.run(store->create_lvol(options)).ok());
  const auto write = [&](const char* name, uint64_t block, size_t count_blocks, uint8_t fill) {
    std::vector<uint8_t> data(4096 * count_blocks, fill);
    BASALT_ASSERT(world.io(*store->find(name), IoType::write, block, &data).ok());
  };
  write("alpha", 0, 20, 0x5a);
  BASALT_ASSERT(world.run(store->snapshot_lvol("alpha", named("s1"))).ok());
  write("alpha", 3, 2, 0x5b);
  close(world, store);
  store = load_good(world, disk);
  make_lvol(world, *store, "plain", 1 << 18, 0xb);
  write("plain", 3, 1, 0x5c);
  for (uint8_t fill = 0x60; fill < 0x64; fill++) {
    write("alpha", 3, 1, fill);
    write("alpha", 62, 2, fill);
  }
  FuzzBytes image = disk.bytes;
  close(world, store);
  return image;
}

const FuzzBytes& checksums_image() {
  static const FuzzBytes image = make_checksums_image();
  return image;
}
const FuzzBytes& good_image() {
  static const FuzzBytes image = make_image();
  return image;
}
const FuzzBytes& layers_image() {
  static const FuzzBytes image = make_layers_image();
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

struct Trouble {
  FuzzFault fault;
  uint64_t bad_block = UINT64_MAX;
  bool any() const { return fault.count > 0 || bad_block < device_blocks; }
};

FuzzBytes damaged_image(FuzzInput& input, Trouble* trouble) {
  FuzzBytes image = good_image();
  for (unsigned left = 64; left > 0 && !input.empty(); left--) {
    const uint8_t what = input.u8();
    const size_t index = input.u16() % device_blocks;
    uint8_t* block = image.data() + index * lvs::block_bytes;
    const uint8_t kind = what & static_cast<uint8_t>(~flag_reseal);
    switch (kind >= edit_fault ? kind : kind % edit_count) {
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
      case edit_layers:  // begins again, from the other image
        image = layers_image();
        continue;
      case edit_checksums:
        image = checksums_image();
        continue;
      case edit_fault:
        trouble->fault = FuzzFault::take(input);
        if ((what & flag_reseal) != 0) trouble->bad_block = index;
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
      const nvme::Status found = world.io(*lvol, IoType::read, block, &data);
      // Checksums tell what is damaged; nothing else is.
      BASALT_ASSERT(found.ok() || (lvol->checksums() && found.is(nvme::status::unrecovered_read_error)));
      std::fill(data.begin(), data.end(), uint8_t{0x77});
      const nvme::Status written = world.io(*lvol, IoType::write, block, &data);
      std::fill(data.begin(), data.end(), uint8_t{0});
      if (!written.ok()) continue;
      BASALT_ASSERT(world.io(*lvol, IoType::read, block, &data).ok());
      BASALT_ASSERT(std::all_of(data.begin(), data.end(), [](uint8_t byte) { return byte == 0x77; }));
    }
    (void)world.run(lvol->set_attribute("again")).ok();
  }
  LvolOptions options;
  options.name = "another";
  options.size_bytes = 1 << 20;
  (void)world.run(store.create_lvol(options)).ok();
}

// And with its layers. Any of it may be refused.
void change_layers(FuzzWorld& world, LvStore& store) {
  const auto all = names(store);
  for (size_t i = 0; i < std::min<size_t>(all.size(), 4); i++) {
    const std::string number = std::to_string(i);
    (void)world.run(store.lvol_sizes(all[i])).ok();
    (void)world.run(store.snapshot_lvol(all[i], named("snapshot-" + number))).ok();
    (void)world.run(store.clone_lvol(all[i], named("clone-" + number))).ok();
    (void)world.run(store.resize_lvol(all[i], lvs::cluster_bytes_min * (1 + i))).ok();
    (void)world.run(i % 2 == 0 ? store.inflate_lvol(all[i]) : store.decouple_lvol(all[i])).ok();
    (void)world.run(store.rename_lvol(all[i], "renamed-" + number)).ok();
    (void)world.run(store.delete_lvol("snapshot-" + number)).ok();
  }
  world.world.run_for(seconds(1));  // folding goes on in the background
  BASALT_ASSERT(store.layers().size() >= store.list().size());
}

// Whatever is wrong: it says so or reads what can be read, and leaves the disk as it is.
void inspect(FuzzWorld& world, FuzzDisk& disk) {
  const size_t writes = disk.write_count;
  auto inspected = world.run(LvStore::inspect(world.home(), Handle(disk, world.home())));
  BASALT_ASSERT(inspected.ok() || !inspected.error().message.empty());
  if (inspected.ok()) {
    const Store store = std::move(inspected).value();
    std::vector<uint8_t> data(4096);
    for (Lvol* lvol : store->list()) {
      for (const uint64_t block : {uint64_t{0}, uint64_t{3}, uint64_t{62}, lvol->info().count_blocks - 1}) {
        if (block >= lvol->info().count_blocks) continue;
        (void)world.io(*lvol, IoType::read, block, &data);
        BASALT_ASSERT(!world.io(*lvol, IoType::write, block, &data).ok());
      }
    }
  }
  BASALT_ASSERT(disk.write_count == writes);
}

bool sound(FuzzWorld& world, FuzzDisk& disk) {
  const FsckReport report = world.run(fsck(world.home(), Handle(disk, world.home())));
  BASALT_ASSERT(!fsck_text(report, true).empty());
  return report.sound();
}

// From a device in trouble; when that is not to be, again when it is well.
Result<Store> load_through(FuzzWorld& world, FuzzDisk& disk, const Trouble& trouble) {
  disk.fault = trouble.fault;
  disk.bad_block = trouble.bad_block;
  auto loaded = load(world, disk);
  disk.fault = {};
  disk.bad_block = UINT64_MAX;
  if (!trouble.any()) return loaded;
  BASALT_ASSERT(loaded.ok() || !loaded.error().message.empty());
  // It goes on in the background, and fails there.
  const bool ended = loaded.ok() && loaded.value()->failed();
  if (loaded.ok() && !ended) return loaded;
  if (ended) {
    BASALT_ASSERT(!world.run(loaded.value()->close()).ok());
    loaded.value().reset();
  }
  disk.write_count = 0;
  auto again = load(world, disk);
  BASALT_ASSERT(again.ok() || !ended);
  return again;
}

void run(std::span<const uint8_t> bytes) {
  FuzzInput input(bytes);
  FuzzWorld world(2);
  FuzzDisk disk(world.home(), lvs::block_bytes, device_blocks);
  Trouble trouble;
  disk.bytes = damaged_image(input, &trouble);
  const bool was_sound = sound(world, disk);
  inspect(world, disk);
  auto loaded = load_through(world, disk, trouble);
  BASALT_ASSERT(loaded.ok() || !was_sound);
  if (!loaded.ok()) {
    BASALT_ASSERT(disk.write_count == 0);
    BASALT_ASSERT(!loaded.error().message.empty());
    return;
  }
  Store store = std::move(loaded).value();
  exercise(world, *store);
  change_layers(world, *store);
  const auto before = names(*store);
  close(world, store);
  BASALT_ASSERT(sound(world, disk));
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

// One byte of each metadata block of each kind, behind a right checksum and behind a wrong one.
void add_patches(const FuzzBytes& image, bool layers, std::vector<FuzzSeed>& out) {
  const lvs::Superblock superblock = newest_superblock(image);
  const auto patch = [&](const std::string& name, uint64_t block, unsigned offset, unsigned value) {
    for (const bool right : {true, false}) {
      if (layers && !right) continue;
      FuzzOutput edit;
      if (layers) edit.u8(edit_layers).u16(0);
      edit.u8(edit_patch | (right ? flag_reseal : 0)).u16(static_cast<unsigned>(block)).u16(offset).u8(1).u8(value);
      out.push_back({(layers ? "layers-" : "") + name + (right ? "" : "-torn"), edit.bytes()});
    }
  };
  for (unsigned offset = 64; offset < 180 && !layers; offset += 4)
    patch("superblock-" + std::to_string(offset), superblock.header.address_blocks, offset, 0x41);
  // Both places of each page.
  for (unsigned block = 0; block < 16; block++) {
    for (const unsigned offset : {48u, 64u, 68u, 88u, 92u, 96u, 98u, 104u, 1192u}) {
      patch("page-" + std::to_string(block) + "-" + std::to_string(offset), superblock.pages_first_block + block,
            offset, 3);
    }
  }
  patch("directory", superblock.directory_first_block, 64, 0xff);
}

// What checksums are kept in: behind a right checksum and behind a wrong one; gone; and data that differs from its tag.
void add_checksums(std::vector<FuzzSeed>& out) {
  const FuzzBytes& image = checksums_image();
  const auto begun = [] { return FuzzOutput().u8(edit_checksums).u16(0); };
  out.push_back({"checksums", begun().bytes()});
  for (unsigned after = 0; after < 64; after++) {
    for (const unsigned count : {1u, 2u, 40u, 255u}) {
      for (unsigned kind = 0; kind < std::size(FuzzFault::statuses); kind++) {
        out.push_back(
            {"checksums-fails-" + std::to_string(after) + "-" + std::to_string(count) + "-" + std::to_string(kind),
             begun().u8(edit_fault).u16(0).u16(after).u8(count).u8(kind).bytes()});
      }
    }
  }
  for (size_t block = 0; block < device_blocks; block++) {
    const uint8_t* bytes = image.data() + block * lvs::block_bytes;
    const auto at = static_cast<unsigned>(block);
    const std::string name = "checksums-" + std::to_string(block);
    const FuzzSeed bad = {name + "-bad", begun().u8(edit_fault | flag_reseal).u16(at).u16(0).u8(0).u8(0).bytes()};
    const bool is_data = bytes[0] == bytes[1] && bytes[0] >= 0x5a && bytes[0] < 0x64;
    const auto type = static_cast<lvs::BlockType>(lvs::header_of(bytes).type);
    const bool has_header = lvs::block_intact(bytes) &&
                            (type == lvs::BlockType::checksum_superblock || type == lvs::BlockType::checksum_record);
    if (is_data || block == 0) out.push_back(bad);
    if (is_data) out.push_back({name + "-data", begun().u8(edit_patch).u16(at).u16(100).u8(1).u8(1).bytes()});
    if (!has_header) continue;
    for (const unsigned offset : {16u, 24u, 32u, 40u, 48u, 64u, 72u, 76u, 80u, 81u, 88u, 2128u}) {
      for (const uint8_t patch : {uint8_t{edit_patch}, uint8_t{edit_patch | flag_reseal}}) {
        const std::string how = (patch & flag_reseal) != 0 ? "" : "-torn";
        out.push_back(
            {name + "-" + std::to_string(offset) + how, begun().u8(patch).u16(at).u16(offset).u8(1).u8(0x41).bytes()});
      }
    }
    out.push_back({name + "-blank", begun().u8(edit_blank).u16(at).u8(0).bytes()});
    out.push_back(bad);
  }
}

void add_records(std::vector<FuzzSeed>& out) {
  using lvs::Record;
  using lvs::RecordType;
  for (const uint32_t id : {1u, 2u, 5u, 77u}) {
    Uuid fresh;
    fresh.bytes[15] = static_cast<uint8_t>(100 + id);
    const Record records[] = {
        {.type = RecordType::lvol_create, .lvol_id = 8 + id, .size_bytes = 1 << 20, .uuid = fresh, .text = "delta"},
        {.type = RecordType::lvol_delete, .lvol_id = id},
        {.type = RecordType::attribute, .lvol_id = id, .text = "epoch 9"},
        {.type = RecordType::reserve, .cluster = id, .count = 2},
        {.type = RecordType::map, .lvol_id = id, .cluster = 9, .count = 2, .physical = id, .first_block = 1},
        {.type = RecordType::zero, .lvol_id = id, .cluster = 0, .count = 2, .first_block = 4},
        {.type = RecordType::unmap, .lvol_id = id, .cluster = 0, .count = 2},
        {.type = RecordType::clean, .cluster = 2 + id, .count = 2},
        {.type = RecordType::snapshot, .lvol_id = id, .uuid = fresh, .text = "t", .other_id = 20, .flags = 3},
        {.type = RecordType::clone, .lvol_id = 21, .uuid = fresh, .text = "u", .other_id = id},
        {.type = RecordType::resize, .lvol_id = id, .size_bytes = 1 << 19},
        {.type = RecordType::rename, .lvol_id = id, .text = "v"},
        {.type = RecordType::rename, .lvol_id = id, .text = "alpha"},
        {.type = RecordType::set_flags, .lvol_id = id, .flags = 1},
        {.type = RecordType::set_flags, .lvol_id = id, .flags = 0x80},
        {.type = RecordType::fold, .lvol_id = id, .cluster = 0, .count = 16},
        {.type = RecordType::splice, .lvol_id = id},
        {.type = RecordType::reparent, .lvol_id = id, .other_id = 0},
        {.type = RecordType::reparent, .lvol_id = id, .other_id = 1},
    };
    unsigned number = 0;
    for (const Record& record : records) {
      const std::string name = "-" + std::to_string(number++) + "-" + std::to_string(id);
      const FuzzBytes bytes = record_bytes(record);
      out.push_back({"journal" + name, FuzzOutput().u8(edit_journal).u16(0).blob(bytes).bytes()});
      // Behind those that are there.
      for (const unsigned place : {0u, 8u}) {
        out.push_back({"layers-journal" + name + "-" + std::to_string(place),
                       FuzzOutput().u8(edit_layers).u16(0).u8(edit_journal).u16(place).blob(bytes).bytes()});
      }
    }
  }
}

std::vector<FuzzSeed> seeds() {
  std::vector<FuzzSeed> out = {{"good", {}}, {"layers", FuzzOutput().u8(edit_layers).u16(0).bytes()}};
  add_patches(good_image(), false, out);
  add_patches(layers_image(), true, out);
  add_records(out);
  add_checksums(out);
  const auto newest = static_cast<unsigned>(newest_superblock(good_image()).header.address_blocks);
  out.push_back({"blank", FuzzOutput().u8(edit_blank).u16(newest).u8(0).bytes()});
  out.push_back({"copy", FuzzOutput().u8(edit_copy).u16(newest).u16(0).bytes()});
  out.push_back({"cut", FuzzOutput().u8(edit_cut).u16(100).bytes()});
  FuzzOutput all;
  for (unsigned slot = 0; slot < lvs::superblock_slot_count; slot++)
    all.u8(edit_blank).u16(slot * lvs::superblock_stride_blocks).u8(7);
  out.push_back({"no-superblock", all.bytes()});
  return out;
}

BASALT_FUZZ_TARGET(lvol_image, run, seeds)

}  // namespace
}  // namespace basalt::bdev
