// SPDX-License-Identifier: Apache-2.0
//
// Keeps the pools' maps to the disks that there are, and volumes to the maps. Every node runs one; the first of the live
// nodes by name acts. Two that act at once do no harm: every change is a compare-and-swap on what it was planned from.
//
// Invariants:  - a node that is away keeps its disks in the maps until the grace time is over
//              - a map is changed only when every PG has a place in the new one

import { BasaltError } from '../model/errors.js';
import { keys } from '../model/keys.js';
import { codecs, type DiskObject } from '../model/objects.js';
import { type PgMapObject, type PoolObject, widthOf } from '../model/pools.js';
import { assertPlaceable } from '../placement/pg-problem.js';
import type { PgPlanner } from '../placement/planner.js';
import { madeFor, mapOf, poolDisks, problemOf, promisedPerPg } from '../placement/pool.js';
import { cordonedOf, cordonOf, isEmptied } from '../reconcile/cordons.js';
import { planRebuild, type RebuildLimits, type VolumeChange } from '../reconcile/rebuild.js';
import { planSurplus } from '../reconcile/snapshot-copies.js';
import { type ClusterLink, onChangeOf } from './cluster-link.js';
import { type AgentContext, RateLimitedLog, reason } from './context.js';
import { ReconcileLoop } from './reconcile-loop.js';

export interface PlacementTiming extends RebuildLimits {
  /** How long a node may be away before its disks are given up. */
  readonly graceMs: number;
  /** How long the set of disks must have been the same before data moves for it. */
  readonly settleMs: number;
}

export const placementTiming: PlacementTiming = Object.freeze({
  graceMs: 600_000,
  settleMs: 3_000,
  rebuildsMax: 8,
  rebuildsPerDiskMax: 2,
});

export interface PlacementAgentOptions {
  readonly context: AgentContext;
  readonly link: ClusterLink;
  readonly node: string;
  readonly planner: PgPlanner;
  readonly timing?: Partial<PlacementTiming>;
}

const restMs = 50;

const watched = [
  'lives',
  'nodes',
  'disks',
  'cordons',
  'pools',
  'pgMaps',
  'volumes',
  'leaderships',
  'observedReplicas',
  'snapshots',
] as const;

export class PlacementAgent {
  readonly #options: PlacementAgentOptions;
  readonly #timing: PlacementTiming;
  readonly #loop: ReconcileLoop;
  readonly #log: RateLimitedLog;
  /** Since when each node that has disks is away, as far as this process saw it. */
  readonly #awaySinceMs = new Map<string, number>();
  /** Of each pool, the disks that it was last seen to have, and since when. */
  readonly #settling = new Map<string, { disks: string; sinceMs: number }>();
  /** What a pool has no new map for: not asked again until something of it is different, and not at once. */
  readonly #refused = new Map<string, { question: string; atMs: number }>();
  #unsubscribe: (() => void) | null = null;
  #timer: { cancel(): void } | null = null;

