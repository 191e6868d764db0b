// SPDX-License-Identifier: Apache-2.0
#include "check/history_file.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <istream>
#include <map>
#include <ostream>
#include <tuple>

#include "base/assert.h"
#include "check/json_line.h"

namespace basalt::check {
namespace {

constexpr uint64_t version = 1;
constexpr auto time_max = static_cast<uint64_t>(INT64_MAX - 1);
constexpr uint64_t blocks_max = 1 << 20;  // of one operation
constexpr uint64_t lba_max = uint64_t{1} << 62;

constexpr const char* type_names[] = {"read", "write", "flush", "zero"};
constexpr const char* status_names[] = {"ok", "fail", "info"};

bool power_of_two(uint64_t value) {
  return value != 0 && (value & (value - 1)) == 0;
}

// The lines of a text up to its end or its first zero byte. Never holds more of it than a line and a chunk: behind a
// history there may be the whole of a disk.
class Lines {
 public:
  explicit Lines(std::istream& in) : in_(in) {}

  // False: there is none any more.
  bool next(std::string* line) {
    line->clear();
    while (!ended_) {
      const int byte = take();
      if (byte == '\n') return true;
      ended_ = byte <= 0;
      zero_ = byte == 0;
      if (!ended_) line->push_back(static_cast<char>(byte));
      if (ended_) return zero_ || !line->empty();
    }
    return false;
  }
  bool ended() const { return ended_; }
  // Behind the zero byte: where another one is, as far as is looked; 0: nowhere.
  uint64_t look_behind(uint64_t first, uint64_t limit) {
    BASALT_ASSERT(zero_);
    for (const uint64_t end = at_ + limit, begin = at_ + first; at_ < end;) {
      const int byte = take();
      if (byte < 0) break;
      if (byte > 0 && at_ > begin) return at_ - 1;
    }
    return 0;
  }
  bool ended_by_zero() const { return zero_; }
  uint64_t at() const { return at_; }  // bytes taken

 private:
  int take() {
    if (next_ == chunk_.size()) {
      chunk_.resize(64 << 10);
      in_.read(chunk_.data(), static_cast<std::streamsize>(chunk_.size()));
      chunk_.resize(static_cast<size_t>(in_.gcount()));
      next_ = 0;
      if (chunk_.empty()) return -1;
    }
    at_++;
    return static_cast<unsigned char>(chunk_[next_++]);
  }

  std::istream& in_;
  std::string chunk_;
  size_t next_ = 0;
  uint64_t at_ = 0;
  bool ended_ = false;
  bool zero_ = false;
};

class Reader {
 public:
  Reader(std::istream& in, const HistoryReading& reading) : in_(in), lines_(in), reading_(reading) {}

  Result<History> run() {
    std::string text;
    while (lines_.next(&text)) {
      line_++;
      end(text);
      if (text.find_first_not_of(" \t\r") == std::string::npos) continue;
      JsonLine line;
      if (line.parse(text)) take(line);
      if (!line.good()) return problem(line.problem());
    }
    if (std::string more = look_behind(); !more.empty()) return problem(more);
    if (in_.bad()) return problem("cannot be read on");
    if (!begun_) return problem("no history: the first line must be {\"history\":1,...}");
    if (std::string bad = resolve(); !bad.empty()) return Error{Errc::invalid_argument, bad};
    return std::move(history_);
  }

 private:
  // A zero byte ends a history on a raw disk. Whoever was killed while writing leaves a last line that is cut short.
  void end(std::string& text) const {
    if (!lines_.ended() || !begun_ || !text.starts_with('{')) return;
    if (text.find_last_not_of(" \t\r") != text.rfind('}')) text.clear();
  }

  // A zero byte within a history would hide what follows it. "" or what is wrong.
  std::string look_behind() {
    if (!lines_.ended_by_zero()) return "";
    const uint64_t zero = lines_.at() - 1;
    const uint64_t more = lines_.look_behind(reading_.cut_bytes_max, history_behind_bytes);
    if (more == 0) return "";
    return "the zero byte at " + std::to_string(zero) + " ends the history, but there is more from byte " +
           std::to_string(more) + " on: its last write was cut short, or it is damaged";
  }

  Error problem(const std::string& what) const {
    return {Errc::invalid_argument, "line " + std::to_string(line_) + ": " + what};
  }

