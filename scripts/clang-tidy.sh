#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# scripts/clang-tidy.sh [FILE...]: the slow lint of native code, by command only (minutes; needs clang-tidy-14).
set -euo pipefail
script_name='clang-tidy'
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
command -v clang-tidy-14 >/dev/null || die "clang-tidy-14 is missing: as root, run: apt-get install -y clang-tidy-14"
bash scripts/setup.sh test --no-build >/dev/null
cmake -G Ninja -B build/dev -S . -DCMAKE_CXX_COMPILER_LAUNCHER=ccache >"$cache/logs/clang-tidy.log"

files=("$@")
if ((${#files[@]} == 0)); then
  mapfile -t files < <(find native -name '*.cc' ! -path 'native/napi/*' ! -name '*_fuzz.cc' | sort)
fi
say "looking at ${#files[@]} files"
printf '%s\0' "${files[@]}" | xargs -0 -n 4 -P "$(nproc)" clang-tidy-14 -p build/dev --quiet 2>/dev/null
