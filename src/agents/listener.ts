// SPDX-License-Identifier: Apache-2.0
//
// The addresses on which a node's engine listens: one towards other nodes, one towards hosts. Before there is anything to
// serve the port is fixed by the discovery subsystem, or by the node link, which has to be there when anybody connects.

import { type Engine, isEngineError, type ListenAddress } from '../engine/engine.js';
import { BasaltError } from '../model/errors.js';
import { nqns } from '../model/keys.js';
import type { Address, NodeAddress } from '../model/objects.js';

export function listenAddress({ traddr, trsvcid }: Address): ListenAddress {
  return { trtype: 'TCP', adrfam: traddr.includes(':') ? 'IPv6' : 'IPv4', traddr, trsvcid };
}

/** What a subsystem is told to listen there. */
export function listenerAt(address: NodeAddress): { listen_address: ListenAddress; secure_channel?: true } {
  return { listen_address: listenAddress(address), ...(address.secure ? { secure_channel: true } : {}) };
}

/** `trusted`: listeners without TLS may be on other addresses than loopback. */
export async function openTransport(engine: Engine, trusted: boolean): Promise<void> {
  try {
    await engine.rpc('nvmf_create_transport', { trtype: 'TCP', ...(trusted ? { trusted_network: true } : {}) });
  } catch (error) {
    if (!isEngineError(error, 'exists')) throw error;
  }
}

/**
 * `trsvcid` "0" takes a free port; the result names it. `nqn`: of whom it is; absent: the discovery subsystem.
 * @throws BUSY when the port is taken
 */
export async function openListener(
  engine: Engine,
  address: NodeAddress,
  nqn: string = nqns.discovery,
): Promise<NodeAddress> {
  const listener = { nqn, ...listenerAt(address) };
  const taken = await engine.rpc('nvmf_subsystem_add_listener', listener).catch((error: unknown) => {
    if (!isEngineError(error, 'busy') && !isEngineError(error, 'exists')) throw error;
    const name = `${address.traddr}:${address.trsvcid}`;
    throw new BasaltError('BUSY', { kind: 'address', name, detail: 'another process listens there' }, { cause: error });
  });
  return { ...address, trsvcid: taken.trsvcid };
}
