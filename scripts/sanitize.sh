#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# npm run sanitize [-- SECTION...]: the tests of native code with the compiler's checks built in. Sections, in this order
# by default:
#   asan    GoogleTest suites under AddressSanitizer, LeakSanitizer and UndefinedBehaviorSanitizer
#   addon   the addon under the same in Node.js: the suites of src/engine/native, and a program that embeds Basalt
#   tsan    GoogleTest suites under ThreadSanitizer; random tests, cuts and kept inputs, which one thread plays, are fewer,
#           and that random runs find planted bugs is left to the others
# How many rounds a sanitizer has: native/testing/rounds.h.
# The last line is `N passed, N failed[, N skipped]`; the exit code is 0 when something passed and nothing failed.
set -euo pipefail
script_name='sanitize'
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
source "$root/scripts/lib/native-build.sh"

sections=(asan addon tsan)
if (($# > 0)); then sections=("$@"); fi
for section in "${sections[@]}"; do
  case "$section" in
    asan | addon | tsan) ;;
    *) die "unknown section '$section': expected asan, addon or tsan" ;;
  esac
done

if ! bash scripts/setup.sh test; then
  say "set-up failed (messages above): no test has run"
  echo "0 passed, 1 failed"
  exit 1
fi
source "$root/scripts/lib/sections.sh"

run_asan() {
  local started=$SECONDS
  if native_build build/asan tests -DBASALT_ASAN=ON; then
    say "native under AddressSanitizer: running"
    ASAN_OPTIONS="strict_string_checks=1:detect_stack_use_after_return=1:check_initialization_order=1" \
      UBSAN_OPTIONS="print_stacktrace=1" \
      node scripts/lib/run-native-tests.mjs build/asan "$results/asan" || true
  fi
  count asan "$results/asan" $((SECONDS - started))
}

# Node.js itself is not instrumented, so the library is loaded first. Test files run in threads of one process, which
# ends as processes do: vitest kills worker processes, and leaks are looked for at an orderly end. What the sanitizer
# says, of the daemons that the tests start too, goes to files, each of which is a failure. Node.js's own handler of
# invalid accesses is not let in (handle_segv=2): it would end the process without a word.
run_addon() {
  local started=$SECONDS reports="$results/addon-reports" headers p f s
  mkdir -p "$reports"
  headers="$(node -p "require('node-api-headers').include_dir")"
  if native_build build/asan basalt_native -DBASALT_ASAN=ON -DCMAKE_JS_INC="$headers"; then
    say "addon under AddressSanitizer: running"
    BASALT_ADDON="$root/build/asan/Release/basalt_native.node" \
      LD_PRELOAD="$(g++ -print-file-name=libasan.so)" \
      ASAN_OPTIONS="handle_segv=2:detect_leaks=1:strict_string_checks=1:log_path=$reports/asan" \
      LSAN_OPTIONS="suppressions=$root/test/sanitizers/leaks.txt:print_suppressions=0" \
      UBSAN_OPTIONS="print_stacktrace=1:log_path=$reports/ubsan" \
      node node_modules/vitest/vitest.mjs run --pool=threads --reporter=default --reporter=json --outputFile="$results/addon.json" \
      src/engine/native test/integration/embedding.test.ts || true
    node scripts/lib/vitest-counts.mjs "$results/addon.json" "$results/addon"
    read -r p f s <"$results/addon"
    for report in "$reports"/*; do
      [[ -e "$report" ]] || continue
      head -n 200 "$report"
      f=$((f + 1))
    done
    echo "$p $f $s" >"$results/addon"
  fi
  count addon "$results/addon" $((SECONDS - started))
}

# tsan_suites OPTIONS PROGRAM...: adds to the counts.
tsan_suites() {
  local options="halt_on_error=1:second_deadlock_stack=1$1" plain=() one=(0 0 0) all=(0 0 0) i
  shift
  # The library's shadow memory has no room beside the layouts that newer kernels draw.
  if setarch -R true 2>/dev/null; then plain=(setarch -R); fi
  TSAN_OPTIONS="$options" "${plain[@]}" \
    node scripts/lib/run-native-tests.mjs build/tsan "$results/tsan-some" "$@" || true
  if [[ -s "$results/tsan" ]]; then read -ra all <"$results/tsan"; fi
  if [[ -s "$results/tsan-some" ]]; then read -ra one <"$results/tsan-some"; else one=(0 1 0); fi
  for i in 0 1 2; do all[i]=$((all[i] + one[i])); done
  echo "${all[*]}" >"$results/tsan"
  rm -f "$results/tsan-some"
}

# What one thread copies and clears has no other that it could race with, and is most of the time.
run_tsan() {
  local started=$SECONDS threaded others
  local left_out='*PlantedBugs*:*EachPlantedBug*:*PlantedBugRuns*:DataRun.*AreCaught:LvolChecksum.the_bugs_*'
  if native_build build/tsan tests -DBASALT_TSAN=ON; then
    say "native under ThreadSanitizer: running"
    echo "  left out: $left_out"
    export GTEST_FILTER="-$left_out"
    mapfile -t threaded < <(node scripts/lib/threaded-tests.mjs)
    mapfile -t others < <(node scripts/lib/threaded-tests.mjs --others)
    ((${#threaded[@]} > 0 && ${#others[@]} > 0)) || die "test programs with and without threads were not told apart"
    tsan_suites ":ignore_interceptors_accesses=1" "${others[@]}"
    tsan_suites "" "${threaded[@]}"
    unset GTEST_FILTER
  fi
  count tsan "$results/tsan" $((SECONDS - started))
}

for section in "${sections[@]}"; do
  "run_$section"
done
print_summary