  void take(JsonLine& line) {
    if (!begun_) {
      head(line);
    } else if (line.has("op")) {
      operation(line);
    } else if (line.has("event")) {
      event(line);
    } else if (line.has("image")) {
      image(line);
    } else if (line.has("history")) {
      line.fail("'history' belongs on the first line only");
    } else {
      line.fail("neither 'op' nor 'event' nor 'image'");
    }
    line.finish();
  }

  void head(JsonLine& line) {
    if (!line.has("history")) return line.fail("no history: the first line must be {\"history\":1,...}");
    if (line.number("history", UINT32_MAX) != version && line.good()) line.fail("'history': only version 1 is known");
    history_.volume = line.wide("volume");
    history_.block_bytes = line.number("block_bytes", 1 << 24);
    history_.atomic_bytes = line.number("atomic_bytes", uint64_t{1} << 32, history_.block_bytes);
    history_.write_cache = line.flag("write_cache", true);
    if (line.good() && (!power_of_two(history_.block_bytes) || history_.block_bytes < 512)) {
      line.fail("'block_bytes': a power of two, at least 512");
    }
    if (line.good() && !power_of_two(history_.atomic_bytes)) line.fail("'atomic_bytes': a power of two");
    begun_ = true;
  }

  void operation(JsonLine& line) {
    const std::string type = line.text("op");
    if (type == "snapshot") return snapshot(line);
    if (type == "clone") return clone(line);
    Op op;
    const auto* found = std::find(std::begin(type_names), std::end(type_names), type);
    if (found == std::end(type_names)) {
      return line.fail("'op': read, write, flush, zero, snapshot or clone, not '" + type + "'");
    }
    op.type = static_cast<OpType>(found - std::begin(type_names));
    op.id = line.number("id", UINT64_MAX, history_.ops.size());
    op.client = static_cast<uint32_t>(line.number("client", UINT32_MAX - 1));
    const bool changes = op.type == OpType::write || op.type == OpType::zero;
    const bool sent = changes && line.text("status") == "sent";
    if (sent) {
      op.id = line.number("id", UINT64_MAX);
      op.invoked_ns = static_cast<int64_t>(line.number("inv", time_max));
    } else {
      times(line, &op.invoked_ns, &op.completed_ns, &op.status);
    }
    if (op.type != OpType::flush) {
      op.lba = line.number("lba", lba_max);
      op.count_blocks = static_cast<uint32_t>(line.number("blocks", blocks_max));
      if (line.good() && op.count_blocks == 0) line.fail("'blocks': at least 1");
    }
    if (op.type == OpType::write) {
      op.sequence = line.wide("seq");
      const uint64_t client = op.client;
      op.writer = line.wide("writer", &client);
      if (line.good() && !sent) unique(line, op);
    }
    if (changes) op.fua = line.flag("fua", false);
    if (op.type == OpType::read && op.status == OpStatus::ok) {
      op.values = values(line, op.lba);
      if (line.good() && op.values.size() != op.count_blocks) {
        line.fail("'values': " + std::to_string(op.values.size()) + " of them for " + std::to_string(op.count_blocks) +
                  " blocks");
      }
    }
    const std::string volume;
    const Named named{line.text("device", &volume), line_};
    if (sent) return announced_.push_back({std::move(op), named});
    if (changes && line.has("id")) outcomes_.try_emplace({op.client, op.id}, history_.ops.size());
    add(std::move(op), named);
  }

  void times(JsonLine& line, int64_t* invoked_ns, int64_t* completed_ns, OpStatus* status) {
    *invoked_ns = static_cast<int64_t>(line.number("inv", time_max));
    *completed_ns = static_cast<int64_t>(line.number("end", time_max, static_cast<uint64_t>(never_ns)));
    const std::string text = line.text("status");
    const auto* found = std::find(std::begin(status_names), std::end(status_names), text);
    if (!line.good()) return;
    if (found == std::end(status_names)) return line.fail("'status': ok, fail or info, not '" + text + "'");
    *status = static_cast<OpStatus>(found - std::begin(status_names));
    if (*status == OpStatus::ok && *completed_ns == never_ns) line.fail("'end' is missing, and 'status' is ok");
    if (*completed_ns < *invoked_ns) line.fail("'end' is before 'inv'");
  }

