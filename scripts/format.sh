#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# npm run format [-- FILE...]: writes the formatting that `npm run tidy` checks; without files, all of them.
set -euo pipefail
script_name=format
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
bash scripts/setup.sh test --no-build >/dev/null

cpp=() other=()
if (($# == 0)); then
  mapfile -t cpp < <(find native \( -name '*.cc' -o -name '*.h' \) | sort)
  other=(.)
fi
for file in "$@"; do
  case "$file" in
    *.cc | *.h) cpp+=("$file") ;;
    *) other+=("$file") ;;
  esac
done
if ((${#cpp[@]} > 0)); then clang-format-14 -i --style=file "${cpp[@]}"; fi
if ((${#other[@]} > 0)); then node_modules/.bin/biome check --write --no-errors-on-unmatched "${other[@]}"; fi
