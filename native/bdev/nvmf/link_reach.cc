// SPDX-License-Identifier: Apache-2.0
#include "bdev/nvmf/link_reach.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/bytes.h"
#include "bdev/nvmf/member.h"

namespace basalt::bdev {
namespace {

// So often who waits looks whether it was called off.
constexpr Duration slice = milliseconds(50);
// Longer than that may only commands take whose end somebody else has to decide.
constexpr Duration patience = seconds(10);

uint8_t opcode(nvme::AdminOpcode code) {
  return static_cast<uint8_t>(code);
}

Errc errc_of(nvme::Status status) {
  if (status.is(nvme::status::connect_invalid_parameters)) return Errc::not_found;
  if (status.is(nvme::status::connect_invalid_host)) return Errc::permission;
  if (status.is(nvme::status::invalid_opcode) || status.is(nvme::status::invalid_field)) return Errc::unsupported;
  if (status.is(nvme::status::connect_controller_busy)) return Errc::unsupported;
  if (status.is(nvme::status::authentication_required)) return Errc::unsupported;
  if (status.is(nvme::status::invalid_namespace)) return Errc::not_found;
  return Errc::io;
}

}  // namespace

// A request of the control path, with data of its own: whoever waits for it may stop doing so.
struct LinkReach::Owned : nvmf::HostCommand {
  std::unique_ptr<uint8_t[]> bytes;
  Iovec piece;
  Wait* wait = nullptr;    // nullptr: nobody waits any more
  Link* counts = nullptr;  // it as given up
};

class LinkReach::Wait {
 public:
  Wait(LinkReach& reach, nvmf::HostQueue& queue, Owned* owned, const Call& call)
      : reach_(reach), queue_(queue), owned_(owned), call_(call) {}
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter) {
    waiter_ = waiter;
    owned_->wait = this;
    reach_.calls_.push_back(owned_);
    queue_.submit(owned_);
    reach_.watch_age(*owned_);
  }
  Answer await_resume() const noexcept { return answer_; }
  void take(const Owned& owned) {
    const bool reads = call_.direction == nvme::DataDirection::controller_to_host && call_.data_bytes > 0;
    if (reads && owned.status().ok()) std::memcpy(call_.data, owned.bytes.get(), call_.data_bytes);
  }
  void resume(Answer answer) {
    answer_ = answer;
    waiter_.resume();
  }

 private:
  LinkReach& reach_;
  nvmf::HostQueue& queue_;
  Owned* owned_;
  const Call call_;
  Answer answer_{nvme::status::host_path_error, 0, true};
  std::coroutine_handle<> waiter_;
};

LinkReach::LinkReach(Reactor& reactor, Links& links, const MemberOptions& options, Reach::Listener& listener)
    : reactor_(reactor), links_(links), options_(options), listener_(listener), command_timeout_(seconds(600)) {
  age_timer_.reach = this;
  age_timer_.run = [](Work* work) { static_cast<AgeTimer*>(work)->reach->check_age(); };
  end_work_.reach = this;
  end_work_.run = [](Work* work) { static_cast<OwnedWork*>(work)->reach->end_now(); };
}

LinkReach::~LinkReach() {
  BASALT_ASSERT(link_ == nullptr && in_flight_count_ == 0 && calls_.empty());
}

