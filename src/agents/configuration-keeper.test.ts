// SPDX-License-Identifier: Apache-2.0
//
// Goal: each disk keeps a copy of what concerns it, soon after it changed and never without need, and whatever happens to
// one of its two places the other one counts. Method: agents on fake engines, whose disks are looked at as a survey does.

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  type ConfigurationCopy,
  configurationLvol,
  copyText,
  decodeBody,
  decodeHeader,
  encodePlace,
  parseCopyText,
  placeBytes,
} from '../model/configuration-copy.js';
import { keys } from '../model/keys.js';
import { NodeKey, NodeKeyRing } from '../model/node-key.js';
import { Signer } from '../model/signer.js';
import { readCopy } from './configuration-keeper.js';
import { noIdentity } from './node-identity.js';
import { ClusterBed } from './testing/cluster-bed.js';

let bed: ClusterBed;

beforeEach(async () => {
  bed = new ClusterBed();
  await Promise.all(['d1', 'd2', 'd3'].map((name) => bed.startDiskNode(name)));
  await bed.startController('c1');
});
afterEach(() => bed.close());

async function place(node: string): Promise<{ bdev: string; sequence: number; copy: ConfigurationCopy | null }> {
  const { engine } = bed.node(node);
  const lvols = await engine.rpc('bdev_lvol_get_lvols', {});
  const bdev = lvols.find(({ name }) => name === configurationLvol)?.alias ?? '';
  if (bdev === '') return { bdev, sequence: 0, copy: null };
  const { text, sequence } = await readCopy(engine, bdev, noIdentity.signer);
  return { bdev, sequence, copy: text === null ? null : parseCopyText(text) };
}

const keysOn = async (node: string): Promise<string[]> => (await place(node)).copy?.objects.map(({ key }) => key) ?? [];
const keptOn = (node: string, key: string) =>
  expect.poll(async () => (await keysOn(node)).includes(key), { timeout: 20_000 });

describe('a disk', { timeout: 60_000 }, () => {
  it('keeps what is everybody’s, and the volumes with a replica there', async () => {
    await bed.create({ name: 'v1', copies: 2, legs: 1, controllers: ['c1'] });
    await bed.redundant('v1');
    const { id, legs } = await bed.view('v1');
    const at = new Set(legs.flat().map(({ node }) => node));
    for (const node of ['d1', 'd2', 'd3']) {
      await keptOn(node, keys.cluster).toBe(true);
      for (const key of [keys.volume(id), keys.volumeName('v1'), keys.leadership(id)])
        await keptOn(node, key).toBe(at.has(node));
    }
    const { copy } = await place([...at][0] ?? '');
    expect(copy).toMatchObject({ generation: 0, node: [...at][0] });
    const [kept] = copy?.objects.filter(({ key }) => key === keys.volume(id)) ?? [];
    const [stored] = bed.server.list(keys.volume(id));
    expect(JSON.parse(kept?.text ?? '')).toEqual(JSON.parse(stored?.value.toString() ?? ''));
    expect(kept?.revision).toBeLessThanOrEqual(copy?.revision ?? 0);
  });

  it('is not written while nothing that concerns it changes, and not for the room that it has', async () => {
    await bed.create({ name: 'v1', copies: 3, legs: 1, controllers: ['c1'] });
    await bed.redundant('v1');
    const { id } = await bed.view('v1');
    await keptOn('d1', keys.leadership(id)).toBe(true);
    const before = await place('d1');
    for (let block = 0; block < 64; block++) await bed.write('c1', 'v1', block * 16, 1);
    // What concerns it is written after that was not.
    await bed.create({ name: 'v2', copies: 3, legs: 1, controllers: ['c1'] });
    const second = await bed.view('v2');
    await keptOn('d1', keys.volume(second.id)).toBe(true);
    const after = await place('d1');
    expect(after.sequence - before.sequence).toBeLessThanOrEqual(4);
  });

  it('is written anew after a restart only when something changed, and leaves a later generation alone', async () => {
    await keptOn('d1', keys.cluster).toBe(true);
    const before = await place('d1');
    expect(before.copy).not.toBeNull();
    const later = { ...(before.copy as ConfigurationCopy), generation: 3 };
    const { engine } = bed.node('d1');
    const { header, body } = encodePlace(copyText(later), before.sequence + 1, noIdentity.signer);
    const at = ((before.sequence + 1) % 2) * placeBytes;
    const handle = await engine.openBdev(before.bdev);
    await handle.write(at + header.length, body);
    await handle.write(at, header);
    await handle.close();
    await bed.stop('d1');
    await bed.startDiskNode('d1');
    await bed.create({ name: 'v1', copies: 3, legs: 1, controllers: ['c1'] });
    await keptOn('d2', keys.volume((await bed.view('v1')).id)).toBe(true);
    expect((await place('d1')).copy?.generation).toBe(3);
  });
});

