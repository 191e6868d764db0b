// SPDX-License-Identifier: Apache-2.0
// Generators of the shell scripts that the guests run. Pure: options in, script text out. The functions that the scripts may
// use are in ../lab/init.ts; each script ends with exit code 0 only if everything that it checks held.

import { machineAddress } from '../lab/network.js';

export interface NvmePath {
  /** @default the machine's address as the guest sees it */
  readonly address?: string;
  readonly port: number;
}

export interface DigestOptions {
  readonly digests?: boolean;
}

/** Shell functions about NVMe devices and checks of the host's health. */
export const nvmeFunctions = `
# The block device of a subsystem: the multipath head where there is one.
nvme_disk() {
  for _d in /sys/block/nvme*; do
    case "\${_d##*/}" in nvme*c*n*) continue ;; esac
    [ "$(cat "$_d/device/subsysnqn" 2>/dev/null)" = "$1" ] && { echo "/dev/\${_d##*/}"; return 0; }
  done
  return 1
}
have_disk() { _disk=$(nvme_disk "$1") && [ -b "$_disk" ]; }
no_disk() { ! nvme_disk "$1" >/dev/null; }
# How many paths of all namespaces are in this ANA state.
paths_in() { cat /sys/class/nvme/nvme*/nvme*c*n*/ana_state 2>/dev/null | grep -cx "$1"; }
paths_are() { [ "$(paths_in optimized)" = "$1" ] && [ "$(paths_in inaccessible)" = "$2" ]; }
# Writes completed on all NVMe devices; the multipath head itself is not counted by this kernel, its paths are.
writes_done() { cat /sys/block/nvme*/stat 2>/dev/null | awk '{ n += $5 } END { print n + 0 }'; }
wrote_more_than() { [ "$(writes_done)" -gt "$1" ]; }
# Path errors are the multipath layer's business; these lines mean that an error reached a user of the disk.
host_is_clean() {
  if dmesg | grep -E 'I/O error|critical [a-z]+ error|EXT4-fs (error|warning)|Media Error|Host Aborted|JBD2: .*error'; then
    fail "the host saw errors"
  fi
}
# fsck's exit code 0: nothing wrong, nothing changed.
fsck_clean() { e2fsck -fn "$1" || fail "e2fsck: exit code $?"; }
write_files() {
  mkdir -p "$1"
  for _i in 1 2 3 4 5 6 7 8; do
    dd if=/dev/urandom of="$1/file$_i" bs=64k count=$((_i * 2)) 2>/dev/null || fail "writing $1/file$_i"
  done
  ( cd "$1" && sha256sum file* ) >"$2"
}
check_files() { ( cd "$1" && sha256sum -c "$2" >/dev/null ) || fail "files differ from what was written"; }
`;

export function connectCommand(nqn: string, path: NvmePath, options: DigestOptions = {}): string {
  const digests = options.digests === true ? ' --hdr-digest --data-digest' : '';
  return (
    `nvme connect -t tcp -a ${path.address ?? machineAddress} -s ${path.port} -n ${nqn}` +
    ` --reconnect-delay=1 --ctrl-loss-tmo=120${digests}`
  );
}

/** Boots and shows that the tools and modules are there. */
export function bootScript(): string {
  return `${nvmeFunctions}
modprobe nvme_tcp || fail "no nvme_tcp"
[ "$(cat /sys/module/nvme_core/parameters/multipath)" = Y ] || fail "multipath is off"
value kernel "$(uname -r)"
value fio "$(fio --version)"
value nvme "$(nvme version | head -n 1)"
value mke2fs "$(mkfs.ext4 -V 2>&1 | head -n 1)"
value hostnqn "$(cat /etc/nvme/hostnqn)"
ping -c 1 -W 5 ${machineAddress} >/dev/null || fail "the machine does not answer"
`;
}

export interface DiskScriptOptions extends DigestOptions {
  readonly nqn: string;
  readonly path: NvmePath;
  readonly sizeMib: number;
}

