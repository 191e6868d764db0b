// SPDX-License-Identifier: Apache-2.0

import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../env/clock.js';
import { keys } from '../model/keys.js';
import { codecs } from '../model/objects.js';
import { MemoryServer } from '../store/memory/memory-store.js';
import type { Store } from '../store/store.js';
import { FollowedStore } from './followed-store.js';
import { readState } from './read-state.js';

const cordon = (name: string): { key: string; text: string } => ({
  key: keys.cordon('node', name),
  text: codecs.cordon.encode({ format: 1, kind: 'node', name, mode: 'cordon', sinceMs: 0 }),
});

describe('a store that is followed', () => {
  let server: MemoryServer;
  let other: Store;
  let followed: FollowedStore;

  beforeEach(() => {
    server = new MemoryServer();
    other = server.connect();
    followed = new FollowedStore(server.connect(), systemClock);
  });
  afterEach(async () => {
    await followed.close();
    await other.close();
  });

  const names = async (): Promise<string[]> => {
    const { state } = await readState(followed);
    return state.all('cordons').map(({ name }) => name);
  };

  it('shows every change that was made before it was asked', async () => {
    expect(await names()).toEqual([]);
    for (let index = 10; index < 60; index++) {
      const { key, text } = cordon(`n${index}`);
      await other.put(key, text);
      expect((await names()).at(-1)).toBe(`n${index}`);
    }
    await other.delete(cordon('n10').key);
    expect(await names()).toHaveLength(49);
  });

  it('gives readings that stay as they are', async () => {
    await other.put(cordon('n1').key, cordon('n1').text);
    const { state } = await readState(followed);
    await other.put(cordon('n2').key, cordon('n2').text);
    expect(await names()).toEqual(['n1', 'n2']);
    expect(state.all('cordons').map(({ name }) => name)).toEqual(['n1']);
    expect(state.get('cordons', 'node/n2')).toBeNull();
  });

  it('knows at which revision something was placed last', async () => {
    const { revision } = await other.put(keys.placement, '{}');
    expect((await readState(followed)).placementRevision).toBe(revision);
  });

  it('says so when the store is away, and answers again when it is back', async () => {
    await other.put(cordon('n1').key, cordon('n1').text);
    server.away = true;
    await expect(names()).rejects.toMatchObject({ code: 'STORE_UNREACHABLE' });
    server.away = false;
    expect(await names()).toEqual(['n1']);
  });
});
