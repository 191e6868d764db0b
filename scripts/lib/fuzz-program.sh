# SPDX-License-Identifier: Apache-2.0
# Runs fuzz targets so that they end when the script is told to; source it after common.sh with $folder (the programs)
# and $cache set. Defines $interrupted.
# shellcheck shell=bash

: "${folder:?}" "${cache:?}"
child="" interrupted=false
stop() {
  interrupted=true
  if [[ -n "$child" ]]; then kill -TERM -- "-$child" 2>/dev/null || true; fi
}
trap stop INT TERM HUP

# run COMMAND...: in a process group of its own, because libFuzzer starts processes itself (-merge, -minimize_crash),
# and they are all to end when this script is told to; its exit status.
run() {
  local status=0
  if $interrupted; then return 130; fi
  setsid "$@" </dev/null &
  child=$!
  wait "$child" || status=$?
  # Interrupted, `wait` ends before the processes do, and the signal may have come before the group was there.
  while $interrupted && kill -0 "$child" 2>/dev/null; do
    kill -TERM -- "-$child" 2>/dev/null || true
    sleep 0.1
  done
  while $interrupted && kill -TERM -- "-$child" 2>/dev/null; do sleep 0.1; done
  child=""
  return "$status"
}

write_seeds() { # NAME FOLDER
  mkdir -p "$2"
  BASALT_FUZZ_SEEDS="$2" run "$folder/fuzz_$1" >"$cache/logs/fuzz-$1-seeds.log" 2>&1 ||
    $interrupted || die "$1: has no seeds (.cache/logs/fuzz-$1-seeds.log)"
}