/**
 * One path: discover, connect, identify, raw verify with several jobs, file system, disconnect, reconnect, check.
 * Hands back: discovery, list, id_ctrl, id_ns, fio (JSON texts or human ones as the tool gives them), discard (yes when the
 * disk offers it), driver (what the host's NVMe driver said).
 */
export function diskScript(options: DiskScriptOptions): string {
  const { nqn, path, sizeMib } = options;
  const address = path.address ?? machineAddress;
  return `${nvmeFunctions}
modprobe nvme_tcp
step discover
nvme discover -t tcp -a ${address} -s ${path.port} >/run/discovery 2>&1 || { cat /run/discovery; fail "discover"; }
value_file discovery /run/discovery
grep -q 'subnqn: *${nqn}' /run/discovery || { cat /run/discovery; fail "the subsystem is not in the discovery log"; }
step connect
${connectCommand(nqn, path, options)} || fail "connect"
until_ok 30 have_disk ${nqn} || fail "no block device"
disk=$(nvme_disk ${nqn})
step "disk $disk"
nvme list -o json >/run/list || fail "list"
value_file list /run/list
nvme id-ctrl "$disk" -o json >/run/id_ctrl || fail "id-ctrl"
value_file id_ctrl /run/id_ctrl
nvme id-ns "$disk" -o json >/run/id_ns || fail "id-ns"
value_file id_ns /run/id_ns
nvme smart-log "$disk" >/run/smart 2>&1 || echo "smart-log: $(cat /run/smart)"
[ "$(cat /sys/block/\${disk##*/}/size)" = ${sizeMib * 2048} ] || fail "size is $(cat /sys/block/\${disk##*/}/size) sectors"
step "raw verify"
for pattern in 4k:randwrite 64k:randwrite 512k:write; do
  fio --name=raw --filename="$disk" --direct=1 --ioengine=libaio --iodepth=16 --bs=\${pattern%:*} --rw=\${pattern#*:} \\
    --numjobs=2 --size=6m --offset_increment=16m --verify=crc32c --verify_fatal=1 --group_reporting --eta=never \\
    --output-format=json --output=/run/fio.json || { cat /run/fio.json; fail "fio $pattern"; }
done
value_file fio /run/fio.json
step "zeroes and discard"
/usr/sbin/blkdiscard -z -o 1M -l 4M "$disk" || fail "write zeroes"
echo 3 >/proc/sys/vm/drop_caches
dd if="$disk" bs=1M skip=1 count=4 2>/dev/null | cmp -n 4194304 - /dev/zero || fail "zeroes read back otherwise"
if [ "$(cat /sys/block/\${disk##*/}/queue/discard_max_bytes)" -gt 0 ]; then
  value discard yes
  /usr/sbin/blkdiscard "$disk" || fail "discard"
fi
step "file system"
mkfs.ext4 -q "$disk" || fail "mkfs"
mount -t ext4 "$disk" /mnt || fail "mount"
write_files /mnt/files /run/sums
step "verify on the file system"
fio --name=files --directory=/mnt --direct=1 --ioengine=libaio --iodepth=8 --bs=4k --rw=randrw --numjobs=2 --size=2m \\
  --verify=crc32c --verify_fatal=1 --group_reporting --eta=never --output=/run/fio.txt || { cat /run/fio.txt; fail "fio on files"; }
umount /mnt || fail "umount"
step disconnect
nvme disconnect -n ${nqn} || fail "disconnect"
until_ok 30 no_disk ${nqn} || fail "the block device stayed"
step reconnect
${connectCommand(nqn, path, options)} || fail "second connect"
until_ok 30 have_disk ${nqn} || fail "no block device after reconnect"
disk=$(nvme_disk ${nqn})
fsck_clean "$disk"
mount -t ext4 -o ro "$disk" /mnt || fail "second mount"
check_files /mnt/files /run/sums
umount /mnt
nvme disconnect -n ${nqn} || fail "second disconnect"
dmesg | grep 'nvme nvme[0-9]' >/run/driver
value_file driver /run/driver
host_is_clean
step done
`;
}

