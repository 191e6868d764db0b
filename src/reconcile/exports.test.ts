// SPDX-License-Identifier: Apache-2.0
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { noReservation } from '../model/reservations.js';
import {
  type DesiredExport,
  type ExportAction,
  type HostWish,
  noExport,
  type ObservedExport,
  planExport,
  reservationName,
  unreadableKeys,
} from './exports.js';

function apply(at: ObservedExport, action: ExportAction): ObservedExport {
  switch (action.do) {
    case 'create-subsystem':
      return { ...at, subsystem: true };
    case 'add-namespace':
      expect(at.subsystem).toBe(true);
      return { ...at, namespace: true };
    case 'set-reservation':
      expect(at.namespace).toBe(true);
      // NBD clients are out before a reservation is in force.
      if (action.reservation.rtype !== 0) expect(at.nbd).toEqual([]);
      return { ...at, reservation: reservationName(action.reservation) };
    case 'add-host':
      expect(at.hosts.some((host) => host.nqn === action.host.nqn)).toBe(false);
      return { ...at, hosts: [...at.hosts, action.host] };
    case 'set-keys': {
      const before = at.hosts.find((host) => host.nqn === action.host.nqn);
      expect(before).toBeDefined();
      // What no engine does.
      expect(before?.tls === true && !action.host.tls).toBe(false);
      return { ...at, hosts: at.hosts.map((host) => (host === before ? action.host : host)) };
    }
    case 'remove-host':
      return { ...at, hosts: at.hosts.filter((host) => host.nqn !== action.host) };
    case 'add-listener':
      return { ...at, listener: true };
    case 'set-ana':
      expect(at.listener).toBe(true);
      expect(at.reservation).not.toBeNull();
      return { ...at, ana: action.ana };
    case 'add-tls-listener':
      return { ...at, tlsListener: true };
    case 'set-tls-ana':
      expect(at.tlsListener).toBe(true);
      return { ...at, tlsAna: action.ana };
    case 'remove-tls-listener':
      expect(at.hosts.some((host) => host.tls)).toBe(false);
      return { ...at, tlsListener: false, tlsAna: null };
    case 'start-nbd':
      return { ...at, nbd: [...at.nbd, action.path] };
    case 'stop-nbd':
      return { ...at, nbd: at.nbd.filter((path) => path !== action.path) };
    case 'delete-subsystem':
      return { ...noExport, nbd: at.nbd };
  }
}

const host: fc.Arbitrary<HostWish> = fc.record({
  nqn: fc.constantFrom('h1', 'h2', 'h3'),
  version: fc.constantFrom(null, '1', '2'),
  tls: fc.boolean(),
});

const wish: fc.Arbitrary<DesiredExport | null> = fc.option(
  fc.record({
    plain: fc.constant(true),
    // One that has a key for TLS has keys.
    hosts: fc.uniqueArray(
      host.filter((each) => !each.tls || each.version !== null),
      { selector: (each) => each.nqn },
    ),
    ana: fc.constantFrom('optimized' as const, 'inaccessible' as const),
    nbd: fc.uniqueArray(fc.constantFrom('/a', '/b')),
    reservation: fc.constantFrom(0, 1, 2, 3).map((version) => ({ ...noReservation, version, rtype: version % 2 })),
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
          else {
            expect(new Set(at.hosts)).toEqual(new Set(desired.hosts));
            expect(at.tlsListener).toBe(desired.hosts.some((each) => each.tls));
            if (at.tlsListener) expect(at.tlsAna).toBe(desired.ana);
          }
        }
      }),
    );
  });

  it('leaves a host as it is while its keys cannot be read, and its listener', () => {
    const desired = (hosts: readonly HostWish[]): DesiredExport => ({
      plain: true,
      hosts,
      ana: 'optimized',
      nbd: [],
      reservation: noReservation,
    });
    const secure = { nqn: 'h1', version: '1', tls: true };
    let at = noExport;
    for (const action of planExport(desired([secure]), at)) at = apply(at, action);
    const unknown = { nqn: 'h1', version: unreadableKeys, tls: false };
    expect(planExport(desired([unknown]), at)).toEqual([]);
    expect(planExport(desired([]), at)).toContainEqual({ do: 'remove-host', host: 'h1' });
    // One that was not admitted is tried, and refused by whoever cannot read its keys.
    const stranger = { ...unknown, nqn: 'h2' };
    expect(planExport(desired([unknown, stranger]), at)).toEqual([{ do: 'add-host', host: stranger }]);
    const changed = { ...secure, version: '2' };
    expect(planExport(desired([changed]), at)).toEqual([{ do: 'set-keys', host: changed }]);
  });
});
