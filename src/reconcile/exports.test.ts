// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { type DesiredExport, type ExportAction, noExport, type ObservedExport, planExport } from './exports.js';

function apply(at: ObservedExport, action: ExportAction): ObservedExport {
  switch (action.do) {
    case 'create-subsystem':
      return { ...at, subsystem: true };
    case 'add-namespace':
      expect(at.subsystem).toBe(true);
      return { ...at, namespace: true };
    case 'add-host':
      return { ...at, hosts: [...at.hosts, action.host] };
    case 'remove-host':
      return { ...at, hosts: at.hosts.filter((host) => host !== action.host) };
    case 'add-listener':
      return { ...at, listener: true };
    case 'set-ana':
      expect(at.listener).toBe(true);
      return { ...at, ana: action.ana };
    case 'start-nbd':
      return { ...at, nbd: [...at.nbd, action.path] };
    case 'stop-nbd':
      return { ...at, nbd: at.nbd.filter((path) => path !== action.path) };
    case 'delete-subsystem':
      return { ...noExport, nbd: at.nbd };
  }
}

const wish: fc.Arbitrary<DesiredExport | null> = fc.option(
  fc.record({
    hosts: fc.uniqueArray(fc.constantFrom('h1', 'h2', 'h3')),
    ana: fc.constantFrom('optimized' as const, 'inaccessible' as const),
    nbd: fc.uniqueArray(fc.constantFrom('/a', '/b')),
  }),
);

describe('plan of an export', () => {
  it('follows any sequence of wishes, and has nothing to do the second time', () => {
    fc.assert(
      fc.property(fc.array(wish, { minLength: 1, maxLength: 6 }), (wishes) => {
        let at = noExport;
        for (const desired of wishes) {
          for (const action of planExport(desired, at)) at = apply(at, action);
          expect(planExport(desired, at)).toEqual([]);
          if (desired === null) expect(at).toEqual(noExport);
          else expect([...at.hosts].sort()).toEqual([...desired.hosts].sort());
        }
      }),
    );
  });
});