export interface FailoverScriptOptions {
  readonly nqn: string;
  readonly paths: readonly [NvmePath, NvmePath];
  /** How long fio writes; the kill comes after the first tenth or so. @default 8 */
  readonly writeSeconds?: number;
  /** Runs when both paths are connected, before the file system; `$disk` is the block device. */
  readonly connected?: string;
  /** Runs after fio, with one path left; `$disk` is the block device. */
  readonly afterKill?: string;
  /** After fio: mark `finished`, GO restarted, then both paths must be there again. @default false */
  readonly pathReturns?: boolean;
  /** Then: mark `returned`, GO grown, and the disk must be larger without a reconnect. @default false */
  readonly grows?: boolean;
}

/**
 * Two paths: connect both, one optimized and one inaccessible, file system, files, then fio with verify, during which the
 * test kills the active controller (mark `writing`, then GO killed). No error may reach the file system.
 * Hands back: subsys_before, subsys_after, subsys_returned (nvme list-subsys; the last with pathReturns), fio (JSON),
 * bytes_before, bytes_after (with grows).
 */
export function failoverScript(options: FailoverScriptOptions): string {
  const { nqn, paths } = options;
  const writeSeconds = options.writeSeconds ?? 8;
  const writesPerSecond = 100; // per job; well under what emulation carries, so that the rate sets the duration
  const jobKib = writeSeconds * writesPerSecond * 4;
  return `${nvmeFunctions}
modprobe nvme_tcp
step connect
${connectCommand(nqn, paths[0])} || fail "connect to the first path"
${connectCommand(nqn, paths[1])} || fail "connect to the second path"
until_ok 30 have_disk ${nqn} || fail "no block device"
disk=$(nvme_disk ${nqn})
until_ok 30 paths_are 1 1
nvme list-subsys "$disk" >/run/before
cat /run/before
value_file subsys_before /run/before
paths_are 1 1 || fail "expected one optimized and one inaccessible path"
${options.connected ?? ''}
step "file system"
mkfs.ext4 -q "$disk" || fail "mkfs"
mount -t ext4 "$disk" /mnt || fail "mount"
write_files /mnt/before /run/sums_before
sync
step "verify under the kill"
writes=$(writes_done)
fio --name=kill --directory=/mnt --direct=1 --ioengine=libaio --iodepth=8 --bs=4k --rw=randwrite --numjobs=2 \\
  --size=${jobKib}k --rate_iops=${writesPerSecond} --fallocate=none --verify=crc32c --verify_fatal=1 --group_reporting --eta=never \\
  --output-format=json --output=/run/fio.json &
fio_pid=$!
until_ok 30 wrote_more_than $((writes + ${Math.ceil(writesPerSecond / 2)})) || fail "fio does not write"
mark writing
wait_go killed 60
kill -0 $fio_pid 2>/dev/null || fail "fio ended before the kill: nothing was proved"
writes=$(writes_done)
until_ok 60 wrote_more_than $((writes + 40)) || fail "no writes after the kill"
write_files /mnt/after /run/sums_after
wait $fio_pid
fio_rc=$?
value_file fio /run/fio.json
[ $fio_rc = 0 ] || { cat /run/fio.json; fail "fio: exit code $fio_rc"; }
nvme list-subsys "$disk" >/run/after
cat /run/after
value_file subsys_after /run/after
${options.afterKill ?? ''}
${options.pathReturns === true ? pathReturns : ''}
${options.grows === true ? diskGrows : ''}
step check
umount /mnt || fail "umount"
fsck_clean "$disk"
mount -t ext4 -o ro "$disk" /mnt || fail "second mount"
check_files /mnt/before /run/sums_before
check_files /mnt/after /run/sums_after
${options.pathReturns === true ? 'check_files /mnt/returned /run/sums_returned' : ''}
umount /mnt
host_is_clean
nvme disconnect -n ${nqn}
step done
`;
}

