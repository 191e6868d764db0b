// SPDX-License-Identifier: Apache-2.0
//
// Goal: when the store is lost, a cluster goes on from what its disks say: with every byte of every volume and snapshot, also
// where a set had shrunk, also of encrypted volumes; it begins with no volume whose last set was not seen; and the old store
// is refused when it comes back.
// Method: a cluster of processes; all are killed, the store's folder is taken away, the disks are asked by the command, a new
// store is made by it, and what hosts read is compared by its SHA-256.

import { spawnSync } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import { readFileSync, renameSync, writeFileSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { DemoCluster } from '../../scripts/demo/cluster.js';
import { commandPath } from '../../scripts/demo/command-path.js';
import { pollUntil } from '../../scripts/demo/poll.js';
import type { VolumeView } from '../../src/model/api.js';
import { findBytes, formsOf } from './find-bytes.js';
import { hostNqn, TestHost } from './running-cluster.js';

const MiB = 1024 * 1024;
const sizeBytes = 16 * MiB;
const disks = ['disk-1', 'disk-2', 'disk-3'];
const volumes = ['plain', 'secret', 'coded', 'grown'];

describe('a cluster whose store is lost', { timeout: 300_000 }, () => {
  let folder: string;
  let keyFolder: string;
  let nodeKey: string;
  let cluster: DemoCluster;
  /** Of the store. */
  let endpoint: string;
  /** SHA-256, by volume. */
  const before = new Map<string, string>();

  function command(...args: string[]): { code: number | null; out: string; err: string } {
    const ran = spawnSync(process.execPath, [commandPath(), ...args], { encoding: 'utf8', maxBuffer: 256 * MiB });
    return { code: ran.status, out: ran.stdout, err: ran.stderr };
  }

  beforeAll(async () => {
    folder = await mkdtemp('/var/tmp/basalt-lost-');
    // Not below the folder that is searched.
    keyFolder = await mkdtemp('/var/tmp/basalt-keys-');
    nodeKey = join(keyFolder, 'node.key');
    const keyFile = join(keyFolder, 'cluster.key');
    expect(command('key', 'create', '--node', '--file', nodeKey).code).toBe(0);
    expect(command('key', 'create', '--file', keyFile).code).toBe(0);
    const nodeArguments = ['--node-key-file', nodeKey];
    cluster = await DemoCluster.plan({ folder, keyFile, nodeArguments, diskBytes: 256 * MiB });
    await cluster.start();
    await cluster.api.createPool({ name: 'codes', redundancy: { kind: 'erasure', data: 2, parity: 1 } });
    for (const name of volumes) {
      const kept = name === 'coded' ? { pool: 'codes' } : { copies: 2 };
      const controllers = ['controller-1', 'controller-2'];
      const shape = { sizeBytes, legs: 2, controllers, encrypt: name === 'secret', ...kept };
      await cluster.api.createVolume({ name, ...shape });
      await cluster.api.attach(name, { host: hostNqn });
    }
    for (const name of volumes) await settled(name);
  }, 120_000);

  afterAll(async () => {
    await cluster?.killAll();
    await rm(folder, { recursive: true, force: true });
    await rm(keyFolder, { recursive: true, force: true });
  }, 60_000);

  function settled(name: string, health = 'redundant'): Promise<VolumeView> {
    return cluster.waitForVolume(name, `${health} with a controller up`, 60_000, (volume) => {
      const states = volume.paths.map((path) => path.state);
      return volume.health === health && states.includes('active') && volume.hosts.includes(hostNqn);
    });
  }

  async function withHost<T>(name: string, run: (host: TestHost) => Promise<T>): Promise<T> {
    const host = await TestHost.connect(await cluster.api.volume(name));
    try {
      return await run(host);
    } finally {
      await host.close();
    }
  }

  const fill = (name: string, offsetBytes: number, bytes: number): Promise<void> =>
    withHost(name, async ({ bdev }) => {
      await bdev.write(offsetBytes, randomBytes(bytes));
      await bdev.flush();
    });

  const digest = (name: string): Promise<string> =>
    withHost(name, async ({ bdev, engine }) => {
      const hash = createHash('sha256');
      const memory = new Uint8Array(engine.allocate(MiB));
      for (let at = 0; at < bdev.info.sizeBytes; at += MiB) {
        await bdev.read(at, memory);
        hash.update(memory);
      }
      return hash.digest('hex');
    });

  async function expectAsBefore(names: readonly string[]): Promise<void> {
    for (const name of names) expect([name, await digest(name)]).toEqual([name, before.get(name)]);
  }

  const survey = (name: string, key = nodeKey): string => {
    const path = join(folder, `${name}.survey`);
    const disk = join(folder, `${name}.disk`);
    const asked = command('store', 'survey', '--name', name, '--disk', disk, '--node-key-file', key);
    expect(asked.code, asked.err).toBe(0);
    writeFileSync(path, asked.out);
    return path;
  };

  /** The store alone, which is empty. */
  async function startStore(): Promise<void> {
    const ready = await cluster.daemon('store').start();
    endpoint = String(ready['endpoint']).replace(/^.*\/\//, '');
  }

  const startOthers = async (): Promise<void> => {
    await Promise.all(cluster.daemons.filter(({ name }) => name !== 'store').map((daemon) => daemon.start()));
  };

  const rebuild = (...args: string[]): { code: number | null; report: Record<string, never>; err: string } => {
    const ran = command('store', 'rebuild', ...args, '--store', endpoint, '--json');
    return { code: ran.code, report: ran.out === '' ? {} : JSON.parse(ran.out), err: ran.err };
  };

  const verdicts = (report: Record<string, { name: string; is: string }[]>): Record<string, string> =>
    Object.fromEntries((report['volumes'] ?? []).map(({ name, is }) => [name, is]));

  it('had written, cut, grown, and lost a member', async () => {
    for (const name of volumes) await fill(name, 0, 8 * MiB);
    await cluster.api.createSnapshot('plain', 'early');
    await pollUntil(
      'the snapshot',
      60_000,
      () => cluster.api.snapshot('plain', 'early').catch(() => null),
      (snapshot) => snapshot?.state === 'ready',
    );
    await withHost('plain', async () => before.set('clone', await digest('plain')));
    await cluster.api.resizeVolume('grown', { sizeBytes: 2 * sizeBytes });
    await cluster.waitForVolume(
      'grown',
      'grown',
      60_000,
      (volume) => volume.growth === null && volume.sizeBytes > sizeBytes,
    );
    await cluster.daemon('disk-3').kill();
    // What is written now the third disk does not have.
    for (const name of volumes) await fill(name, 4 * MiB, 8 * MiB);
    await fill('grown', sizeBytes, MiB);
    // Two copies need not be on the third one; a stripe of two and its parity are.
    const shrunk = [];
    for (const name of volumes) {
      const { legs } = await cluster.api.volume(name);
      if (legs.flat().some(({ node }) => node === 'disk-3')) shrunk.push(name);
    }
    expect(shrunk).toContain('coded');
    for (const name of shrunk) await settled(name, 'degraded');
    for (const name of volumes) before.set(name, await digest(name));
  });

  it('is not begun without a disk that may know better', async () => {
    await cluster.killAll();
    renameSync(join(folder, 'store'), join(folder, 'store.old'));
    await startStore();
    const one = rebuild(survey('disk-3'));
    expect(one.code).toBe(8);
    expect(Object.values(verdicts(one.report as never))).not.toContain('whole');
    expect(one.report['missingDisks']).toHaveLength(2);
    const refused = rebuild(join(folder, 'disk-3.survey'), '--write');
    expect([refused.code, refused.report['written']]).toEqual([8, false]);
  });

  it('is found whole by the disks that were in sync, and by those only that can show that they are of it', async () => {
    const two = rebuild(survey('disk-1'), survey('disk-2'));
    expect(two.code, JSON.stringify(two.report)).toBe(0);
    expect(verdicts(two.report as never)).toEqual(Object.fromEntries(volumes.map((name) => [name, 'whole'])));
    const other = join(keyFolder, 'other.key');
    expect(command('key', 'create', '--node', '--file', other).code).toBe(0);
    const path = survey('disk-1', other);
    expect(rebuild(path)).toMatchObject({ code: 2 });
    survey('disk-1');
  });

  it('goes on from a new store with every byte', async () => {
    const surveys = disks.map((name) => survey(name));
    const dry = rebuild(...surveys);
    expect(dry.report).toMatchObject({ generation: 1, written: false, missingDisks: [] });
    const written = rebuild(...surveys, '--write');
    expect(written).toMatchObject({ code: 0, report: { ...dry.report, written: true } });
    // It has a cluster now.
    expect(rebuild(...surveys, '--write').code).toBe(4);
    await startOthers();
    for (const name of volumes) await settled(name);
    await expectAsBefore(volumes);
    await cluster.api.cloneSnapshot('plain', 'early', { name: 'clone', controllers: ['controller-1'] });
    await cluster.api.attach('clone', { host: hostNqn });
    await settled('clone');
    await expectAsBefore(['clone']);
    expect((await cluster.api.volume('plain')).epoch).toBeGreaterThan(2 ** 40);
  });

  it('refuses the old store when that comes back', async () => {
    await fill('plain', 0, MiB);
    before.set('plain', await digest('plain'));
    await cluster.killAll();
    renameSync(join(folder, 'store'), join(folder, 'store.new'));
    renameSync(join(folder, 'store.old'), join(folder, 'store'));
    await cluster.start();
    await cluster.waitForVolume('plain', 'refused', 60_000, (volume) =>
      volume.paths.some(({ problem }) => problem?.includes('generation 1') === true),
    );
    for (const name of volumes)
      expect((await cluster.api.volume(name)).paths.map(({ state }) => state)).not.toContain('active');
    await cluster.killAll();
    renameSync(join(folder, 'store'), join(folder, 'store.old'));
    renameSync(join(folder, 'store.new'), join(folder, 'store'));
    await cluster.start();
    for (const name of volumes) await settled(name);
    await expectAsBefore(volumes);
  });

  it('is lost and rebuilt once more, into a later generation', async () => {
    await cluster.killAll();
    renameSync(join(folder, 'store'), join(folder, 'store.lost'));
    await startStore();
    const surveys = disks.map((name) => survey(name));
    expect(rebuild(...surveys, '--write')).toMatchObject({ code: 0, report: { generation: 2, written: true } });
    await startOthers();
    for (const name of [...volumes, 'clone']) await settled(name);
    await expectAsBefore([...volumes, 'clone']);
  });

  it('has left no key in clear on a disk, in a log or in an answer', async () => {
    const wanted = new Map<string, Buffer>([['the name of a volume', Buffer.from('"name":"grown"')]]);
    for (const name of ['node.key', 'cluster.key']) {
      const key = /([A-Za-z0-9+/]{43}=)/.exec(readFileSync(join(keyFolder, name), 'utf8'))?.[1] ?? '';
      for (const [form, secret] of formsOf(name, Buffer.from(key, 'base64'))) wanted.set(form, secret);
    }
    const found = await findBytes(folder, wanted);
    // So that the search can fail.
    expect(new Set(found.map(({ name }) => name))).toEqual(new Set(['the name of a volume']));
  });
});
