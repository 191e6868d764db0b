// SPDX-License-Identifier: Apache-2.0

import { BasaltError } from '../../model/errors.js';
import type { CallOptions, Store, Txn, TxnResult } from '../../store/store.js';

/** What becomes of one transaction: its answer is lost after it happened, or before, or it waits for `hold`. */
export type TxnFault = 'lost-after' | 'lost-before' | 'pass';

/** A store whose transactions go wrong as `judge` says. */
export function faultyStore(store: Store, judge: (txn: Txn) => TxnFault | Promise<TxnFault>): Store {
  const unknown = (): TxnResult => {
    const error = new BasaltError('STORE_UNKNOWN_OUTCOME', {
      operation: 'txn',
      endpoint: 'memory',
      detail: 'injected',
    });
    return { outcome: 'unknown', error };
  };
  const txn = async (wanted: Txn, options?: CallOptions): Promise<TxnResult> => {
    const fault = await judge(wanted);
    if (fault === 'lost-before') return unknown();
    const result = await store.txn(wanted, options);
    return fault === 'lost-after' ? unknown() : result;
  };
  return new Proxy(store, {
    get: (target, property) => {
      if (property === 'txn') return txn;
      const value: unknown = Reflect.get(target, property, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}
