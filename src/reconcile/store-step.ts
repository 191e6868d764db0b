// SPDX-License-Identifier: Apache-2.0

import type { Stored } from '../model/cluster-state.js';

/** Changes of the store that belong together, and what they were planned on. */
export interface StoreStep {
  readonly expect: readonly { key: string; revision: number | null }[];
  readonly put: readonly { key: string; text: string }[];
  readonly remove: readonly string[];
}

export const noStep: StoreStep = Object.freeze({ expect: [], put: [], remove: [] });

export function replace(stored: Stored<unknown>, text: string): StoreStep {
  return { expect: [{ key: stored.key, revision: stored.revision }], put: [{ key: stored.key, text }], remove: [] };
}

export function removal(stored: Stored<unknown> | null): StoreStep {
  if (stored === null) return noStep;
  return { expect: [{ key: stored.key, revision: stored.revision }], put: [], remove: [stored.key] };
}

export function both(a: StoreStep, b: StoreStep): StoreStep {
  return { expect: [...a.expect, ...b.expect], put: [...a.put, ...b.put], remove: [...a.remove, ...b.remove] };
}
