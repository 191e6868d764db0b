// SPDX-License-Identifier: Apache-2.0
// bdev_raid_create, bdev_raid_delete, bdev_raid_get_bdevs, bdev_raid_add_base_bdev, basalt_raid_load,
// basalt_raid_scrub, basalt_raid_scrub_stop, basalt_raid_set_resync, basalt_raid_replace_base_bdev, basalt_raid_resize:
// stripe sets, concats, and raid1, raid5 and raid6.
// basalt_parity_member_create, basalt_parity_member_delete: what a member of a leg with parity holds, from others.
#include <algorithm>

#include "base/bytes.h"
#include "bdev/raid/parity_member.h"
#include "bdev/raid/raid0.h"
#include "bdev/raid/raid_parity.h"
#include "engine/rpc/bdev_params.h"
#include "engine/rpc/modules.h"
#include "engine/rpc/scrub_report.h"

namespace basalt::rpc {
namespace {

using bdev::RaidParityBdev;

class Raid final : public Module {
 public:
  explicit Raid(Engine& engine) : engine_(engine) {}

  void register_methods(Dispatcher& dispatcher) override {
    dispatcher.add("bdev_raid_create", this, &Raid::create);
    dispatcher.add("bdev_raid_delete", this, &Raid::remove);
    dispatcher.add("bdev_raid_get_bdevs", this, &Raid::get_bdevs);
    dispatcher.add("bdev_raid_add_base_bdev", this, &Raid::add_base_bdev);
    dispatcher.add("basalt_raid_load", this, &Raid::load);
    dispatcher.add("basalt_raid_scrub", this, &Raid::scrub);
    dispatcher.add("basalt_raid_scrub_stop", this, &Raid::scrub_stop);
    dispatcher.add("basalt_raid_set_resync", this, &Raid::set_resync);
    dispatcher.add("basalt_raid_replace_base_bdev", this, &Raid::replace_base_bdev);
    dispatcher.add("basalt_raid_resize", this, &Raid::resize);
    dispatcher.add("basalt_parity_member_create", this, &Raid::create_member);
    dispatcher.add("basalt_parity_member_delete", this, &Raid::remove_member);
  }

 private:
  static bool is_parity(const BdevRegistry::Entry& entry) {
    const std::string& product = entry.bdev->info().product;
    return product == "raid1" || product == "raid5" || product == "raid6";
  }
  static bool is_concat(const BdevRegistry::Entry& entry) { return entry.bdev->info().product == "concat"; }
  std::vector<bdev::Handle> handles(const std::vector<bdev::Bdev*>& bdevs) {
    std::vector<bdev::Handle> handles;
    for (bdev::Bdev* bdev : bdevs)
      handles.emplace_back(*bdev, engine_.management());
    return handles;
  }

