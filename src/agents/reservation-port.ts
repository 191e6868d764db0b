// SPDX-License-Identifier: Apache-2.0
//
// What the keeper of a volume's reservations needs of the store.

import type { ReservationObject } from '../model/reservations.js';
import type { Versioned } from './leadership-register.js';

export interface ReservationPort {
  /** As the store holds it now. */
  read(signal: AbortSignal): Promise<Versioned<ReservationObject> | null>;
  /**
   * Null: the object or the leadership is at another revision, and nothing was changed.
   * @throws STORE_UNKNOWN_OUTCOME, STORE_UNREACHABLE
   */
  swap(change: ReservationSwap, signal: AbortSignal): Promise<Versioned<ReservationObject> | null>;
}

export interface ReservationSwap {
  /** Of the object; null: it does not exist. */
  readonly revision: number | null;
  readonly leadershipRevision: number;
  readonly next: ReservationObject;
}