  void unique(JsonLine& line, const Op& op) {
    const auto [at, fresh] = writes_.try_emplace({op.writer, op.sequence}, line_);
    if (!fresh) line.fail(twice(op, at->second));
  }
  static std::string twice(const Op& op, size_t line) {
    return "w" + std::to_string(op.writer) + "#" + std::to_string(op.sequence) +
           " is written a second time, after line " + std::to_string(line);
  }

  std::vector<BlockValue> values(JsonLine& line, uint64_t lba) {
    std::vector<BlockValue> out;
    for (const std::string& text : line.texts("values")) {
      BlockValue value;
      if (!parse_value(text, history_.volume, lba + out.size(), &value)) {
        line.fail("'values': '" + text + "' is no value");
        break;
      }
      out.push_back(value);
    }
    return out;
  }

  void snapshot(JsonLine& line) {
    const std::string volume;
    Device device;
    device.kind = DeviceKind::snapshot;
    device.name = line.text("device");
    const std::string of = line.text("of", &volume);
    times(line, &device.invoked_ns, &device.completed_ns, &device.status);
    add_device(line, device, of);
  }
  void clone(JsonLine& line) {
    Device device;
    device.kind = DeviceKind::clone;
    device.name = line.text("device");
    add_device(line, device, line.text("of"));
  }
  void add_device(JsonLine& line, const Device& device, const std::string& of) {
    if (!line.good()) return;
    if (device.name.empty()) return line.fail("'device': a name");
    if (!devices_.try_emplace(device.name, history_.devices.size()).second) {
      return line.fail("'device': '" + device.name + "' is there already");
    }
    history_.devices.push_back(device);
    parents_.push_back({of, line_});
  }

  void event(JsonLine& line) {
    const std::string what = line.text("event");
    const auto at_ns = static_cast<int64_t>(line.number("at", time_max));
    if (what == "power_cut") {
      history_.power_cuts.push_back({at_ns});
    } else if (what == "healed") {
      if (history_.healed_ns != never_ns) return line.fail("'healed' stands there twice");
      history_.healed_ns = at_ns;
      history_.bound_ns = static_cast<int64_t>(line.number("io_bound", time_max / 4, uint64_t(history_.bound_ns)));
      history_.clean_bound_ns = static_cast<int64_t>(line.number("clean_bound", time_max, uint64_t(never_ns)));
    } else if (what == "clean") {
      history_.clean_ns = at_ns;
    } else {
      line.fail("'event': power_cut, healed or clean, not '" + what + "'");
    }
  }

  void image(JsonLine& line) {
    ReplicaImage image;
    image.name = line.text("image");
    image.leg = line.number("leg", UINT32_MAX);
    image.first_block = line.number("first", lba_max, uint64_t{0});
    // The stamps say the volume's block, not the leg's: they are compared with one another only.
    for (const std::string& text : line.texts("values")) {
      BlockValue value;
      if (!parse_value(text, history_.volume, 0, &value)) return line.fail("'values': '" + text + "' is no value");
      image.values.push_back(value);
    }
    history_.replicas.push_back(std::move(image));
  }

  // What was put down before it was sent: the line that says how it ended takes its place; without one, nobody knows.
  // "" or what is wrong.
  std::string resolve_announced() {
    for (Announced& announced : announced_) {
      const std::string where = "line " + std::to_string(announced.named.line) + ": ";
      const auto found = outcomes_.find({announced.op.client, announced.op.id});
      if (found != outcomes_.end()) {
        const Named& outcome = named_[found->second];
        if (is_of(announced, history_.ops[found->second], outcome)) continue;
        return where + "'id': line " + std::to_string(outcome.line) + " is about something else";
      }
      const Op& op = announced.op;
      if (op.type == OpType::write) {
        const auto [at, fresh] = writes_.try_emplace({op.writer, op.sequence}, announced.named.line);
        if (!fresh) return where + twice(op, at->second);
      }
      outcomes_.emplace(std::pair(op.client, op.id), history_.ops.size());
      add(std::move(announced.op), announced.named);
    }
    return "";
  }

