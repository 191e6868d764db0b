#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# npm run fuzz [-- SECONDS [NAME...]]: runs the libFuzzer targets (<name>_fuzz.cc), each for SECONDS (default 60).
# Inputs that found something new stay in .cache/fuzz/<name>; the committed corpus is test/fuzz/<name>.
set -euo pipefail
script_name='fuzz'
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
seconds="${1:-60}"
[[ "$seconds" =~ ^[1-9][0-9]*$ ]] || die "'$seconds' is not a number of seconds: npm run fuzz -- 60 [NAME...]"
names=("${@:2}")
bash scripts/setup.sh fuzz --no-build

if ! logged "$cache/logs/fuzz-build.log" cmake -G Ninja -B build/fuzz -S . -DBASALT_FUZZ=ON -DCMAKE_C_COMPILER=clang-14 \
  -DCMAKE_CXX_COMPILER=clang++-14 -DCMAKE_CXX_COMPILER_LAUNCHER=ccache ||
  ! logged "$cache/logs/fuzz-build.log" ninja -C build/fuzz fuzzers; then
  grep -E -A 6 '[Ee]rror|FAILED|undefined reference' "$cache/logs/fuzz-build.log" | head -n 60 >&2
  die "the fuzzers did not build (all of it in .cache/logs/fuzz-build.log)"
fi
if ((${#names[@]} == 0)); then
  mapfile -t names < <(find native -name '*_fuzz.cc' -printf '%f\n' | sed 's/_fuzz\.cc$//' | sort)
fi
((${#names[@]} > 0)) || die "there is no *_fuzz.cc in native/"

passed=0 failed=0
for name in "${names[@]}"; do
  [[ -x "build/fuzz/fuzz_$name" ]] || die "there is no fuzzer '$name'"
  mkdir -p "$cache/fuzz/$name"
  corpora=("$cache/fuzz/$name")
  if [[ -d "test/fuzz/$name" ]]; then corpora+=("test/fuzz/$name"); fi
  say "$name for $seconds s"
  if "build/fuzz/fuzz_$name" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 \
    -artifact_prefix="$cache/fuzz/$name-" "${corpora[@]}" >"$cache/logs/fuzz-$name.log" 2>&1; then
    passed=$((passed + 1))
    grep -E 'stat::number_of_executed_units' "$cache/logs/fuzz-$name.log" || true
  else
    failed=$((failed + 1))
    tail -n 60 "$cache/logs/fuzz-$name.log"
  fi
done
echo "$passed passed, $failed failed"
((failed == 0))
