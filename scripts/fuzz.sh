#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# npm run fuzz -- [--seconds N] [--target NAME]... [--coverage] [--keep]
#   --seconds N     how long each target runs (default 60)
#   --target NAME   only this one (<NAME>_fuzz.cc; may be given again); default: all
#   --coverage      runs nothing new: replays the committed corpora and prints the line coverage of the parsers
#                   (test/fuzz/parsers.txt); fails below its goal
#   --keep          afterwards, adds what was found to the committed corpora, as few and as small inputs as cover it all
#
# New inputs are kept in .cache/fuzz/<NAME>; the committed corpus is test/fuzz/corpus/<NAME>, which the GoogleTest
# suites replay. A crash is made small and saved in .cache/fuzz/crashes, with the command that replays it.
# The last line is `N passed, N failed`.
set -euo pipefail
script_name='fuzz'
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"

seconds=60 coverage=false keep=false names=()
while (($# > 0)); do
  case "$1" in
    --seconds)
      seconds="${2:-}"
      [[ "$seconds" =~ ^[1-9][0-9]*$ ]] || die "--seconds: '$seconds' is not a number of seconds"
      shift 2
      ;;
    --target)
      [[ -n "${2:-}" ]] || die "--target: needs a name"
      names+=("$2")
      shift 2
      ;;
    --coverage) coverage=true && shift ;;
    --keep) keep=true && shift ;;
    *) die "unknown argument '$1': expected --seconds N, --target NAME, --coverage or --keep" ;;
  esac
