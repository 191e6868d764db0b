# SPDX-License-Identifier: Apache-2.0
# The developer's build of the native code; source it after common.sh.
# shellcheck shell=bash disable=SC2154

# native_build FOLDER "NINJA-TARGETS" CMAKE-OPTIONS...: its output goes to .cache/logs, and what is wrong is shown.
native_build() {
  local folder="$1" log targets
  read -ra targets <<<"$2"
  shift 2
  log="$cache/logs/$(basename "$folder").log"
  say "native: building $folder (output in .cache/logs/$(basename "$folder").log)"
  if ! logged "$log" cmake -G Ninja -B "$folder" -S . -DBASALT_ONCE=ON -DCMAKE_CXX_COMPILER_LAUNCHER=ccache "$@" ||
    ! logged "$log" ninja -C "$folder" "${targets[@]}"; then
    grep -E -A 6 '[Ee]rror|FAILED|undefined reference' "$log" | head -n 80 || tail -n 40 "$log"
    say "native: $folder did not build"
    return 1
  fi
}

# plain_build NINJA-TARGETS...: the optimized build, which tests, simulator, lab and chaos share. Its engine is the addon's.
plain_build() {
  native_build build/release "$*" -DCMAKE_BUILD_TYPE=Release \
    -DBASALT_ADDON_OBJECTS="$root/build/Release/obj.target/basalt_native/build/amalgams"
}
