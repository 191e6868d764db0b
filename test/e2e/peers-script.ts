// SPDX-License-Identifier: Apache-2.0
// Which stacks of ours are measured beside which of the kernel's, and the shell script that does it in a guest. Pure.
//
// Both get the same load from the same program (basalt_stack), on the same ram disks, one after the other, round after round: the
// kernel's stack as a block device, ours on the ram disks themselves.

import { unpackFreight } from '../lab/freight.js';

export interface PeerRow {
  readonly name: string;
  /** Shell: makes $device of /dev/ram0 to /dev/ram3 and, as a log or for metadata, /dev/ram4. */
  readonly peerUp: string;
  readonly peerDown: string;
  readonly device: string;
  /** Arguments of basalt_stack that say what of ours does the same. */
  readonly ours: string;
  readonly load: string;
  /** What the load writes; a multiple of its requests. */
  readonly mib: number;
  /** fio takes its turn on the kernel's device, for comparison with basalt_stack as a load. */
  readonly fio?: boolean;
}

const spanMib = 24;
const diskMib = 64;
const stripeBytes = 3 * 64 * 1024;

const thinUp = `
thin_up`;
const thinDown = 'thin_down';
const md = (level: number, disks: number, how: string): string => {
  const names = Array.from({ length: disks }, (_, i) => `/dev/ram${i}`).join(' ');
  return `
wipe /dev/ram0 /dev/ram1 /dev/ram2 /dev/ram3 /dev/ram4
mdadm --create /dev/md0 --run --metadata=1.2 --level=${level} --raid-devices=${disks} ${how} ${names} </dev/null >/run/mdadm 2>&1 ||
  { cat /run/mdadm; fail "mdadm --create"; }
until_ok 60 md_rests || fail "md0 does not come to rest"
[ ${level} != 5 ] || echo 2048 >/sys/block/md0/md/stripe_cache_size`;
};
const mdDown = 'mdadm --stop /dev/md0 >/run/mdadm 2>&1 || { cat /run/mdadm; fail "mdadm --stop"; }';

const thin = { peerUp: thinUp, peerDown: thinDown, device: '/dev/mapper/thin' } as const;
const md0 = { peerDown: mdDown, device: '/dev/md0' } as const;
const small = { load: '--bytes 4096 --depth 32', mib: spanMib } as const;
/** An emulated raid5 takes its time. */
const partial = { ...small, mib: 4 } as const;
const raid5 = '--stack raid5 --paths /dev/ram0,/dev/ram1,/dev/ram2,/dev/ram3';

export const peerRows: readonly PeerRow[] = [
  {
    name: 'disk itself, 4 KiB',
    peerUp: 'wipe /dev/ram0',
    peerDown: ':',
    device: '/dev/ram0',
    ours: '--stack device --paths /dev/ram0',
    ...small,
    fio: true,
  },
  { ...thin, name: 'thin, first write 4 KiB', ours: '--stack lvol --paths /dev/ram0', ...small },
  {
    ...thin,
    name: 'thin, overwrite 4 KiB',
    ours: '--stack lvol --paths /dev/ram0',
    ...small,
    load: `${small.load} --again 1`,
    fio: true,
  },
  {
    ...thin,
    name: 'thin, first write after a snapshot 4 KiB',
    peerUp: `${thinUp}
thin_snapshot`,
    ours: '--stack lvol-snapshot --paths /dev/ram0',
    ...small,
  },
  {
    ...md0,
    name: 'raid1 of 2, write 4 KiB',
    peerUp: md(1, 2, '--assume-clean --bitmap=internal'),
    ours: '--stack raid1 --paths /dev/ram0,/dev/ram1',
    ...small,
    fio: true,
  },
  {
    ...md0,
    name: 'raid5 3+1, whole stripes 192 KiB',
    peerUp: md(5, 4, '--chunk=64 --assume-clean --consistency-policy=resync'),
    ours: raid5,
    load: `--bytes ${stripeBytes} --depth 4`,
    mib: 24,
  },
  {
    ...md0,
    name: 'raid5 3+1, 4 KiB; md with a journal',
    peerUp: md(5, 4, '--chunk=64 --write-journal /dev/ram4'),
    ours: raid5,
    ...partial,
    fio: true,
  },
  {
    ...md0,
    name: 'raid5 3+1, 4 KiB; md with PPL',
    peerUp: md(5, 4, '--chunk=64 --assume-clean --consistency-policy=ppl'),
    ours: raid5,
    ...partial,
  },
  {
    ...md0,
    name: 'raid5 3+1, 4 KiB; md with a write hole',
    peerUp: md(5, 4, '--chunk=64 --assume-clean --consistency-policy=resync'),
    ours: raid5,
    ...partial,
  },
];

