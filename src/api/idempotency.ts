// SPDX-License-Identifier: Apache-2.0
//
// Requests that are repeated under one key: what was answered first is answered again, and nothing happens twice.
//
// A key is claimed before the request is carried out and gets its answer afterwards. Whoever finds a claim without an
// answer carries the request out again: each of them has the effect of one when it is made twice, so a server that died in
// between does no harm. A request that is refused has changed nothing; its claim goes.
//
// Invariants:  - a key means one request: method, path and body; another one under it is a conflict
//              - answers are kept for a bounded number of keys

import { createHash } from 'node:crypto';
import Type, { type Static } from 'typebox';
import { checker } from '../model/check.js';
import { BasaltError } from '../model/errors.js';
import { keys } from '../model/keys.js';
import { compareAndSwap, type Entry, type Store } from '../store/store.js';
import type { Reply } from './routes/route.js';

export const idempotencyHeader = 'idempotency-key';
const keyLengthMax = 255;
/** The oldest go when there are more. */
export const keptMax = 10_000;
/** Looking for the oldest reads all of them: not for every request. */
const sweepEvery = 1_000;
const timeoutMs = 5_000;

const Claim = Type.Object(
  {
    format: Type.Literal(1),
    /** Of method, path and body. */
    request: Type.String(),
    answer: Type.Union([Type.Object({ status: Type.Integer(), body: Type.Unknown() }), Type.Null()]),
  },
  { additionalProperties: false },
);
type Claim = Static<typeof Claim>;
interface Claimed {
  readonly claim: Claim;
  readonly revision: number;
}
const checkClaim = checker(Claim);

export interface KeyedRequest {
  readonly key: string;
  readonly method: string;
  readonly url: string;
  readonly body: unknown;
}

/** What the header says; null: it is not there. @throws INVALID_ARGUMENT */
export function idempotencyKeyOf(header: string | string[] | undefined): string | null {
  if (header === undefined) return null;
  if (typeof header === 'string' && header.length > 0 && header.length <= keyLengthMax) return header;
  const problem = `must be one text of 1 to ${keyLengthMax} characters`;
  throw new BasaltError('INVALID_ARGUMENT', { field: `${idempotencyHeader} header`, problem });
}

export class IdempotentRequests {
  readonly #store: Store;
  /** Those of this server, by key: a copy that comes meanwhile waits. */
  readonly #running = new Map<string, Promise<unknown>>();
  #claims = 0;

  constructor(store: Store) {
    this.#store = store;
  }

  async run(request: KeyedRequest, act: () => Promise<Reply>): Promise<Reply> {
    const before = this.#running.get(request.key) ?? Promise.resolve();
    const running = before.catch(() => {}).then(() => this.#run(request, act));
    this.#running.set(request.key, running);
    try {
      return await running;
    } finally {
      if (this.#running.get(request.key) === running) this.#running.delete(request.key);
    }
  }

  async #run(request: KeyedRequest, act: () => Promise<Reply>): Promise<Reply> {
    const at = keys.idempotency(digest(request.key));
    const asked = digest(JSON.stringify([request.method, request.url, request.body ?? null]));
    const { claim: claimed, revision } = await this.#claim(at, request, asked);
    if (claimed.answer !== null) return claimed.answer;
    try {
      const answer = await act();
      await this.#put(at, { format: 1, request: asked, answer });
      return answer;
    } catch (error) {
      // What may have happened after all is asked for again under the same key.
      if (error instanceof BasaltError && error.code !== 'STORE_UNKNOWN_OUTCOME') await this.#withdraw(at, revision);
      throw error;
    }
  }

  async #claim(at: string, request: KeyedRequest, asked: string): Promise<Claimed> {
    const claim: Claim = { format: 1, request: asked, answer: null };
    const { entry } = await this.#store.get(at, { timeoutMs });
    if (entry !== null) return { claim: known(entry, request, asked), revision: entry.modRevision };
    if (this.#claims++ % sweepEvery === 0) await this.#sweep();
    const swapped = await compareAndSwap(this.#store, { key: at, modRevision: 0, value: JSON.stringify(claim) });
    if (swapped.outcome === 'committed') return { claim, revision: swapped.revision };
    if (swapped.outcome === 'unknown') throw swapped.error;
    const other = swapped.current.get(at) ?? null;
    return other === null
      ? { claim, revision: 0 }
      : { claim: known(other, request, asked), revision: other.modRevision };
  }

  /** Only as it was claimed: another server may have the answer by now, and that stays. */
  async #withdraw(at: string, revision: number): Promise<void> {
    const txn = { conditions: [{ key: at, modRevision: revision }], changes: [{ kind: 'delete' as const, key: at }] };
    await this.#store.txn(txn, { timeoutMs }).catch(() => {});
  }

  async #put(at: string, claim: Claim): Promise<void> {
    await this.#store.put(at, JSON.stringify(claim), { timeoutMs });
  }

  async #sweep(): Promise<void> {
    const { entries } = await this.#store.list(keys.idempotencies, { timeoutMs });
    const old = entries.sort((a, b) => a.modRevision - b.modRevision).slice(0, Math.max(0, entries.length - keptMax));
    for (const entry of old) await this.#store.delete(entry.key, { timeoutMs });
  }
}

/** @throws IDEMPOTENCY_CONFLICT */
function known(entry: Entry, request: KeyedRequest, asked: string): Claim {
  const claim = checkClaim(JSON.parse(entry.value.toString()), entry.key);
  if (claim.request !== asked) throw new BasaltError('IDEMPOTENCY_CONFLICT', { key: request.key });
  return claim;
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
