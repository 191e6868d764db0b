#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# npm run sim [-- --suite data|target|cluster|all] [--seeds N] [--seed 0x...] [--minutes M] [--jobs N] [--verbose]
#             [--plan FILE] [--bug NAME] [--require-coverage] [--speed SECONDS]
# Random runs in virtual time, after the regressions of test/sim. The last line is
# `N passed, N failed, trace <16 hex digits>`; exit codes: 6 a crash or a hang, 4 correctness, 3 liveness, 5 a seed that
# gave two histories, 7 a rare event that was never reached (--require-coverage), 2 wrong usage. Failing runs are made
# small and kept in .cache/sim.
set -euo pipefail
script_name='sim'
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
if [[ ! -f build/sim/build.ninja ]]; then bash scripts/setup.sh test --no-build; fi

log="$cache/logs/sim-build.log"
say "building build/sim/sim (output in .cache/logs/sim-build.log)"
if ! logged "$log" cmake -G Ninja -B build/sim -S . -DCMAKE_CXX_COMPILER_LAUNCHER=ccache ||
  ! logged "$log" ninja -C build/sim sim; then
  grep -E -A 6 '[Ee]rror|FAILED|undefined reference' "$log" | head -n 60 >&2
  die "the simulator did not build (all of it in .cache/logs/sim-build.log)"
fi
exec build/sim/sim --jobs "$(nproc)" --regressions test/sim --keep "$cache/sim" "$@"
