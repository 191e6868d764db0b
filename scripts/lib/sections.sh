# SPDX-License-Identifier: Apache-2.0
# For a script that runs tests in sections and adds them up; source it after common.sh. Defines $results, a folder that
# goes when the script ends; a script that has more to clean up calls remove_results from a trap of its own.
# shellcheck shell=bash

results="$(mktemp -d "${TMPDIR:-/tmp}/basalt-results.XXXXXX")"
remove_results() { rm -rf "$results"; }
trap remove_results EXIT
passed=0 failed=0 skipped=0
summary=()

# count SECTION RESULT-FILE SECONDS: the file holds `passed failed skipped`.
count() {
  local p=0 f=1 s=0
  if [[ -s "$2" ]]; then read -r p f s <"$2"; fi
  # A section that ran nothing has failed.
  if ((p + f + s == 0)); then f=1; fi
  passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
  summary+=("$(printf '%-22s %5d passed %4d failed %4d skipped  %4d s' "$1" "$p" "$f" "$s" "$3")")
}

# vitest_counts NAME REPORT SECONDS: count() of vitest's JSON report.
vitest_counts() {
  node scripts/lib/vitest-counts.mjs "$2" "$results/counts"
  count "$1" "$results/counts" "$3"
  rm -f "$results/counts"
}

# The script's last words; false when something failed or nothing passed.
print_summary() {
  local line="$passed passed, $failed failed"
  if ((skipped > 0)); then line+=", $skipped skipped"; fi
  echo
  printf '%s\n' ${summary[@]+"${summary[@]}"}
  echo "$line"
  ((failed == 0 && passed > 0))
}
