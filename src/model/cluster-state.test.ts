// SPDX-License-Identifier: Apache-2.0
import { describe, expect, it } from 'vitest';
import { ClusterState } from './cluster-state.js';
import { keys } from './keys.js';

describe('state of a cluster', () => {
  it('forgets what it could not read when a whole listing lacks it', () => {
    const state = new ClusterState();
    const [gone, stays] = [keys.host('h1'), keys.host('h2')];
    state.apply(gone, 'no object', 1);
    state.apply(stays, 'no object', 2);
    const before = state.version('hosts');
    state.replace([{ key: stays, value: 'no object', revision: 2 }]);
    expect([...state.unreadable.keys()]).toEqual([stays]);
    expect(state.version('hosts')).toBeGreaterThan(before);
  });

  it('knows when something was placed last, whatever that says', () => {
    const state = new ClusterState();
    expect(state.placementRevision).toBeNull();
    state.replace([{ key: keys.placement, value: '{}', revision: 3 }]);
    const copy = state.copy();
    state.apply(keys.placement, 'x', 5);
    expect([copy.placementRevision, state.placementRevision]).toEqual([3, 5]);
    expect([...state.unreadable.keys()]).toEqual([]);
    state.replace([]);
    expect(state.placementRevision).toBeNull();
  });
});
