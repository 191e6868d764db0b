// SPDX-License-Identifier: Apache-2.0
//
// Somebody who cordons and drains disks and nodes while everything else goes wrong, and lets them be used again; and who moves
// replicas from one disk to another, gives volumes to other pools, and calls that off.
//
// Rules:  - a drain ends when everything is up; what was drained holds nothing, and no volume is driven from it
//         - a move ends when everything is up, and so does a change of pools
//         - a drain may wait for room that a cordon keeps from it, made after it began; then it ends once that is lifted
//         - volumes become redundant without it, and hosts see nothing of it (judged elsewhere)

import { type CordonDeps, cordon, drain, uncordon } from '../api/cordons.js';
import { cancelJob, changePool, moveReplica } from '../api/jobs.js';
import type { VirtualClock } from '../env/virtual-clock.js';
import type { MoveReplicaRequest } from '../model/api.js';
import type { ClusterState } from '../model/cluster-state.js';
import { hasEnded, type JobObject } from '../model/jobs.js';
import { type DrainTarget, restOf } from '../reconcile/drain.js';
import { askUntilAnswered, codeOf } from './asking.js';
import type { RareEvents } from './rare-events.js';

const lastWords = ['DRAIN_REFUSED', 'MOVE_REFUSED', 'BUSY', 'JOB_ENDED', 'NOT_FOUND'];

export class Drainer {
  readonly #deps: CordonDeps;
  readonly #clock: VirtualClock;
  readonly #rareEvents: RareEvents;
  readonly #counted = new Set<string>();
  #pending: string | null = null;

  constructor(deps: CordonDeps, clock: VirtualClock, rareEvents: RareEvents) {
    this.#deps = { ...deps, clock };
    this.#clock = clock;
    this.#rareEvents = rareEvents;
  }

  /** One thing after the other. */
  get isBusy(): boolean {
    return this.#pending !== null;
  }

  cordon(target: DrainTarget): void {
    this.#ask(`cordon of ${target.name}`, () => cordon(this.#deps, target));
  }

  drain(target: DrainTarget): void {
    this.#ask(`drain of ${target.name}`, async () => {
      await drain(this.#deps, target).catch((error: unknown) => {
        if (codeOf(error) === 'DRAIN_REFUSED') this.#rareEvents.reach('drain_refused');
        throw error;
      });
    });
  }

  /** Once it drains, nothing else takes what it holds: whoever cordoned the others has to lift that again. */
  drainIntoCordons(target: DrainTarget, others: readonly DrainTarget[]): void {
    this.#ask(`drain of ${target.name} among cordons`, async () => {
      await drain(this.#deps, target);
      for (const other of others) await cordon(this.#deps, other);
    });
  }

  uncordon(target: DrainTarget, state: ClusterState): void {
    if (running(state).some(({ arguments: at }) => at['disk'] === target.name || at['node'] === target.name))
      this.#rareEvents.reach('drain_ended_early');
    this.#ask(`uncordon of ${target.name}`, () => uncordon(this.#deps, target));
  }

  /** Of a leg of the volume. */
  move(volume: string, request: MoveReplicaRequest): void {
    this.#ask(`move of ${volume}`, async () => {
      await moveReplica(this.#deps, volume, request).catch((error: unknown) => {
        if (codeOf(error) === 'MOVE_REFUSED') this.#rareEvents.reach('move_refused');
        throw error;
      });
    });
  }

  changePool(volume: string, pool: string): void {
    this.#ask(`pool of ${volume}`, async () => {
      await changePool(this.#deps, volume, { pool });
    });
  }

  callOff(jobId: string): void {
    this.#ask(`end of job ${jobId}`, async () => {
      await cancelJob(this.#deps, jobId);
    });
  }

  /** Lifts cordons, if something is `refused` for one or runs that may wait for one: false when nothing does. Drains go on. */
  giveRoom(state: ClusterState, { refused = false } = {}): boolean {
    const cordons = state.all('cordons').filter(({ mode }) => mode === 'cordon');
    const waiting = refused || running(state).some(({ waitsFor }) => waitsFor !== null);
    if (this.isBusy || !waiting || cordons.length === 0) return false;
    this.#rareEvents.reach('drain_given_room');
    this.#ask('uncordon of everything', async () => {
      for (const { kind, name } of cordons) await uncordon(this.#deps, { kind, name });
    });
    return true;
  }

  /** What is not at rest, or null. Everything is up. */
  unrest(state: ClusterState): string | null {
    this.#count(state);
    if (this.#pending !== null) return `no answer about the ${this.#pending}`;
    for (const { kind, arguments: at, waitsFor } of running(state))
      return `${kind} ${Object.values(at).join(' ')} has not ended: it waits for ${waitsFor ?? 'nothing'}`;
    for (const { kind, name, mode } of state.all('cordons')) {
      if (mode !== 'drain') continue;
      const { replicas, controllers, maps, tombstones, snapshotCopies } = restOf(state, { kind, name });
      if (replicas + controllers + maps + tombstones + snapshotCopies > 0)
        return `${kind} ${name} was drained: ${replicas} replicas, ${controllers} controllers, ${maps} maps, ${tombstones} tombstones, ${snapshotCopies} copies`;
    }
    return null;
  }

  #count(state: ClusterState): void {
    for (const { id, kind, state: end } of state.all('jobs')) {
      const isMove = kind === 'volume.move-replica';
      const isChange = kind === 'volume.change-pool';
      const counts = end === 'done' || ((isMove || isChange) && end === 'cancelled');
      if (!counts || this.#counted.has(id)) continue;
      this.#counted.add(id);
      if (isMove) this.#rareEvents.reach(end === 'done' ? 'replica_moved_by_hand' : 'move_called_off');
      if (isChange) this.#rareEvents.reach(end === 'done' ? 'pool_changed' : 'pool_change_called_off');
      if (kind === 'disk.drain') this.#rareEvents.reach('disk_drained');
      if (kind === 'node.drain') this.#rareEvents.reach('node_drained');
    }
  }

  #ask(what: string, act: () => Promise<void>): void {
    this.#pending = what;
    void askUntilAnswered(this.#clock, { last: lastWords }, act).then(() => {
      this.#pending = null;
    });
  }
}

function running(state: ClusterState): JobObject[] {
  return state.all('jobs').filter((job) => !hasEnded(job));
}
