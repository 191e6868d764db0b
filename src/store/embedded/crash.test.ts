// SPDX-License-Identifier: Apache-2.0
//
// Goal: what the embedded store acknowledged survives SIGKILL at any moment, and its clients live on.
// Method: the server is a process of its own; it is killed in the middle of writes, started again on
// the same directory and port, and compared with what was acknowledged.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemClock } from '../../env/clock.js';
import { systemRandom } from '../../env/random.js';
import { isBasaltError } from '../../model/errors.js';
import { failureOf, WatchReader } from '../contract.js';
import { openEtcdStore } from '../etcd/etcd-store.js';
import type { Store } from '../store.js';
import { Draw } from '../testing/draw.js';
import { EmbeddedProcess } from '../testing/embedded-process.js';
import { startEmbeddedStore } from './server.js';

const seed = Number(process.env['BASALT_SEED'] ?? Math.floor(systemRandom.fraction() * 2 ** 31));
const writers = 8;
const kills = 3;

describe('embedded store as a process', () => {
  let directory: string;
  let server: EmbeddedProcess;
  let store: Store;

  beforeEach(async () => {
    directory = mkdtempSync(join(tmpdir(), 'basalt-store-'));
    server = await EmbeddedProcess.launch(directory);
    store = openEtcdStore({ endpoints: [server.endpoint] });
  }, 20_000);

  afterEach(async () => {
    await store.close();
    await server.kill();
    rmSync(directory, { recursive: true, force: true });
  });

  it(`loses nothing acknowledged through ${kills} SIGKILLs in the middle of writes (seed ${seed})`, {
    timeout: 60_000,
  }, async () => {
    const draw = new Draw(seed);
    const ledgers = Array.from({ length: writers }, (_, index) => new Ledger(`/w/${index}`));
    const watched = new Map<number, number>();
    const reader = new WatchReader(store.watch('/w/', 2));
    const watching = follow(reader, watched);
    for (let kill = 0; kill < kills; kill++) {
      const acknowledged = ledgers.reduce((sum, ledger) => sum + ledger.acknowledged, 0);
      const writing = ledgers.map((ledger) => ledger.writeUntilFailure(store));
      await expect
        .poll(() => ledgers.reduce((sum, ledger) => sum + ledger.acknowledged, 0), { timeout: 30_000, interval: 5 })
        .toBeGreaterThan(acknowledged + 20);
      await systemClock.sleep(draw.below(100));
      await server.kill();
      await Promise.all(writing);
      server = await EmbeddedProcess.launch(directory, server.port);
      for (const ledger of ledgers) await ledger.check(store, `seed ${seed}, kill ${kill}`);
    }
    const { revision } = await store.put('/w/last', 'x');
    await expect.poll(() => watched.has(revision), { timeout: 30_000 }).toBe(true);
    // Every revision was an event under the prefix: the watch saw each exactly once.
    expect([...watched.keys()]).toEqual(Array.from({ length: revision - 1 }, (_, index) => index + 2));
    expect([...watched.values()].every((count) => count === 1)).toBe(true);
    reader.close();
    await watching;
  });

  it('says that an outcome is unknown while the server hangs, and never sends the change again', {
    timeout: 30_000,
  }, async () => {
    const { revision } = await store.put('/k', 'before');
    server.signal('SIGSTOP');
    const [put, txn, read] = await Promise.all([
      failureOf(store.put('/k', 'put', { timeoutMs: 300 })),
      store.txn({ conditions: [], changes: [{ kind: 'put', key: '/t', value: 'txn' }] }, { timeoutMs: 300 }),
      failureOf(store.get('/k', { timeoutMs: 300 })),
    ]);
    expect(put.code).toBe('STORE_UNKNOWN_OUTCOME');
    expect(txn.outcome).toBe('unknown');
    expect(read.code).toBe('STORE_UNREACHABLE');
    const abort = new AbortController();
    const aborted = store.delete('/k', { signal: abort.signal });
    await systemClock.sleep(50);
    abort.abort();
    expect((await failureOf(aborted)).code).toBe('STORE_UNKNOWN_OUTCOME');
    server.signal('SIGCONT');
    const after = await store.put('/after', 'x');
    // The three changes happened at most once each.
    expect(after.revision).toBeLessThanOrEqual(revision + 4);
  });

  it('gives the directory to one process at a time, and to the next as soon as that is dead', {
    timeout: 30_000,
  }, async () => {
    const options = { directory, host: '127.0.0.1', port: 0 };
    await store.put('/k', 'x');
    expect((await failureOf(startEmbeddedStore(options))).code).toBe('STORE_DIRECTORY_LOCKED');
    await server.kill();
    const next = await startEmbeddedStore(options);
    expect((await failureOf(startEmbeddedStore(options))).code).toBe('STORE_DIRECTORY_LOCKED');
    await next.close();
    await next.close();
    await (await startEmbeddedStore(options)).close();
  });

  it('gives every lease its full time again after a restart, then ends it', { timeout: 30_000 }, async () => {
    const lease = await store.grantLease({ ttlSeconds: 4 });
    await store.put('/leased', 'x', { leaseId: lease.id });
    lease.release();
    await systemClock.sleep(2_500);
    await server.kill();
    const startMs = systemClock.now();
    server = await EmbeddedProcess.launch(directory, server.port);
    await expect.poll(async () => (await store.get('/leased')).entry, { timeout: 30_000, interval: 50 }).toBeNull();
    expect(systemClock.now() - startMs).toBeGreaterThan(2_500);
  });
});

/** One key, written with rising numbers; knows what was acknowledged and what may have happened. */
class Ledger {
  acknowledged = 0;
  readonly #key: string;
  #attempted = 0;
  #revision = 0;

  constructor(key: string) {
    this.#key = key;
  }

  async writeUntilFailure(store: Store): Promise<void> {
    for (;;) {
      this.#attempted += 1;
      try {
        const { revision } = await store.put(this.#key, String(this.#attempted), { timeoutMs: 1_000 });
        this.#revision = revision;
        this.acknowledged = this.#attempted;
      } catch (error) {
        if (!isBasaltError(error)) throw error;
        expect(['STORE_UNKNOWN_OUTCOME', 'STORE_UNREACHABLE']).toContain(error.code);
        return;
      }
    }
  }

  async check(store: Store, where: string): Promise<void> {
    const { entry, revision } = await store.get(this.#key, { timeoutMs: 10_000 });
    const value = Number(entry?.value ?? 0);
    expect(value, where).toBeGreaterThanOrEqual(this.acknowledged);
    expect(value, where).toBeLessThanOrEqual(this.#attempted);
    if (value === this.acknowledged && value > 0) expect(entry?.modRevision, where).toBe(this.#revision);
    expect(revision, where).toBeGreaterThanOrEqual(this.#revision);
  }
}

async function follow(reader: WatchReader, seen: Map<number, number>): Promise<void> {
  try {
    for (;;) {
      const { revision } = await reader.next();
      seen.set(revision, (seen.get(revision) ?? 0) + 1);
    }
  } catch {
    // The test closed the watch.
  }
}
