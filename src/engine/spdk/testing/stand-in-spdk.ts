// SPDX-License-Identifier: Apache-2.0
//
// StandInSpdk: what of SPDK a node's disks need, by a native engine of its own, which speaks the same methods and whose
// target is a real one. For tests where no SPDK is installed; those that have one run against it too.

import type { Engine, Method } from '../../engine.js';
import { createNativeEngine } from '../../native/native-engine.js';
import type { SpdkBdev, SpdkPort } from '../spdk-bdevs.js';

export class StandInSpdk implements SpdkPort {
  readonly engine: Engine = createNativeEngine();
  readonly calls: string[] = [];
  /** Called before a method is carried out. */
  before: (method: string, params: Record<string, unknown>) => Promise<void> | void = () => {};
  readonly #filenames = new Map<string, string>();

  async call(method: string, given: object): Promise<unknown> {
    const params = given as Record<string, unknown>;
    this.calls.push(method);
    await this.before(method, params);
    const result = await this.engine.rpc(method as Method, params as never);
    if (method === 'bdev_aio_create') this.#filenames.set(String(params['name']), String(params['filename']));
    return method === 'bdev_get_bdevs' ? await this.#described(result as unknown as SpdkBdev[]) : result;
  }

  close(): Promise<void> {
    return this.engine.close();
  }

  /** Who is a namespace is claimed by the target. */
  async #described(bdevs: readonly SpdkBdev[]): Promise<SpdkBdev[]> {
    const subsystems = await this.engine.rpc('nvmf_get_subsystems');
    const served = new Set(subsystems.flatMap(({ namespaces }) => namespaces.map(({ bdev_name }) => bdev_name)));
    return bdevs.map((bdev) => {
      const filename = this.#filenames.get(bdev.name);
      const claimed = served.has(bdev.name);
      if (filename === undefined) return { ...bdev, claimed, product_name: 'Malloc disk' };
      return { ...bdev, claimed, product_name: 'AIO disk', driver_specific: { aio: { filename, readonly: false } } };
    });
  }
}
