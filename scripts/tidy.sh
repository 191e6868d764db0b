#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# npm run tidy [-- --lengths]: formatting, lints, layers, licences and stray files (test/tidy/main.ts).
set -euo pipefail
bash "$(dirname "$0")/setup.sh" test --no-build
cd "$(dirname "$0")/.."
exec node --import tsx test/tidy/main.ts "$@"
