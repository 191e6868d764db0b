// SPDX-License-Identifier: Apache-2.0
//
// The next step of comparing all members of a volume's legs. Pure; what there is to do stands in the store, so that
// whoever drives the volume goes on with it, and whoever runs the job needs to know nothing else.
//
//   written down -> whoever drives the volume compares one leg after the other and says how far it is -> taken away
//
// Invariants:  - a leg is done when one controller has compared it from its beginning to its end
//              - planned again on what it led to, nothing changes before somebody says more

import type { ClusterState } from '../model/cluster-state.js';
import type { ScrubbedLeg, ScrubCounts, ScrubObject } from '../model/jobs.js';
import { keys } from '../model/keys.js';
import { codecs, formatVersion } from '../model/objects.js';
import { isActive } from './move-controller.js';
import { removal, type StoreStep } from './store-step.js';

export interface ScrubWish {
  readonly jobId: string;
  readonly volumeId: string;
  readonly bytesPerS: number;
  readonly repair: boolean;
}

export interface ScrubSoFar {
  readonly percent: number;
  readonly counts: ScrubCounts;
}

export type ScrubStep =
  | { readonly do: 'done' }
  | { readonly do: 'wait'; readonly why: string | null }
  | { readonly do: 'fail'; readonly why: string }
  | { readonly do: 'change'; readonly why: string; readonly step: StoreStep };

const nothing: ScrubCounts = { comparedBlocks: 0, differentBlocks: 0, unreadableBlocks: 0, repairedBlocks: 0 };
const untouched: ScrubbedLeg = { done: false, percent: 0, counts: nothing };

export function planScrub(state: ClusterState, wish: ScrubWish): ScrubStep {
  const volume = state.get('volumes', wish.volumeId);
  const leadership = state.get('leaderships', wish.volumeId);
  if (volume === null || volume.phase !== 'live' || leadership === null)
    return { do: 'fail', why: 'the volume is gone' };
  const known = state.stored('scrubs', wish.volumeId);
  if (known === null || known.value.jobId !== wish.jobId) {
    const legs = volume.legs.map(() => untouched);
    const text = codecs.scrub.encode({ format: formatVersion, ...wish, legs, waitsFor: null });
    const key = keys.scrub(wish.volumeId);
    const step = { expect: [{ key, revision: known?.revision ?? null }], put: [{ key, text }], remove: [] };
    return { do: 'change', why: `${legs.length} legs are to be compared`, step };
  }
  if (nextLeg(known.value) === null) return { do: 'done' };
  const { controller } = leadership;
  if (controller === null || !isDriven(state, { volumeId: wish.volumeId, controller }))
    return { do: 'wait', why: `nobody drives ${volume.name} for now` };
  return { do: 'wait', why: known.value.waitsFor };
}

/** A program that drives it reports nothing of volumes. */
function isDriven(state: ClusterState, { volumeId, controller }: { volumeId: string; controller: string }): boolean {
  const leadership = state.get('leaderships', volumeId);
  if (state.get('lives', controller)?.kind === 'embedded') return true;
  return leadership !== null && isActive(state, leadership, controller);
}

export function removeScrub(state: ClusterState, wish: Pick<ScrubWish, 'jobId' | 'volumeId'>): StoreStep {
  const known = state.stored('scrubs', wish.volumeId);
  return removal(known?.value.jobId === wish.jobId ? known : null);
}

/** Null: it has not begun, or is over. */
export function scrubSoFar(state: ClusterState, wish: Pick<ScrubWish, 'jobId' | 'volumeId'>): ScrubSoFar | null {
  const scrub = state.get('scrubs', wish.volumeId);
  if (scrub === null || scrub.jobId !== wish.jobId) return null;
  const sum = (field: keyof ScrubCounts): number => scrub.legs.reduce((total, leg) => total + leg.counts[field], 0);
  const percents = scrub.legs.reduce((total, leg) => total + (leg.done ? 100 : leg.percent), 0);
  return {
    percent: Math.floor(percents / Math.max(1, scrub.legs.length)),
    counts: {
      comparedBlocks: sum('comparedBlocks'),
      differentBlocks: sum('differentBlocks'),
      unreadableBlocks: sum('unreadableBlocks'),
      repairedBlocks: sum('repairedBlocks'),
    },
  };
}

/** Null: all of them are done. */
export function nextLeg(scrub: ScrubObject): number | null {
  const leg = scrub.legs.findIndex(({ done }) => !done);
  return leg < 0 ? null : leg;
}

/** What is known of a leg afterwards. Null: nothing that is worth a write. */
export function withLeg(
  scrub: ScrubObject,
  at: { leg: number; found: ScrubbedLeg; waitsFor: string | null },
): ScrubObject | null {
  const legs = scrub.legs.map((leg, index) => (index === at.leg ? at.found : leg));
  const next = { ...scrub, legs, waitsFor: at.waitsFor };
  return JSON.stringify(next) === JSON.stringify(scrub) ? null : next;
}
