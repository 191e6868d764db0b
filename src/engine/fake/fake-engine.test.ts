// SPDX-License-Identifier: Apache-2.0

import { describe, expect, it } from 'vitest';
import { engineContract } from '../contract.js';
import type { EngineEvent } from '../engine.js';
import { FakeEngine } from './fake-engine.js';
import { FakeNetwork } from './network.js';

engineContract('fake', async () => {
  const network = new FakeNetwork();
  let count = 0;
  return {
    makeEngine: () => new FakeEngine(`engine-${count++}`, network),
    diskPath: (name) => `/fake/${name}`,
    dispose: async () => {},
  };
});

const listen = { trtype: 'TCP', traddr: '127.0.0.1', trsvcid: '0' } as const;
const nqn = 'nqn.2014-08.org.nvmexpress.discovery';

async function watched(): Promise<{ peer: FakeEngine; watcher: FakeEngine; events: string[]; network: FakeNetwork }> {
  const network = new FakeNetwork();
  const [peer, watcher] = [new FakeEngine('peer', network), new FakeEngine('watcher', network)];
  await peer.rpc('nvmf_create_transport', { trtype: 'TCP' });
  const { traddr, trsvcid } = await peer.rpc('nvmf_subsystem_add_listener', { nqn, listen_address: listen });
  const events: string[] = [];
  watcher.on('event', (event: EngineEvent) => events.push(event.method));
  await watcher.rpc('basalt_peer_watch', { name: 'p', traddr, trsvcid, keep_alive_ms: 100 });
  await expect.poll(() => events).toEqual(['peer_connected']);
  return { peer, watcher, events, network };
}

describe('controls of the fake network', () => {
  it('notices a partition by keep-alive and connects again after it heals', async () => {
    const { peer, watcher, events, network } = await watched();
    network.partition(peer, watcher);
    await expect.poll(() => events).toEqual(['peer_connected', 'peer_lost']);
    network.heal(peer, watcher);
    await expect.poll(() => events).toEqual(['peer_connected', 'peer_lost', 'peer_connected']);
  });

  it('notices a killed peer without waiting for the keep-alive', async () => {
    const { peer, events } = await watched();
    peer.kill();
    await expect.poll(() => events.slice(0, 2), { timeout: 90 }).toEqual(['peer_connected', 'peer_lost']);
    // And then that its address refuses, once.
    await expect.poll(() => events).toEqual(['peer_connected', 'peer_lost', 'peer_refused']);
  });

  it('parks what a paused engine was doing and goes on later', async () => {
    const engine = new FakeEngine();
    engine.pause();
    let answered = false;
    const answer = engine.rpc('rpc_get_methods').then(() => {
      answered = true;
    });
    await new Promise((resolve) => setImmediate(resolve));
    expect(answered).toBe(false);
    engine.resume();
    await answer;
  });
});
