// SPDX-License-Identifier: Apache-2.0
//
// SpdkDisks: disks of a node whose drives an SPDK on the same machine has. SPDK brings the drives and nothing more: each
// is a namespace of SPDK's target on loopback, which this process' engine connects to; lvstores, replicas and their gate
// are the engine's own, as on every other disk (docs/decisions/018).
//
// Invariants:  - at most one process writes a disk: before one connects, every earlier host of the disk was taken out of
//                its subsystem, which ends its connections after their commands; then nobody but this process is let in
//              - a connection that was lost is not made again: what was not flushed may be lost with the SPDK that had it,
//                and the disk has failed. The node ends, and comes back as a process whose replicas are resynced
//              - hosts prove who they are, with a secret that is forgotten as soon as the connection is there

import type { Clock, Timer } from '../../env/clock.js';
import { isThere, lendPrivateFile } from '../../env/private-file.js';
import type { Random } from '../../env/random.js';
import { nqns } from '../../model/keys.js';
import { NodeKey, nodeKeyBytes } from '../../model/node-key.js';
import { type Engine, EngineError, engineErrorCodes, type ListenAddress } from '../engine.js';
import { type SpdkBdev, type SpdkPort, spdkBdevOf } from './spdk-bdevs.js';

export interface SpdkDisksOptions {
  readonly spdk: SpdkPort;
  /** Of this process. */
  readonly engine: Engine;
  readonly clock: Clock;
  readonly random: Random;
  readonly node: string;
  /** Where SPDK's target listens for this node, on 127.0.0.1. */
  readonly port: number;
}

/** What is asked for of a disk; a file that is missing is made with `createBytes`. */
export interface DiskRequest {
  readonly path: string;
  readonly createBytes: number | null;
}

interface Subsystem {
  readonly nqn: string;
  readonly hosts: readonly { readonly nqn: string }[];
  readonly listen_addresses: readonly ListenAddress[];
  readonly namespaces: readonly { readonly nsid: number; readonly bdev_name?: string; readonly name?: string }[];
}

interface Open {
  readonly path: string;
  readonly nqn: string;
  /** Of this process' engine. */
  readonly controller: string;
}

const lookMs = 2_000;
const address = '127.0.0.1';

export class SpdkDisks {
  readonly #options: SpdkDisksOptions;
  /** No other process has this name. */
  readonly #host: string;
  readonly #open = new Map<string, Open>();
  #timer: Timer | null = null;

  constructor(options: SpdkDisksOptions) {
    this.#options = options;
    this.#host = nqns.spdkHost(options.node, options.random.uuid());
  }

  /** Makes the disk a bdev of this process' engine, and gives its name. @throws {EngineError} */
  async open(disk: DiskRequest, name: string): Promise<string> {
    if (disk.createBytes !== null && !isThere(disk.path)) await this.#makeFile(disk.path, disk.createBytes, name);
    const { spdk, node } = this.#options;
    const bdev = await spdkBdevOf(spdk, disk.path);
    const nqn = nqns.spdkDisk(node, bdev.name);
    await this.#makeTransport();
    const trsvcid = await this.#serve(nqn, bdev);
    await this.#endOthers(nqn);
    const found = await this.#connect({ nqn, trsvcid, name });
    this.#open.set(found, { path: disk.path, nqn, controller: name });
    try {
      await this.#mustBeAlone(nqn);
    } catch (error) {
      await this.close(found);
      throw error;
    }
    return found;
  }

  /** What is left in SPDK is adopted by the next process. */
  async close(bdev: string): Promise<void> {
    const open = this.#open.get(bdev);
    if (open === undefined) return;
    this.#open.delete(bdev);
    await this.#options.engine.rpc('bdev_nvme_detach_controller', { name: open.controller });
    await this.#options.spdk.call('nvmf_subsystem_remove_host', { nqn: open.nqn, host: this.#host });
  }

  /** Tells once when a disk was lost. */
  watch(onLost: (problem: string) => void): void {
    const { clock } = this.#options;
    const look = (): void => {
      this.#lost().then(
        (problem) => {
          if (this.#timer === null) return;
          if (problem !== null) onLost(problem);
          else this.#timer = clock.setTimer(lookMs, look);
        },
        // This process' engine is closed.
        () => {},
      );
    };
    this.#timer = clock.setTimer(lookMs, look);
  }

  stop(): void {
    this.#timer?.cancel();
    this.#timer = null;
  }

