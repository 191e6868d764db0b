#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# npm test [-- SECTION...]: all tests that need no guest machine. Sections, in this order by default:
#   tidy          formatting, lints, layers
#   native        GoogleTest suites (under sanitizers: npm run sanitize)
#   unprivileged  only when this is root: the native suites that touch the machine again, as user nobody (the others run in
#                 simulated worlds)
#   vitest        TypeScript suites, with real processes, etcd and NBD clients. When this is root: all of them as user
#                 nobody, because root's rights hide limits, and those that touch the machine as root, too
# The last line is `N passed, N failed[, N skipped]`; the exit code is 0 when something passed and nothing failed.
set -euo pipefail
script_name='test'
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
source "$root/scripts/lib/native-build.sh"

sections=(tidy native unprivileged vitest)
if (($# > 0)); then sections=("$@"); fi
for section in "${sections[@]}"; do
  case "$section" in
    tidy | native | unprivileged | vitest) ;;
    *) die "unknown section '$section': expected tidy, native, unprivileged or vitest" ;;
  esac
done

if ! bash scripts/setup.sh test; then
  say "set-up failed (messages above): no test has run"
  echo "0 passed, 1 failed"
  exit 1
fi

source "$root/scripts/lib/sections.sh"
copy="" tidy_pid=""
cleanup() {
  if [[ -n "$tidy_pid" ]]; then kill "$tidy_pid" 2>/dev/null || true; fi
  remove_results
  rm -rf ${copy:+"$copy"}
}
trap cleanup EXIT

# Beside the section that follows: its lints have one thread.
run_tidy() {
  say "tidy: running, beside what follows"
  node --import tsx test/tidy/main.ts >"$results/tidy.txt" &
  tidy_pid=$! tidy_started=$SECONDS
}

finish_tidy() {
  local p f
  [[ -n "$tidy_pid" ]] || return 0
  wait "$tidy_pid" || true
  tidy_pid=""
  cat "$results/tidy.txt"
  if [[ "$(tail -n 1 "$results/tidy.txt")" =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
    p="${BASH_REMATCH[1]}" f="${BASH_REMATCH[2]}"
    echo "$p $f 0" >"$results/tidy"
  fi
  count tidy "$results/tidy" $((SECONDS - tidy_started))
}

run_native() {
  local started=$SECONDS
  if plain_build tests; then
    finish_tidy
    say "native: running"
    node scripts/lib/run-native-tests.mjs build/release "$results/native" || true
  fi
  count native "$results/native" $((SECONDS - started))
}

# As nobody, in a copy that belongs to nobody: root's rights hide limits on files, locked memory and ports.
as_nobody() {
  (
    cd "$copy"
    ulimit -l 8192 2>/dev/null || true
    ulimit -Sn 1024
    exec setpriv --reuid=65534 --regid=65534 --clear-groups --no-new-privs --inh-caps=-all \
      env HOME="$copy/home" TMPDIR="$copy/tmp" PATH="$copy/bin:$PATH" "$@"
  )
}

make_copy() {
  copy="$(mktemp -d /var/tmp/basalt.XXXXXX)"
  tar --exclude=./.git --exclude=./.cache --exclude=./build -cf - . | tar -xf - -C "$copy"
  mkdir -p "$copy"/{bin,home,tmp,results,.cache/logs,build/Release,build/release}
  cp build/Release/basalt_native.node "$copy/build/Release/"
  find build -maxdepth 1 -type f -exec cp {} "$copy/build/" \;
  if [[ -d build/release ]]; then find build/release -maxdepth 1 -type f -perm -u+x -exec cp {} "$copy/build/release/" \;; fi
  # A Node.js in root's home is out of reach for others.
  cp "$(readlink -f "$(command -v node)")" "$copy/bin/node"
  chown -R 65534:65534 "$copy"
}

# Not beside vitest: what the kernel lets a user lock in memory is one budget.
run_unprivileged() {
  local started=$SECONDS
  local touching=(test_env_linux test_memory test_bdev_nvmf test_nvmf_transport test_engine_rpc)
  if [[ "$(id -u)" != 0 ]]; then
    say "unprivileged: this is user $(id -un) already, so all suites run without root's rights"
    return
  fi
  say "unprivileged: native suites again as user nobody"
  plain_build tests || true
  [[ -n "$copy" ]] || make_copy
  as_nobody node scripts/lib/run-native-tests.mjs build/release results/native "${touching[@]}" || true
  count "native, as nobody" "$copy/results/native" $((SECONDS - started))
}

run_vitest() {
  local started=$SECONDS vitest=(node node_modules/vitest/vitest.mjs run --reporter=default --reporter=json)
  local touching=(src/engine src/cluster.test.ts test/nbd)
  if [[ "$(id -u)" != 0 ]]; then
    say "vitest: running"
    "${vitest[@]}" --outputFile="$results/vitest.json" || true
    vitest_counts vitest "$results/vitest.json" $((SECONDS - started))
    return
  fi
  say "vitest: running as user nobody"
  [[ -n "$copy" ]] || make_copy
  as_nobody "${vitest[@]}" --outputFile="$copy/results/vitest.json" || true
  vitest_counts "vitest, as nobody" "$copy/results/vitest.json" $((SECONDS - started))
  started=$SECONDS
  say "vitest: suites that touch the machine, as root"
  "${vitest[@]}" --outputFile="$results/vitest.json" "${touching[@]}" || true
  vitest_counts "vitest, as root" "$results/vitest.json" $((SECONDS - started))
}

for section in "${sections[@]}"; do
  "run_$section"
done
finish_tidy
print_summary