  Task<RpcResult> create(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    const size_t level =
        in.choice("raid_level", {"raid0", "0", "raid5", "5", "raid6", "6", "raid1", "1", "concat"}) / 2;
    constexpr size_t mirror = 3;
    constexpr size_t concat = 4;
    constexpr size_t copy_count_max = 4;
    const std::vector<std::string> bases = in.strings("base_bdevs", 1, bdev::Raid0Bdev::member_count_max);
    // A concat has no strips, and those of a mirror only say who of its members is asked first.
    const NaturalRange strip_range{.min = 4, .max = 65536};
    const uint64_t strip_kb = level == concat || level == mirror
                                  ? in.natural_or("strip_size_kb", level == mirror ? 64 : 4, strip_range)
                                  : in.natural("strip_size_kb", strip_range);
    if (!is_power_of_two(strip_kb))
      in.refuse("strip_size_kb", "must be a power of two, is " + std::to_string(strip_kb));
    const Uuid uuid = in.uuid("uuid").value_or(engine_.make_uuid());
    const bool force = in.boolean_or("force", false);
    const bool has_superblock = level != 0 && level != concat;
    if (in.boolean_or("superblock", has_superblock) != has_superblock)
      in.refuse("superblock", has_superblock ? "this level has one always" : "this level has none");
    if (level == mirror && (bases.size() < 2 || bases.size() > copy_count_max))
      in.refuse("base_bdevs", "a mirror has 2 to 4 members");
    if (auto error = in.error()) co_return *error;

    BdevRegistry& bdevs = engine_.bdevs();
    if (auto reserved = bdevs.reserve(name); !reserved) co_return std::move(reserved).error();
    auto children = bdevs.claim_all(bases, child_user(name));
    if (!children) {
      bdevs.withdraw(name);
      co_return std::move(children).error();
    }
    Outcome made = success();
    if (level == 0 || level == concat) {
      bdev::Raid0Options options{.name = name, .uuid = uuid, .strip_bytes = strip_kb * 1024, .concat = level == concat};
      auto raid = bdev::Raid0Bdev::create(engine_.management(), options, handles(*children));
      made = publish(name, std::move(raid), bases);
      strip_kb_[name] = level == concat ? 0 : strip_kb;
    } else {
      bdev::RaidParityOptions options;
      options.name = name;
      options.uuid = uuid;
      options.parity_count = static_cast<uint32_t>(level == mirror ? bases.size() - 1 : level);
      options.strip_bytes = strip_kb * 1024;
      options.force = force;
      auto creating = RaidParityBdev::create(engine_.management(), options, handles(*children), events_of(name));
      auto raid = co_await creating;
      made = publish(name, std::move(raid), bases);
    }
    if (!made) co_return std::move(made).error();
    co_return done();
  }

  // The raid becomes a bdev, or everything is given back.
  template <class T>
  Outcome publish(const std::string& name, Result<std::unique_ptr<T>> raid, const std::vector<std::string>& bases) {
    if (!raid) {
      engine_.bdevs().release_all(bases, child_user(name));
      engine_.bdevs().withdraw(name);
      return std::move(raid).error();
    }
    engine_.bdevs().publish(name, std::move(*raid), bases);
    return success();
  }

  Task<RpcResult> load(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    const std::vector<std::string> bases = in.strings("base_bdevs", 1, bdev::ParityCodec::strip_count_max);
    const bool accept_missing = in.boolean_or("accept_missing", false);
    if (auto error = in.error()) co_return *error;
    BdevRegistry& bdevs = engine_.bdevs();
    if (auto reserved = bdevs.reserve(name); !reserved) co_return std::move(reserved).error();
    auto children = bdevs.claim_all(bases, child_user(name));
    if (!children) {
      bdevs.withdraw(name);
      co_return std::move(children).error();
    }
    auto loading =
        RaidParityBdev::load(engine_.management(), name, handles(*children), events_of(name), {}, accept_missing);
    auto raid = co_await loading;
    auto made = publish(name, std::move(raid), bases);
    if (!made) co_return std::move(made).error();
    spawn(release_left(name));
    co_return done();
  }

  Task<RpcResult> create_member(JsonValue params) {
    Fields in(params);
    bdev::ParityMemberOptions options;
    options.name = in.string("name");
    const std::vector<std::string> bases = in.strings("base_bdevs", 1, bdev::ParityCodec::strip_count_max);
    options.place = static_cast<uint32_t>(in.natural("place", {.max = bdev::ParityCodec::strip_count_max - 1}));
    options.uuid = engine_.make_uuid();
    if (auto error = in.error()) co_return *error;
    BdevRegistry& bdevs = engine_.bdevs();
    const std::string name = options.name;
    if (auto reserved = bdevs.reserve(name); !reserved) co_return std::move(reserved).error();
    auto children = bdevs.claim_all(bases, child_user(name));
    if (!children) {
      bdevs.withdraw(name);
      co_return std::move(children).error();
    }
    auto opening = bdev::ParityMemberBdev::open(engine_.management(), std::move(options), handles(*children));
    auto member = co_await opening;
    auto made = publish(name, std::move(member), bases);
    if (!made) co_return std::move(made).error();
    co_return done();
  }

