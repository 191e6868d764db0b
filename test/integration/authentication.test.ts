// SPDX-License-Identifier: Apache-2.0
//
// Goal: a user of a cluster has hosts authenticate and come by TLS, with nothing but the command line; nodes know each
// other by their key; and no key is anywhere in clear but in the files that it came from. Method: a cluster of processes
// whose nodes have a node key; the test's own host connects with right, wrong and no keys, through a failover; in the end
// everything that was ever written down, and the command lines of all processes, are searched for every key.

import { spawnSync } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DemoCluster } from '../../scripts/demo/cluster.js';
import { commandPath } from '../../scripts/demo/command-path.js';
import { NodeIdentity, noIdentity } from '../../src/agents/node-identity.js';
import type { KeyNames } from '../../src/engine/descriptions.js';
import { createNativeEngine } from '../../src/engine/native/native-engine.js';
import { systemRandom } from '../../src/env/random.js';
import { Cluster } from '../../src/index.js';
import type { VolumeView } from '../../src/model/api.js';
import { nqns } from '../../src/model/keys.js';
import { NodeKey, NodeKeyRing } from '../../src/model/node-key.js';
import { findBytes, formsOf } from './find-bytes.js';
import { hostNqn, TestHost } from './running-cluster.js';

const MiB = 1024 * 1024;
const basaltScript = commandPath();
const controllers = ['controller-1', 'controller-2'];
const texts = {
  host: 'DHHC-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:',
  controller: 'DHHC-1:03:ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoOEhYaHiImKi4yNjo+QkZKTlJWWl5iZmpucnZ6foKGio8FPdnY=:',
  other: 'DHHC-1:00:ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoOeXryU:',
  psk: 'NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:',
};

