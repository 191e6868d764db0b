// SPDX-License-Identifier: Apache-2.0
// What an owner that comes anew lets in: no front under an epoch that the store knows to be over, however old its watch is.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { Engine } from '../engine/engine.js';
import { isEngineError } from '../engine/engine.js';
import { EngineError, engineErrorCodes } from '../engine/errors.js';
import { FakeEngine } from '../engine/fake/fake-engine.js';
import { FakeNetwork } from '../engine/fake/network.js';
import { systemClock } from '../env/clock.js';
import { systemRandom } from '../env/random.js';
import { ClusterState } from '../model/cluster-state.js';
import { keys, nqns } from '../model/keys.js';
import { codecs, type Leadership, type VolumeObject } from '../model/objects.js';
import { firstFrontLeadership } from '../reconcile/parts.js';
import { slotName } from './assembly.js';
import type { ClusterLink } from './cluster-link.js';
import { NodeLink } from './node-link.js';
import { frontName, PartExports } from './part-exports.js';
import { whenAborted } from './signal.js';
import { quietLog } from './testing/cluster-bed.js';

const uuid = (n: number): string => `00000000-0000-0000-0000-${String(n).padStart(12, '0')}`;
const [volumeId, part, other, front, second] = [1, 2, 3, 4, 5].map(uuid) as [string, string, string, string, string];
const address = { traddr: '127.0.0.1', trsvcid: '4420' };

const whole: VolumeObject = {
  format: 1,
  id: volumeId,
  name: 'v1',
  sizeBytes: 2 ** 20,
  blockSizeBytes: 4096,
  stripeSizeBytes: 65536,
  copies: 1,
  legSizeBytes: 2 ** 20,
  legs: [],
  controllers: ['c1', 'c2'],
  hosts: [],
  nbd: [],
  parts: [part, other],
  fronts: [front, second],
  phase: 'live',
};

describe('the exports of a part', () => {
  const network = new FakeNetwork();
  let owner: Engine;
  let from: Engine;
  let exports: PartExports;
  /** As the store holds it, which the watch does not show. */
  let stored: Leadership | null;
  /** Before a front's leadership is read. */
  let reading: (front: string, signal: AbortSignal) => Promise<void>;
  let partLink: NodeLink;
  const state = new ClusterState();
  let count = 0;

  beforeEach(async () => {
    [owner, from] = [new FakeEngine(`owner${++count}`, network), new FakeEngine(`from${count}`, network)];
    const seen = { ...firstFrontLeadership(front, { parts: [part, other], leaseMs: 300 }), epoch: 3 };
    stored = { ...seen, epoch: 10, controller: 'c2' };
    state.apply(keys.volume(volumeId), codecs.volume.encode(whole), 1);
    state.apply(keys.leadership(front), codecs.leadership.encode(seen), 1);
    reading = async () => {};
    const leadership = (of: string) => ({
      read: async (signal: AbortSignal): Promise<{ value: Leadership; revision: number } | null> => {
        await reading(of, signal);
        return stored === null ? null : { value: stored, revision: 9 };
      },
    });
    const link = { state, leadership } as unknown as ClusterLink;
    const context = { engine: owner, clock: systemClock, random: systemRandom, log: quietLog };
    const { parts: _parts, fronts: _fronts, ...plain } = whole;
    await owner.rpc('nvmf_create_transport', { trtype: 'TCP' });
    const slot = { name: slotName(part), num_blocks: 256, block_size: 4096, uuid: part };
    await owner.rpc('basalt_slot_create', slot);
    partLink = new NodeLink({ context, link, nqn: nqns.partLink, nameOf: frontName });
    const shape = { context, link, incarnation: 'I1', partLink, address };
    exports = new PartExports({ ...shape, part: { ...plain, id: part, partOf: volumeId } });
  });
  afterEach(async () => {
    await exports.close();
    await owner.close();
    await from.close();
  });

  const attach = (epoch: number, as = 'c2', of = front): Promise<string> =>
    from
      .rpc('basalt_member_attach', {
        name: `m-${of}-${as}-${epoch}`,
        ...address,
        subnqn: nqns.partExport(part, of),
        hostnqn: nqns.controller(frontName(as)),
        epoch,
        timeout_ms: 500,
      })
      .then(
        () => 'taken',
        (error: unknown) => (isEngineError(error, 'fenced') ? 'fenced' : isEngineError(error) ? 'refused' : 'failed'),
      );

  it('obey no epoch below the one that the store holds, whatever the watch shows', async () => {
    await exports.open();
    expect(await attach(3)).toBe('fenced');
    expect(await attach(9)).toBe('fenced');
    expect(await attach(10)).toBe('taken');
    expect(await attach(10, 'c2', second)).toBe('taken');
  });

  it('let in who may have the front, under the name for parts, and nobody else', async () => {
    await exports.open();
    expect(await attach(10, 'c3')).toBe('refused');
    // A node that became a controller since, or holds the front still.
    state.apply(keys.volume(volumeId), codecs.volume.encode({ ...whole, controllers: ['c2', 'c3'] }), 2);
    await exports.open();
    expect(await attach(10, 'c3')).toBe('taken');
    expect(await attach(10, 'c1')).toBe('refused');
  });

  it('are opened for each front, whatever stands in the way of another one', async () => {
    const ended = new Error('not read');
    reading = (of, signal) =>
      of === front ? whenAborted(signal).then(() => Promise.reject(ended)) : Promise.resolve();
    const opening = exports.open();
    opening.catch(() => {});
    await expect.poll(() => attach(10, 'c2', second), { timeout: 1_500 }).toBe('taken');
    await expect(opening).rejects.toThrow(ended);
    expect(await attach(10)).toBe('refused');
    reading = async () => {};
    await exports.open();
    expect(await attach(10)).toBe('taken');
  });

  it('have their link also where it was not to be had at first, and let nodes come to it that joined since', async () => {
    const rpc = owner.rpc.bind(owner);
    let refused = 0;
    const asked = async (...args: Parameters<typeof rpc>): Promise<unknown> => {
      const { nqn } = (args[1] ?? {}) as { nqn?: string };
      if (args[0] !== 'nvmf_create_subsystem' || nqn !== nqns.partLink || refused++ > 0) return rpc(...args);
      throw new EngineError(engineErrorCodes.noMemory, args[0], 'for now');
    };
    Object.assign(owner, { rpc: asked });
    await expect(exports.open()).rejects.toThrow('link for parts');
    await exports.open();
    const hosts = async (): Promise<string[]> =>
      (await owner.rpc('nvmf_get_subsystems', { nqn: nqns.partLink }))[0]?.hosts.map(({ nqn }) => nqn) ?? [];
    expect(await hosts()).toEqual([]);
    state.apply(keys.node('c9'), codecs.node.encode({ format: 1, name: 'c9', roles: ['controller'] }), 7);
    await exports.open();
    expect(await hosts()).toEqual([nqns.controller(frontName('c9'))]);
  });

  it('are gone when they are closed, and forget whom they let in', async () => {
    await exports.open();
    expect(await attach(12)).toBe('taken');
    await exports.close();
    expect(await attach(13)).toBe('refused');
    stored = null;
    await exports.open();
    expect(await attach(14)).toBe('refused');
  });
});
