#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# npm run bench [-- ARGUMENTS]: sets up what is missing, builds the native side in build/bench, then runs the benchmarks
# (bench/main.ts).
set -euo pipefail
script_name=bench
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
bash scripts/setup.sh test >&2
# Placement is TypeScript alone; clusters of processes need the addon alone, and a network in which links can be cut.
case "${1:-}" in
  placement | cluster) exec node dist/bench/main.js "$@" ;;
  failover)
    source "$root/scripts/lib/own-network.sh"
    in_own_network node dist/bench/main.js "$@"
    ;;
esac
targets=(engined basalt_perf basalt_floor basalt_crowd)
if [[ "${1:-}" == native ]]; then targets=(benches); fi
if [[ "${1:-}" == layers ]]; then targets=(basalt_layers); fi
log="$cache/logs/bench.log"
say "native: building build/bench (output in .cache/logs/bench.log)" >&2
options=(-DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
# stdout is for the figures.
if ! logged "$log" cmake -G Ninja -B build/bench -S . "${options[@]}" >&2 ||
  ! logged "$log" ninja -C build/bench "${targets[@]}" >&2; then
  grep -E -A 6 '[Ee]rror|FAILED|undefined reference' "$log" | head -n 60 >&2 || tail -n 40 "$log" >&2
  die "the native side did not build"
fi
exec node dist/bench/main.js "$@"
