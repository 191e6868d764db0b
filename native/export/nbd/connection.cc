// SPDX-License-Identifier: Apache-2.0
#include "export/nbd/connection.h"

#include <algorithm>
#include <cstring>

#include "base/bytes.h"

namespace basalt::nbd {
namespace {

constexpr Duration handshake_timeout = seconds(10);
constexpr Duration payload_timeout = seconds(30);
constexpr size_t receive_budget_bytes = size_t{2} << 20;  // per turn, so that one connection cannot take it all
constexpr size_t send_iovecs_max = 64;

uint32_t error_of_status(nvme::Status status) {
  if (status.ok()) return 0;
  if (status.is(nvme::status::capacity_exceeded)) return error_no_space;
  if (status.is(nvme::status::lba_out_of_range) || status.is(nvme::status::invalid_field)) return error_invalid;
  return error_io;
}

}  // namespace

Connection::Connection(Server& server, std::unique_ptr<env::StreamSocket> socket)
    : server_(server), reactor_(server.reactor_), socket_(std::move(socket)) {
  for (Event* event : {&readable_, &writable_, &turn_end_})
    event->connection = this;
  readable_.run = [](Work* work) {
    Connection* self = static_cast<Event*>(work)->connection;
    self->readable_armed_ = false;
    self->receive();
  };
  writable_.run = [](Work* work) {
    Connection* self = static_cast<Event*>(work)->connection;
    self->writable_armed_ = false;
    self->send_now();
  };
  turn_end_.run = [](Work* work) {
    Connection* self = static_cast<Event*>(work)->connection;
    self->flush_queued_ = false;
    self->send_now();
    self->maybe_free();
  };
  buffer_waiter_.connection = this;
  buffer_waiter_.run = [](Work* work) {
    Connection* self = static_cast<Waiter*>(work)->connection;
    self->waiting_for_buffer_ = false;
    self->receive();
  };
  deadline_.connection = this;
  deadline_.run = [](Work* work) { static_cast<Deadline*>(static_cast<Timer*>(work))->connection->drop(); };
}

Connection::~Connection() {
  BASALT_ASSERT(ops_.in_use() == 0);
}

void Connection::start() {
  reactor_.arm_after(&deadline_, handshake_timeout);
  append_greeting(negotiation_out_);
  flush_output();
  receive();
}

void Connection::drop() {
  if (state_ == State::ended) return;
  state_ = State::ended;
  reactor_.cancel(&deadline_);
  reactor_.buffers().stop_waiting(&buffer_waiter_);
  socket_.reset();
  if (incoming_ != nullptr) free_op(std::exchange(incoming_, nullptr));
  while (Op* op = replies_.pop_front())
    free_op(op);
  // Freed from the end of the turn, never under the feet of a caller.
  if (!flush_queued_) {
    flush_queued_ = true;
    reactor_.at_turn_end(&turn_end_);
  }
}

void Connection::maybe_free() {
  if (state_ == State::ended && ops_.in_use() == 0 && !flush_queued_) server_.remove(this);
}

// ---- input ---------------------------------------------------------------------------------------------------------

// Collects `want` bytes across calls; have_bytes_ says how many are there.
bool Connection::take_bytes(void* to, size_t want) {
  while (have_bytes_ < want) {
    const Iovec iov{static_cast<uint8_t*>(to) + have_bytes_, want - have_bytes_};
    const env::Transfer moved = socket_->try_recv(&iov, 1);
    if (moved.state == env::Transfer::State::done) {
      have_bytes_ += moved.count_bytes;
      continue;
    }
    if (moved.state == env::Transfer::State::would_block) {
      wait_for_input();
    } else {
      drop();
    }
    return false;
  }
  have_bytes_ = 0;
  return true;
}

void Connection::wait_for_input() {
  if (socket_ == nullptr || readable_armed_) return;
  readable_armed_ = true;
  socket_->arm_readable(&readable_);
}

void Connection::receive() {
  size_t budget_bytes = receive_budget_bytes;
  while (state_ != State::ended && !waiting_for_buffer_ && !hung_up_) {
    if (!step(&budget_bytes)) return;
    if (budget_bytes == 0) return wait_for_input();
  }
}

// Takes one piece of input and acts on it; false: nothing more can be done now.
bool Connection::step(size_t* budget_bytes) {
  const auto spend = [&](size_t bytes) { *budget_bytes -= std::min(*budget_bytes, bytes); };
  switch (state_) {
    case State::client_flags:
      if (!take_bytes(header_.data(), 4)) return false;
      on_client_flags();
      return true;
    case State::option_header:
      receiving_stopped_ = negotiation_out_.size() - negotiation_sent_bytes_ >= negotiation_out_bytes_max;
      if (receiving_stopped_) return false;  // goes on when answers were taken
      if (!take_bytes(header_.data(), option_header_bytes)) return false;
      spend(option_header_bytes);
      on_option_header();
      return true;
    case State::option_data:
      if (!take_bytes(option_data_.data(), option_data_.size())) return false;
      spend(option_data_.size());
      on_option_data();
      return true;
    case State::request_header:
      receiving_stopped_ = ops_.in_use() >= in_flight_count_max || in_flight_bytes_ >= in_flight_bytes_max;
      if (receiving_stopped_) return false;
      if (!take_bytes(header_.data(), request_header_bytes)) return false;
      spend(request_header_bytes);
      on_request();
      return true;
    case State::write_payload:
      if (!take_payload_buffer()) return false;
      if (!take_bytes(incoming_->buffer->data, incoming_->request.length_bytes)) return false;
      reactor_.cancel(&deadline_);
      spend(incoming_->request.length_bytes);
      state_ = State::request_header;
      submit(std::exchange(incoming_, nullptr));
      return true;
    case State::read_buffer:
      if (!take_payload_buffer()) return false;
      state_ = State::request_header;
      submit(std::exchange(incoming_, nullptr));
      return true;
    case State::drop_payload:
      return drop_payload(budget_bytes);
    case State::ended:
      return false;
  }
  return false;
}

// Reads the payload of a refused write and forgets it.
bool Connection::drop_payload(size_t* budget_bytes) {
  uint8_t scratch[4096];
  const Iovec iov{scratch, std::min<size_t>(drop_bytes_, sizeof(scratch))};
  const env::Transfer moved = socket_->try_recv(&iov, 1);
  if (moved.state == env::Transfer::State::would_block) {
    wait_for_input();
    return false;
  }
  if (moved.state != env::Transfer::State::done) {
    drop();
    return false;
  }
  *budget_bytes -= std::min(*budget_bytes, moved.count_bytes);
  drop_bytes_ -= static_cast<uint32_t>(moved.count_bytes);
  if (drop_bytes_ > 0) return true;
  reactor_.cancel(&deadline_);
  state_ = State::request_header;
  reply(std::exchange(incoming_, nullptr));
  return true;
}

// ---- negotiation ---------------------------------------------------------------------------------------------------

void Connection::on_client_flags() {
  const uint32_t flags = load_be32(header_.data());
  if ((flags & ~uint32_t{handshake_fixed_newstyle | handshake_no_zeroes}) != 0) return drop();
  no_zeroes_ = (flags & handshake_no_zeroes) != 0;
  state_ = State::option_header;
}

void Connection::on_option_header() {
  const auto header =
      parse_option_header(std::span<const uint8_t, option_header_bytes>(header_.data(), option_header_bytes));
  if (!header || header->length_bytes > option_data_bytes_max) return drop();
  option_ = *header;
  option_data_.resize(option_.length_bytes);
  state_ = State::option_data;
}

void Connection::on_option_data() {
  state_ = State::option_header;
  switch (static_cast<Option>(option_.option)) {
    case Option::export_name: {
      const std::string name(option_data_.begin(), option_data_.end());
      if (!name.empty() && name != server_.info_.name) return drop();  // this option has no error reply
      append_export_name_answer(negotiation_out_, server_.info_, no_zeroes_);
      negotiated();
      break;
    }
    case Option::abort:
      append_option_reply(negotiation_out_, option_.option, reply_ack);
      hung_up_ = true;
      break;
    case Option::list:
      answer_list();
      break;
    case Option::info:
    case Option::go:
      answer_info();
      break;
    default:
      // STARTTLS, structured replies, contexts: a plain refusal, and what was pipelined behind is judged on its own.
      append_option_reply(negotiation_out_, option_.option, reply_err_unsup);
      break;
  }
  flush_output();
}

void Connection::answer_list() {
  if (!option_data_.empty()) return append_option_reply(negotiation_out_, option_.option, reply_err_invalid);
  std::string entry(4, '\0');
  store_be32(entry.data(), static_cast<uint32_t>(server_.info_.name.size()));
  append_option_reply(negotiation_out_, option_.option, reply_server, entry + server_.info_.name);
  append_option_reply(negotiation_out_, option_.option, reply_ack);
}

void Connection::answer_info() {
  const auto asked = parse_info_request(option_data_);
  if (!asked) return append_option_reply(negotiation_out_, option_.option, reply_err_invalid);
  if (!asked->name.empty() && asked->name != server_.info_.name) {
    return append_option_reply(negotiation_out_, option_.option, reply_err_unknown);
  }
  append_export_info(negotiation_out_, option_.option, server_.info_, *asked);
  if (static_cast<Option>(option_.option) != Option::go) return;
  negotiated();
}

void Connection::negotiated() {
  state_ = State::request_header;
  reactor_.cancel(&deadline_);
  option_data_ = {};
}

// ---- requests ------------------------------------------------------------------------------------------------------

void Connection::on_request() {
  const auto request =
      parse_request(std::span<const uint8_t, request_header_bytes>(header_.data(), request_header_bytes));
  if (!request) return drop();
  if (static_cast<Command>(request->type) == Command::disconnect) {
    hung_up_ = true;
    flush_output();
    return;
  }
  server_.stats_.request_count++;
  Op* op = ops_.take();
  BASALT_ASSERT(op != nullptr);
  op->connection = this;
  op->request = *request;
  op->buffer = nullptr;
  op->reply_data_bytes = 0;
  op->error = error_of(*request);
  judge(op);
}

// What is wrong with the request, or 0. Lengths are bounded before anything is allocated.
uint32_t Connection::error_of(const Request& request) const {
  const ExportInfo& info = server_.info_;
  constexpr uint16_t known_flags = command_flag_fua | command_flag_no_hole;
  const auto command = static_cast<Command>(request.type);
  if ((request.flags & ~known_flags) != 0) return error_invalid;
  if ((request.flags & command_flag_no_hole) != 0 && command != Command::write_zeroes) return error_invalid;
  if (command == Command::flush) return 0;
  const bool changes = command == Command::write || command == Command::trim || command == Command::write_zeroes;
  if (!changes && command != Command::read) return error_invalid;
  if (changes && (info.flags & flag_read_only) != 0) return error_perm;
  if (command == Command::trim && (info.flags & flag_send_trim) == 0) return error_invalid;
  if (command == Command::write_zeroes && (info.flags & flag_send_write_zeroes) == 0) return error_invalid;
  if (request.length_bytes == 0 || (request.offset_bytes | request.length_bytes) % info.block_bytes_min != 0) {
    return error_invalid;
  }
  if (request.offset_bytes >= info.size_bytes || request.length_bytes > info.size_bytes - request.offset_bytes) {
    return command == Command::read ? error_invalid : error_no_space;
  }
  const bool moves = command == Command::read || command == Command::write;
  return moves && request.length_bytes > payload_bytes_max ? error_invalid : 0;
}

void Connection::judge(Op* op) {
  const auto command = static_cast<Command>(op->request.type);
  if (command == Command::write) {
    if (op->error == 0) {
      incoming_ = op;
      state_ = State::write_payload;
      reactor_.arm_after(&deadline_, payload_timeout);
    } else if (op->request.length_bytes > refused_payload_bytes_max) {
      free_op(op);
      drop();
    } else if (op->request.length_bytes == 0) {
      reply(op);
    } else {
      incoming_ = op;
      drop_bytes_ = op->request.length_bytes;
      state_ = State::drop_payload;
      reactor_.arm_after(&deadline_, payload_timeout);
    }
    return;
  }
  if (op->error != 0) return reply(op);
  if (command == Command::read) {
    incoming_ = op;
    state_ = State::read_buffer;
    return;
  }
  submit(op);
}

// A buffer for incoming_'s data; false: waiting for one.
bool Connection::take_payload_buffer() {
  if (incoming_->buffer != nullptr) return true;
  incoming_->buffer = reactor_.buffers().take(incoming_->request.length_bytes, BufferUse::upper);
  if (incoming_->buffer != nullptr) {
    in_flight_bytes_ += incoming_->request.length_bytes;
    return true;
  }
  waiting_for_buffer_ = true;
  reactor_.buffers().wait(&buffer_waiter_, incoming_->request.length_bytes, BufferUse::upper);
  return false;
}

void Connection::submit(Op* op) {
  const uint32_t block_bytes = server_.info_.block_bytes_min;
  const auto command = static_cast<Command>(op->request.type);
  bdev::Io& io = op->io;
  io.context = op;
  io.done = io_done;
  io.fua = (op->request.flags & command_flag_fua) != 0 && command != Command::read;
  io.offset_blocks = op->request.offset_bytes / block_bytes;
  io.count_blocks = op->request.length_bytes / block_bytes;
  io.iov_count = 0;
  switch (command) {
    case Command::read:
      io.type = bdev::IoType::read;
      break;
    case Command::write:
      io.type = bdev::IoType::write;
      break;
    case Command::flush:
      io.type = bdev::IoType::flush;
      break;
    case Command::trim:
      io.type = bdev::IoType::unmap;
      break;
    default:
      io.type = bdev::IoType::write_zeroes;
      break;
  }
  if (op->buffer != nullptr) {
    op->iov = {op->buffer->data, op->request.length_bytes};
    io.iov = &op->iov;
    io.iov_count = 1;
  }
  server_.bdev_.submit(&io);
}

void Connection::io_done(bdev::Io* io) {
  Op* op = static_cast<Op*>(io->context);
  Connection* self = op->connection;
  op->error = error_of_status(io->status);
  if (op->error == 0 && io->type == bdev::IoType::read) op->reply_data_bytes = op->request.length_bytes;
  // Nothing is wrong with the disk, it is served elsewhere. An error would reach the client's user, a lost connection
  // makes the client connect again and resend.
  if (io->status.type() == nvme::StatusType::path) self->drop();
  self->reply(op);
}

// ---- output --------------------------------------------------------------------------------------------------------

void Connection::reply(Op* op) {
  if (state_ == State::ended) {
    free_op(op);
    if (!flush_queued_) {
      flush_queued_ = true;
      reactor_.at_turn_end(&turn_end_);
    }
    return;
  }
  build_simple_reply(op->header.data(), op->request.cookie, op->error);
  replies_.push_back(op);
  flush_output();
}

void Connection::flush_output() {
  if (flush_queued_ || writable_armed_) return;
  flush_queued_ = true;
  reactor_.at_turn_end(&turn_end_);
}

void Connection::send_now() {
  while (state_ != State::ended) {
    Iovec iov[send_iovecs_max];
    size_t count = 0;
    if (negotiation_sent_bytes_ < negotiation_out_.size()) {
      iov[count++] = {negotiation_out_.data() + negotiation_sent_bytes_,
                      negotiation_out_.size() - negotiation_sent_bytes_};
    }
    size_t skip_bytes = first_reply_sent_bytes_;
    for (Op* op = replies_.front(); op != nullptr && count + 2 <= send_iovecs_max; op = replies_.next(op)) {
      if (skip_bytes < simple_reply_bytes)
        iov[count++] = {op->header.data() + skip_bytes, simple_reply_bytes - skip_bytes};
      const size_t data_skip = skip_bytes > simple_reply_bytes ? skip_bytes - simple_reply_bytes : 0;
      if (op->reply_data_bytes > data_skip) {
        iov[count++] = {static_cast<uint8_t*>(op->buffer->data) + data_skip, op->reply_data_bytes - data_skip};
      }
      skip_bytes = 0;
    }
    if (count == 0) break;
    const env::Transfer moved = socket_->try_send(iov, count);
    if (moved.state == env::Transfer::State::would_block) {
      writable_armed_ = true;
      socket_->arm_writable(&writable_);
      return;
    }
    if (moved.state != env::Transfer::State::done) return drop();
    size_t sent_bytes = moved.count_bytes;
    const size_t negotiation = std::min(sent_bytes, negotiation_out_.size() - negotiation_sent_bytes_);
    negotiation_sent_bytes_ += negotiation;
    sent_bytes -= negotiation;
    if (negotiation_sent_bytes_ == negotiation_out_.size()) {
      negotiation_out_.clear();
      negotiation_sent_bytes_ = 0;
    }
    first_reply_sent_bytes_ += sent_bytes;
    while (Op* op = replies_.front()) {
      const size_t whole = simple_reply_bytes + op->reply_data_bytes;
      if (first_reply_sent_bytes_ < whole) break;
      first_reply_sent_bytes_ -= whole;
      replies_.remove(op);
      free_op(op);
    }
  }
  if (state_ == State::ended) return;
  if (hung_up_ && ops_.in_use() == 0) return drop();
  if (receiving_stopped_) {
    receiving_stopped_ = false;
    receive();
  }
}

void Connection::free_op(Op* op) {
  if (op->buffer != nullptr) {
    in_flight_bytes_ -= op->request.length_bytes;
    reactor_.buffers().give(std::exchange(op->buffer, nullptr));
  }
  ops_.give(op);
}

}  // namespace basalt::nbd
