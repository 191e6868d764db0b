// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>

#include "base/bytes.h"
#include "nvmf/target/controller.h"

namespace basalt::nvmf {

using nvme::Status;
namespace status = nvme::status;

namespace {

constexpr size_t identify_bytes = 4096;
constexpr uint32_t nsid_broadcast = 0xffffffff;
constexpr uint8_t csi_nvm = 0;
constexpr uint32_t in_capsule_bytes = 8192;

constexpr uint8_t rescap_persistent = 0x01;
constexpr uint8_t rescap_exclusive_access = 0x04;
constexpr uint8_t rescap_all_types = 0x7e;
constexpr uint8_t rescap_ignore_existing_key = 0x80;

// CNS values.
enum class Cns : uint8_t {
  space = 0x00,
  controller = 0x01,
  active_list = 0x02,
  descriptors = 0x03,
  space_of_set = 0x05,
  controller_of_set = 0x06,
  active_list_of_set = 0x07,
  space_independent = 0x08,
  controllers_of_space = 0x12,
  controllers = 0x13,
  command_sets = 0x1c,
};

template <size_t size>
void pad(char (&out)[size], const std::string& text) {
  std::memset(out, ' ', size);
  std::memcpy(out, text.data(), std::min(size, text.size()));
}

}  // namespace

uint8_t Controller::reservation_capabilities(const ns::Namespace& space) {
  if (!space.options().reservations) return 0;
  if (space.options().one_writer) return rescap_persistent | rescap_exclusive_access | rescap_ignore_existing_key;
  const uint8_t persistent = space.options().keeper != nullptr ? rescap_persistent : 0;
  return persistent | rescap_all_types | rescap_ignore_existing_key;
}

Status Controller::identify(Request* request) {
  const nvme::Command& command = request->command;
  const auto cns = static_cast<Cns>(command.cdw10 & 0xff);
  const uint8_t csi = static_cast<uint8_t>(command.cdw11 >> 24);
  static constexpr std::array<uint8_t, identify_bytes> zeroes{};
  if (is_discovery() && cns != Cns::controller) return status::invalid_field.dnr();
  switch (cns) {
    case Cns::controller:
      identify_controller(request);
      return status::success;
    case Cns::space:
      return identify_namespace(request, command.nsid);
    case Cns::descriptors:
      return identify_descriptors(request, command.nsid);
    case Cns::active_list:
    case Cns::active_list_of_set:
      if (cns == Cns::active_list_of_set && csi != csi_nvm) return status::invalid_field.dnr();
      if (command.nsid >= nsid_broadcast - 1) return status::invalid_namespace.dnr();
      identify_active(request, command.nsid);
      return status::success;
    case Cns::space_of_set:
      if (csi != csi_nvm) return status::invalid_field.dnr();
      if (subsystem_.find_namespace(command.nsid) == nullptr) return status::invalid_namespace.dnr();
      reply(request, zeroes.data(), zeroes.size());
      return status::success;
    case Cns::controller_of_set:
      if (csi != csi_nvm) return status::invalid_field.dnr();
      reply(request, zeroes.data(), zeroes.size());  // no limits beyond MDTS and those of the commands' fields
      return status::success;
    case Cns::space_independent:
      return identify_namespace_independent(request, command.nsid);
    case Cns::controllers_of_space:
    case Cns::controllers: {
      if (cns == Cns::controllers_of_space && subsystem_.find_namespace(command.nsid) == nullptr) {
        return status::invalid_namespace.dnr();
      }
      const uint16_t from = static_cast<uint16_t>(command.cdw10 >> 16);
      std::vector<uint16_t> ids;
      for (const ControllerInfo& info : subsystem_.controllers()) {
        if (info.cntlid >= from) ids.push_back(info.cntlid);
      }
      std::sort(ids.begin(), ids.end());
      ids.resize(std::min<size_t>(ids.size(), 2047));
      ids.insert(ids.begin(), static_cast<uint16_t>(ids.size()));
      reply(request, ids.data(), ids.size() * sizeof(uint16_t));
      return status::success;
    }
    case Cns::command_sets: {
      const uint64_t sets[1] = {1};  // combination 0: NVM
      reply(request, sets, sizeof(sets));
      return status::success;
    }
  }
  return status::invalid_field.dnr();
}

void Controller::identify_controller(Request* request) {
  nvme::IdentifyController id{};
  const SubsystemOptions& subsystem = subsystem_.options();
  pad(id.sn, subsystem.serial_number);
  pad(id.mn, subsystem.model_number);
  pad(id.fr, "0.1");
  id.mdts = 8;  // 4 KiB << 8
  static_assert(4096u << 8 == data_bytes_max);
  id.cntlid = options_.cntlid;
  id.ver = 0x00010400;
  id.ctratt = 1u << 0 | 1u << 6;  // 128-bit host identifiers, keep-alive by traffic
  id.cntrltype = is_discovery() ? 2 : 1;
  id.aerl = async_event_max - 1;
  id.lpa = 1u << 2;  // long offsets and lengths
  id.elpe = error_log_entries - 1;
  id.kas = keep_alive_granularity_ms / 100;
  id.maxcmd = queue_entries_max;
  // SGLs, offsets into the capsule; and where other data is: by a key (RDMA), or as the transport does it.
  id.sgls = 1u << 0 | 1u << 20 | (listener().address.trtype == "RDMA" ? 1u << 2 : 1u << 21);
  std::memcpy(id.subnqn, subsystem.nqn.data(), std::min(subsystem.nqn.size(), sizeof(id.subnqn) - 1));
  id.ioccsz = (sizeof(nvme::Command) + in_capsule_bytes) / 16;
  id.iorcsz = sizeof(nvme::Completion) / 16;
  id.msdbd = 1;
  if (is_discovery()) {
    id.oaes = 1u << 31;
    id.dctype = 1;
  } else {
    identify_io_controller(&id);
  }
  reply(request, &id, sizeof(id));
}

void Controller::identify_io_controller(nvme::IdentifyController* id) const {
  const SubsystemOptions& subsystem = subsystem_.options();
  id->cmic = 1u << 0 | 1u << 1;   // several ports, several controllers
  id->oaes = 1u << 8 | 1u << 20;  // namespace attributes, ends of cross-controller resets
  id->cqt = command_quiesce_ms;
  id->ciu = options_.ciu;
  store_le<uint64_t>(id->cirn, options_.cirn);
  id->ccrl = cross_resets_max;
  id->lpa |= 1u << 1 | 1u << 5;  // commands supported and effects; which log pages and features there are
  if (subsystem.ana_reporting) {
    id->cmic |= 1u << 3;
    id->oaes |= 1u << 11;
    id->anatt = 10;
    // All states. Namespaces do keep their group, but bit 6, which says so, makes nvme-cli fetch the ANA log without
    // the namespaces' numbers and print zeroes for them.
    id->anacap = 0x1f;
    id->anagrpmax = subsystem.namespaces_max;
    id->nanagrpid = subsystem.namespaces_max;
  }
  id->acl = 3;
  id->frmw = 1u << 0 | 1u << 1;  // one slot, read-only
  id->wctemp = 343;
  id->cctemp = 373;
  id->sqes = 0x66;
  id->cqes = 0x44;
  id->nn = subsystem.namespaces_max;
  id->mnan = subsystem.namespaces_max;
  id->oncs = 1u << 0 | 1u << 2 | 1u << 3 | 1u << 5;  // compare, dataset management, write zeroes, reservations
  if (subsystem.compare_write) {
    id->fuses = 1;
    id->acwu = compare_write_blocks_max - 1;
  }
  // Present, without broadcast. Said even when no namespace has a cache yet: one may be added while hosts are
  // connected.
  id->vwc = 1u << 0 | 2u << 1;
}

Status Controller::identify_namespace(Request* request, uint32_t nsid) {
  if (nsid == 0 || nsid > subsystem_.options().namespaces_max) return status::invalid_namespace.dnr();
  nvme::IdentifyNamespace id{};
  const ns::Namespace* space = subsystem_.find_namespace(nsid);
  if (space != nullptr) {  // inactive: all zeroes
    const ns::NamespaceOptions& options = space->options();
    id.nsze = id.ncap = id.nuse = space->count_blocks();
    id.nsfeat = space->bdev().info().io_types.has(bdev::IoType::unmap) ? 1 : 0;
    id.nmic = 1;
    id.rescap = reservation_capabilities(*space);
    id.dlfeat = 1;  // deallocated blocks read as zeroes
    id.anagrpid = subsystem_.options().ana_reporting ? options.ana_group : 0;
    std::memcpy(id.nguid, options.nguid.bytes.data(), 16);
    store_be64(id.eui64, options.eui64);
    id.lbaf[0].lbads = static_cast<uint8_t>(std::countr_zero(space->block_size_bytes()));
  }
  reply(request, &id, sizeof(id));
  return status::success;
}

Status Controller::identify_descriptors(Request* request, uint32_t nsid) {
  const ns::Namespace* space = subsystem_.find_namespace(nsid);
  if (space == nullptr) return status::invalid_namespace.dnr();
  const ns::NamespaceOptions& options = space->options();
  std::string out;
  const auto add = [&out](uint8_t type, const void* value, uint8_t length_bytes) {
    const char header[4] = {static_cast<char>(type), static_cast<char>(length_bytes), 0, 0};
    out.append(header, sizeof(header));
    out.append(static_cast<const char*>(value), length_bytes);
  };
  uint8_t eui64[8];
  store_be64(eui64, options.eui64);
  if (options.eui64 != 0) add(1, eui64, 8);
  if (!options.nguid.is_zero()) add(2, options.nguid.bytes.data(), 16);
  if (!options.uuid.is_zero()) add(3, options.uuid.bytes.data(), 16);
  add(4, &csi_nvm, 1);
  reply(request, out.data(), out.size());
  return status::success;
}

Status Controller::identify_namespace_independent(Request* request, uint32_t nsid) {
  const ns::Namespace* space = subsystem_.find_namespace(nsid);
  if (space == nullptr) return status::invalid_namespace.dnr();
  uint8_t out[16] = {};
  out[0] = space->bdev().info().io_types.has(bdev::IoType::unmap) ? 1 : 0;
  out[1] = 1;  // NMIC
  out[2] = reservation_capabilities(*space);
  store_le<uint32_t>(out + 4, subsystem_.options().ana_reporting ? space->options().ana_group : 0);
  out[14] = 1;  // ready
  reply(request, out, sizeof(out));
  return status::success;
}

void Controller::identify_active(Request* request, uint32_t after) {
  std::vector<uint32_t> ids;
  for (uint32_t nsid = after + 1; nsid <= subsystem_.options().namespaces_max; nsid++) {
    if (subsystem_.find_namespace(nsid) != nullptr) ids.push_back(nsid);
  }
  ids.resize(std::min<size_t>(ids.size(), identify_bytes / sizeof(uint32_t)));
  reply(request, ids.data(), ids.size() * sizeof(uint32_t));
}

}  // namespace basalt::nvmf
