# SPDX-License-Identifier: Apache-2.0
# Shared by the scripts here; source it after `set -euo pipefail`. Defines $root (the checkout) and changes into it.
# shellcheck shell=bash

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)"
cd "$root" || exit 1
# Debian keeps mkfs, e2fsck and nvme outside an ordinary user's PATH.
export PATH="$PATH:/usr/sbin:/sbin:/usr/local/sbin"
cache="$root/.cache"
mkdir -p "$cache/logs"

say() { printf '[%s] %s\n' "${script_name:-basalt}" "$*"; }
die() {
  printf '[%s] error: %s\n' "${script_name:-basalt}" "$*" >&2
  exit 1
}

# logged LOG COMMAND...: runs it with its output in LOG, says every 10 s how far it is, returns its exit status.
logged() {
  local log="$1" started=$SECONDS pid status=0
  shift
  "$@" >"$log" 2>&1 </dev/null &
  pid=$!
  # shellcheck disable=SC2064
  trap "kill $pid 2>/dev/null || true; exit 130" INT TERM
  local next=10
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    if ((SECONDS - started >= next)); then
      say "  ... $((SECONDS - started)) s $(tail -n 1 "$log" | tr -d '\r' | cut -c 1-100)"
      next=$((next + 10))
    fi
  done
  wait "$pid" || status=$?
  trap - INT TERM
  return "$status"
}