const pathReturns = `
step "the killed controller comes back"
mark finished
wait_go restarted 90
until_ok 60 paths_are 1 1 || { nvme list-subsys "$disk"; fail "the path did not come back"; }
nvme list-subsys "$disk" >/run/returned
cat /run/returned
value_file subsys_returned /run/returned
write_files /mnt/returned /run/sums_returned
`;

const diskGrows = `
step "the volume grows"
bytes_before=$(blockdev --getsize64 "$disk")
value bytes_before "$bytes_before"
mark returned
wait_go grown 90
is_larger() { [ "$(blockdev --getsize64 "$disk")" -gt "$bytes_before" ]; }
until_ok 60 is_larger || { dmesg | tail -n 20; fail "the host does not see the new size"; }
value bytes_after "$(blockdev --getsize64 "$disk")"
last_block=$(($(blockdev --getsize64 "$disk") / 4096 - 1))
dd if=/dev/urandom of=/run/last bs=4096 count=1 2>/dev/null
dd if=/run/last of="$disk" bs=4096 seek=$last_block conv=notrunc,fsync 2>/dev/null || fail "writing the last block"
dd if="$disk" bs=4096 skip=$last_block count=1 2>/dev/null | cmp - /run/last || fail "the last block differs"
`;

export interface KernelTargetOptions {
  readonly nqn: string;
  readonly ports: readonly [number, number];
  readonly sizeMib: number;
}

/**
 * Puts the guest kernel's own target in front of a script: two ports on the guest's loopback, the first optimized, the second
 * inaccessible. GO kill-active takes the first port away and makes the second optimized, then marks `active-killed`.
 * With it the lab is judged by an implementation that is not ours.
 */
export function kernelTargetScript(options: KernelTargetOptions): string {
  const { nqn, ports, sizeMib } = options;
  return `
# Over the loopback, this kernel's target stops at a check of its own (usercopy) when one fragment spans two huge pages.
echo never >/sys/kernel/mm/transparent_hugepage/enabled
modprobe configfs; modprobe nvmet; modprobe nvmet_tcp
modprobe brd rd_nr=1 rd_size=${sizeMib * 1024}
mount -t configfs none /sys/kernel/config 2>/dev/null
cd /sys/kernel/config/nvmet
mkdir subsystems/${nqn}
echo 1 >subsystems/${nqn}/attr_allow_any_host
mkdir subsystems/${nqn}/namespaces/1
echo -n /dev/ram0 >subsystems/${nqn}/namespaces/1/device_path
echo 1 >subsystems/${nqn}/namespaces/1/enable || fail "kernel target: namespace"
kernel_port() {
  mkdir ports/$1
  echo tcp >ports/$1/addr_trtype
  echo ipv4 >ports/$1/addr_adrfam
  echo 127.0.0.1 >ports/$1/addr_traddr
  echo $2 >ports/$1/addr_trsvcid
  echo $3 >ports/$1/ana_groups/1/ana_state
  ln -s /sys/kernel/config/nvmet/subsystems/${nqn} ports/$1/subsystems/${nqn} || fail "kernel target: port $1"
}
kernel_port 1 ${ports[0]} optimized
kernel_port 2 ${ports[1]} inaccessible
cd /root
(
  until_ok 120 test -e /run/go/kill-active || exit 0
  rm /sys/kernel/config/nvmet/ports/1/subsystems/${nqn}
  echo optimized >/sys/kernel/config/nvmet/ports/2/ana_groups/1/ana_state
  mark active-killed
) &
`;
}

/** Lines of the host's NVMe driver that say that something about the target is not right. */
export function driverComplaints(driverLines: string): string[] {
  return driverLines
    .split('\n')
    .filter((line) =>
      /fail|error|invalid|unexpected|timeout|timed out|wrong|missing|mismatch|unsupported|bogus|disab/i.test(line),
    );
}
