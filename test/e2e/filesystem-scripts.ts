// SPDX-License-Identifier: Apache-2.0
// Generators of the guest scripts that make, use, lose and check file systems on a volume with two paths. Pure.

import { connectCommand, nvmeFunctions } from './guest-scripts.js';
import type { TwoPathTarget } from './two-path-target.js';

export interface FileSystem {
  readonly name: 'ext4' | 'xfs' | 'btrfs';
  readonly make: string;
  /** Must find nothing wrong with the unmounted `$disk`, and change nothing. */
  readonly check: string;
}

export const fileSystems: readonly FileSystem[] = [
  { name: 'ext4', make: 'mkfs.ext4 -q "$disk"', check: 'e2fsck -fn "$disk"' },
  { name: 'xfs', make: 'mkfs.xfs -q -f "$disk"', check: 'xfs_repair -n "$disk"' },
  { name: 'btrfs', make: 'mkfs.btrfs -q -f "$disk"', check: 'btrfs check --readonly "$disk"' },
];

/** Connects both paths; `$disk` is the volume then. */
export function connectScript(where: Pick<TwoPathTarget, 'nqn' | 'ports'>): string {
  return `${nvmeFunctions}
modprobe nvme_tcp
step connect
${connectCommand(where.nqn, { port: where.ports[0] })} || fail "connect to the first path"
${connectCommand(where.nqn, { port: where.ports[1] })} || fail "connect to the second path"
until_ok 30 have_disk ${where.nqn} || fail "no block device"
disk=$(nvme_disk ${where.nqn})
until_ok 30 paths_are 1 1 || fail "expected one optimized and one inaccessible path"
dmesg -c >/dev/null
`;
}

/** Random operations on small files until \`/run/go/enough\` is there, at least some before it. */
const restless = `
restless() { # FOLDER: no shell tool is stressed here, the file system is
  mkdir -p "$1"; cd "$1"
  n=0
  while [ ! -e /run/go/enough ] || [ $n -lt 40 ]; do
    n=$((n + 1)); k=$((n * 7919 % 23))
    case $((n % 8)) in
      0) mkdir -p d$k && dd if=/dev/urandom of=d$k/f bs=1k count=$((k + 1)) 2>/dev/null ;;
      1) mv f$k d$((k % 5)) 2>/dev/null ;;
      2) rm -rf d$k ;;
      3) ln -f f$k l$k 2>/dev/null ;;
      4) ln -sf f$k s$k ;;
      5) dd if=/dev/urandom of=f$k bs=4k count=$((k % 7 + 1)) seek=$k 2>/dev/null ;;
      6) truncate -s $((k * 1000)) f$k ;;
      7) cp -r d$((k % 5)) c$k 2>/dev/null ;;
    esac
  done
  echo $n >/run/restless
}
# Files that were synced one by one; what is told to the test must be there after a crash.
diligent() { # FOLDER
  mkdir -p "$1"; sync; i=0
  while :; do
    i=$((i + 1))
    dd if=/dev/urandom of="$1/a$i" bs=4k count=$((i % 5 + 1)) conv=fsync 2>/dev/null || { value broken "a$i"; return; }
    value "acked_$i" "$(sha256sum <"$1/a$i" | cut -d' ' -f1)"
  done
}
`;

/**
 * Makes the file system, unpacks a tree, then works on it while the test kills the active controller (mark working, GO
 * killed), goes on working, and waits for its crash (mark crash-me).
 * Hands back: tree (checksums), acked_N (checksum of the N-th file that was synced), driver errors never.
 */
export function useScript(fs: FileSystem, where: Pick<TwoPathTarget, 'nqn' | 'ports'>): string {
  return `${connectScript(where)}${restless}
step "make ${fs.name}"
modprobe ${fs.name}
${fs.make} || fail "mkfs"
mount -t ${fs.name} "$disk" /mnt || fail "mount"
step "a tree"
mkdir /mnt/tree && tar -C / -cf - usr/sbin etc usr/lib/modules 2>/dev/null | tar -xf - -C /mnt/tree
( cd /mnt/tree && find . -type f | sort | xargs sha256sum ) >/run/tree
[ "$(wc -l </run/tree)" -gt 5 ] || fail "the tree is too small"
sync
value_file tree /run/tree
step "work"
diligent /mnt/diligent &
( restless /mnt/restless ) &
restless_pid=$!
fio --name=work --directory=/mnt --ioengine=psync --bs=8k --rw=randrw --size=4m --nrfiles=4 --fsync=16 --time_based \\
  --runtime=8 --verify=crc32c --verify_fatal=1 --eta=never --output=/run/fio.txt &
fio_pid=$!
until_ok 60 test -s /mnt/diligent/a3 || fail "nobody works"
mark working
wait_go killed 60
writes=$(writes_done)
until_ok 90 wrote_more_than $((writes + 60)) || fail "no writes after the kill"
wait $fio_pid || { cat /run/fio.txt; fail "fio: exit code $?"; }
: >/run/go/enough
wait $restless_pid
step "$(cat /run/restless) restless operations"
host_is_clean
mark crash-me
sleep 600
fail "nobody crashed this guest"
`;
}

/** After the crash: replays the log by mounting, checks every file that was promised, then the file system itself. */
export function checkScript(
  fs: FileSystem,
  where: Pick<TwoPathTarget, 'nqn' | 'ports'>,
  promised: { tree: string; acked: readonly string[] },
): string {
  return `${connectScript(where)}
modprobe ${fs.name}
step "mount after the crash"
mount -t ${fs.name} "$disk" /mnt || fail "mount"
step "files"
cat >/run/tree <<'SUMS'
${promised.tree.trimEnd()}
SUMS
cat >/run/acked <<'SUMS'
${promised.acked.map((sum, index) => `${sum}  a${index + 1}`).join('\n')}
SUMS
check_files /mnt/tree /run/tree
check_files /mnt/diligent /run/acked
value checked "$(cat /run/tree /run/acked | wc -l)"
umount /mnt || fail "umount"
step "check ${fs.name}"
${fs.check} >/run/check 2>&1 || { tail -40 /run/check; fail "${fs.check}: exit code $?"; }
value_file check /run/check
host_is_clean
nvme disconnect -n ${where.nqn}
step done
`;
}
