// SPDX-License-Identifier: Apache-2.0
// Which peers are looked for, when anew, and what counts of what is heard of them. The engine is driven by hand.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Engine, EngineEvent } from '../engine/engine.js';
import { systemClock } from '../env/clock.js';
import { systemRandom } from '../env/random.js';
import { keys } from '../model/keys.js';
import { codecs, formatVersion, type LiveObject } from '../model/objects.js';
import { PeerWatcher } from './peer-watcher.js';
import { quietLog } from './testing/cluster-bed.js';
import { MemoryLink } from './testing/memory-link.js';

const volumeId = '11111111-1111-4111-8111-111111111111';
const incarnation = '8f0d7b2d70868b0627b1';

let link: MemoryLink;
let watcher: PeerWatcher;
/** Names of watches, the last one is the present one. */
let watched: string[];
let tell: (event: EngineEvent) => void;

beforeEach(() => {
  link = new MemoryLink();
  watched = [];
  const engine = {
    on: (_name: 'event', listener: (event: EngineEvent) => void) => {
      tell = listener;
      return () => {};
    },
    rpc: async (method: string, params: { name: string }) => {
      if (method === 'basalt_peer_watch') watched.push(params.name);
      return params.name;
    },
  } as unknown as Engine;
  const context = { engine, clock: systemClock, random: systemRandom, log: quietLog };
  watcher = new PeerWatcher({ context, link, node: 'c1', onChange: () => {} });
  link.onChange(() => watcher.wake());
  const address = { traddr: '127.0.0.1', trsvcid: '4420' };
  const live: LiveObject = {
    format: formatVersion,
    name: 'c2',
    roles: ['controller'],
    kind: 'node',
    incarnation,
    engine: 'test',
    internal: null,
    hosts: address,
    draining: false,
  };
  link.put(keys.live('c2'), codecs.live.encode(live));
  link.put(keys.volume(volumeId), volumeText);
  watcher.start();
});

afterEach(() => watcher.stop());

const volumeText = codecs.volume.encode({
  format: formatVersion,
  id: volumeId,
  name: 'v1',
  phase: 'live',
  sizeBytes: 2 ** 20,
  blockSizeBytes: 4096,
  stripeSizeBytes: 65536,
  copies: 1,
  legSizeBytes: 2 ** 20,
  controllers: ['c1', 'c2'],
  hosts: [],
  nbd: [],
  legs: [],
});

function lead(epoch: number, controller: string): number {
  const instance = '44444444-4444-4444-8444-444444444444';
  const rest = { clean: false, leaseMs: 300, legs: [] };
  const text = codecs.leadership.encode({ format: formatVersion, volumeId, epoch, controller, instance, ...rest });
  link.put(keys.leadership(volumeId), text);
  return link.state.stored('leaderships', volumeId)?.revision ?? 0;
}

const present = (): string => watched.at(-1) ?? '';
const patient = { timeout: 30_000 };

describe('a peer', () => {
  it('that is connected is not looked for again, whatever it does', async () => {
    await expect.poll(() => watched.length, patient).toBe(1);
    tell({ method: 'peer_connected', params: { name: present() } });
    for (let epoch = 1; epoch < 10; epoch++) lead(epoch, 'c2');
    await systemClock.sleep(700);
    expect(watched).toHaveLength(1);
  });

  it('that was lost is looked for again when it takes an epoch, and is gone when it refuses then', async () => {
    await expect.poll(() => watched.length, patient).toBe(1);
    tell({ method: 'peer_connected', params: { name: present() } });
    tell({ method: 'peer_lost', params: { name: present(), reason: 'test' } });
    tell({ method: 'peer_refused', params: { name: present(), reason: 'test' } });
    expect(watcher.lost.has('c2')).toBe(true);
    const revision = lead(1, 'c2');
    expect(watcher.gone.get('c2') ?? 0).toBeLessThan(revision);
    await expect.poll(() => watched.length, patient).toBe(2);
    tell({ method: 'peer_refused', params: { name: present(), reason: 'test' } });
    expect(watcher.gone.get('c2')).toBe(revision);
    tell({ method: 'peer_connected', params: { name: present() } });
    expect(watcher.gone.has('c2') || watcher.lost.has('c2')).toBe(false);
  });

  it('that refuses, and takes epochs all the same, is believed to be there after a few times', async () => {
    let believed = 0;
    for (let epoch = 1; epoch <= 6; epoch++) {
      const revision = lead(epoch, 'c2');
      await expect.poll(() => watched.length, patient).toBeGreaterThanOrEqual(epoch);
      tell({ method: 'peer_refused', params: { name: present(), reason: 'test' } });
      if (watcher.gone.get('c2') === revision) believed += 1;
    }
    expect(believed).toBeGreaterThanOrEqual(1);
    expect(believed).toBeLessThanOrEqual(3);
  });
});
