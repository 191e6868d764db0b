// SPDX-License-Identifier: Apache-2.0
//
// An engine as of a version that knew no node links: it refuses to make one.

import type { Engine } from '../engine.js';
import { EngineError, engineErrorCodes } from '../errors.js';

export function withoutLinks(engine: Engine): Engine {
  const rpc = async (method: string, ...rest: unknown[]): Promise<unknown> => {
    const params = rest[0] as { node_link?: boolean } | undefined;
    if (method === 'nvmf_create_subsystem' && params?.node_link !== undefined)
      throw new EngineError(engineErrorCodes.invalidParams, method, 'params.node_link: unknown');
    return (engine.rpc.bind(engine) as (...args: unknown[]) => Promise<unknown>)(method, ...rest);
  };
  return new Proxy(engine, {
    get: (target, property) => {
      if (property === 'rpc') return rpc;
      const value: unknown = Reflect.get(target, property, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });
}