const functions = `
export DM_DISABLE_UDEV=1
ram_sectors=${diskMib * 2048}
span_sectors=${spanMib * 2048}
# What a stack looks for lies in the first or the last MiBs.
wipe() {
  for _disk in "$@"; do
    dd if=/dev/zero of=$_disk bs=1M count=4 conv=notrunc 2>/dev/null || fail "wiping $_disk"
    dd if=/dev/zero of=$_disk bs=1M seek=${diskMib - 4} count=4 conv=notrunc 2>/dev/null || fail "wiping $_disk"
  done
}
md_rests() { [ -b /dev/md0 ] && [ "$(cat /sys/block/md0/md/sync_action 2>/dev/null || echo idle)" = idle ]; }
thin_up() {
  wipe /dev/ram0 /dev/ram4
  dmsetup create pool --table "0 $ram_sectors thin-pool /dev/ram4 /dev/ram0 128 0" || fail "thin-pool"
  dmsetup message pool 0 "create_thin 0" || fail "create_thin"
  dmsetup create thin --table "0 $span_sectors thin /dev/mapper/pool 0" || fail "thin"
}
thin_snapshot() {
  basalt_stack --stack device --paths /dev/mapper/thin --mib ${spanMib} >/dev/null || fail "filling the thin volume"
  dmsetup suspend thin && dmsetup message pool 0 "create_snap 1 0" && dmsetup resume thin || fail "create_snap"
}
thin_down() {
  dmsetup remove --retry thin && dmsetup remove --retry pool || fail "removing the thin volume"
}
measure() {
  _key=$1; shift
  basalt_stack "$@" >/run/out 2>/run/err || { cat /run/err; dmesg | tail -n 20; fail "$_key"; }
  value "$_key" "$(cat /run/out)"
}
`;

/** Whatever reads back otherwise than it was written must be found: a device that forgets is. */
const liarIsFound = `
step "a device that forgets"
dmsetup create liar --table "0 $span_sectors zero" || fail "zero target"
if basalt_stack --stack device --paths /dev/mapper/liar --mib ${spanMib} >/dev/null 2>/run/liar; then
  fail "basalt_stack believes a device that forgets"
fi
grep -q 'holds something else' /run/liar || { cat /run/liar; fail "basalt_stack failed of something else"; }
dmsetup remove --retry liar
`;

export const resultKey = (round: number, row: number, side: 'peer' | 'ours' | 'fio'): string =>
  `r${round}-${row}-${side}`;

/** Hands back one value for each round, row and side: a line of basalt_stack's, or fio's requests per second. */
export function peersScript(freight: string, rounds: number): string {
  const turns = Array.from({ length: rounds }, (_, round) =>
    peerRows.map((row, index) => turn(row, index, round)).join('\n'),
  );
  return `${unpackFreight(freight)}
modprobe brd rd_nr=5 rd_size=${diskMib * 1024} || fail brd
modprobe dm_thin_pool || fail dm_thin_pool
modprobe dm_zero || fail dm_zero
modprobe raid1 || fail raid1
modprobe raid456 || fail raid456
${functions}
# Memory that nobody touched yet costs the kernel time that is no layer's.
for i in 0 1 2 3 4; do dd if=/dev/zero of=/dev/ram$i bs=1M count=${diskMib} 2>/dev/null || fail "ram$i"; done
value kernel "$(uname -r)"
${liarIsFound}
${turns.join('\n')}
step done
`;
}

function turn(row: PeerRow, index: number, round: number): string {
  const load = `${row.load} --mib ${row.mib} --seed ${100 * round + index + 1}`;
  const fio =
    row.fio === true
      ? `
fio --name=peer --filename=${row.device} --direct=1 --ioengine=io_uring --iodepth=32 --iodepth_batch=16 --bs=4k --rw=randwrite \\
  --size=${row.mib}m --runtime=5 --eta=never --output-format=terse --output=/run/fio.txt || fail "fio on ${row.device}"
value ${resultKey(round, index, 'fio')} "$(cut -d';' -f49 /run/fio.txt)"`
      : '';
  return `
step "round ${round + 1}: ${row.name}"
${row.peerUp}
measure ${resultKey(round, index, 'peer')} --stack device --paths ${row.device} ${load}${fio}
${row.peerDown}
wipe /dev/ram0 /dev/ram1 /dev/ram2 /dev/ram3
measure ${resultKey(round, index, 'ours')} ${row.ours} ${load}`;
}
