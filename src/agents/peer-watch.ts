// SPDX-License-Identifier: Apache-2.0
//
// How the engine is told to watch a node: at a port for TLS it shows who it is, elsewhere it says nothing of itself.

import type { Params } from '../engine/engine.js';
import type { NodeAddress } from '../model/objects.js';
import type { AgentContext } from './context.js';
import { noIdentity } from './node-identity.js';

/** `as`: what the watcher goes by there. @throws NODE_KEY_FILE where the port takes TLS, and there is no node key */
export async function watchParams(
  { engine, identity = noIdentity }: Pick<AgentContext, 'engine' | 'identity'>,
  { address, as, keepAliveMs }: { address: NodeAddress; as: string; keepAliveMs: number },
): Promise<Omit<Params<'basalt_peer_watch'>, 'name'>> {
  const { traddr, trsvcid } = address;
  const at = { traddr, trsvcid, keep_alive_ms: keepAliveMs };
  if (!address.secure) return at;
  const { hostnqn, psk } = await identity.credentials(engine, as, address);
  return { ...at, hostnqn, ...(psk === undefined ? {} : { psk }) };
}
