// SPDX-License-Identifier: Apache-2.0
// What the codec costs per PDU, for a stream of 4 KiB writes as a target sees it and of read answers as a host does.
#include <benchmark/benchmark.h>

#include <vector>

#include "nvmf/pdu/decoder.h"
#include "nvmf/pdu/encoder.h"

namespace {

using namespace basalt;
using namespace basalt::nvmf;

constexpr size_t pdu_count = 32;
constexpr uint32_t data_bytes = 4096;

pdu::Digests digests_of(const benchmark::State& state) {
  pdu::Digests digests;
  digests.header = digests.data = state.range(0) != 0;
  return digests;
}

void append(std::vector<uint8_t>& stream, const uint8_t* header, size_t header_bytes, pdu::Digests digests) {
  static const std::vector<uint8_t> data(data_bytes, 'd');
  stream.insert(stream.end(), header, header + header_bytes);
  stream.insert(stream.end(), data.begin(), data.end());
  if (!digests.data) return;
  const Iovec piece{const_cast<uint8_t*>(data.data()), data.size()};
  const uint32_t digest = pdu::data_digest(0, &piece, 1);
  const auto* bytes = reinterpret_cast<const uint8_t*>(&digest);
  stream.insert(stream.end(), bytes, bytes + sizeof(digest));
}

void initialize(pdu::Decoder& decoder, pdu::Role role, pdu::Digests digests) {
  uint8_t bytes[pdu::encoded_header_bytes_max];
  const size_t count_bytes = role == pdu::Role::target ? pdu::encode_ic_request(bytes, digests, 0)
                                                       : pdu::encode_ic_response(bytes, digests, 1 << 20);
  std::span<const uint8_t> input(bytes, count_bytes);
  while (decoder.push(input) != pdu::Event::complete) {
  }
  decoder.set_digests(digests);
}

void decode(benchmark::State& state, pdu::Role role, const std::vector<uint8_t>& stream) {
  pdu::Decoder decoder(role, {});
  initialize(decoder, role, digests_of(state));
  size_t completed = 0;
  for (auto _ : state) {
    std::span<const uint8_t> input(stream);
    for (pdu::Event event; (event = decoder.push(input)) != pdu::Event::need_more;) {
      if (event == pdu::Event::failed) return state.SkipWithError("the stream is refused");
      if (event == pdu::Event::complete) completed++;
    }
  }
  if (completed != state.iterations() * pdu_count) return state.SkipWithError("PDUs are missing");
  state.SetItemsProcessed(static_cast<int64_t>(completed));
}

void decode_writes(benchmark::State& state) {
  nvme::Command command{};
  command.opcode = static_cast<uint8_t>(nvme::NvmOpcode::write);
  std::vector<uint8_t> stream;
  for (size_t i = 0; i < pdu_count; i++) {
    uint8_t header[pdu::encoded_header_bytes_max];
    const size_t header_bytes = pdu::encode_capsule_command(header, digests_of(state), command, data_bytes);
    append(stream, header, header_bytes, digests_of(state));
  }
  decode(state, pdu::Role::target, stream);
}
BENCHMARK(decode_writes)->Name("pdu/decode_32_writes/digests")->Arg(0)->Arg(1);

void decode_read_answers(benchmark::State& state) {
  std::vector<uint8_t> stream;
  for (size_t i = 0; i < pdu_count; i++) {
    uint8_t header[pdu::encoded_header_bytes_max];
    pdu::DataFields fields;
    fields.length_bytes = data_bytes;
    fields.last = fields.success = true;
    append(stream, header, pdu::encode_c2h_data(header, digests_of(state), fields), digests_of(state));
  }
  decode(state, pdu::Role::host, stream);
}
BENCHMARK(decode_read_answers)->Name("pdu/decode_32_read_answers/digests")->Arg(0)->Arg(1);

void encode_command(benchmark::State& state) {
  nvme::Command command{};
  uint8_t header[pdu::encoded_header_bytes_max];
  for (auto _ : state) {
    benchmark::DoNotOptimize(pdu::encode_capsule_command(header, digests_of(state), command, 0));
    benchmark::ClobberMemory();
  }
}
BENCHMARK(encode_command)->Name("pdu/encode_command/digests")->Arg(0)->Arg(1);

}  // namespace