Task<Outcome> LinkReach::open(Duration timeout) {
  if (!gate_.enter()) co_return Error{Errc::closed, "closed"};
  Gate::Leaver leaver(gate_);
  LinkOptions options;
  options.address = options_.address;
  options.subnqn = options_.link_nqn;
  options.hostnqn = options_.hostnqn;
  options.authentication = options_.authentication;
  options.keep_alive_ms = options_.keep_alive_ms;
  const Instant deadline = reactor_.now() + timeout;
  link_ = links_.get(options);
  if (link_ == nullptr) co_return Error{Errc::unsupported, options_.name + ": the node has no link"};
  Outcome ready = Error{Errc::timed_out, ""};
  // In slices: it may be called off.
  while (!ended_ && !ready.ok() && ready.error().code == Errc::timed_out && reactor_.now() < deadline &&
         !link_->ended())
    ready = co_await link_->ready(std::min(deadline, reactor_.now() + slice));
  if (ended_) co_return reason_;
  if (!ready) {
    const Errc code = ready.error().code;
    if (code != Errc::not_found && code != Errc::permission && code != Errc::unsupported) co_return ready;
    links_.absent(options);
    co_return Error{Errc::unsupported, ready.error().message};
  }
  while (!ended_ && !has_turn_ && link_->takes_turns() && reactor_.now() < deadline)
    has_turn_ = co_await link_->turn(std::min(deadline, reactor_.now() + slice));
  if (ended_) end_turn();
  if (ended_) co_return reason_;
  if (!has_turn_ && reactor_.now() >= deadline) co_return Error{Errc::timed_out, options_.name + ": no turn in time"};
  if (!has_turn_) co_return Error{Errc::unsupported, options_.name + ": the link takes nobody now"};
  queue_ = link_->next_queue() % link_->controller().io_queue_count();
  do {
    reactor_.env().random(identity_.bytes.data(), identity_.bytes.size());
    tag_ = load_le<uint64_t>(identity_.bytes.data());
  } while (tag_ == 0);
  Outcome attached = co_await attach();
  if (attached.ok()) attached = co_await describe();
  if (ended_) co_return reason_;
  if (!attached) co_return attached;
  if (!link_->live()) co_return Error{Errc::closed, options_.name + ": the link was lost"};
  attached_ = true;
  co_return success();
}

Task<Outcome> LinkReach::attach() {
  nvme::LinkAttachData data{};
  std::memcpy(data.hostid, identity_.bytes.data(), sizeof(data.hostid));
  data.nsid = options_.nsid;
  if (options_.subnqn.size() > nvme::nqn_bytes_max) co_return Error{Errc::invalid_argument, "subnqn: too long"};
  std::memcpy(data.subnqn, options_.subnqn.data(), options_.subnqn.size());
  Call call;
  call.command.opcode = opcode(nvme::AdminOpcode::link_attach);
  call.direction = nvme::DataDirection::host_to_controller;
  call.data = &data;
  call.data_bytes = sizeof(data);
  const Answer answer = co_await call_on(link_->controller().admin_queue(), call);
  if (answer.lost) co_return Error{Errc::unreachable, options_.name + ": the link was lost"};
  if (!answer.status.ok()) {
    co_return Error{errc_of(answer.status), options_.subnqn + ": Attach: " + nvme::to_string(answer.status)};
  }
  const auto number = static_cast<uint32_t>(answer.value);
  // Neither can be told from others: changes and the link's end would reach the wrong one, or one that is gone.
  if (number == 0 || number == UINT32_MAX || !link_->add(number, this)) {
    co_return Error{Errc::io, options_.subnqn + ": Attach: the node answered a number that cannot be"};
  }
  number_ = number;
  co_return success();
}

Task<Outcome> LinkReach::describe() {
  nvme::LinkDescription description{};
  Call call;
  call.command.opcode = opcode(nvme::AdminOpcode::link_describe);
  call.command.nsid = number_;
  call.direction = nvme::DataDirection::controller_to_host;
  call.data = &description;
  call.data_bytes = sizeof(description);
  const Answer answer = co_await call_on(link_->controller().admin_queue(), call);
  if (answer.lost) co_return Error{Errc::unreachable, options_.name + ": the link was lost"};
  if (!answer.status.ok()) {
    co_return Error{errc_of(answer.status), options_.subnqn + ": Describe: " + nvme::to_string(answer.status)};
  }
  const uint32_t block_bytes = description.block_size_bytes;
  const bool is_power = block_bytes >= 512 && block_bytes <= 4096 && (block_bytes & (block_bytes - 1)) == 0;
  if (!is_power || description.count_blocks == 0 || description.count_blocks > UINT64_MAX / block_bytes) {
    co_return Error{Errc::io, options_.subnqn + ": a size that cannot be"};
  }
  space_.nsid = number_;
  space_.block_size_bytes = block_bytes;
  space_.count_blocks = description.count_blocks;
  space_.dlfeat = description.dlfeat;
  space_.rescap = description.rescap;
  std::memcpy(space_.uuid.bytes.data(), description.uuid, sizeof(description.uuid));
  std::memcpy(space_.nguid.bytes.data(), description.nguid, sizeof(description.nguid));
  incarnation_.clear();
  for (const char byte : description.serial_number) {
    if (byte == '\0') break;
    incarnation_ += byte >= 0x20 && byte < 0x7f ? byte : '?';
  }
  while (!incarnation_.empty() && incarnation_.back() == ' ')
    incarnation_.pop_back();
  co_return success();
}

