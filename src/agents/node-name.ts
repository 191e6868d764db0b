// SPDX-License-Identifier: Apache-2.0
//
// One process per node name: two of them would take every volume from one another. A process that was killed leaves its
// entry behind until its lease ends, so an entry alone says nothing: who is asked is the address in it.

import type { Engine } from '../engine/engine.js';
import type { Clock } from '../env/clock.js';
import type { ClusterState } from '../model/cluster-state.js';
import { BasaltError } from '../model/errors.js';
import type { NodeAddress } from '../model/objects.js';
import type { Identity } from './node-identity.js';
import { watchParams } from './peer-watch.js';

export interface NameCheck {
  readonly engine: Engine;
  readonly identity?: Identity;
  readonly clock: Clock;
  readonly name: string;
  readonly ttlSeconds: number;
}

const answerMs = 300;
const againMs = 250;
/** One that hands over its volumes is waited for. */
const drainMs = 15_000;

/** @throws BUSY when another process of that name answers, also after its lease could have ended */
export async function assertNameFree(state: ClusterState, check: NameCheck, signal: AbortSignal): Promise<void> {
  const startMs = check.clock.now();
  for (let attempt = 0; ; attempt++) {
    const live = state.get('lives', check.name);
    const address = live?.internal ?? live?.hosts ?? null;
    if (live === null || address === null) return;
    if (!(await answers(check, address, `name-${check.name}-${attempt}`, signal))) return;
    const waitMs = live.draining ? drainMs : check.ttlSeconds * 1000 + 1000;
    if (check.clock.now() - startMs > waitMs) {
      const detail = `its process answers at ${address.traddr}:${address.trsvcid}`;
      throw new BasaltError('BUSY', { kind: 'node name', name: check.name, detail, field: 'name' });
    }
    await check.clock.sleep(againMs, signal);
  }
}

/** Whoever does not let this one in is there, too. */
async function answers(check: NameCheck, address: NodeAddress, name: string, signal: AbortSignal): Promise<boolean> {
  const { engine, clock } = check;
  const ended = new AbortController();
  let answered = false;
  const unsubscribe = engine.on('event', (event) => {
    if (event.method !== 'peer_connected' && event.method !== 'peer_denied') return;
    if (event.params.name !== name) return;
    answered = true;
    ended.abort();
  });
  try {
    const params = await watchParams(check, { address, as: check.name, keepAliveMs: answerMs }).catch(() => null);
    // Without a key nobody can be asked: whoever it was is waited for.
    if (params === null) return true;
    await engine.rpc('basalt_peer_watch', { name, ...params }, { signal });
    await clock.sleep(answerMs, AbortSignal.any([signal, ended.signal])).catch(() => {});
    signal.throwIfAborted();
    return answered;
  } finally {
    unsubscribe();
    await engine.rpc('basalt_peer_unwatch', { name }).catch(() => {});
  }
}
