// SPDX-License-Identifier: Apache-2.0
// Goal: in-band authentication (DH-HMAC-CHAP) works with the host of a stock Linux kernel. Method: one engined whose subsystem
// wants it of the guest; the guest connects with every digest, with and without Diffie-Hellman, in one direction and in both,
// authenticates again while connected, and is refused with a wrong secret, without one, and by itself when the controller's
// secret is another one. Secrets must not show in what engined says. Then a user's way: a volume of a cluster of processes is
// attached with secrets by the command line, and the guest runs exactly what that printed, through a failover.

import { spawnSync } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { commandPath } from '../../scripts/demo/command-path.js';
import { RunningCluster, TestHost, volumeName } from '../integration/running-cluster.js';
import { Guest } from '../lab/guest.js';
import { hostNqn } from '../lab/init.js';
import { type AuthStep, authScript, clusterAuthScript } from './auth-script.js';
import { Engined, freePort, listenAddress, setAnaState } from './engined.js';
import { systemOf } from './scenarios.js';

const nqn = 'nqn.2026-01.io.basalt:lab-auth';
const secrets = {
  host: 'DHHC-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:',
  controller: 'DHHC-1:03:ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoOEhYaHiImKi4yNjo+QkZKTlJWWl5iZmpucnZ6foKGio8FPdnY=:',
  other: 'DHHC-1:00:ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoOeXryU:',
};

const { host, controller, other } = secrets;
const steps: readonly AuthStep[] = [
  ...['sha256', 'sha384', 'sha512'].flatMap((digest) =>
    ['null', 'ffdhe2048'].map((group) => ({ name: `${digest}-${group}`, digest, group, host, controller })),
  ),
  { name: 'one-way', digest: 'sha256', group: 'null', host },
  { name: 'again', digest: 'sha256', group: 'null', host, controller, again: true },
  { name: 'wrong', digest: 'sha256', group: 'null', host: other, refused: true },
  { name: 'none', digest: 'sha256', group: 'null', refused: true },
  { name: 'wrong-controller', digest: 'sha256', group: 'null', host, controller: other, refused: true },
];

let engined: Engined;
let folder: string;
let port: number;

beforeEach(async () => {
  engined = await Engined.start('auth');
  folder = await mkdtemp(join(tmpdir(), 'basalt-auth-'));
  port = await freePort();
  for (const name of ['host', 'controller'] as const) {
    const path = join(folder, name);
    await writeFile(path, `${secrets[name]}\n`, { mode: 0o600 });
    await engined.call('keyring_file_add_key', { name, path });
  }
  await engined.call('bdev_malloc_create', { name: 'malloc0', num_blocks: 4096, block_size: 4096 });
  await engined.call('nvmf_create_transport', { trtype: 'TCP' });
  await engined.call('nvmf_create_subsystem', { nqn, serial_number: 'BASALTLAB0000002' });
  await engined.call('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: 'malloc0', nsid: 1 } });
  await engined.call('nvmf_subsystem_add_host', {
    nqn,
    host: hostNqn,
    dhchap_key: 'host',
    dhchap_ctrlr_key: 'controller',
  });
  await engined.call('nvmf_subsystem_add_listener', { nqn, listen_address: listenAddress(port) });
  await setAnaState(engined, nqn, port, 'optimized');
});

afterEach(async () => {
  await engined?.stop();
  if (folder !== undefined) await rm(folder, { recursive: true, force: true });
});

test('a Linux host authenticates with every digest, with and without Diffie-Hellman, and not otherwise', async () => {
  await using guest = await Guest.boot({
    name: 'auth',
    script: authScript({ nqn, path: { port }, steps }),
    system: systemOf('auth'),
    timeoutMs: 580_000,
  });
  for (const { name, digest, group } of steps) {
    await guest.waitForMark(`ready-${name}`, { timeoutMs: 300_000 });
    await engined.call('nvmf_set_config', { dhchap_digests: [digest], dhchap_dhgroups: [group] });
    guest.go(`begin-${name}`);
  }
  const result = await guest.result();
  expect(result.rc, `${result.log}\nengined:\n${engined.log.tail(40)}`).toBe(0);
  for (const { name, digest, group, refused, controller: asked } of steps) {
    const driver = result.values.get(`driver_${name}`) ?? '';
    if (refused === true) {
      expect(driver, name).not.toContain('creating 1 I/O queues');
      continue;
    }
    expect(driver, name).toContain(`qid 0: authenticated with hash hmac(${digest}) dhgroup ${group}`);
    if (asked !== undefined) expect(driver, name).toContain('qid 0: controller authenticated');
  }
  const shown = JSON.stringify(await engined.call('nvmf_get_subsystems')) + engined.log.text;
  for (const secret of Object.values(secrets)) expect(shown).not.toContain(secret.slice(10, 30));
});

test('a Linux host uses a volume of a cluster by what the command line printed, and goes on through a failover', async () => {
  const basalt = commandPath();
  const run = (...args: string[]): string => {
    const ran = spawnSync(process.execPath, [basalt, ...args]);
    expect(ran.status, String(ran.stderr)).toBe(0);
    return String(ran.stdout);
  };
  const file = (name: string): string => join(folder, name);
  run('key', 'create', '--file', file('cluster.key'));
  run('key', 'create', '--node', '--file', file('node.key'));
  const running = await RunningCluster.start({
    host: hostNqn,
    keyFile: file('cluster.key'),
    nodeArguments: ['--node-key-file', file('node.key')],
    settledMsMax: 120_000,
  });
  try {
    const api = running.cluster.api.endpoint;
    const flags = ['--dhchap-key-file', file('host'), '--dhchap-ctrlr-key-file', file('controller')];
    const printed = run('attach', volumeName, '--host', hostNqn, ...flags, '--api', api);
    // The wish is written down; the controllers follow.
    const refused = async (): Promise<boolean> =>
      TestHost.connect(await running.settled(), hostNqn).then(
        (stranger) => stranger.close().then(() => false),
        () => true,
      );
    await expect.poll(refused, { timeout: 120_000 }).toBe(true);
    const volume = await running.settled();
    const lines = printed.trim().split('\n');
    expect(lines).toHaveLength(2);
    const files = new Map(['host', 'controller'].map((name) => [file(name), secrets[name as 'host' | 'controller']]));
    await using guest = await Guest.boot({
      name: 'auth-cluster',
      script: clusterAuthScript({ nqn: volume.nqn, lines, files }),
      system: systemOf('auth'),
      timeoutMs: 580_000,
    });
    await guest.waitForMark('connected', { timeoutMs: 400_000 });
    await running.cluster.daemon(await running.activeController()).kill();
    guest.go('killed');
    const result = await guest.result();
    expect(result.rc, result.log).toBe(0);
    const driver = result.values.get('driver') ?? '';
    expect(driver.match(/qid 0: authenticated with hash/g)).toHaveLength(2);
    expect(driver.match(/qid 0: controller authenticated/g)).toHaveLength(2);
  } finally {
    await running.stop();
  }
});
