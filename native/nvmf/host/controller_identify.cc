// SPDX-License-Identifier: Apache-2.0
// What the controller says about itself, its namespaces and their ANA states. Every count and length it gives is
// bounded here.
#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>

#include "base/bytes.h"
#include "nvmf/host/controller.h"

namespace basalt::nvmf {
namespace {

constexpr uint32_t identify_bytes = 4096;
constexpr uint32_t namespace_list_max = identify_bytes / 4;
constexpr uint32_t ana_log_bytes_limit = 64 * 1024;
constexpr uint8_t cns_namespace = 0x00;
constexpr uint8_t cns_controller = 0x01;
constexpr uint8_t cns_active_list = 0x02;
constexpr uint8_t cns_descriptors = 0x03;
constexpr uint32_t ctratt_traffic_keep_alive = 1u << 6;
constexpr uint8_t descriptor_nguid = 2;
constexpr uint8_t descriptor_uuid = 3;

struct Page {
  alignas(64) uint8_t bytes[identify_bytes] = {};
};

std::string trimmed(const char* text, size_t bytes) {
  size_t end = bytes;
  while (end > 0 && (text[end - 1] == ' ' || text[end - 1] == '\0'))
    end--;
  std::string out;
  for (size_t i = 0; i < end; i++)
    out += text[i] >= 0x20 && text[i] < 0x7f ? text[i] : '?';
  return out;
}

void read_descriptors(const uint8_t* page, HostNamespace& ns) {
  for (uint32_t at = 0; at + 4 <= identify_bytes && page[at] != 0;) {
    const uint8_t type = page[at];
    const uint8_t length = page[at + 1];
    if (at + 4 + length > identify_bytes) return;
    const uint8_t* value = page + at + 4;
    if (type == descriptor_uuid && length == 16) std::memcpy(ns.uuid.bytes.data(), value, 16);
    if (type == descriptor_nguid && length == 16) std::memcpy(ns.nguid.bytes.data(), value, 16);
    at += 4u + length;
  }
}

}  // namespace

Task<HostController::Answer> HostController::identify(uint8_t cns, uint32_t nsid, void* out) {
  Call call;
  call.command.opcode = static_cast<uint8_t>(nvme::AdminOpcode::identify);
  call.command.nsid = nsid;
  call.command.cdw10 = cns;
  call.direction = nvme::DataDirection::controller_to_host;
  call.data = out;
  call.data_bytes = identify_bytes;
  const Answer answer = co_await call_on(*admin_, call);
  co_return answer;
}

Task<HostController::Answer> HostController::log_page(nvme::LogPageId page, void* out, uint32_t bytes,
                                                      uint8_t specific) {
  Call call;
  const uint32_t dwords = bytes / 4 - 1;
  call.command.opcode = static_cast<uint8_t>(nvme::AdminOpcode::get_log_page);
  call.command.nsid = page == nvme::LogPageId::ana ? 0 : UINT32_MAX;
  call.command.cdw10 = (dwords & 0xffff) << 16 | uint32_t{specific} << 8 | static_cast<uint32_t>(page);
  call.command.cdw11 = dwords >> 16;
  call.direction = nvme::DataDirection::controller_to_host;
  call.data = out;
  call.data_bytes = bytes;
  const Answer answer = co_await call_on(*admin_, call);
  co_return answer;
}

Task<Outcome> HostController::identify_controller() {
  auto page = std::make_unique<nvme::IdentifyController>();
  std::memset(page.get(), 0, sizeof(*page));
  const Answer answer = co_await identify(cns_controller, 0, page.get());
  if (!answer.status.ok() || state_ == State::lost) co_return refused("Identify Controller", answer);
  const nvme::IdentifyController& id = *page;
  const std::string where = options_.address.to_string() + ": Identify Controller: ";
  if (id.cntlid != info_.cntlid) co_return Error{Errc::io, where + "CNTLID is not the one that Connect gave"};
  info_.serial_number = trimmed(id.sn, sizeof(id.sn));
  info_.model_number = trimmed(id.mn, sizeof(id.mn));
  info_.volatile_write_cache = (id.vwc & 1) != 0;
  info_.oncs = id.oncs;
  info_.transfer_bytes_max = uint64_t{1} << 20;
  if (id.mdts != 0 && id.mdts < 9) info_.transfer_bytes_max = uint64_t{4096} << id.mdts;
  if (options_.discovery) co_return success();

  info_.ciu = id.ciu;
  info_.cirn = load_le<uint64_t>(id.cirn);
  info_.command_quiesce_ms = id.cqt;
  info_.cross_reset_limit = id.ccrl;
  info_.traffic_keep_alive = (id.ctratt & ctratt_traffic_keep_alive) != 0;
  if (id.ioccsz < 4 || id.iorcsz < 1) co_return Error{Errc::io, where + "IOCCSZ or IORCSZ is too small"};
  if (id.nn == 0) co_return Error{Errc::io, where + "NN is 0"};
  info_.capsule_data_bytes_max = std::min(id.ioccsz, 1u << 16) * 16 - 64;
  if (id.icdoff != 0) info_.capsule_data_bytes_max = 0;
  info_.ana = (id.cmic & 8) != 0;
  namespace_count_max_ = std::min(id.mnan != 0 ? id.mnan : id.nn, namespace_list_max);
  const uint64_t log_bytes = sizeof(nvme::AnaLogHeader) + uint64_t{id.nanagrpid} * sizeof(nvme::AnaGroupDescriptor) +
                             uint64_t{namespace_count_max_} * 4;
  ana_log_bytes_max_ = static_cast<uint32_t>(std::min<uint64_t>(log_bytes, ana_log_bytes_limit));
  co_return success();
}

Task<Outcome> HostController::identify_namespaces() {
  auto list = std::make_unique<Page>();
  const Answer answer = co_await identify(cns_active_list, 0, list->bytes);
  if (!answer.status.ok() || state_ == State::lost) co_return refused("Identify Active Namespaces", answer);
  std::vector<HostNamespace> found;
  uint32_t previous = 0;
  for (uint32_t i = 0; i < namespace_list_max; i++) {
    const auto nsid = load_le<uint32_t>(list->bytes + i * 4);
    if (nsid == 0) break;
    if (nsid <= previous) co_return Error{Errc::io, options_.address.to_string() + ": namespace list is not ascending"};
    previous = nsid;
    auto ns = co_await identify_namespace(nsid);
    if (state_ == State::lost) co_return reason_;
    if (!ns) co_return ns.error();
    // Gone since the list was read, or of a format that is not spoken here.
    if (ns->count_blocks == 0 || ns->block_size_bytes == 0) continue;
    const HostNamespace* before = find(nsid);
    if (before != nullptr) ns->ana_state = before->ana_state;
    found.push_back(std::move(ns).value());
  }
  namespaces_ = std::move(found);
  const Outcome states = co_await read_ana_log();
  co_return states;
}

Task<Result<HostNamespace>> HostController::identify_namespace(uint32_t nsid) {
  auto page = std::make_unique<Page>();
  HostNamespace ns;
  ns.nsid = nsid;
  Answer answer = co_await identify(cns_namespace, nsid, page->bytes);
  if (answer.status.is(nvme::status::invalid_namespace)) co_return ns;
  if (!answer.status.ok() || state_ == State::lost) co_return refused("Identify Namespace", answer);
  nvme::IdentifyNamespace id;
  std::memcpy(&id, page->bytes, sizeof(id));
  const uint32_t format = (id.flbas & 0xf) | (id.flbas >> 5 & 3) << 4;
  const nvme::LbaFormat lba = id.lbaf[format];
  if (lba.ms == 0 && lba.lbads >= 9 && lba.lbads <= 12 && id.nsze <= UINT64_MAX >> lba.lbads) {
    ns.block_size_bytes = 1u << lba.lbads;
    ns.count_blocks = id.nsze;
  }
  ns.anagrpid = id.anagrpid;
  ns.dlfeat = id.dlfeat;
  ns.rescap = id.rescap;
  std::memcpy(ns.nguid.bytes.data(), id.nguid, 16);
  std::memset(page->bytes, 0, sizeof(page->bytes));
  answer = co_await identify(cns_descriptors, nsid, page->bytes);
  if (state_ == State::lost) co_return reason_;
  if (answer.status.ok()) read_descriptors(page->bytes, ns);
  co_return ns;
}

Task<Outcome> HostController::read_ana_log() {
  if (!info_.ana || ana_log_bytes_max_ < sizeof(nvme::AnaLogHeader)) co_return success();
  const uint32_t log_bytes = static_cast<uint32_t>(align_down(ana_log_bytes_max_, 4));
  std::vector<uint8_t> log(log_bytes, 0);
  const Answer answer = co_await log_page(nvme::LogPageId::ana, log.data(), log_bytes);
  if (!answer.status.ok() || state_ == State::lost) co_return refused("ANA log page", answer);
  const uint16_t group_count = load_le<uint16_t>(log.data() + offsetof(nvme::AnaLogHeader, ngrps));
  size_t at = sizeof(nvme::AnaLogHeader);
  for (uint16_t group = 0; group < group_count; group++) {
    if (at + sizeof(nvme::AnaGroupDescriptor) > log.size()) break;
    nvme::AnaGroupDescriptor descriptor;
    std::memcpy(&descriptor, log.data() + at, sizeof(descriptor));
    at += sizeof(descriptor);
    if (descriptor.nnsids > (log.size() - at) / 4) break;
    for (HostNamespace& ns : namespaces_) {
      if (ns.anagrpid == descriptor.anagrpid) ns.ana_state = static_cast<nvme::AnaState>(descriptor.state & 0xf);
    }
    at += size_t{descriptor.nnsids} * 4;
  }
  co_return success();
}

}  // namespace basalt::nvmf