  // Names, once all are known. "" or what is wrong.
  std::string resolve() {
    if (std::string bad = resolve_announced(); !bad.empty()) return bad;
    for (size_t i = 0; i < parents_.size(); i++) {
      Device& device = history_.devices[i + 1];
      const auto& [name, line] = parents_[i];
      const auto found = devices_.find(name);
      const std::string where = "line " + std::to_string(line) + ": 'of': ";
      if (found == devices_.end()) return where + "'" + name + "' is no device";
      device.parent = static_cast<uint32_t>(found->second);
      const bool of_snapshot = history_.devices[device.parent].kind == DeviceKind::snapshot;
      if (of_snapshot != (device.kind == DeviceKind::clone)) {
        return where + (of_snapshot ? "'" + name + "' is a snapshot itself" : "'" + name + "' is no snapshot");
      }
    }
    for (size_t i = 1; i < history_.devices.size(); i++) {
      size_t steps = 0;
      for (size_t at = i; at != 0; at = history_.devices[at].parent) {
        if (++steps <= history_.devices.size()) continue;
        return "line " + std::to_string(parents_[i - 1].line) + ": 'of': '" + history_.devices[i].name +
               "' descends from itself";
      }
    }
    for (size_t i = 0; i < history_.ops.size(); i++) {
      const auto found = devices_.find(named_[i].name);
      if (found == devices_.end()) {
        return "line " + std::to_string(named_[i].line) + ": 'device': '" + named_[i].name + "' is no device";
      }
      history_.ops[i].device = static_cast<uint32_t>(found->second);
    }
    std::sort(history_.power_cuts.begin(), history_.power_cuts.end(),
              [](const PowerCut& one, const PowerCut& other) { return one.at_ns < other.at_ns; });
    return "";
  }

  // Of an operation: its device.
  struct Named {
    std::string name;
    size_t line;
  };
  struct Announced {
    Op op;
    Named named;
  };
  static bool is_of(const Announced& announced, const Op& outcome, const Named& named) {
    const Op& op = announced.op;
    const auto about = [](const Op& of) {
      return std::tuple(of.type, of.lba, of.count_blocks, of.writer, of.sequence, of.fua);
    };
    return about(op) == about(outcome) && announced.named.name == named.name && op.invoked_ns <= outcome.invoked_ns;
  }
  void add(Op op, const Named& named) {
    named_.push_back(named);
    history_.ops.push_back(std::move(op));
  }

  std::istream& in_;
  Lines lines_;
  const HistoryReading reading_;
  size_t line_ = 0;
  bool begun_ = false;
  History history_;
  std::map<std::string, size_t> devices_{{"", 0}};
  std::vector<Named> parents_;  // of all devices but the first
  std::vector<Named> named_;    // each operation's device
  std::vector<Announced> announced_;
  std::map<std::pair<uint32_t, uint64_t>, size_t> outcomes_;  // (client, id) of a write or zeroing to its operation
  std::map<std::pair<uint64_t, uint64_t>, size_t> writes_;
};

std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof(escape), "\\u%04x", c);
      out += escape;
      continue;
    }
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + "\"";
}

void write_values(const std::vector<BlockValue>& values, uint64_t volume, uint64_t lba, bool places,
                  std::ostream& out) {
  out << ",\"values\":[";
  for (size_t i = 0; i < values.size(); i++) {
    if (i > 0) out << ',';
    out << '"' << value_text(values[i], volume, places ? lba + i : 0) << '"';
  }
  out << ']';
}

void write_op(const History& history, const Op& op, const char* status, std::ostream& out) {
  out << "{\"op\":\"" << type_names[static_cast<size_t>(op.type)] << "\",\"id\":" << op.id
      << ",\"client\":" << op.client;
  if (op.device != 0) out << ",\"device\":" << quoted(history.devices[op.device].name);
  if (op.type != OpType::flush) out << ",\"lba\":" << op.lba << ",\"blocks\":" << op.count_blocks;
  out << ",\"inv\":" << op.invoked_ns;
  if (op.completed_ns != never_ns) out << ",\"end\":" << op.completed_ns;
  out << ",\"status\":\"" << status << '"';
  // As strings: 64 bits do not fit the numbers of every reader.
  if (op.type == OpType::write) out << ",\"writer\":\"" << op.writer << "\",\"seq\":\"" << op.sequence << '"';
  if (op.fua) out << ",\"fua\":true";
  if (op.type == OpType::read && op.status == OpStatus::ok) {
    write_values(op.values, history.volume, op.lba, true, out);
  }
  out << "}\n";
}

