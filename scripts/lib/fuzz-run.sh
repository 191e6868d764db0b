#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# fuzz-run.sh FOLDER CORPORA CACHE SECONDS KEEP NAME...: runs the fuzz targets <FOLDER>/fuzz_<NAME>, each so many
# seconds; with KEEP = true adds what they found to <CORPORA>/<NAME>. What scripts/fuzz.sh says holds here.
set -euo pipefail
# shellcheck disable=SC2034
script_name='fuzz'
# shellcheck source=scripts/lib/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"
folder="$1" corpora="$2" cache="$3" seconds="$4" keep="$5"
shift 5
names=("$@")
crashes="$cache/fuzz/crashes"
mkdir -p "$cache/logs"
# shellcheck source=scripts/lib/fuzz-program.sh
source scripts/lib/fuzz-program.sh
passed=0 failed=0

# Smaller, for as long as it stays a crash; says how to see it again.
save_crash() {
  local name="$1" found="$2" small
  small="$crashes/$name-$(basename "$found")"
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
  mkdir -p "$cache/fuzz/$name" "$crashes" "$corpora/$name"
  write_seeds "$name" "$cache/fuzz/$name"
  if $interrupted; then return; fi
  run "$folder/fuzz_$name" -max_total_time="$seconds" -timeout=25 -rss_limit_mb=2560 -print_final_stats=1 \
    -artifact_prefix="$cache/fuzz/new-$name-" "$cache/fuzz/$name" "$corpora/$name" >"$log" 2>&1 || status=$?
  execs="$(sed -n 's/^stat::number_of_executed_units: *//p' "$log" | tail -n 1)"
  edges="$(grep -oE 'cov: [0-9]+' "$log" | tail -n 1 | cut -d ' ' -f 2 || true)"
  inputs="$(find "$cache/fuzz/$name" -type f | wc -l)"
  printf '%-18s %9s execs  %6s edges  %5s inputs' "$name" "${execs:-0}" "${edges:-0}" "$inputs"
  # Slow is not wrong; on a busy machine anything is.
  rm -f "$cache/fuzz/new-$name-slow-unit-"*
  if $interrupted; then
    rm -f "$cache/fuzz/new-$name-"*
    echo '  interrupted'
    return
  fi
  if ((status == 0)); then
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

# The smallest set of inputs that covers what all of them cover, beyond the seeds, becomes the committed corpus.
keep_one() {
  local name="$1" merged count
  merged="$(mktemp -d "$cache/fuzz/merge.XXXXXX")"
  write_seeds "$name" "$merged"
  find "$corpora/$name" -type f -regextype posix-extended ! -regex '.*/[0-9a-f]{40}' -exec cp -t "$merged" {} +
  if run "$folder/fuzz_$name" -set_cover_merge=1 -use_counters=0 -rss_limit_mb=2560 "$merged" "$corpora/$name" \
    "$cache/fuzz/$name" >"$cache/logs/fuzz-$name-merge.log" 2>&1 && ! $interrupted; then
    count="$(find "$merged" -type f ! -name 'seed-*' | wc -l)"
    # A corpus of nothing cannot be committed.
    if ((count == 0)); then cp "$(find "$merged" -type f -size +0 | sort | sed -n 1p)" "$merged/regression-none"; fi
    rm -f "$merged/seed-"*
    rm -rf "${corpora:?}/$name"
    mv "$merged" "$corpora/$name"
    chmod 755 "$corpora/$name"
    say "$name: $count inputs kept, $(find "$corpora/$name" -type f -printf '%s\n' | awk '{ n += $1 } END { print n + 0 }') bytes"
  else
    rm -rf "$merged"
    $interrupted || say "$name: nothing was merged (.cache/logs/fuzz-$name-merge.log)"
  fi
}

for name in "${names[@]}"; do
  if $interrupted; then break; fi
  fuzz_one "$name"
done
if $keep; then
  for name in "${names[@]}"; do
    if $interrupted; then break; fi
    keep_one "$name"
  done
fi
echo "$passed passed, $failed failed"
if $interrupted; then exit 130; fi
((failed == 0 && passed > 0))