describe('hosts and nodes of a cluster of processes that prove who they are', { timeout: 240_000 }, () => {
  let folder: string;
  let keyFolder: string;
  let cluster: DemoCluster;
  const file = (name: string): string => join(keyFolder, name);

  beforeAll(async () => {
    folder = await mkdtemp('/var/tmp/basalt-auth-');
    // Not below the folder that is searched.
    keyFolder = await mkdtemp('/var/tmp/basalt-keys-');
    for (const [name, text] of Object.entries(texts)) writeFileSync(file(name), `${text}\n`, { mode: 0o600 });
    for (const args of [
      ['--file', file('cluster.key')],
      ['--file', file('node.key'), '--node'],
    ]) {
      const made = spawnSync(process.execPath, [basaltScript, 'key', 'create', ...args]);
      expect(made.status, String(made.stderr)).toBe(0);
    }
    cluster = await DemoCluster.plan({
      folder,
      keyFile: file('cluster.key'),
      nodeArguments: ['--node-key-file', file('node.key')],
      diskBytes: 128 * MiB,
      // Their environment is looked at in the end, which they refuse otherwise.
      environment: { BASALT_CORE_DUMPS: '1' },
    });
    await cluster.start();
    await cluster.api.createVolume({ name: 'v', sizeBytes: 16 * MiB, copies: 2, legs: 2, controllers });
    await settled();
  }, 180_000);

  afterAll(async () => {
    await cluster?.killAll();
    await rm(folder, { recursive: true, force: true });
    await rm(keyFolder, { recursive: true, force: true });
  }, 60_000);

  function settled(what = 'redundant with both controllers up', holds = (_: VolumeView): boolean => true) {
    return cluster.waitForVolume('v', what, 90_000, (volume) => {
      const states = volume.paths.map((path) => path.state).sort();
      return volume.health === 'redundant' && states.join(' ') === 'active standby' && holds(volume);
    });
  }

  function basalt(...args: string[]): string {
    const ran = spawnSync(process.execPath, [basaltScript, ...args, '--api', cluster.api.endpoint]);
    expect(ran.status, String(ran.stderr)).toBe(0);
    return String(ran.stdout);
  }

  async function refusal(keys: KeyNames): Promise<string> {
    const host = await TestHost.connect(await cluster.api.volume('v'), hostNqn, keys).catch((error: Error) => error);
    if (host instanceof Error) return host.message;
    await host.close();
    return 'none: it was let in';
  }

  async function write(host: TestHost, offsetBytes: number, fill: number): Promise<void> {
    await host.bdev.write(offsetBytes, new Uint8Array(8192).fill(fill));
    const into = new Uint8Array(8192);
    await host.bdev.read(offsetBytes, into);
    expect(into.every((byte) => byte === fill)).toBe(true);
  }

  it('lets a host in with its key, through a failover, and with no other one', async () => {
    const flags = ['--dhchap-key-file', file('host'), '--dhchap-ctrlr-key-file', file('controller')];
    const lines = basalt('attach', 'v', '--host', hostNqn, ...flags)
      .trim()
      .split('\n');
    expect(lines).toHaveLength(2);
    for (const line of lines) {
      expect(line).toContain(`--dhchap-secret "$(cat ${file('host')})"`);
      expect(line).toContain(`--dhchap-ctrl-secret "$(cat ${file('controller')})"`);
    }
    const right = { dhchap_key: file('host'), dhchap_ctrlr_key: file('controller') };
    // The attachment is written down; the controllers follow.
    await expect.poll(() => refusal(right), { timeout: 60_000 }).toMatch(/^none/);
    expect(await refusal({})).toMatch(/authentication/i);
    expect(await refusal({ dhchap_key: file('other') })).toMatch(/authentication/i);
    // A controller that cannot prove itself is none to the host.
    expect(await refusal({ dhchap_key: file('host'), dhchap_ctrlr_key: file('other') })).toMatch(/authentication/i);
    const host = await TestHost.connect(await settled(), hostNqn, right);
    try {
      await write(host, MiB, 1);
      const active = (await cluster.api.volume('v')).controller ?? '';
      await cluster.daemon(active).kill();
      await write(host, 2 * MiB, 2);
      await cluster.daemon(active).start();
      await settled();
    } finally {
      await host.close();
    }
  });

  it('takes another key for new connections, and leaves what is connected alone', async () => {
    const volume = await settled();
    const right = { dhchap_key: file('host') };
    const host = await TestHost.connect(volume, hostNqn, right);
    try {
      basalt('host', 'set-keys', hostNqn, '--dhchap-key-file', file('other'), '--no-dhchap-ctrlr');
      await expect.poll(() => refusal(right), { timeout: 60_000 }).toMatch(/authentication/i);
      await expect.poll(() => refusal({ dhchap_key: file('other') }), { timeout: 60_000 }).toMatch(/^none/);
      await write(host, 3 * MiB, 3);
    } finally {
      await host.close();
    }
  });

  it('serves a host with a key for TLS by TLS, on ports of its own, and not otherwise', async () => {
    basalt('host', 'set-keys', hostNqn, '--no-dhchap', '--tls-psk-file', file('psk'));
    const lines = basalt('attach', 'v', '--host', hostNqn).trim().split('\n');
    expect(lines).toHaveLength(3);
    expect(lines[0]).toContain('check-tls-key --insert');
    expect(lines[1]).toContain(' --tls ');
    const volume = await settled('open for TLS', ({ paths }) => paths.every((path) => path.tlsAddress !== null));
    const right = { psk: file('psk') };
    await expect.poll(() => refusal(right), { timeout: 60_000 }).toMatch(/^none/);
    expect(await refusal({})).not.toMatch(/^none/);
    const plain = { ...volume, paths: volume.paths.map((path) => ({ ...path, address: path.tlsAddress })) };
    await expect(TestHost.connect(plain, hostNqn)).rejects.toThrow();
    const host = await TestHost.connect(volume, hostNqn, right);
    try {
      await write(host, 4 * MiB, 4);
      const active = (await cluster.api.volume('v')).controller ?? '';
      await cluster.daemon(active).kill();
      await write(host, 5 * MiB, 5);
      await cluster.daemon(active).start();
    } finally {
      await host.close();
    }
    await settled('open for TLS', ({ paths }) => paths.every((path) => path.tlsAddress !== null));
  });

  it('admits to a replica only who has the node key, whatever it calls itself', async () => {
    const ring = NodeKeyRing.parse(readFileSync(file('node.key'), 'utf8'), 'node.key');
    const strangers = new NodeIdentity(new NodeKeyRing([new NodeKey(systemRandom.bytes(32))]));
    const volume = await settled();
    const [placed] = volume.legs[0] ?? [];
    const node = (await cluster.api.status()).nodes.find((each) => each.name === placed?.node);
    if (placed === undefined || node?.internal == null) throw new Error('no replica to ask');
    const engine = createNativeEngine();
    let attempts = 0;
    const attach = async (credentials: { hostnqn: string }): Promise<string> => {
      const params = { ...node.internal, subnqn: nqns.replica(placed.replica), epoch: 1, timeout_ms: 20_000 };
      const at = { name: `m${++attempts}`, traddr: params.traddr ?? '', trsvcid: params.trsvcid ?? '' };
      return engine.rpc('basalt_member_attach', { ...params, ...at, ...credentials }).then(
        () => 'none: it was let in',
        (error: Error) => error.message,
      );
    };
    const name = volume.controller ?? '';
    const known = nqns.controller(name, ring.newest.id);
    try {
      expect(await attach(await noIdentity.credentials(engine, name, {}))).toMatch(
        /does not admit|invalid host|not allowed/i,
      );
      expect(await attach({ hostnqn: known })).toMatch(/authentication/i);
      const stranger = await strangers.credentials(engine, name, {});
      expect(await attach({ ...stranger, hostnqn: known })).toMatch(/authentication/i);
      // With the key it is a matter of epochs only.
      expect(await attach(await new NodeIdentity(ring).credentials(engine, name, {}))).toMatch(/epoch/);
    } finally {
      await engine.close();
    }
    const api = cluster.api.endpoint;
    const without = await Cluster.connect({ api });
    try {
      const open = without.open('v', { takeover: true, timeoutMs: 4_000 });
      await expect(open).rejects.toThrow();
    } finally {
      await without.close();
    }
    const withKey = await Cluster.connect({ api, nodeKey: file('node.key') });
    try {
      const opened = await withKey.open('v', { takeover: true });
      expect((await opened.read(4 * MiB, 4096)).every((byte) => byte === 4)).toBe(true);
      // By links, which authenticate: as many members as the volume has, and under a name that says with which key.
      const links = await withKey.engine.rpc('basalt_link_get', {});
      expect(links.reduce((sum, { members }) => sum + members, 0)).toBe(volume.legs.flat().length);
      for (const { hostnqn } of links) expect(hostnqn).toMatch(new RegExp(`:${ring.newest.id}$`));
      await opened.close();
    } finally {
      await withKey.close();
    }
    await settled();
  });

  it('left no key in the store, in a log, on a disk or on a command line', async () => {
    const processes = join(folder, 'processes');
    mkdirSync(processes);
    for (const { pid } of cluster.daemons) {
      if (pid === undefined) continue;
      for (const what of ['cmdline', 'environ'])
        spawnSync('cp', [`/proc/${pid}/${what}`, join(processes, `${pid}.${what}`)]);
    }
    await cluster.killAll();
    const ring = NodeKeyRing.parse(readFileSync(file('node.key'), 'utf8'), 'node.key');
    const secrets = Object.entries(texts).map(([name, text]): [string, Buffer] => {
      return [name, Buffer.from(text.split(':')[2] ?? '', 'base64').subarray(0, -4)];
    });
    const nodes = ring.keys.map((key): [string, Buffer] => ['node key', Buffer.from(key.toText(), 'base64')]);
    const derived = controllers.flatMap((name) =>
      (['controller', 'replica'] as const).map((side): [string, Buffer] => {
        const text = ring.newest.secretOf(side, nqns.controller(name, ring.newest.id));
        return [`${side} secret of ${name}`, Buffer.from(text.split(':')[2] ?? '', 'base64').subarray(0, -4)];
      }),
    );
    const wanted = new Map([...secrets, ...nodes, ...derived].flatMap(([name, secret]) => formsOf(name, secret)));
    expect(await findBytes(folder, wanted)).toEqual([]);
    // The search sees keys where they are.
    expect((await findBytes(keyFolder, wanted)).length).toBeGreaterThanOrEqual(5);
  });
});
