#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# npm run e2e [-- VITEST ARGUMENTS]: the lab's scenarios that every change must pass.
set -euo pipefail
exec bash "$(dirname "${BASH_SOURCE[0]}")/lab.sh" ci "$@"
