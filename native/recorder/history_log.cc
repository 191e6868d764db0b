// SPDX-License-Identifier: Apache-2.0
#include "recorder/history_log.h"

#include <algorithm>
#include <cstring>
#include <sstream>
#include <string_view>

#include "check/history_file.h"

namespace basalt::recorder {
namespace {

constexpr size_t buffer_bytes = check::history_write_bytes_max;

// Resumes when the write under way has ended.
struct Turn {
  std::vector<std::coroutine_handle<>>& waiters;
  bool await_ready() const noexcept { return false; }
  void await_suspend(std::coroutine_handle<> waiter) { waiters.push_back(waiter); }
  void await_resume() const noexcept {}
};

env::FileOptions file_options(const HistoryLogOptions& options) {
  env::FileOptions out;
  out.path = options.path;
  out.buffered = !options.disk;
  // Its one byte is a zero, which ends a history before it has begun.
  if (!options.disk && !options.resume) out.create_bytes = 1;
  return out;
}

// Of a text without a whole line: nothing, or what is there of the first one after a kill.
bool may_begin_history(const std::string& text) {
  constexpr std::string_view beginning = "{\"history\":";
  return text.starts_with(beginning) || beginning.starts_with(text);
}

// The last moment of a history: everything of a run that ended lies at it or before.
int64_t last_moment(const check::History& history) {
  int64_t last_ns = 0;
  for (const check::Op& op : history.ops) {
    last_ns = std::max(last_ns, op.invoked_ns);
    if (op.completed_ns != check::never_ns) last_ns = std::max(last_ns, op.completed_ns);
  }
  for (const check::PowerCut& cut : history.power_cuts)
    last_ns = std::max(last_ns, cut.at_ns);
  return last_ns;
}

}  // namespace

HistoryLog::HistoryLog(Reactor& reactor, const HistoryLogOptions& options, std::unique_ptr<env::BlockFile> file)
    : reactor_(reactor),
      options_(options),
      file_(std::move(file)),
      unit_bytes_(options.disk ? AlignedBuffer::alignment_bytes : 1),
      started_(reactor.env().now()),
      buffer_(buffer_bytes) {
  history_.volume = options.volume;
}

Task<Result<std::unique_ptr<HistoryLog>>> HistoryLog::open(Reactor& reactor, const HistoryLogOptions& options) {
  auto file = reactor.poller().open(file_options(options));
  if (!file) {
    Error error = std::move(file).error();
    if (error.code == Errc::exists) error.message += "; --resume goes on with it";
    co_return error;
  }
  std::unique_ptr<HistoryLog> log(new HistoryLog(reactor, options, std::move(file).value()));
  Outcome loaded = co_await log->load();
  if (!loaded) co_return std::move(loaded).error();
  co_return log;
}

Task<Outcome> HistoryLog::load() {
  Result<std::string> text = co_await read_text();
  if (!text) co_return std::move(text).error();
  if (!text->empty() && !options_.resume)
    co_return Error{Errc::exists, options_.path + ": holds a history, or something else; --resume goes on with one"};
  // Whoever was killed may have left a part of a line.
  const size_t whole = text->rfind('\n') == std::string::npos ? 0 : text->rfind('\n') + 1;
  const size_t part = text->size() - whole;
  if (whole == 0 && !may_begin_history(*text))
    co_return Error{Errc::exists, options_.path + ": neither zeroes nor a history"};
  if (part > 0 && options_.disk) left_end_bytes_ = std::max<uint64_t>(left_end_bytes_, text->size());
  text->resize(whole);
  resumed_ = !text->empty();
  if (resumed_) {
    Outcome gone_on = go_on(*text);
    if (!gone_on) co_return std::move(gone_on).error();
    if (!options_.disk) append(std::string(part, '\n'));
  } else {
    std::ostringstream head;
    check::write_head(history_, head);
    append(head.str());
  }
  Outcome erased = co_await erase_left();
  if (!erased) co_return std::move(erased).error();
  const bool good = co_await saved();
  if (!good) co_return Error{Errc::io, problem_};
  co_return success();
}

// What the file holds, up to the first zero byte.
Task<Result<std::string>> HistoryLog::read_text() {
  const uint64_t size_bytes = file_->limits().size_bytes;
  std::string text;
  for (uint64_t at = 0; at < size_bytes; at += buffer_bytes) {
    const auto length = static_cast<size_t>(std::min<uint64_t>(buffer_bytes, size_bytes - at));
    FileRequest request(*file_, env::FileIo::Type::read, at, buffer_.data(), length);
    const int error = co_await request;
    if (error != 0) co_return Error{Errc::io, options_.path + ": read: " + std::strerror(error)};
    const auto* const bytes = reinterpret_cast<const char*>(buffer_.data());
    const size_t used = strnlen(bytes, length);
    // Disks with partitions or a file system begin with zeroes, too.
    if (at == 0 && used == 0 && std::any_of(bytes, bytes + length, [](char c) { return c != 0; }))
      co_return Error{Errc::exists, options_.path + ": neither zeroes nor a history"};
    text.append(bytes, used);
    if (used == length) continue;
    if (options_.resume && !text.empty()) {
      Outcome right = co_await look_behind(at, length, text.size());
      if (!right) co_return std::move(right).error();
    }
    break;
  }
  co_return text;
}

// What is behind the zero byte at `zero`: on a raw disk the rest of a write may be, that a kill cut short; anything
// else says that the history does not end there, and going on would overwrite it. The chunk at `at` is in the buffer.
Task<Outcome> HistoryLog::look_behind(uint64_t at, size_t length, uint64_t zero) {
  const uint64_t cut_end = zero + 1 + (options_.disk ? check::history_write_bytes_max : 0);
  const uint64_t end = std::min(file_->limits().size_bytes, cut_end + check::history_behind_bytes);
  for (;;) {
    for (size_t i = 0; i < length; i++) {
      if (at + i <= zero || buffer_.data()[i] == 0) continue;
      if (at + i >= cut_end)
        co_return Error{Errc::exists, options_.path + ": the zero byte at " + std::to_string(zero) +
                                          " ends the history, but there is more from byte " + std::to_string(at + i) +
                                          " on"};
      left_end_bytes_ = at + i + 1;
    }
    at += length;
    if (at >= end) co_return success();
    length = static_cast<size_t>(std::min<uint64_t>(buffer_bytes, file_->limits().size_bytes - at));
    FileRequest request(*file_, env::FileIo::Type::read, at, buffer_.data(), length);
    const int error = co_await request;
    if (error != 0) co_return Error{Errc::io, options_.path + ": read: " + std::strerror(error)};
  }
}

// Otherwise it might join what is written in front of it. The buffer holds the last unit of the history.
Task<Outcome> HistoryLog::erase_left() {
  if (left_end_bytes_ == 0) co_return success();
  const size_t tail = end_bytes_ % unit_bytes_;
  std::memset(buffer_.data() + tail, 0, buffer_bytes - tail);
  AlignedBuffer zeroes(buffer_bytes);
  std::memset(zeroes.data(), 0, buffer_bytes);
  for (uint64_t at = end_bytes_ - tail; at < left_end_bytes_;) {
    void* const from = at < end_bytes_ ? buffer_.data() : zeroes.data();
    const auto length = static_cast<size_t>(std::min<uint64_t>(buffer_bytes, file_->limits().size_bytes - at));
    FileRequest request(*file_, env::FileIo::Type::write, at, from, length, options_.durable);
    const int error = co_await request;
    if (error != 0) co_return Error{Errc::io, options_.path + ": write: " + std::strerror(error)};
    at += length;
  }
  co_return success();
}

Outcome HistoryLog::go_on(const std::string& text) {
  std::istringstream in(text);
  auto read = check::read_history(in);
  if (!read) return Error{Errc::invalid_argument, options_.path + ": " + read.error().message};
  const check::History& past = read.value();
  if (past.block_bytes != check::block_bytes)
    return Error{Errc::invalid_argument, options_.path + ": 'block_bytes': only 4096 can be gone on with"};
  history_.volume = past.volume;
  begins_ns_ = last_moment(past) + 1;
  for (const check::Op& op : past.ops) {
    next_id_ = std::max(next_id_, op.id + 1);
    if (op.type != check::OpType::write) continue;
    uint64_t& newest = sequences_[op.writer];
    newest = std::max(newest, op.sequence);
  }
  end_bytes_ = text.size();
  const size_t tail = end_bytes_ % unit_bytes_;
  std::memcpy(buffer_.data(), text.data() + text.size() - tail, tail);
  return success();
}

void HistoryLog::announce(const check::Op& op) {
  std::ostringstream line;
  check::write_announcement(history_, op, line);
  append(line.str());
}

void HistoryLog::add(const check::Op& op) {
  std::ostringstream line;
  check::write_operation(history_, op, line);
  append(line.str());
}

void HistoryLog::append(const std::string& text) {
  added_ += text;
  added_end_ += text.size();
}

Task<bool> HistoryLog::saved() {
  const uint64_t wanted = added_end_;
  while (saved_end_ < wanted && problem_.empty()) {
    if (writing_) {
      Turn turn{waiters_};
      co_await turn;
      continue;
    }
    writing_ = true;
    const bool good = co_await write_out();
    writing_ = false;
    if (!good) added_.clear();
    const std::vector<std::coroutine_handle<>> waiters = std::move(waiters_);
    waiters_.clear();
    for (const std::coroutine_handle<> waiter : waiters)
      waiter.resume();
  }
  co_return problem_.empty();
}

// One write to the file, of as much as fits the buffer.
Task<bool> HistoryLog::write_out() {
  const auto tail = static_cast<size_t>(end_bytes_ % unit_bytes_);
  const size_t room = buffer_.size_bytes() - tail - 1;
  const size_t taken = std::min(added_.size(), room);
  std::memcpy(buffer_.data() + tail, added_.data(), taken);
  added_.erase(0, taken);
  const size_t used = tail + taken;
  size_t length = used;
  if (options_.disk) {
    length = (used / unit_bytes_ + 1) * unit_bytes_;  // at least one zero byte
    std::memset(buffer_.data() + used, 0, length - used);
    if (end_bytes_ - tail + length > file_->limits().size_bytes) {
      problem_ = full_text();
      co_return false;
    }
  }
  FileRequest request(*file_, env::FileIo::Type::write, end_bytes_ - tail, buffer_.data(), length, options_.durable);
  const int error = co_await request;
  if (error != 0) {
    problem_ = options_.path + ": write: " + std::strerror(error);
    co_return false;
  }
  end_bytes_ += taken;
  saved_end_ += taken;
  const size_t kept = end_bytes_ % unit_bytes_;
  std::memmove(buffer_.data(), buffer_.data() + used - kept, kept);
  co_return true;
}

std::string HistoryLog::full_text() const {
  return options_.path + ": the disk is full: it holds " + std::to_string(file_->limits().size_bytes) + " bytes";
}

}  // namespace basalt::recorder