  async #lost(): Promise<string | null> {
    for (const { path, controller } of this.#open.values()) {
      const [found] = await this.#options.engine.rpc('bdev_nvme_get_controllers', { name: controller });
      const state = found?.ctrlrs[0]?.state;
      if (state !== 'live') return `the connection to SPDK's disk ${path} is ${state ?? 'gone'}`;
    }
    return null;
  }

  /** The engine here knows how to make a file; SPDK does not. */
  async #makeFile(filename: string, create_bytes: number, disk: string): Promise<void> {
    const { engine } = this.#options;
    const name = `${disk}-new`;
    await engine.rpc('bdev_aio_create', { name, filename, block_size: 4096, create_bytes });
    await engine.rpc('bdev_aio_delete', { name });
  }

  async #makeTransport(): Promise<void> {
    const { spdk } = this.#options;
    const known = (await spdk.call('nvmf_get_transports', {})) as { trtype: string }[];
    if (!known.some(({ trtype }) => trtype === 'TCP')) await spdk.call('nvmf_create_transport', { trtype: 'TCP' });
  }

  async #subsystem(nqn: string): Promise<Subsystem | null> {
    const all = (await this.#options.spdk.call('nvmf_get_subsystems', {})) as Subsystem[];
    return all.find((subsystem) => subsystem.nqn === nqn) ?? null;
  }

  /** Makes what is missing of the disk's subsystem, and gives its port. */
  async #serve(nqn: string, bdev: SpdkBdev): Promise<string> {
    const { spdk, port } = this.#options;
    const found = await this.#subsystem(nqn);
    if (found === null)
      await spdk.call('nvmf_create_subsystem', {
        nqn,
        serial_number: 'BASALTDISK',
        model_number: 'Basalt disk',
        max_namespaces: 1,
        allow_any_host: false,
      });
    if ((found?.namespaces.length ?? 0) === 0) {
      if (bdev.claimed === true) throw busy(`bdev ${bdev.name} is in use by something else in SPDK`);
      await spdk.call('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: bdev.name, nsid: 1 } });
    }
    if (portOf(found) === null) {
      const listen_address = { trtype: 'TCP', adrfam: 'IPv4', traddr: address, trsvcid: String(port) };
      await spdk.call('nvmf_subsystem_add_listener', { nqn, listen_address });
    }
    const trsvcid = portOf(await this.#subsystem(nqn));
    if (trsvcid === null) throw busy(`SPDK does not listen for ${nqn}`);
    return trsvcid;
  }

  /** Earlier processes of this node: SPDK answers when their commands have ended and their connections are closed. */
  async #endOthers(nqn: string): Promise<void> {
    const { spdk } = this.#options;
    const found = await this.#subsystem(nqn);
    for (const { nqn: host } of found?.hosts ?? []) await spdk.call('nvmf_subsystem_remove_host', { nqn, host });
    const left = (await spdk.call('nvmf_subsystem_get_controllers', { nqn })) as { hostnqn: string }[];
    if (left.length > 0)
      throw busy(`${left[0]?.hostnqn} is still connected to ${nqn}: SPDK did not end its connections`);
  }

  async #connect(at: { nqn: string; trsvcid: string; name: string }): Promise<string> {
    const { spdk, engine, random } = this.#options;
    const secret = new NodeKey(random.bytes(nodeKeyBytes)).secretOf('controller', this.#host);
    const key = `basalt-${random.uuid()}`;
    const file = await lendPrivateFile(secret);
    try {
      await spdk.call('keyring_file_add_key', { name: key, path: file.path });
      await engine.rpc('basalt_keyring_add_key', { name: key, secret });
      await spdk.call('nvmf_subsystem_add_host', { nqn: at.nqn, host: this.#host, dhchap_key: key });
      const [bdev, ...others] = await engine.rpc('bdev_nvme_attach_controller', {
        name: at.name,
        trtype: 'TCP',
        adrfam: 'IPv4',
        traddr: address,
        trsvcid: at.trsvcid,
        subnqn: at.nqn,
        hostnqn: this.#host,
        dhchap_key: key,
        ctrlr_loss_timeout_sec: 0,
      });
      if (bdev === undefined || others.length > 0) throw busy(`${at.nqn} has another number of namespaces than one`);
      return bdev;
    } finally {
      await engine.rpc('basalt_keyring_remove_key', { name: key }).catch(() => {});
      await spdk.call('keyring_file_remove_key', { name: key }).catch(() => {});
      await file.remove();
    }
  }

  /** Of two processes that came at once, the one that looks later sees the other. */
  async #mustBeAlone(nqn: string): Promise<void> {
    const hosts = (await this.#subsystem(nqn))?.hosts.map((host) => host.nqn) ?? [];
    if (hosts.length !== 1 || hosts[0] !== this.#host) throw busy(`another process takes ${nqn} at this moment`);
  }
}

function portOf(subsystem: Subsystem | null): string | null {
  const found = subsystem?.listen_addresses.find(({ trtype, traddr }) => trtype === 'TCP' && traddr === address);
  return found?.trsvcid ?? null;
}

function busy(message: string): EngineError {
  return new EngineError(engineErrorCodes.busy, 'spdk', message);
}