bool take_number(const char*& at, const char* end, uint64_t* out) {
  const auto [next, error] = std::from_chars(at, end, *out);
  if (error != std::errc()) return false;
  at = next;
  return true;
}

}  // namespace

Result<History> read_history(std::istream& in, const HistoryReading& reading) {
  return Reader(in, reading).run();
}

void write_head(const History& history, std::ostream& out) {
  out << "{\"history\":1,\"volume\":\"" << history.volume << "\",\"block_bytes\":" << history.block_bytes
      << ",\"atomic_bytes\":" << history.atomic_bytes << ",\"write_cache\":" << (history.write_cache ? "true" : "false")
      << "}\n";
}

void write_operation(const History& history, const Op& op, std::ostream& out) {
  write_op(history, op, status_names[static_cast<size_t>(op.status)], out);
}

void write_announcement(const History& history, const Op& op, std::ostream& out) {
  write_op(history, op, "sent", out);
}

void write_history(const History& history, std::ostream& out) {
  write_head(history, out);
  for (size_t i = 1; i < history.devices.size(); i++) {
    const Device& device = history.devices[i];
    const bool snapshot = device.kind == DeviceKind::snapshot;
    out << "{\"op\":\"" << (snapshot ? "snapshot" : "clone") << "\",\"device\":" << quoted(device.name);
    if (device.parent != 0) out << ",\"of\":" << quoted(history.devices[device.parent].name);
    if (snapshot) {
      out << ",\"inv\":" << device.invoked_ns;
      if (device.completed_ns != never_ns) out << ",\"end\":" << device.completed_ns;
      out << ",\"status\":\"" << status_names[static_cast<size_t>(device.status)] << '"';
    }
    out << "}\n";
  }
  for (const Op& op : history.ops)
    write_operation(history, op, out);
  for (const PowerCut& cut : history.power_cuts)
    out << "{\"event\":\"power_cut\",\"at\":" << cut.at_ns << "}\n";
  if (history.healed_ns != never_ns) {
    out << "{\"event\":\"healed\",\"at\":" << history.healed_ns << ",\"io_bound\":" << history.bound_ns;
    if (history.clean_bound_ns != never_ns) out << ",\"clean_bound\":" << history.clean_bound_ns;
    out << "}\n";
  }
  if (history.clean_ns != never_ns) out << "{\"event\":\"clean\",\"at\":" << history.clean_ns << "}\n";
  for (const ReplicaImage& image : history.replicas) {
    out << "{\"image\":" << quoted(image.name) << ",\"leg\":" << image.leg << ",\"first\":" << image.first_block;
    write_values(image.values, history.volume, 0, false, out);
    out << "}\n";
  }
}

std::string value_text(const BlockValue& value, uint64_t volume, uint64_t lba) {
  if (value.kind == BlockKind::torn) return "torn";
  if (value.kind != BlockKind::stamp) return value.to_string();
  std::string text = value.to_string();
  const bool foreign = value.stamp.volume != volume;
  if (foreign || value.stamp.lba != lba) text += "@" + std::to_string(value.stamp.lba);
  if (foreign) text += ":" + std::to_string(value.stamp.volume);
  return text;
}

bool parse_value(const std::string& text, uint64_t volume, uint64_t lba, BlockValue* out) {
  *out = {};
  if (text == "zero") return true;
  out->kind = BlockKind::torn;
  if (text == "torn") return true;
  out->kind = BlockKind::garbage;
  if (text == "garbage") return true;
  out->kind = BlockKind::stamp;
  out->stamp = {volume, lba, 0, 0};
  const char* at = text.data();
  const char* const end = at + text.size();
  const auto sign = [&](char wanted) { return at != end && *at++ == wanted; };
  if (!sign('w') || !take_number(at, end, &out->stamp.writer)) return false;
  if (!sign('#') || !take_number(at, end, &out->stamp.sequence)) return false;
  if (at == end) return true;
  if (!sign('@') || !take_number(at, end, &out->stamp.lba)) return false;
  if (at == end) return true;
  return sign(':') && take_number(at, end, &out->stamp.volume) && at == end;
}

}  // namespace basalt::check