describe('a place', () => {
  const copy: ConfigurationCopy = {
    cluster: 'c',
    generation: 2,
    revision: 9,
    disk: 'd',
    node: 'n',
    objects: [
      { key: '/basalt/v1/volumes/1', revision: 8, text: '{"name":"a\\tb"}' },
      { key: '/basalt/v1/volumes/2', revision: 9, text: '{}' },
    ],
  };
  const signer = new Signer(new NodeKeyRing([new NodeKey(Buffer.alloc(32, 1))]));

  it('is read as it was written', async () => {
    const { header, body } = encodePlace(copyText(copy), 7, signer);
    const found = decodeHeader(header, signer);
    if (found === 'empty' || 'problem' in found) throw new Error('not read');
    expect(found.sequence).toBe(7);
    expect(parseCopyText(decodeBody(body, found) ?? '')).toEqual(copy);
    expect(decodeHeader(Buffer.alloc(4096), signer)).toBe('empty');
  });

  it('counts only whole, and signed by a node of the cluster', async () => {
    const { header, body } = encodePlace(copyText(copy), 7, signer);
    const found = decodeHeader(header, signer);
    if (found === 'empty' || 'problem' in found) throw new Error('not read');
    for (let at = 0; at < 120; at++) {
      const bad = Buffer.from(header);
      bad[at] = (bad[at] ?? 0) ^ 1;
      expect(decodeHeader(bad, signer)).toHaveProperty('problem');
    }
    for (let at = 0; at < found.bodyBytes; at++) {
      const bad = Buffer.from(body);
      bad[at] = (bad[at] ?? 0) ^ 1;
      expect(decodeBody(bad, found)).toBeNull();
    }
    expect(decodeHeader(header, new Signer(null))).toHaveProperty('problem');
    const unsigned = encodePlace(copyText(copy), 7, new Signer(null));
    expect(decodeHeader(unsigned.header, signer)).toHaveProperty('problem');
    expect(parseCopyText('{"cluster":1}')).toBeNull();
    expect(parseCopyText('no JSON\n')).toBeNull();
  });
});

describe('the two places of a disk', { timeout: 60_000 }, () => {
  it('stand in for each other when a write is cut short or one of them rots', async () => {
    await keptOn('d1', keys.cluster).toBe(true);
    const { bdev, copy, sequence } = await place('d1');
    const { engine } = bed.node('d1');
    const next = encodePlace(
      copyText({ ...(copy as ConfigurationCopy), revision: 999 }),
      sequence + 1,
      noIdentity.signer,
    );
    const at = ((sequence + 1) % 2) * placeBytes;
    const handle = await engine.openBdev(bdev);
    const revision = async () => (await place('d1')).copy?.revision;
    await handle.write(at + next.header.length, next.body);
    expect(await revision()).toBe(copy?.revision);
    await handle.write(at, next.header);
    expect(await revision()).toBe(999);
    await handle.write(at + next.header.length, Buffer.alloc(next.body.length, 1));
    expect(await revision()).toBe(copy?.revision);
    await handle.write(at, Buffer.alloc(4096, 1));
    expect(await revision()).toBe(copy?.revision);
    await handle.close();
  });
});