  Task<RpcResult> remove_member(JsonValue params) {
    auto deleting = delete_bdev(engine_, std::move(params), bdev::ParityMemberBdev::product);
    auto result = co_await deleting;
    co_return result;
  }

  Task<RpcResult> remove(JsonValue params) {
    std::string product = "raid0";
    Fields in(params);
    const std::string name = in.string("name");
    if (!in.error()) {
      auto entry = engine_.bdevs().find(name);
      if (entry && (is_parity(**entry) || is_concat(**entry))) product = (*entry)->bdev->info().product;
    }
    auto deleting = delete_bdev(engine_, std::move(params), product);
    auto result = co_await deleting;
    co_return result;
  }

  // A raid1, raid5 or raid6 by the field's name, or why not.
  Result<BdevRegistry::Entry*> find_parity(const std::string& name) {
    auto entry = engine_.bdevs().find(name);
    if (entry && !is_parity(**entry)) {
      return Error{Errc::invalid_argument,
                   name + " is a " + (*entry)->bdev->info().product + " bdev, not raid1, raid5 or raid6"};
    }
    return entry;
  }

  // Devices that the raid has let go of are nobody's then, and may come back, or be somebody else's.
  Task<void> release_left(std::string name) {
    const auto left_of = [this](const BdevRegistry::Entry& entry) {
      std::vector<std::string> left;
      for (const std::string& child : entry.children) {
        auto base = engine_.bdevs().find(child);
        if (base && !static_cast<RaidParityBdev&>(*entry.bdev).uses(*(*base)->bdev)) left.push_back(child);
      }
      return left;
    };
    auto entry = find_parity(name);
    if (!entry || left_of(**entry).empty()) co_return;
    auto draining = static_cast<RaidParityBdev&>(*(*entry)->bdev).drained();
    co_await draining;
    entry = find_parity(name);  // it may have gone meanwhile
    if (!entry) co_return;
    for (const std::string& base : left_of(**entry)) {
      std::erase((*entry)->children, base);
      engine_.bdevs().release(base, child_user(name));
    }
  }

  // A device for the place that it left, or the first one that has none.
  Task<RpcResult> add_base_bdev(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("raid_bdev");
    const std::string base = in.string("base_bdev");
    if (auto error = in.error()) co_return *error;
    auto joining = join(name, base, [](RaidParityBdev& raid, bdev::Handle device) { return raid.add_member(device); });
    auto joined = co_await joining;
    if (!joined) co_return std::move(joined).error();
    co_return done();
  }

  // One that is made equal to a member, which serves meanwhile, and then has its place.
  Task<RpcResult> replace_base_bdev(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    const std::string old = in.string("base_bdev");
    const std::string base = in.string("new_base_bdev");
    if (auto error = in.error()) co_return *error;
    auto found = engine_.bdevs().find(old);
    if (!found) co_return std::move(found).error();
    const bdev::Bdev* of = (*found)->bdev;
    auto joining =
        join(name, base, [of](RaidParityBdev& raid, bdev::Handle device) { return begin_exchange(raid, *of, device); });
    auto joined = co_await joining;
    if (!joined) co_return std::move(joined).error();
    co_return done();
  }

  static Task<Outcome> begin_exchange(RaidParityBdev& raid, const bdev::Bdev& of, bdev::Handle device) {
    co_return raid.add_twin(of, device);
  }

  // Claims the device for the raid and hands it over; what is refused is nobody's again.
  template <class F>
  Task<Outcome> join(std::string name, std::string base, F begin) {
    static constexpr const char* user = "a member that joins";
    auto entry = find_parity(name);
    if (!entry) co_return std::move(entry).error();
    auto child = engine_.bdevs().claim(base, child_user(name));
    if (!child) co_return std::move(child).error();
    (*entry)->opened_by.emplace_back(user);  // the raid stays meanwhile
    auto& raid = static_cast<RaidParityBdev&>(*(*entry)->bdev);
    auto beginning = begin(raid, bdev::Handle(**child, engine_.management()));
    auto begun = co_await beginning;
    engine_.bdevs().release(name, user);
    if (begun) {
      (*entry)->children.push_back(base);
    } else {
      engine_.bdevs().release(base, child_user(name));
    }
    co_return begun;
  }

