#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# npm run chaos [-- --minutes N --seed S --fault-interval SECONDS --faults-at-once 1|2 --store embedded|etcd --json]: builds what is missing,
# then runs test/chaos/main.ts in a network namespace of its own, where this user may have one.
set -euo pipefail
script_name=chaos
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
source "$root/scripts/lib/native-build.sh"
source "$root/scripts/lib/own-network.sh"

# With BASALT_CHAOS_BUILD=no what is built already is used.
if [[ "${BASALT_CHAOS_BUILD:-yes}" != no ]]; then
  {
    bash "$root/scripts/setup.sh" test &&
      plain_build basalt_check
  } >&2 || {
    say "set-up failed (messages above): nothing was run"
    echo "0 passed, 1 failed"
    exit 1
  }
fi
in_own_network node --import tsx test/chaos/main.ts "$@"
