// SPDX-License-Identifier: Apache-2.0
// The commands of a node link: Attach, Describe, Detach. Who may attach is what the namespace's own subsystem says: its
// hosts, its listeners, its keys.
#include <cstring>

#include "nvmf/target/attachments.h"
#include "nvmf/target/controller.h"

namespace basalt::nvmf {

using nvme::Status;
namespace status = nvme::status;

namespace {

bool same(const auth::SharedSecret& a, const auth::SharedSecret& b) {
  return a == nullptr || (b != nullptr && a->same_key(*b));
}

// Whoever came by the link has proven at least what the subsystem asks for.
bool proves_enough(const HostKeys& asked, const HostKeys& proven) {
  const bool tls =
      asked.tls == nullptr ? proven.tls == nullptr : proven.tls != nullptr && asked.tls->same_key(*proven.tls);
  return tls && same(asked.host, proven.host) && same(asked.controller, proven.controller);
}

}  // namespace

Status Controller::link_attach(Request* request) {
  nvme::LinkAttachData data;
  Iovec pieces[4];
  const size_t count = iovec_slice(request->iov, request->iov_count, 0, sizeof(data), pieces, 4);
  if (request->data_bytes != sizeof(data) || count == 0) return status::data_sgl_length_invalid.dnr();
  iovec_copy_out(pieces, count, &data);
  const size_t length = strnlen(data.subnqn, sizeof(data.subnqn));
  auto attachment = std::make_unique<Attachment>();
  std::memcpy(attachment->host.bytes.data(), data.hostid, sizeof(data.hostid));
  attachment->tag = tag_of(attachment->host);
  if (length > nvme::nqn_bytes_max || attachment->tag == 0) return status::invalid_field.dnr();
  Subsystem* subsystem = target_.find_subsystem(std::string(data.subnqn, length));
  const SubsystemListener* path = subsystem == nullptr ? nullptr : subsystem->path(listener_);
  ns::Namespace* space = path == nullptr ? nullptr : subsystem->find_namespace(data.nsid);
  // May become right when the management has caught up.
  if (space == nullptr) return status::connect_invalid_parameters;
  if (!space->options().one_writer) return status::invalid_field.dnr();
  const std::string& host = options_.hostnqn;
  if (!subsystem->allows(host)) return status::connect_invalid_host;
  // On connections of its own the host can prove what this replica asks for.
  if (!proves_enough(subsystem->keys_of(host), subsystem_.keys_of(host))) return status::authentication_required;
  attachment->space = space;
  attachment->subsystem = subsystem;
  attachment->path = path;
  request->completion.dw0 = attachments_->add(std::move(attachment));
  return request->completion.dw0 == 0 ? status::connect_controller_busy : status::success;
}

Status Controller::link_describe(Request* request) {
  const Attachment* attachment = attachments_->at(request->command.nsid);
  if (attachment == nullptr) return status::invalid_namespace.dnr();
  const ns::Namespace& space = *attachment->space;
  const std::string& serial_number = attachment->subsystem->options().serial_number;
  nvme::LinkDescription out{};
  std::memcpy(out.uuid, space.options().uuid.bytes.data(), sizeof(out.uuid));
  std::memcpy(out.nguid, space.options().nguid.bytes.data(), sizeof(out.nguid));
  std::memcpy(out.serial_number, serial_number.data(), std::min(serial_number.size(), sizeof(out.serial_number)));
  out.block_size_bytes = space.block_size_bytes();
  out.count_blocks = space.count_blocks();
  out.rescap = reservation_capabilities(space);
  out.dlfeat = 1;  // as Identify says
  reply(request, &out, sizeof(out));
  return status::success;
}

Status Controller::link_detach(Request* request) {
  Attachments::Taken taken;
  attachments_->take(request->command.nsid, &taken);
  if (taken.empty()) return status::invalid_namespace.dnr();
  target_.free_later(std::move(taken));
  return status::success;
}

void Controller::end_attachments(const std::function<bool(const Attachment&)>& which, Attachments::Taken* out) {
  for (const uint32_t number : attachments_->take_all(which, out))
    namespace_changed(number);
}

void Controller::attached_changed(const ns::Namespace& space) {
  for (const uint32_t number : attachments_->numbers_of(space))
    namespace_changed(number);
}

}  // namespace basalt::nvmf