  // As large as its members have room for, or so many blocks.
  Task<RpcResult> resize(JsonValue params) {
    static constexpr const char* user = "basalt_raid_resize";
    Fields in(params);
    const std::string name = in.string("name");
    const uint64_t count_blocks = in.natural_or("num_blocks", 0);
    if (auto error = in.error()) co_return *error;
    auto entry = find_parity(name);
    if (!entry) co_return std::move(entry).error();
    auto& raid = static_cast<RaidParityBdev&>(*(*entry)->bdev);
    if (count_blocks != 0 && count_blocks < raid.info().count_blocks)
      co_return Error{Errc::invalid_argument, name + ": raids do not shrink"};
    (*entry)->opened_by.emplace_back(user);  // the raid stays meanwhile
    auto growing = raid.grow(count_blocks != 0 ? count_blocks : raid.count_blocks_max());
    auto grown = co_await growing;
    engine_.bdevs().release(name, user);
    if (!grown) co_return std::move(grown).error();
    co_return done();
  }

  Task<RpcResult> scrub(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    bdev::ScrubOptions options;
    options.bytes_per_s = in.natural_or("bytes_per_s", 0);
    options.repair = in.boolean_or("repair", false);
    if (auto error = in.error()) co_return *error;
    auto entry = find_parity(name);
    if (!entry) co_return std::move(entry).error();
    auto& raid = static_cast<RaidParityBdev&>(*(*entry)->bdev);
    const uint64_t count_blocks = raid.info().count_blocks;
    // Deleting the raid ends its scrub, and waits for that.
    auto scrubbing = raid.scrub(options);
    auto scrubbed = co_await scrubbing;
    if (!scrubbed) co_return std::move(scrubbed).error();
    co_return about_scrub(*scrubbed, count_blocks);
  }

  Task<RpcResult> scrub_stop(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    if (auto error = in.error()) co_return *error;
    auto entry = find_parity(name);
    if (!entry) co_return std::move(entry).error();
    static_cast<RaidParityBdev&>(*(*entry)->bdev).stop_scrub();
    co_return done();
  }

  Task<RpcResult> set_resync(JsonValue params) {
    Fields in(params);
    const std::string name = in.string("name");
    const uint64_t bytes_per_s = in.natural_or("bytes_per_s", 0);
    const bool paused = in.boolean_or("paused", false);
    if (auto error = in.error()) co_return *error;
    auto entry = find_parity(name);
    if (!entry) co_return std::move(entry).error();
    static_cast<RaidParityBdev&>(*(*entry)->bdev).set_resync(bytes_per_s, paused);
    co_return done();
  }

  bdev::RaidParityEvents events_of(const std::string& name) {
    EventBus& bus = engine_.events();
    const auto about = [name](const std::string& member) {
      auto event = JsonValue::object();
      event.set("raid", name).set("member", member);
      return event;
    };
    bdev::RaidParityEvents events;
    events.member_failed = [&bus, about](const std::string& member, const std::string& reason) {
      bus.emit("raid_member_failed", about(member).set("reason", reason));
    };
    events.member_rebuilt = [&bus, about](const std::string& member) {
      bus.emit("raid_member_rebuilt", about(member));
    };
    events.rebuild_progress = [&bus, about](const std::string& member, uint64_t percent) {
      bus.emit("raid_rebuild", about(member).set("percent", percent));
    };
    events.rebuild_failed = [&bus, about](const std::string& member, const std::string& reason) {
      bus.emit("raid_rebuild_failed", about(member).set("reason", reason));
    };
    events.member_exchanged = [&bus, about](const std::string& member, const std::string& instead_of) {
      bus.emit("raid_member_exchanged", about(member).set("instead_of", instead_of));
    };
    events.set_changed = [this, name] { spawn(release_left(name)); };
    events.repaired = [&bus, about](const std::string& member, uint64_t offset_blocks, uint64_t count_blocks) {
      bus.emit("raid_repaired", about(member).set("offset_blocks", offset_blocks).set("num_blocks", count_blocks));
    };
    events.scrub = [this, &bus, name](const bdev::ScrubInfo& scrub) {
      auto entry = find_parity(name);
      if (!entry) return;
      bus.emit("raid_scrub", about_scrub(scrub, (*entry)->bdev->info().count_blocks).set("raid", name));
    };
    return events;
  }

