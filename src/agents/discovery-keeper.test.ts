// SPDX-License-Identifier: Apache-2.0
//
// Goal: a host that knows one controller node finds all of them, and nobody else does. Method: controller nodes on fake
// engines that come, serve and go, and what each engine was told for its discovery.

import { afterEach, beforeEach, expect, it } from 'vitest';
import { attachVolume, detachVolume } from '../api/volumes.js';
import { nqns } from '../model/keys.js';
import { planTelling, type Told, wantedOf } from './discovery-keeper.js';
import { ClusterBed } from './testing/cluster-bed.js';
import { eventually } from './testing/waiting.js';

const host = 'nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555';

let bed: ClusterBed;

beforeEach(() => {
  bed = new ClusterBed();
});

afterEach(() => bed.close());

async function referredBy(node: string): Promise<string[]> {
  const referrals = await bed.node(node).engine.rpc('nvmf_discovery_get_referrals');
  return referrals.map(({ address }) => `${address.traddr}:${address.trsvcid}`).sort();
}

async function hostsAt(node: string): Promise<string[]> {
  const [discovery] = await bed.node(node).engine.rpc('nvmf_get_subsystems', { nqn: nqns.discovery });
  return discovery?.hosts.map(({ nqn }) => nqn) ?? [];
}

function placeOf(node: string): string {
  const { hosts } = bed.node(node).agent.live ?? {};
  return `${hosts?.traddr}:${hosts?.trsvcid}`;
}

/** Each of `nodes` names exactly the others. */
function allNameTheOthers(...nodes: string[]): Promise<void> {
  return eventually(`${nodes.join(', ')} name each other`, async () => {
    for (const node of nodes) {
      const others = nodes.filter((each) => each !== node).map(placeOf);
      if ((await referredBy(node)).join() !== others.sort().join()) return false;
    }
    return true;
  });
}

it('controller nodes name each other as they come and go', async () => {
  await bed.startDiskNode('d1');
  await bed.startController('c1');
  await bed.startController('c2');
  await allNameTheOthers('c1', 'c2');
  await bed.startController('c3');
  await allNameTheOthers('c1', 'c2', 'c3');
  await bed.stop('c2');
  await allNameTheOthers('c1', 'c3');
  // A node without volumes of hosts has none to name anybody to.
  expect(await bed.node('d1').engine.rpc('nvmf_discovery_get_referrals')).toEqual([]);
});

it('every controller node knows the hosts of all volumes, for as long as they have one', async () => {
  for (const name of ['d1', 'd2']) await bed.startDiskNode(name);
  for (const name of ['c1', 'c2', 'c3']) await bed.startController(name);
  await bed.create({ name: 'v', controllers: ['c1', 'c2'] });
  await attachVolume(bed.api, 'v', { host });
  for (const node of ['c1', 'c2', 'c3'])
    await eventually(`${node} knows the host`, async () => (await hostsAt(node)).join() === host);
  await detachVolume(bed.api, 'v', { host });
  for (const node of ['c1', 'c2', 'c3'])
    await eventually(`${node} forgets the host`, async () => (await hostsAt(node)).length === 0);
});

it('what was told is not told again, and what changed its channel is told anew', async () => {
  await bed.startController('c1');
  await bed.startController('c2');
  await allNameTheOthers('c1', 'c2');
  const wanted = wantedOf(bed.node('c1').agent.link.state, 'c1');
  expect(wanted.referrals.size).toBe(1);
  const nothing: Told = { referrals: new Map(), hosts: new Set() };
  expect(planTelling(wanted, nothing)).toMatchObject({ add: [{ secure_channel: false }], remove: [] });
  expect(planTelling(wanted, wanted)).toEqual({ add: [], remove: [], addHosts: [], removeHosts: [] });
  const [[key, referral] = ['', undefined]] = [...wanted.referrals];
  const secure = {
    ...nothing,
    referrals: new Map(referral === undefined ? [] : [[key, { ...referral, secure_channel: true }]]),
  };
  expect(planTelling(secure, wanted)).toMatchObject({
    add: [{ secure_channel: true }],
    remove: [{ secure_channel: false }],
  });
});

it('a node whose discovery is off tells nobody anything', async () => {
  await bed.startController('c1');
  await bed.start({ name: 'c2', roles: ['controller'], discovery: 'off' });
  await eventually('c1 names c2', async () => (await referredBy('c1')).join() === placeOf('c2'));
  expect(await referredBy('c2')).toEqual([]);
});
