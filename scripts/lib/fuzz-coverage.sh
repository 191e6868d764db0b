#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# fuzz-coverage.sh FOLDER CORPORA CACHE PARTIAL NAME...: the line coverage of the parsers by the seeds and corpora of
# these targets. PARTIAL = 1: not all targets are named.
set -euo pipefail
# shellcheck disable=SC2034
script_name='fuzz'
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
folder="$1" corpora="$2" cache="$3" partial="$4"
shift 4
names=("$@")
mkdir -p "$cache/fuzz" "$cache/logs"
# shellcheck source=scripts/lib/fuzz-program.sh
source scripts/lib/fuzz-program.sh

# Replays what `npm test` replays, and adds the targets' coverage up.
report_coverage() {
  local profiles=() objects=() name scratch
  scratch="$(mktemp -d "$cache/fuzz/coverage.XXXXXX")"
  for name in "${names[@]}"; do
    LLVM_PROFILE_FILE="$scratch/seeds.profraw" write_seeds "$name" "$scratch/$name"
    LLVM_PROFILE_FILE="$scratch/$name.profraw" run "$folder/fuzz_$name" -runs=0 -rss_limit_mb=2560 "$scratch/$name" \
      "$corpora/$name" >"$cache/logs/fuzz-$name-coverage.log" 2>&1 || break
    profiles+=("$scratch/$name.profraw")
    objects+=(-object "$folder/fuzz_$name")
  done
  if ((${#profiles[@]} < ${#names[@]})); then
    rm -rf "$scratch"
    if $interrupted; then return 130; fi
    die "$name: its corpus does not pass (.cache/logs/fuzz-$name-coverage.log)"
  fi
  llvm-profdata-14 merge -sparse "${profiles[@]}" -o "$scratch/all.profdata"
  llvm-cov-14 export -summary-only -instr-profile "$scratch/all.profdata" "${objects[@]:1}" >"$cache/fuzz/coverage.json"
  llvm-cov-14 show -instr-profile "$scratch/all.profdata" "${objects[@]:1}" >"$cache/fuzz/coverage.txt"
  rm -rf "$scratch"
  say "line by line: .cache/fuzz/coverage.txt"
  node scripts/lib/parser-coverage.mjs "$cache/fuzz/coverage.json" test/fuzz/parsers.txt "$partial"
}

report_coverage
