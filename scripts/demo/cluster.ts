// SPDX-License-Identifier: Apache-2.0
//
// Which daemons the demonstration runs: the store, one API server, three disk nodes, two controller nodes.

import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { ApiClient } from '../../src/client/api-client.js';
import { systemClock } from '../../src/env/clock.js';
import type { VolumeView } from '../../src/model/api.js';
import { Daemon, freePorts } from './processes.js';

const diskNodes = ['disk-1', 'disk-2', 'disk-3'];
const controllerNodes = ['controller-1', 'controller-2'];

export class DemoCluster {
  readonly #daemons: readonly Daemon[];
  readonly api: ApiClient;

  private constructor(daemons: readonly Daemon[], api: ApiClient) {
    this.#daemons = daemons;
    this.api = api;
  }

  /** `diskBytes` is the size of each disk file; `basalt` the command line's script. */
  static async plan(
    folder: string,
    diskBytes: number,
    basalt: string,
    environment: Readonly<Record<string, string>> = {},
  ): Promise<DemoCluster> {
    mkdirSync(folder, { recursive: true });
    const [storePort, apiPort, ...ports] = await freePorts(2 + 2 * (diskNodes.length + controllerNodes.length));
    const store = `127.0.0.1:${storePort}`;
    const common = ['--log-level', 'info'];
    const node = (name: string, args: string[]) => {
      const [internalPort, hostPort] = ports.splice(0, 2);
      const where = ['--internal-port', `${internalPort}`, '--host-port', `${hostPort}`, '--store', store];
      return { name, args: ['node', '--name', name, ...args, ...where, ...common] };
    };
    const plans = [
      { name: 'store', args: ['store', '--listen', store, '--directory', join(folder, 'store'), ...common] },
      { name: 'api', args: ['api', '--listen', `127.0.0.1:${apiPort}`, '--store', store, ...common] },
      ...diskNodes.map((name) =>
        node(name, ['--roles', 'disk', '--disk', join(folder, `${name}.disk`), '--disk-size', `${diskBytes}`]),
      ),
      ...controllerNodes.map((name) => node(name, ['--roles', 'controller'])),
    ];
    const daemons = plans.map((plan) => new Daemon({ ...plan, environment }, folder, basalt));
    return new DemoCluster(daemons, new ApiClient({ endpoint: `127.0.0.1:${apiPort}` }));
  }

  get daemons(): readonly Daemon[] {
    return this.#daemons;
  }

  daemon(name: string): Daemon {
    const found = this.#daemons.find((daemon) => daemon.name === name);
    if (found === undefined) throw new Error(`no daemon is called ${name}`);
    return found;
  }

  /** The store first; the rest finds it. */
  async start(): Promise<void> {
    await this.daemon('store').start();
    await Promise.all(this.#daemons.filter((daemon) => daemon.name !== 'store').map((daemon) => daemon.start()));
  }

  async killAll(): Promise<void> {
    await Promise.all(this.#daemons.map((daemon) => daemon.kill()));
  }

  killAllNow(): void {
    for (const daemon of this.#daemons) daemon.killNow();
  }

  /** Waits until the volume looks as it should. The error says how it looked last. */
  async waitForVolume(name: string, what: string, timeoutMs: number, holds: (volume: VolumeView) => boolean) {
    const end = systemClock.now() + timeoutMs;
    let last = 'no answer';
    while (systemClock.now() < end) {
      try {
        const volume = await this.api.volume(name);
        if (holds(volume)) return volume;
        last = `${volume.health}, controller ${volume.controller ?? 'none'}, paths ${volume.paths
          .map((path) => `${path.node} ${path.state}${path.problem === null ? '' : ` (${path.problem})`}`)
          .join(', ')}`;
      } catch (error) {
        last = error instanceof Error ? error.message : String(error);
      }
      await systemClock.sleep(20);
    }
    throw new Error(`waited ${timeoutMs / 1000} s for ${name} to be ${what}; last seen: ${last}`);
  }
}