done
mapfile -t all < <(find native -name '*_fuzz.cc' -printf '%f\n' | sed 's/_fuzz\.cc$//' | sort)
if ((${#names[@]} == 0)); then names=("${all[@]}"); fi
for name in "${names[@]}"; do
  [[ " ${all[*]} " == *" $name "* ]] || die "there is no target '$name'; there are: ${all[*]}"
done
bash scripts/setup.sh fuzz --no-build

corpora="$root/test/fuzz/corpus"
crashes="$cache/fuzz/crashes"
folder=build/fuzz
options=(-DBASALT_FUZZ=ON -DCMAKE_C_COMPILER=clang-14 -DCMAKE_CXX_COMPILER=clang++-14)
if $coverage; then
  folder=build/fuzz-coverage
  options+=(-DBASALT_COVERAGE=ON)
fi
log="$cache/logs/$(basename "$folder").log"
say "building $folder (output in .cache/logs/$(basename "$log"))"
if ! logged "$log" cmake -G Ninja -B "$folder" -S . -DCMAKE_CXX_COMPILER_LAUNCHER=ccache "${options[@]}" ||
  ! logged "$log" ninja -C "$folder" "${names[@]/#/fuzz_}"; then
  grep -E -A 6 '[Ee]rror|FAILED|undefined reference' "$log" | head -n 60 >&2
  die "the fuzzers did not build"
fi

passed=0 failed=0 child="" interrupted=false
stop() {
  interrupted=true
  if [[ -n "$child" ]]; then kill -INT "$child" 2>/dev/null || true; fi
}
trap stop INT TERM

# run COMMAND...: in the background, so that Ctrl-C reaches this script first; its exit status.
run() {
  local status=0
  "$@" </dev/null &
  child=$!
  wait "$child" || status=$?
  # Interrupted, `wait` ends before the program does.
  while kill -0 "$child" 2>/dev/null; do wait "$child" || status=$?; done
  child=""
  return "$status"
}

prepare() {
  local name="$1"
  mkdir -p "$cache/fuzz/$name" "$crashes" "$corpora/$name"
  BASALT_FUZZ_SEEDS="$cache/fuzz/$name" "$folder/fuzz_$name"
}

# Smaller, for as long as it stays a crash; says how to see it again.
save_crash() {
  local name="$1" found="$2" small="$crashes/$name-$(basename "$2")"
  if [[ "$(basename "$found")" == crash-* ]] && ! $interrupted; then
    run "$folder/fuzz_$name" -minimize_crash=1 -max_total_time=30 -exact_artifact_path="$small" "$found" \
      >"$cache/logs/fuzz-$name-minimize.log" 2>&1 || true
  fi
  if [[ ! -s "$small" ]]; then cp "$found" "$small"; fi
  rm -f "$found"
  say "$name: crashes on $(wc -c <"$small") bytes; see it again with"
  echo "    $folder/fuzz_$name ${small#"$root/"}"
}

fuzz_one() {
  local name="$1" log="$cache/logs/fuzz-$1.log" status=0 execs edges inputs found
  prepare "$name"
  run "$folder/fuzz_$name" -max_total_time="$seconds" -timeout=25 -rss_limit_mb=2560 -print_final_stats=1 \
    -artifact_prefix="$cache/fuzz/new-$name-" "$cache/fuzz/$name" "$corpora/$name" >"$log" 2>&1 || status=$?
  execs="$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)"
  edges="$(grep -oE 'cov: [0-9]+' "$log" | tail -n 1 | cut -d ' ' -f 2 || true)"
  inputs="$(find "$cache/fuzz/$name" -type f | wc -l)"
  printf '%-18s %9s execs  %6s edges  %5s inputs' "$name" "${execs:-0}" "${edges:-0}" "$inputs"
  if ((status == 0)) || $interrupted; then
    echo
    passed=$((passed + 1))
    return
  fi
  echo '  FAILED'
  failed=$((failed + 1))
  grep -E -A 25 '^(==[0-9]+==ERROR|.*runtime error|.*assert|.*failed)' "$log" | head -n 40 || tail -n 40 "$log"
  for found in "$cache/fuzz/new-$name-"*; do
    if [[ -f "$found" ]]; then
      mv "$found" "$cache/fuzz/${found##*/new-"$name"-}"
      save_crash "$name" "$cache/fuzz/${found##*/new-"$name"-}"
    fi
  done
}

# The smallest set of inputs that covers what all of them cover becomes the committed corpus.
keep_one() {
  local name="$1" merged
  merged="$(mktemp -d "$cache/fuzz/merge.XXXXXX")"
  if run "$folder/fuzz_$name" -merge=1 -rss_limit_mb=2560 "$merged" "$corpora/$name" "$cache/fuzz/$name" \
    >"$cache/logs/fuzz-$name-merge.log" 2>&1 && [[ -n "$(ls "$merged")" ]]; then
    rm -rf "${corpora:?}/$name"
    mv "$merged" "$corpora/$name"
    chmod 755 "$corpora/$name"
    say "$name: $(find "$corpora/$name" -type f | wc -l) inputs kept, $(du -bs "$corpora/$name" | cut -f 1) bytes"
  else
    rm -rf "$merged"
    say "$name: nothing was merged (.cache/logs/fuzz-$name-merge.log)"
  fi
}

report_coverage() {
  local profiles=() objects=() name first=""
  for name in "${names[@]}"; do
    LLVM_PROFILE_FILE="$cache/fuzz/$name.profraw" run "$folder/fuzz_$name" -runs=0 -rss_limit_mb=2560 "$corpora/$name" \
      >"$cache/logs/fuzz-$name-coverage.log" 2>&1 || die "$name: its corpus does not pass (.cache/logs/fuzz-$name-coverage.log)"
    profiles+=("$cache/fuzz/$name.profraw")
    if [[ -z "$first" ]]; then first="$folder/fuzz_$name"; else objects+=(-object "$folder/fuzz_$name"); fi
  done
  llvm-profdata-14 merge -sparse "${profiles[@]}" -o "$cache/fuzz/all.profdata"
  llvm-cov-14 export -summary-only -instr-profile "$cache/fuzz/all.profdata" "$first" "${objects[@]}" >"$cache/fuzz/coverage.json"
  node scripts/lib/parser-coverage.mjs "$cache/fuzz/coverage.json" test/fuzz/parsers.txt
}

if $coverage; then
  report_coverage
  exit
fi
for name in "${names[@]}"; do
  if $interrupted; then break; fi
  fuzz_one "$name"
done
if $keep && ! $interrupted; then
  for name in "${names[@]}"; do keep_one "$name"; done
fi
echo "$passed passed, $failed failed"
((failed == 0 && passed > 0))
