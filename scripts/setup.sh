#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Brings a clone to the point where it runs: system packages, npm packages, addon, compiled TypeScript. Does only what
# is missing, and may be interrupted anywhere and run again.
#
#   scripts/setup.sh [demo|test|e2e|fuzz|arm64] [--no-build]      default: demo
#
# The depths differ in system packages only (scripts/lib/packages.sh). --no-build stops before the addon.
set -euo pipefail
script_name=setup
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
source "$root/scripts/lib/packages.sh"

depth=demo
build=yes
for argument in "$@"; do
  case "$argument" in
    demo | test | e2e | fuzz | arm64) depth="$argument" ;;
    --no-build) build=no ;;
    *) die "unknown argument '$argument': expected demo, test, e2e, fuzz, arm64 or --no-build" ;;
  esac
done

check_node() {
  command -v node >/dev/null || die "Node.js is missing: install version 20.17 or later (https://nodejs.org)"
  command -v npm >/dev/null || die "npm is missing: it comes with Node.js, or as the package npm"
  node -e 'const [a, b] = process.versions.node.split(".").map(Number); process.exit(a > 20 || (a === 20 && b >= 17) ? 0 : 1)' ||
    die "Node.js $(node -v) is too old: 20.17 or later is needed"
}

check_compiler() {
  local compiler="${CXX:-c++}"
  command -v "${compiler%% *}" >/dev/null || die "no C++ compiler ($compiler): as root, run: apt-get install -y g++"
  echo '#include <coroutine>
#include <span>
#include <stop_token>
int main() {}' | $compiler -std=c++20 -fsyntax-only -x c++ - 2>/dev/null ||
    die "$compiler cannot compile C++20: g++ 12 or clang 14 or later is needed"
}

npm_packages() {
  if node scripts/lib/npm-tree-current.mjs; then
    say "npm packages: up to date"
    return
  fi
  say "npm packages: npm ci ($(grep -c '"node_modules/' package-lock.json) packages)"
  # No install script is needed, neither a dependency's nor ours: the addon is built below.
  if ! logged "$cache/logs/npm-ci.log" npm ci --loglevel=error --ignore-scripts --no-audit --no-fund --fetch-timeout=60000; then
    grep -vE '^npm (notice|warn)' "$cache/logs/npm-ci.log" | tail -n 20 >&2
    die "npm ci failed (messages above, all of them in $cache/logs/npm-ci.log); npm registry: $(npm config get registry 2>/dev/null)"
  fi
  node scripts/lib/npm-tree-current.mjs || die "npm ci ended well, but node_modules does not match package-lock.json"
}

build_all() {
  # tsc has one thread and does not need the addon: it fills what the addon's build leaves of the machine.
  local compiler addon=0
  say "TypeScript: tsc -b, and the addon beside it"
  { node node_modules/typescript/bin/tsc -b && node scripts/build-command.mjs; } &
  compiler=$!
  node scripts/build-addon.mjs || addon=$?
  if ((addon != 0)); then
    kill "$compiler" 2>/dev/null || true
    exit "$addon"
  fi
  wait "$compiler" || die "tsc ended with an error (messages above)"
}

check_node
check_compiler
# One set-up at a time per clone; a second one waits and then finds everything done.
exec 9>"$cache/setup.lock"
flock -n 9 || { say "another set-up is running in this clone: waiting for it" && flock 9; }
install_packages "$depth"
npm_packages
if [[ "$build" == yes ]]; then build_all; fi
say "ready ($depth)"
