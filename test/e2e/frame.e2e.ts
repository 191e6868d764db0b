// SPDX-License-Identifier: Apache-2.0
// Goal: what a guest is described with is what it has. Method: a soft-RoCE device beside the equipment's tools, a disk of the
// machine, and a vhost-user-blk disk of QEMU's own server, each used.

import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, open, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { runGuest } from '../lab/guest.js';
import { systemOf } from './scenarios.js';

const MiB = 1024 * 1024;
const system = systemOf('frame');
let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'basalt-frame-'));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

/** Soft-RoCE on a dummy device, because the RDMA connection manager does not work on the loopback device. */
const rdmaScript = `
modprobe rdma_rxe && modprobe rdma_ucm && modprobe ib_uverbs || fail "modules"
/bin/ip link add roce0 type dummy && /bin/ip addr add 192.168.77.1/24 dev roce0 || fail "roce0"
/bin/ip link set roce0 mtu 9000 up
rdma link add rxe0 type rxe netdev roce0 || fail "rxe0"
ibv_devinfo -d rxe0 >/run/devinfo || fail "ibv_devinfo"
value_file devinfo /run/devinfo
rping -s -a 192.168.77.1 -C 5 >/run/rping 2>&1 &
sleep 1
rping -c -a 192.168.77.1 -C 5 -v >/run/rping_client 2>&1 || { cat /run/rping /run/rping_client; fail "rping"; }
`;

test('a guest with RDMA equipment has a RoCE device that connects', async () => {
  const result = await runGuest({ name: 'frame-rdma', script: rdmaScript, system });
  expect(result.rc, result.log).toBe(0);
  expect(result.values.get('devinfo')).toMatch(/state:\s+PORT_ACTIVE/);
});

test('disks of the machine, plain and by vhost-user, are block devices that keep what is written', async () => {
  const [plain, served, socketPath] = ['plain', 'served', 'vub.sock'].map((name) => join(folder, name)) as [
    string,
    string,
    string,
  ];
  for (const path of [plain, served]) await writeFile(path, Buffer.alloc(16 * MiB));
  const server = spawn(
    'setpriv',
    [
      '--pdeathsig',
      'KILL',
      'qemu-storage-daemon',
      '--blockdev',
      `driver=file,node-name=file,filename=${served}`,
    ].concat([
      '--export',
      `type=vhost-user-blk,id=export,node-name=file,addr.type=unix,addr.path=${socketPath},writable=on,num-queues=2`,
    ]),
    { stdio: 'inherit' },
  );
  try {
    await listens(socketPath);
    const result = await runGuest({
      name: 'frame-disks',
      script: `
modprobe virtio_blk
for disk in vda vdb; do
  until_ok 10 test -b /dev/$disk || fail "no $disk"
  [ "$(cat /sys/block/$disk/size)" = ${(16 * MiB) / 512} ] || fail "size of $disk"
  fio --name=$disk --filename=/dev/$disk --direct=1 --ioengine=libaio --iodepth=8 --bs=4k --rw=randwrite --size=4m \\
    --verify=crc32c --verify_fatal=1 --eta=never --output=/run/fio || { cat /run/fio; fail "fio on $disk"; }
  echo "this is $disk" | dd of=/dev/$disk bs=512 conv=sync,fsync 2>/dev/null || fail "write to $disk"
done
`,
      system,
      devices: [
        { kind: 'disk', path: plain },
        { kind: 'vhost-user-blk', socketPath, queues: 2 },
      ],
    });
    expect(result.rc, result.log).toBe(0);
    expect([await beginning(plain), await beginning(served)].sort()).toEqual(['this is vda', 'this is vdb']);
  } finally {
    server.kill('SIGKILL');
  }
});

async function beginning(path: string): Promise<string> {
  const file = await open(path);
  const { buffer } = await file.read(Buffer.alloc(11), 0, 11, 0);
  await file.close();
  return buffer.toString('latin1');
}

async function listens(path: string): Promise<void> {
  for (let left = 200; left > 0; left--) {
    if (existsSync(path)) return;
    await delay(50);
  }
  throw new Error(`nobody listens on ${path}`);
}