  void describe_parity(const RaidParityBdev& raid, JsonValue& out) {
    const bdev::ParityLayout& layout = raid.layout();
    auto bases = JsonValue::array();
    auto members = JsonValue::array();
    uint64_t operational = 0;
    for (uint32_t place = 0; place < raid.member_count() + (raid.has_twin() ? 1 : 0); place++) {
      const bool twin = place == raid.member_count();
      const bdev::RaidMemberInfo info = twin ? raid.twin() : raid.member_at(place);
      if (info.state == bdev::RaidMemberState::in_sync) operational++;
      if (!twin) bases.push(info.name);
      auto member = JsonValue::object();
      member.set("name", info.name).set("state", bdev::to_string(info.state));
      if (info.state == bdev::RaidMemberState::rebuilding) {
        member.set("percent", info.rebuilt_blocks * 100 / (layout.strip_count * layout.strip_blocks));
      }
      if (twin) member.set("instead_of", info.instead_of);
      members.push(std::move(member));
    }
    out.set("strip_size_kb", uint64_t{layout.strip_blocks} * layout.block_bytes / 1024)
        .set("state", raid.offline() ? "offline" : "online")
        .set("raid_level", raid.info().product)
        .set("num_base_bdevs", uint64_t{raid.member_count()})
        .set("num_base_bdevs_operational", operational)
        .set("base_bdevs_list", std::move(bases))
        .set("members", std::move(members))
        .set("resync_percent", raid.resync_stripe() * 100 / layout.strip_count)
        .set("scrub", about_scrub(raid.scrub_info(), raid.info().count_blocks));
  }

  void describe_stripes(const BdevRegistry::Entry& entry, JsonValue& out) {
    auto bases = JsonValue::array();
    for (const std::string& child : entry.children)
      bases.push(child);
    // A stripe set is online from its creation to its end.
    out.set("strip_size_kb", strip_kb_[entry.name])
        .set("state", "online")
        .set("raid_level", entry.bdev->info().product)
        .set("num_base_bdevs", uint64_t{entry.children.size()})
        .set("base_bdevs_list", std::move(bases));
  }

  Task<RpcResult> get_bdevs(JsonValue params) {
    Fields in(params);
    const size_t category = in.choice("category", {"all", "online", "configuring", "offline"});
    if (auto error = in.error()) co_return *error;
    auto list = JsonValue::array();
    for (const BdevRegistry::Entry* entry : engine_.bdevs().list()) {
      const bool parity = is_parity(*entry);
      if (!parity && entry->bdev->info().product != "raid0" && !is_concat(*entry)) continue;
      const bool offline = parity && static_cast<const RaidParityBdev&>(*entry->bdev).offline();
      if (category != 0 && category != (offline ? 3u : 1u)) continue;
      auto one = JsonValue::object();
      one.set("name", entry->name).set("uuid", entry->bdev->info().uuid.to_string());
      if (parity) {
        describe_parity(static_cast<const RaidParityBdev&>(*entry->bdev), one);
      } else {
        describe_stripes(*entry, one);
      }
      list.push(std::move(one));
    }
    co_return list;
  }

  Engine& engine_;
  std::map<std::string, uint64_t> strip_kb_;
};

}  // namespace

std::unique_ptr<Module> make_raid(Engine& engine) {
  return std::make_unique<Raid>(engine);
}

}  // namespace basalt::rpc
