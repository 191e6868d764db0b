// SPDX-License-Identifier: Apache-2.0
#include "engine/rpc/reservation_params.h"

#include <algorithm>

namespace basalt::rpc {
namespace {

constexpr size_t notices_max = 64;
constexpr uint64_t generation_max = UINT32_MAX;

Uuid read_host(Fields& in, std::string_view name) {
  return in.is_null(name) ? Uuid{} : in.uuid_required(name);
}

JsonValue describe_hosts(const std::vector<ns::HostId>& hosts) {
  auto list = JsonValue::array();
  for (const ns::HostId& host : hosts)
    list.push(host.to_string());
  return list;
}

JsonValue describe_state(const ns::ReservationState& state) {
  auto registrants = JsonValue::array();
  for (const ns::Registrant& registrant : state.registrants) {
    registrants.push(
        JsonValue::object().set("host", registrant.host.to_string()).set("key", std::to_string(registrant.key)));
  }
  auto out = JsonValue::object();
  out.set("generation", uint64_t{state.generation})
      .set("rtype", uint64_t{static_cast<uint8_t>(state.type)})
      .set("holder", state.holder.is_zero() ? JsonValue() : JsonValue(state.holder.to_string()))
      .set("registrants", std::move(registrants));
  return out;
}

class EventKeeper final : public ns::ReservationKeeper {
 public:
  EventKeeper(EventBus& bus, std::string nqn) : bus_(bus), nqn_(std::move(nqn)) {}
  void asked(const ns::Namespace& space, const ns::ReservationChange& change) override {
    auto notices = JsonValue::array();
    for (const ns::Notice& notice : change.notices) {
      notices.push(JsonValue::object()
                       .set("version", change.version)
                       .set("kind", uint64_t{static_cast<uint8_t>(notice.kind)})
                       .set("hosts", describe_hosts(notice.hosts)));
    }
    auto next = describe_state(change.next);
    next.set("version", change.version).set("change", change.id.to_string()).set("notices", std::move(notices));
    bus_.emit("nvmf_reservation_change", JsonValue::object()
                                             .set("nqn", nqn_)
                                             .set("nsid", uint64_t{space.nsid()})
                                             .set("host", change.host.to_string())
                                             .set("next", std::move(next)));
  }

 private:
  EventBus& bus_;
  const std::string nqn_;
};

}  // namespace

std::shared_ptr<ns::ReservationKeeper> make_event_keeper(EventBus& bus, std::string nqn) {
  return std::make_shared<EventKeeper>(bus, std::move(nqn));
}

ns::KeptReservation read_reservation(Fields& in, std::string_view name) {
  ns::KeptReservation kept;
  Fields state(in.object(name), in.path_of(name));
  kept.version = state.natural("version");
  kept.change = read_host(state, "change");
  kept.state.generation = static_cast<uint32_t>(state.natural("generation", {.max = generation_max}));
  kept.state.type = static_cast<nvme::ReservationType>(state.natural("rtype", {.max = 6}));
  kept.state.holder = read_host(state, "holder");
  for (const JsonValue& item : state.objects("registrants", 0, ns::Reservation::registrants_max)) {
    Fields one(item, state.path_of("registrants") + "[" + std::to_string(kept.state.registrants.size()) + "]");
    const Uuid host = one.uuid_required("host");
    const uint64_t key = one.epoch("key");
    state.adopt(one);
    kept.state.registrants.push_back({host, key});
  }
  for (const JsonValue& item : state.objects("notices", 0, notices_max)) {
    Fields one(item, state.path_of("notices") + "[" + std::to_string(kept.notices.size()) + "]");
    ns::KeptNotice notice;
    notice.version = one.natural("version");
    notice.notice.kind = static_cast<ns::NoticeKind>(one.natural("kind", {.min = 1, .max = 3}));
    for (const std::string& text : one.strings("hosts", 1, ns::Reservation::registrants_max)) {
      const auto host = Uuid::parse(text);
      if (!host) one.refuse("hosts", "must be UUIDs");
      notice.notice.hosts.push_back(host.value_or(Uuid{}));
    }
    state.adopt(one);
    kept.notices.push_back(std::move(notice));
  }
  if (const char* wrong = ns::what_is_wrong(kept.state)) state.refuse("registrants", wrong);
  in.adopt(state);
  return kept;
}

JsonValue describe_reservation(const ns::Namespace& space) {
  const ns::SharedReservation* shared = space.shared();
  auto out = describe_state(space.reservation().state());
  const bool shows_change = shared != nullptr && !shared->change.is_zero();
  const bool asks = shared != nullptr && shared->asked.has_value();
  out.set("known", shared == nullptr || shared->known)
      .set("version", shared == nullptr ? uint64_t{0} : shared->version)
      .set("change", shows_change ? JsonValue(shared->change.to_string()) : JsonValue())
      .set("asked", asks ? JsonValue(shared->asked->id.to_string()) : JsonValue());
  return out;
}

}  // namespace basalt::rpc
