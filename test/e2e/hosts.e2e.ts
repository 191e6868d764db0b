// SPDX-License-Identifier: Apache-2.0
// Goal: hosts are apart: each sees and reaches its own volume only, and what happens to one does not touch the other.
// Method: two guests with addresses of their own on one bridge, a volume each; while both write, one is cut off from the
// network and the active controller of both is killed. Load and cut last until the guests have said what is waited for,
// so that neither guest has to be as fast as the other.

import { afterAll, beforeAll, expect, test } from 'vitest';
import type { VolumeView } from '../../src/model/api.js';
import { ChaosNetwork, hubAddress } from '../chaos/network.js';
import { RunningCluster } from '../integration/running-cluster.js';
import { Guest } from '../lab/guest.js';
import { nvmeFunctions } from './guest-scripts.js';
import { systemOf } from './scenarios.js';

const MiB = 1024 * 1024;
const guestMsMax = 280_000;
const writesThroughCut = 200;
const controllers = ['controller-1', 'controller-2'];
const system = systemOf('hosts');

interface HostIdentity {
  readonly nqn: string;
  readonly id: string;
}

function identity(digit: number): HostIdentity {
  const id = `${`${digit}`.repeat(8)}-2222-4333-8444-555555555555`;
  return { id, nqn: `nqn.2014-08.org.nvmexpress:uuid:${id}` };
}

const [one, two] = [identity(1), identity(2)];
let network: ChaosNetwork;
let running: RunningCluster;

beforeAll(async () => {
  if (!ChaosNetwork.available) throw new Error('no network namespace: root or user namespaces are needed');
  network = await ChaosNetwork.make([]);
  running = await RunningCluster.start({
    host: one.nqn,
    sizeBytes: 64 * MiB,
    settledMsMax: 90_000,
    place: () => ({ address: hubAddress, prefix: [] }),
  });
  await running.cluster.api.createVolume({ name: 'vol2', sizeBytes: 64 * MiB, copies: 2, legs: 2, controllers });
  await running.cluster.api.attach('vol2', { host: two.nqn });
});

afterAll(async () => {
  await running?.stop();
  network?.killAllNow();
});

/** The one that is cut off has noticed when no path of it is alive. */
const noticesCut = 'until_ok 120 no_path_lives || { nvme list-subsys; fail "the cut was not noticed"; }';
const writesOn = `until_ok 120 wrote_more_than $((at_cut + ${writesThroughCut})) || fail "no writes after the kill"`;

/**
 * Both paths of the host's own volume; then the other volume, which must be refused; then writes through a cut and a kill,
 * of which the host sees what `throughCut` waits for.
 */
function script(host: HostIdentity, own: VolumeView, others: VolumeView, throughCut: string): string {
  const as = `--hostnqn=${host.nqn} --hostid=${host.id}`;
  const ports = own.paths.map((path) => path.address?.trsvcid ?? '');
  const connect = (nqn: string, port: string): string =>
    `nvme connect -t tcp -a ${hubAddress} -s ${port} -n ${nqn} ${as} --reconnect-delay=1 --ctrl-loss-tmo=120`;
  return `${nvmeFunctions}
modprobe nvme_tcp
step "who sees what"
nvme discover -t tcp -a ${hubAddress} -s ${ports[0]} ${as} >/run/discovery 2>&1 || { cat /run/discovery; fail "discover"; }
grep -q ${own.nqn} /run/discovery || fail "its own volume is not shown"
grep -q ${others.nqn} /run/discovery && fail "another host's volume is shown"
${connect(others.nqn, ports[0] ?? '')} && fail "another host's volume let it in"
dmesg -c >/dev/null
${ports.map((port) => `${connect(own.nqn, port)} || fail "connect to ${port}"`).join('\n')}
until_ok 30 have_disk ${own.nqn} || fail "no block device"
disk=$(nvme_disk ${own.nqn})
until_ok 30 paths_are 1 1 || fail "expected one optimized and one inaccessible path"
mkfs.ext4 -q "$disk" && mount -t ext4 "$disk" /mnt || fail "file system"
no_path_lives() { ! grep -qx live /sys/class/nvme/nvme*/state; }
load() {
  until [ -e /run/enough ]; do
    fio --name=work --directory=/mnt --direct=1 --ioengine=libaio --iodepth=4 --bs=4k --rw=randwrite --size=2m \\
      --fallocate=none --rate_iops=150 --verify=crc32c --verify_fatal=1 --eta=never --output=/run/fio.txt || return
  done
}
load &
load_pid=$!
until_ok 60 wrote_more_than $(($(writes_done) + 100)) || fail "fio does not write"
mark writing
wait_go cut 240
kill -0 $load_pid 2>/dev/null || fail "the load ended before the cut: nothing was proved"
at_cut=$(writes_done)
${throughCut}
value writes_through_cut $(($(writes_done) - at_cut))
mark through
wait_go healed 240
until_ok 90 wrote_more_than $(($(writes_done) + 60)) || fail "no writes after the cut and the kill"
: >/run/enough
wait $load_pid || { cat /run/fio.txt; fail "fio: exit code $?"; }
write_files /mnt/files /run/sums
umount /mnt || fail "umount"
fsck_clean "$disk"
host_is_clean
nvme disconnect -n ${own.nqn}
step done
`;
}

test('a host that is cut off and a controller that is killed cost the other host nothing', async () => {
  const first = await running.settled();
  const second = await running.cluster.waitForVolume(
    'vol2',
    'redundant with both controllers up',
    90_000,
    (volume) => volume.health === 'redundant' && volume.paths.length === 2 && volume.hosts.includes(two.nqn),
  );
  const boot = async (name: string, text: string): Promise<Guest> =>
    Guest.boot({
      name,
      script: text,
      system,
      memoryMib: 512,
      cpus: 1,
      timeoutMs: guestMsMax,
      network: { kind: 'tap', ...(await network.addTap(name)) },
    });
  await using cutOff = await boot('hosts-cut', script(one, first, second, noticesCut));
  await using bystander = await boot('hosts-bystander', script(two, second, first, writesOn));
  const guests = [cutOff, bystander];
  await Promise.all(guests.map((guest) => guest.waitForMark('writing', { timeoutMs: guestMsMax })));
  const active = await running.activeController();
  const heal = await network.cut('hosts-cut');
  await running.cluster.daemon(active).kill();
  for (const guest of guests) guest.go('cut');
  await Promise.all(guests.map((guest) => guest.waitForMark('through', { timeoutMs: guestMsMax })));
  await heal();
  for (const guest of guests) guest.go('healed');
  const results = await Promise.all(guests.map((guest) => guest.result()));
  for (const result of results) expect(result.rc, result.log).toBe(0);
  const [whileCut, besideIt] = results.map(({ values }) => Number(values.get('writes_through_cut')));
  expect(besideIt).toBeGreaterThan(writesThroughCut);
  expect(whileCut).toBeLessThan(writesThroughCut / 4);
});