// ---- requests ------------------------------------------------------------------------------------------------------

LinkReach::Owned* LinkReach::make_call(const Call& call) {
  auto* owned = new Owned();
  owned->command = call.command;
  owned->unaged = true;
  owned->direction = call.data_bytes > 0 ? call.direction : nvme::DataDirection::none;
  owned->data_bytes = call.data_bytes;
  if (call.data_bytes > 0) {
    owned->bytes = std::make_unique<uint8_t[]>(call.data_bytes);
    owned->piece = {owned->bytes.get(), call.data_bytes};
    owned->iov = &owned->piece;
    owned->iov_count = 1;
    if (call.direction == nvme::DataDirection::host_to_controller) {
      std::memcpy(owned->bytes.get(), call.data, call.data_bytes);
    }
  }
  owned->done = [](nvmf::HostCommand* done) {
    const std::unique_ptr<Owned> ended(static_cast<Owned*>(done));
    if (ended->counts != nullptr) ended->counts->given_up_ended();
    if (ended->wait == nullptr) return;
    ended->user_node.unlink();
    const uint64_t value = uint64_t{ended->completion.dw1} << 32 | ended->completion.dw0;
    Wait* wait = ended->wait;
    // The waiter has its data when it goes on.
    wait->take(*ended);
    wait->resume({ended->status(), value, ended->lost});
  };
  return owned;
}

Task<LinkReach::Answer> LinkReach::call_on(nvmf::HostQueue& queue, Call call) {
  if (ended_ || !link_->live()) co_return Answer{nvme::status::host_path_error, 0, true};
  Wait wait(*this, queue, make_call(call), call);
  const Answer answer = co_await wait;
  co_return answer;
}

Task<LinkReach::Answer> LinkReach::call(Call call) {
  if (!gate_.enter()) co_return Answer{nvme::status::host_path_error, 0, true};
  Gate::Leaver leaver(gate_);
  call.command.nsid = number_;
  stamp(call.command);
  if (ended_ || !link_->live()) co_return Answer{nvme::status::host_path_error, 0, true};
  const Answer answer = co_await call_on(queue(), call);
  co_return answer;
}

void LinkReach::submit(nvmf::HostCommand* command) {
  command->unaged = true;  // here it has a time-out of its own
  stamp(command->command);
  if (in_flight_count_ >= share()) return held_.push_back(command);
  send(command);
}

size_t LinkReach::share() const {
  const size_t depth = link_->options().io_queue_depth;
  return std::max<size_t>(1, command_timeout_ > patience ? depth / 8 : depth / 2);
}

void LinkReach::send(nvmf::HostCommand* command) {
  in_flight_count_++;
  in_flight_.push_back(command);
  queue().submit(command);
  watch_age(*command);
}

void LinkReach::watch_age(const nvmf::HostCommand& command) {
  if (!age_timer_.armed()) reactor_.arm(&age_timer_, command.submitted + command_timeout_);
}

void LinkReach::answered(nvmf::HostCommand* command) {
  if (!command->user_node.linked()) return;
  command->user_node.unlink();
  in_flight_count_--;
  if (!ended_ && link_->live()) {
    if (nvmf::HostCommand* next = held_.pop_front()) send(next);
  }
  // Later: what it belongs to is completed first.
  if (ending_ran_ && in_flight_count_ == 0) reactor_.defer(&end_work_);
}

