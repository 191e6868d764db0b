#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# scripts/test-arm64.sh: cross-compiles the native suites for arm64 and runs them under qemu-aarch64. By command only.
# The arm64 libraries are downloaded and unpacked into .cache/arm64; neither dpkg's nor apt's own settings change.
set -euo pipefail
script_name='arm64'
source "$(dirname "${BASH_SOURCE[0]}")/lib/common.sh"
bash scripts/setup.sh arm64 --no-build

packages=(liburing2 liburing-dev libisal2 libisal-dev libssl3 libssl-dev libgtest-dev libgmock-dev rapidjson-dev)
folder="$cache/arm64"
sysroot="$folder/sysroot"
library_dir="$sysroot/usr/lib/aarch64-linux-gnu"

# Ubuntu keeps arm64 on a host of its own.
write_sources() {
  local codename
  codename="$(. /etc/os-release && echo "$VERSION_CODENAME")"
  if grep -q '^ID=ubuntu' /etc/os-release; then
    echo "deb [signed-by=/usr/share/keyrings/ubuntu-archive-keyring.gpg] http://ports.ubuntu.com/ubuntu-ports $codename main universe"
  else
    echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $codename main"
  fi
}

private_apt() {
  apt-get -q -o Dir::Etc::SourceList="$folder/apt/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o Dir::State="$folder/apt/state" -o Dir::State::status="$folder/apt/status" -o Dir::Cache="$folder/apt/cache" \
    -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User= \
    -o APT::Update::Error-Mode=any -o Acquire::Retries=2 -o Acquire::http::Timeout=30 "$@"
}

unpack_libraries() {
  if [[ "$(cat "$folder/complete" 2>/dev/null)" == "${packages[*]}" ]]; then
    say "arm64 libraries: unpacked already"
    return
  fi
  rm -rf "$folder"
  mkdir -p "$folder"/apt/{state/lists/partial,cache/archives/partial} "$folder/packages" "$sysroot"
  touch "$folder/apt/status"
  write_sources >"$folder/apt/sources.list"
  say "arm64 libraries: downloading ${packages[*]}"
  if ! logged "$cache/logs/arm64-apt.log" private_apt update ||
    ! (cd "$folder/packages" && logged "$cache/logs/arm64-apt.log" private_apt download "${packages[@]}"); then
    tail -n 20 "$cache/logs/arm64-apt.log" >&2
    die "cannot download; package source: $(cat "$folder/apt/sources.list")"
  fi
  for package in "$folder"/packages/*.deb; do dpkg -x "$package" "$sysroot"; done
  echo "${packages[*]}" >"$folder/complete"
}

unpack_libraries
say "building build/arm64"
if ! BASALT_SYSROOT="$sysroot" logged "$cache/logs/arm64-build.log" cmake -G Ninja -B build/arm64 -S . \
  -DCMAKE_TOOLCHAIN_FILE="$root/cmake/aarch64.cmake" -DBASALT_ONCE=ON -DCMAKE_CXX_COMPILER_LAUNCHER=ccache ||
  ! logged "$cache/logs/arm64-build.log" ninja -C build/arm64; then
  grep -E -A 6 '[Ee]rror|FAILED|undefined reference' "$cache/logs/arm64-build.log" | head -n 60 >&2
  die "the arm64 build failed (all of it in .cache/logs/arm64-build.log)"
fi

say "running under qemu-aarch64"
result="$(mktemp)"
trap 'rm -f "$result"' EXIT
status=0
BASALT_EMULATOR="qemu-aarch64 -L /usr/aarch64-linux-gnu -E LD_LIBRARY_PATH=$library_dir:/usr/aarch64-linux-gnu/lib" \
  node scripts/lib/run-native-tests.mjs build/arm64 "$result" || status=$?
read -r passed failed skipped <"$result"
line="$passed passed, $failed failed"
if ((skipped > 0)); then line+=", $skipped skipped"; fi
echo "$line"
exit "$status"
