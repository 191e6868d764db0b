# SPDX-License-Identifier: Apache-2.0
# System packages: what each depth of set-up needs and how to see that it is there. Sourced by setup.sh.
# A row is: depth | Debian package | probe. A probe is `cmd:NAME`, `pc:PKG-CONFIG-NAME`, or `file:GLOB`.
# shellcheck shell=bash disable=SC2154

package_table() {
  cat <<'ROWS'
demo|make|cmd:make
demo|python3|cmd:python3
demo|pkg-config|cmd:pkg-config
demo|liburing-dev|pc:liburing
demo|libisal-dev|pc:libisal
demo|libssl-dev|pc:libcrypto
demo|rapidjson-dev|file:/usr/include/rapidjson/document.h
demo|e2fsprogs|cmd:mkfs.ext4
test|cmake|cmd:cmake
test|ninja-build|cmd:ninja
test|ccache|cmd:ccache
test|libgtest-dev|pc:gtest
test|libgmock-dev|pc:gmock
test|libbenchmark-dev|pc:benchmark
test|libibverbs-dev|file:/usr/include/infiniband/verbs.h
test|librdmacm-dev|file:/usr/include/rdma/rdma_cma.h
test|clang-format-14|cmd:clang-format-14
test|etcd-server|cmd:etcd
test|etcd-client|cmd:etcdctl
test|fio|cmd:fio
test|libnbd-bin|cmd:nbdinfo
test|qemu-utils|cmd:qemu-img
test|nbdkit|cmd:nbdkit
test|openssl|cmd:openssl
test|tshark|cmd:tshark
e2e|qemu-system-x86|cmd:qemu-system-x86_64
e2e|nvme-cli|cmd:nvme
e2e|busybox-static|cmd:busybox
e2e|cpio|cmd:cpio
e2e|kmod|cmd:modprobe
e2e|xz-utils|cmd:xz
e2e|zstd|cmd:zstd
fuzz|clang-14|cmd:clang++-14
fuzz|libclang-rt-14-dev|file:/usr/lib/llvm-14/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a
fuzz|llvm-14|cmd:llvm-cov-14
arm64|g++-aarch64-linux-gnu|cmd:aarch64-linux-gnu-g++
arm64|qemu-user|cmd:qemu-aarch64
ROWS
}

# Each depth contains the ones listed with it.
depths_of() {
  case "$1" in
    demo) echo demo ;;
    test) echo demo test ;;
    e2e) echo demo test e2e ;;
    fuzz) echo demo test fuzz ;;
    arm64) echo demo test arm64 ;;
    *) return 1 ;;
  esac
}

probe() {
  case "$1" in
    cmd:*) command -v "${1#cmd:}" >/dev/null 2>&1 ;;
    pc:*) pkg-config --exists "${1#pc:}" 2>/dev/null ;;
    file:*) compgen -G "${1#file:}" >/dev/null ;;
  esac
}

missing_packages() {
  local depth package check wanted
  wanted=" $(depths_of "$1") "
  while IFS='|' read -r depth package check; do
    if [[ "$wanted" == *" $depth "* ]] && ! probe "$check"; then echo "$package"; fi
  done < <(package_table)
}

# What apt is configured to ask, even before its first update.
apt_mirrors() {
  grep -rhsE '^(deb|URIs:)' /etc/apt/sources.list /etc/apt/sources.list.d | grep -oE '(https?|ftp)://[^ ]+' | sort -u | paste -sd ' ' -
}

# run_apt LOG ARGS...: apt-get, as root or through sudo -n, without questions; its own error lines on failure.
run_apt() {
  local log="$1" as_root=()
  shift
  [[ "$(id -u)" == 0 ]] || as_root=(sudo -n)
  if ! logged "$log" "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q \
    -o DPkg::Lock::Timeout=300 -o Acquire::Retries=2 -o Acquire::http::Timeout=30 -o APT::Update::Error-Mode=any "$@"; then
    grep -E '^(E|W|Err)[: ]' "$log" >&2 || tail -n 20 "$log" >&2
    die "apt-get $1 failed (messages above, all of them in $log); package mirror: $(apt_mirrors)"
  fi
}

install_packages() {
  local missing
  missing="$(missing_packages "$1" | paste -sd ' ' -)"
  if [[ -z "$missing" ]]; then
    say "system packages: all there"
    return
  fi
  local command="apt-get update && apt-get install -y --no-install-recommends $missing"
  command -v apt-get >/dev/null || die "missing: $missing (Debian names). Install them with this system's package manager"
  if [[ "$(id -u)" != 0 ]] && ! sudo -n true 2>/dev/null; then
    die "system packages are missing and this user may not install them. Run as root:
    $command"
  fi
  say "system packages: installing $missing"
  run_apt "$cache/logs/apt-update.log" update
  # shellcheck disable=SC2086
  run_apt "$cache/logs/apt-install.log" install -y --no-install-recommends $missing
  missing="$(missing_packages "$1" | paste -sd ' ' -)"
  [[ -z "$missing" ]] || die "installed, but still not found: $missing"
}