  constructor(options: PlacementAgentOptions) {
    this.#options = options;
    this.#timing = { ...placementTiming, ...options.timing };
    const { clock, log } = options.context;
    this.#log = new RateLimitedLog(log, clock);
    this.#loop = new ReconcileLoop({
      name: 'placement agent',
      clock,
      log: this.#log,
      pass: (signal) => this.#pass(signal),
      restMs,
    });
  }

  start(): void {
    this.#unsubscribe = onChangeOf(this.#options.link, watched, () => this.#loop.wake());
    this.#loop.start();
  }

  async stop(): Promise<void> {
    this.#unsubscribe?.();
    await this.#loop.stop();
    this.#timer?.cancel();
  }

  async #pass(signal: AbortSignal): Promise<void> {
    const dueMs = this.#noteAway();
    if (!this.#acts()) return this.#wakeAt(dueMs);
    const { state } = this.#options.link;
    let nextMs = dueMs;
    for (const pool of state.all('pools')) nextMs = Math.min(nextMs, await this.#keepMap(pool, signal));
    const view = {
      state,
      lostNodes: this.#lostNodes(),
      limits: this.#timing,
      newUuid: () => this.#options.context.random.uuid(),
    };
    const lookedAtMs = this.#options.context.clock.now();
    const changes = planRebuild(view);
    this.#loop.looked(this.#options.context.clock.now() - lookedAtMs, { share: 10, mostMs: 1_000 });
    for (const change of changes) await this.#apply(change, signal);
    await this.#giveUpCopies(signal);
    this.#wakeAt(nextMs);
  }

  /** The next instant at which a node's grace ends. */
  #noteAway(): number {
    const { state } = this.#options.link;
    const now = this.#options.context.clock.now();
    const nodes = new Set(state.all('disks').map((disk) => disk.node));
    for (const name of [...this.#awaySinceMs.keys()])
      if (!nodes.has(name) || state.get('lives', name) !== null) this.#awaySinceMs.delete(name);
    let nextMs = Number.POSITIVE_INFINITY;
    for (const name of nodes) {
      if (state.get('lives', name) !== null) continue;
      const sinceMs = this.#awaySinceMs.get(name) ?? now;
      this.#awaySinceMs.set(name, sinceMs);
      if (sinceMs + this.#timing.graceMs > now) nextMs = Math.min(nextMs, sinceMs + this.#timing.graceMs);
    }
    return nextMs;
  }

  #lostNodes(): ReadonlySet<string> {
    const now = this.#options.context.clock.now();
    const lost = [...this.#awaySinceMs].filter(([, sinceMs]) => sinceMs + this.#timing.graceMs <= now);
    return new Set(lost.map(([name]) => name));
  }

  #wakeAt(atMs: number): void {
    this.#timer?.cancel();
    this.#timer = null;
    if (atMs === Number.POSITIVE_INFINITY) return;
    const { clock } = this.#options.context;
    this.#timer = clock.setTimer(Math.max(1, atMs - clock.now()), () => this.#loop.wake());
  }

  /** One of the live nodes does it. */
  #acts(): boolean {
    const first = this.#options.link.state.all('lives').find((live) => live.kind === 'node' && !live.draining);
    return first?.name === this.#options.node;
  }

  /** Returns when to look again. */
  async #keepMap(pool: PoolObject, signal: AbortSignal): Promise<number> {
    const { state } = this.#options.link;
    const stored = state.stored('pgMaps', pool.id);
    if (stored === null) return Number.POSITIVE_INFINITY;
    const disks = poolDisks(state, { pool, usable: (disk) => this.#isUsable(disk, stored.value) });
    if (madeFor(stored.value, disks)) return Number.POSITIVE_INFINITY;
    const { clock } = this.#options.context;
    const full = cordonedOf(state, disks);
    const pgBytes = promisedPerPg(state, pool);
    const question = JSON.stringify({ disks, full: [...full], pgBytes });
    const refused = this.#refused.get(pool.id);
    if (refused?.question === question) return Number.POSITIVE_INFINITY;
    // Volumes come and go all the time.
    const askMs = refused === undefined ? 0 : refused.atMs + this.#timing.settleMs;
    const dueMs = Math.max(askMs, this.#settledAt(pool.id, JSON.stringify(disks)));
    if (dueMs > clock.now()) return dueMs;
    try {
      const { redundancy, domain } = pool;
      assertPlaceable(disks, {
        width: widthOf(redundancy),
        domain,
        field: 'disks',
        copies: redundancy.kind === 'copies',
      });
      const plan = await this.#options.planner.plan(
        problemOf(pool, { disks, map: stored.value, pgBytes, full }),
        signal,
      );
      this.#refused.delete(pool.id);
      const next = mapOf(plan, { poolId: pool.id, version: stored.value.version + 1, disks });
      const put = [{ key: stored.key, text: codecs.pgMap.encode(next) }];
      const done = await this.#options.link.commit(
        { expect: [{ key: stored.key, revision: stored.revision }], put },
        signal,
      );
      const { name } = pool;
      if (done)
        this.#options.context.log.info(
          { pool: name, map: next.version, moves: plan.moves.length },
          'pool has a new map',
        );
    } catch (error) {
      if (!(error instanceof BasaltError) || error.code !== 'PLACEMENT_IMPOSSIBLE') throw error;
      this.#refused.set(pool.id, { question, atMs: clock.now() });
      this.#log.warn(`pool ${pool.id}`, { pool: pool.name, error: reason(error) }, 'pool keeps its map');
    }
    return Number.POSITIVE_INFINITY;
  }

  /** New disks count when they are up and not cordoned, known ones until they are given up or drained. */
  #isUsable(disk: DiskObject, map: PgMapObject): boolean {
    const { state } = this.#options.link;
    const cordon = cordonOf(state, disk);
    const known = map.disks.some((entry) => entry.id === disk.id);
    if (isEmptied(cordon) || (cordon !== null && !known)) return false;
    return state.get('lives', disk.node) !== null || (!this.#lostNodes().has(disk.node) && known);
  }

  #settledAt(poolId: string, disks: string): number {
    const now = this.#options.context.clock.now();
    const known = this.#settling.get(poolId);
    if (known?.disks === disks) return known.sinceMs + this.#timing.settleMs;
    this.#settling.set(poolId, { disks, sinceMs: now });
    return now + this.#timing.settleMs;
  }

  /** Copies of snapshots on disks that their legs have left, once those that the legs are on have theirs. */
  async #giveUpCopies(signal: AbortSignal): Promise<void> {
    const { link, context } = this.#options;
    for (const { id, name } of link.state.all('snapshots')) {
      const stored = link.state.stored('snapshots', id);
      const next = stored === null ? null : planSurplus(link.state, stored.value);
      if (stored === null || next === null) continue;
      const expect = [{ key: stored.key, revision: stored.revision }];
      const put = [{ key: stored.key, text: codecs.snapshot.encode(next) }];
      if (await link.commit({ expect, put }, signal))
        context.log.info({ snapshot: name, leftovers: next.leftovers.length }, 'copies of a snapshot are given up');
    }
  }

  async #apply(change: VolumeChange, signal: AbortSignal): Promise<void> {
    const { link, context } = this.#options;
    const { volumeId, expect } = change;
    const put = change.tombstones.map((entry) => ({
      key: keys.tombstone(entry.replica),
      text: codecs.tombstone.encode(entry),
    }));
    const remove = change.tombstones.map((entry) => keys.observedReplica(entry.replica));
    if (change.volume === null)
      remove.push(keys.volume(volumeId), keys.leadership(volumeId), keys.reservation(volumeId));
    else put.push({ key: keys.volume(volumeId), text: codecs.volume.encode(change.volume) });
    if (change.leadership !== null)
      put.push({ key: keys.leadership(volumeId), text: codecs.leadership.encode(change.leadership) });
    const name = link.state.get('volumes', volumeId)?.name ?? volumeId;
    // When it changed meanwhile, the next pass sees that.
    if (await link.commit({ expect, put, remove }, signal))
      context.log.info({ volume: name, why: change.why }, 'replicas of a volume changed');
  }
}
