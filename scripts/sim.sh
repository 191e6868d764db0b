#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# npm run sim [-- --suite data|target|cluster|cluster-ts|all] [--seeds N] [--seed 0x...] [--minutes N]
#             [--nightly | --require-coverage] [--crash-states N] [--keep] [--no-shrink] [--jobs N] [--verbose] [--bug NAME] [--history FILE]
# npm run sim -- --plan FILE [--keep] [--verbose] [--history FILE]
# npm run sim -- --speed SECONDS
#
# Random runs in virtual time, after the regressions of test/sim. --seed alone is one run; with --seeds it is the first.
# Among all suites, cluster-ts (the agents of src/agents, each run in a Node.js process) gets every third seed. --nightly:
# 60 minutes unless said otherwise, and every rare event must have been reached. Failing runs are made small and written to
# .cache/sim, or with --keep to test/sim. Ctrl-C tells what ran so far.
#
# The last line is `N passed, N failed, trace <16 hex digits>`; exit codes: 6 a crash or a hang, 4 correctness, 3 liveness,
# 5 a seed that gave two histories, 7 a rare event that was never reached or too few crash states, 2 wrong usage, 130 interrupted, 1 not built.
set -euo pipefail
script_name='sim'
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
source "$root/scripts/lib/native-build.sh"

# The other suites need neither the addon nor the compiled agents.
agents=yes
if [[ " $* " =~ ' --suite '(data|target|cluster)' ' || " $* " == *' --speed '* ]]; then agents=no; fi
if [[ " $* " =~ ' --plan '([^ ]+)' ' ]] && ! grep -qs '"cluster-ts"' "${BASH_REMATCH[1]}"; then agents=no; fi
if [[ "$agents" == yes ]]; then
  bash scripts/setup.sh test
elif [[ ! -f build/release/build.ninja ]]; then
  bash scripts/setup.sh test --no-build
fi

plain_build sim basalt_check || die "the simulator did not build (messages above)"
exec build/release/sim --jobs "$(nproc)" "$@"
