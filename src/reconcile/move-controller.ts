// SPDX-License-Identifier: Apache-2.0
//
// The next step of handing one volume over to a named node while hosts use it. Pure; steps are derived from what the store
// holds, so that whoever goes on with it after a crash needs to know nothing else.
//
//   not a controller → made one → on standby → the holder of the present epoch is told whom to hand over to → it drives
//
// Invariants:  - a step changes nothing but what it was planned on
//              - whatever happens in between, the volume is driven by its old controller or fails over as always

import type { ClusterState, Stored } from '../model/cluster-state.js';
import { keys } from '../model/keys.js';
import { codecs, formatVersion, type Leadership, type VolumeObject } from '../model/objects.js';
import { withController } from './controllers.js';
import { notReady } from './hand-over.js';
import { replace, type StoreStep } from './store-step.js';

export type MoveStep =
  | { readonly do: 'done' }
  | { readonly do: 'wait'; readonly why: string }
  | { readonly do: 'fail'; readonly why: string }
  | { readonly do: 'change'; readonly why: string; readonly step: StoreStep };

export function planMoveController(state: ClusterState, at: { volumeId: string; to: string }): MoveStep {
  const stored = state.stored('volumes', at.volumeId);
  const leadership = state.get('leaderships', at.volumeId);
  if (stored === null || stored.value.phase !== 'live' || leadership === null)
    return { do: 'fail', why: 'the volume is gone' };
  const { to } = at;
  if (isActive(state, leadership, to)) return { do: 'done' };
  if (!stored.value.controllers.includes(to)) return admit(stored, to);
  return planHandTo(state, { volume: stored.value, leadership, to });
}

/** The same for one that `to` is a controller of already; also for a front, which is driven like a volume. */
export function planHandTo(
  state: ClusterState,
  at: { volume: VolumeObject; leadership: Leadership; to: string },
): MoveStep {
  const { volume, leadership, to } = at;
  const { name } = volume;
  // It was given to it, or it took it: the rest is its own work.
  if (leadership.controller === to) return { do: 'wait', why: `${to} is being promoted` };
  const holder = leadership.controller;
  if (holder !== null && state.get('lives', holder)?.kind === 'embedded')
    return { do: 'fail', why: `the program ${holder} drives ${name}: close it there` };
  if (holder === null || !isActive(state, leadership, holder))
    return { do: 'wait', why: `nobody drives ${name} for now` };
  const why = notReady(state, volume, to);
  if (why !== null) return { do: 'wait', why };
  return ask(state, { leadership, holder, to });
}

/** It says itself that it serves the volume under the present epoch. */
export function isActive(state: ClusterState, leadership: Leadership, node: string): boolean {
  if (leadership.controller !== node || state.get('lives', node) === null) return false;
  const seen = state.get('observedVolumes', `${leadership.volumeId}/${node}`);
  return seen?.state === 'active' && seen.epoch === leadership.epoch;
}

function admit(stored: Stored<VolumeObject>, to: string): MoveStep {
  const next = withController(stored.value, to);
  if (next === null) return { do: 'fail', why: `${stored.value.name} cannot have more controllers` };
  const step = replace(stored, codecs.volume.encode(next));
  return { do: 'change', why: `${to} becomes a standby of ${stored.value.name}`, step };
}

function ask(state: ClusterState, at: { leadership: Leadership; holder: string; to: string }): MoveStep {
  const { leadership, holder, to } = at;
  const { volumeId, epoch } = leadership;
  const known = state.stored('handOvers', volumeId);
  if (known?.value.epoch === epoch && known.value.to === to)
    return { do: 'wait', why: `${holder} is handing over to ${to}` };
  const text = codecs.handOver.encode({ format: formatVersion, volumeId, to, epoch });
  const key = keys.handOver(volumeId);
  const step = { expect: [{ key, revision: known?.revision ?? null }], put: [{ key, text }], remove: [] };
  return { do: 'change', why: `${holder} is asked to hand over to ${to}`, step };
}
