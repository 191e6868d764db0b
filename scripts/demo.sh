#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# npm run demo [-- ARGUMENTS]: sets up what is missing, then runs the demonstration (scripts/demo.ts).
set -euo pipefail
# With --json the last line is for a program; set-up messages go to stderr so that they never mix.
bash "$(dirname "$0")/setup.sh" demo >&2
cd "$(dirname "$0")/.."
export PATH="$PATH:/usr/sbin:/sbin"
exec node dist/scripts/demo.js "$@"
