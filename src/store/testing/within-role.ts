// SPDX-License-Identifier: Apache-2.0
//
// A store as a user of it sees one with roles: what is outside of the role is refused, as etcd does it.

import { BasaltError } from '../../model/errors.js';
import { mayWrite, type StoreRole } from '../../model/store-roles.js';
import type { Store } from '../store.js';

export function withinRole(store: Store, role: StoreRole): Store {
  const refuse = (written: readonly string[]): void => {
    const key = written.find((each) => !mayWrite(role, each));
    if (key === undefined) return;
    throw new BasaltError('STORE_DENIED', {
      endpoint: 'memory',
      operation: 'write',
      detail: `${role} may not write ${key}`,
    });
  };
  return {
    get: (key, options) => store.get(key, options),
    list: (prefix, options) => store.list(prefix, options),
    watch: (prefix, fromRevision, options) => store.watch(prefix, fromRevision, options),
    grantLease: (options) => store.grantLease(options),
    close: () => store.close(),
    put: async (key, value, options) => {
      refuse([key]);
      return store.put(key, value, options);
    },
    delete: async (key, options) => {
      refuse([key]);
      return store.delete(key, options);
    },
    txn: async (txn, options) => {
      refuse(txn.changes.map(({ key }) => key));
      return store.txn(txn, options);
    },
  };
}
