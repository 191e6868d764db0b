#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# npm run bench [-- ARGUMENTS]: sets up what is missing, then runs the benchmarks (bench/main.ts).
set -euo pipefail
bash "$(dirname "$0")/setup.sh" demo >&2
cd "$(dirname "$0")/.."
exec node dist/bench/main.js "$@"