void LinkReach::end_turn() {
  if (std::exchange(has_turn_, false)) link_->turn_ended();
}

// The takeover is over.
void LinkReach::set_command_timeout(Duration timeout) {
  end_turn();
  command_timeout_ = timeout;
  if (age_timer_.armed()) reactor_.arm(&age_timer_, reactor_.now());  // looks again
}

void LinkReach::check_age() {
  const nvmf::HostCommand* oldest = in_flight_.front();
  const nvmf::HostCommand* call = calls_.front();
  if (oldest == nullptr || (call != nullptr && call->submitted < oldest->submitted)) oldest = call;
  if (oldest == nullptr || ended_) return;
  if (oldest->submitted + command_timeout_ > reactor_.now()) {
    return reactor_.arm(&age_timer_, oldest->submitted + command_timeout_);
  }
  end({Errc::timed_out, options_.name + ": a command had no answer in time"});
}

// ---- the end -------------------------------------------------------------------------------------------------------

void LinkReach::end(Error reason) {
  if (ended_) return;
  ended_ = true;
  reason_ = std::move(reason);
  reactor_.cancel(&age_timer_);
  BASALT_ASSERT(gate_.enter());
  reactor_.defer(&end_work_);
}

void LinkReach::link_lost(const Error& reason) {
  number_ = 0;  // nothing is attached any more
  end(reason);
}

// The replica's node hears first: what comes after that by these connections is refused there.
void LinkReach::end_now() {
  detach();
  end_turn();
  while (nvmf::HostCommand* held = held_.pop_front()) {
    held->lost = true;
    held->completion = {};
    held->set_status(nvme::status::host_path_error);
    held->done(held);
  }
  while (link_ != nullptr && link_->live()) {
    nvmf::HostCommand* command = in_flight_.front();
    if (command == nullptr) break;
    if (!queue().disown(command)) {
      link_->abort({Errc::closed, link_->options().address.to_string() + ": the link had to end: " + options_.name +
                                      " has requests that cannot be let go"});
      break;
    }
  }
  while (nvmf::HostCommand* front = calls_.pop_front()) {
    auto* owned = static_cast<Owned*>(front);
    Wait* wait = std::exchange(owned->wait, nullptr);
    link_->given_up();
    owned->counts = link_.get();
    wait->resume({nvme::status::host_path_error, 0, true});
  }
  ending_ran_ = true;
  maybe_told();
}

// Once nothing is in flight.
void LinkReach::maybe_told() {
  if (told_ || in_flight_count_ > 0) return;
  told_ = true;
  if (attached_ && !closing_) listener_.reach_lost(reason_);
  gate_.leave();  // close() may go on here and end this object
}

void LinkReach::detach() {
  if (number_ == 0 || link_ == nullptr) return;
  link_->remove(number_);
  Call call;
  call.command.opcode = opcode(nvme::AdminOpcode::link_detach);
  call.command.nsid = std::exchange(number_, 0);
  if (link_->live()) link_->controller().admin_queue().submit(make_call(call));
}

Task<void> LinkReach::close() {
  closing_ = true;
  end({Errc::closed, "closed"});
  co_await gate_.close();
  links_.release(std::move(link_));
  link_ = nullptr;
}

// ---- changes -------------------------------------------------------------------------------------------------------

void LinkReach::link_changed() {
  look_again_ = true;
  if (looking_ || ended_ || !attached_ || !gate_.enter()) return;
  looking_ = true;
  spawn(look_again());
}

Task<void> LinkReach::look_again() {
  Gate::Leaver leaver(gate_);
  while (std::exchange(look_again_, false) && !ended_) {
    Outcome described = co_await describe();
    if (ended_) break;
    if (!described) space_.nsid = 0;
    listener_.reach_changed();
  }
  looking_ = false;
}

}  // namespace basalt::bdev
