#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# npm run fuzz -- [--seconds N] [--target NAME]... [--coverage] [--keep]
#   --seconds N     how long each target runs (default 60)
#   --target NAME   only this one (<NAME>_fuzz.cc; may be given again); default: all
#   --coverage      runs nothing new: replays the seeds and the committed corpora and prints the line coverage of the
#                   parsers; fails when one is below its floor (both are in test/fuzz/parsers.txt)
#   --keep          afterwards, adds what was found to the committed corpora, as few and as small inputs as cover it all
#
# New inputs are kept in .cache/fuzz/<NAME>; the committed corpus is test/fuzz/corpus/<NAME>, which the GoogleTest
# suites replay. There an input that is not named by its hash is a regression: --keep leaves it. A crash is made small
# and saved in .cache/fuzz/crashes, with the command that replays it. Ctrl-C ends it with exit code 130: what was found
# until then is in .cache/fuzz, the committed corpora are as they were.
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

folder=build/fuzz
# Whole units at once, as in every build from nothing. Half the time to compile; the line tables are enough for reports.
options=(-DBASALT_FUZZ=ON -DBASALT_ONCE=ON -DCMAKE_C_COMPILER=clang-14 -DCMAKE_CXX_COMPILER=clang++-14
  -DCMAKE_BUILD_TYPE=Fuzz '-DCMAKE_CXX_FLAGS_FUZZ=-O1 -gline-tables-only')
if $coverage; then
  folder=build/fuzz-cov
  options+=(-DBASALT_COVERAGE=ON)
fi
log="$cache/logs/$(basename "$folder").log"
say "building $folder (output in .cache/logs/$(basename "$log"))"
if ! logged "$log" cmake -G Ninja -B "$folder" -S . -DCMAKE_CXX_COMPILER_LAUNCHER=ccache "${options[@]}" ||
  ! logged "$log" ninja -C "$folder" "${names[@]/#/fuzz_}"; then
  grep -E -A 6 '[Ee]rror|FAILED|undefined reference' "$log" | head -n 60 >&2
  die "the fuzzers did not build"
fi

if $coverage; then
  exec bash scripts/lib/fuzz-coverage.sh "$folder" test/fuzz/corpus "$cache" "$((${#names[@]} < ${#all[@]}))" "${names[@]}"
fi
exec bash scripts/lib/fuzz-run.sh "$folder" test/fuzz/corpus "$cache" "$seconds" "$keep" "${names[@]}"
