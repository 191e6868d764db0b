// SPDX-License-Identifier: Apache-2.0
//
// Looks at every takeover of a replica that was answered: a replica that has accepted an epoch accepts no lower one,
// whoever asks, and however often it was restarted in between.

import type { Engine } from '../engine/engine.js';
import { nqns } from '../model/keys.js';

interface AttachParams {
  readonly traddr: string;
  readonly trsvcid: string;
  readonly subnqn: string;
  readonly hostnqn: string;
  readonly epoch: number;
}

export class ReplicaMonitor {
  readonly #highest = new Map<string, number>();
  #violation: string | null = null;

  get violation(): string | null {
    return this.#violation;
  }

  /** The same engine, looked at. */
  watch(engine: Engine): Engine {
    const rpc = async (method: string, ...rest: unknown[]): Promise<unknown> => {
      const call = engine.rpc.bind(engine) as (...args: unknown[]) => Promise<unknown>;
      if (method !== 'basalt_member_attach') return call(method, ...rest);
      const params = rest[0] as AttachParams;
      // Epochs that were accepted before this one was asked for.
      const before = this.#highest.get(placeOf(params)) ?? 0;
      const answer = await call(method, ...rest);
      this.#accepted(params, before);
      return answer;
    };
    return new Proxy(engine, {
      get: (target, property) => {
        if (property === 'rpc') return rpc;
        const value: unknown = Reflect.get(target, property, target);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  }

  #accepted(params: AttachParams, before: number): void {
    const { subnqn, hostnqn, epoch } = params;
    if (epoch < before)
      this.#violation ??= `epoch: ${subnqn} let ${hostnqn} in with epoch ${epoch} after epoch ${before}`;
    const place = placeOf(params);
    this.#highest.set(place, Math.max(epoch, this.#highest.get(place) ?? 0));
  }
}

/** Replicas are where they are. A part's export is wherever the part is driven: one that is left behind is no part's any more. */
function placeOf({ subnqn, traddr, trsvcid }: AttachParams): string {
  return subnqn.startsWith(partPrefix) ? `${subnqn} ${traddr}:${trsvcid}` : subnqn;
}

const partPrefix = nqns.partExport('', '').slice(0, -1);
