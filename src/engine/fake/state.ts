// SPDX-License-Identifier: Apache-2.0
//
// What one fake engine holds in memory: all of it goes with a crash. Handlers of every family work on it.

import type { HostReservationResult, KeyNames, ReactorMode, Referral } from '../descriptions.js';
import type { AnaState, EngineEvent } from '../engine.js';
import type { Association } from './association.js';
import type { FakeBdev, FaultIo, SlotIo } from './bdev.js';
import type { GateRecord, StoredDisk, StoredLvol } from './disk.js';
import type { FakeEngine } from './fake-engine.js';
import type { LegIo } from './leg.js';
import type { FakeNetwork } from './network.js';
import { Refused } from './refusal.js';
import type { FakeReservation } from './reservation.js';
import type { HostCommand } from './reservation-rules.js';

/** What a host shows, or has to; null: nothing. */
export interface Secrets {
  readonly dhchap: string | null;
  readonly psk: string | null;
}

export const noSecrets: Secrets = { dhchap: null, psk: null };

export interface FakeListener {
  readonly traddr: string;
  readonly trsvcid: string;
  readonly secure: boolean;
  anaState: AnaState;
}

export interface FakeNamespace {
  readonly nsid: number;
  readonly bdev: FakeBdev;
  readonly uuid: string;
  readonly nguid: string;
  readonly anagrpid: number;
  readonly oneWriter: boolean;
  /** Of a one-writer gate that lives as long as the namespace; null: the lvol keeps it. */
  gate: GateRecord | null;
  readonly reservation: FakeReservation;
}

export interface FakeSubsystem {
  readonly nqn: string;
  readonly serial: string;
  readonly model: string;
  readonly internal: boolean;
  readonly discovery: boolean;
  readonly nodeLink: boolean;
  readonly cntlidMin: number;
  readonly cntlidMax: number;
  readonly namespacesMax: number;
  allowAnyHost: boolean;
  /** Host NQN → the names of the keys that it authenticates with; none: it does not have to. */
  readonly hosts: Map<string, KeyNames>;
  /** Of the hosts that have keys: what they must show. */
  readonly secrets: Map<string, Secrets>;
  readonly listeners: FakeListener[];
  readonly namespaces: Map<number, FakeNamespace>;
}

export interface FakeMember {
  readonly bdev: FakeBdev;
  readonly association: Association;
  /** What it shares with other members there; null: nothing. */
  readonly link: { readonly address: string; readonly hostnqn: string } | null;
  /** Through the replica's gate. */
  snapshot(name: string): Promise<void>;
  writeNote(note: string): Promise<void>;
  readNote(): Promise<string>;
  leg: LegIo | null;
}

export const discoveryNqn = 'nqn.2014-08.org.nvmexpress.discovery';

export class EngineState {
  reactorMode: ReactorMode = 'adaptive';
  readonly bdevs = new Map<string, FakeBdev>();
  readonly disks = new Map<string, StoredDisk>();
  /** The lvol behind a bdev of type lvol. */
  readonly lvols = new Map<string, { disk: StoredDisk; lvol: StoredLvol }>();
  /** By uuid: lvstores that were opened to be read only. */
  readonly readOnlyStores = new Set<string>();
  readonly faults = new Map<string, FaultIo>();
  readonly slots = new Map<string, SlotIo>();
  /** Of groups of snapshots, by slot. */
  readonly holds = new Map<string, { readonly group: string; readonly release: () => void }>();
  readonly legs = new Map<
    string,
    { io: LegIo; epoch: bigint; sequence: number; tailBlocks: number; identity: string }
  >();
  /** Reservation commands through bdevs of other engines' namespaces. */
  readonly remotes = new Map<string, (command: HostCommand) => Promise<HostReservationResult>>();
  readonly members = new Map<string, FakeMember>();
  /** The keyring by name; path: '' for a key that is in no file. */
  readonly keys = new Map<string, { path: string; secret: string }>();
  readonly attaching = new Set<string>();
  readonly raids = new Map<string, number>();
  readonly cryptoKeys = new Map<string, Buffer>();
  readonly subsystems = new Map<string, FakeSubsystem>();
  readonly peers = new Map<string, { stop(): void }>();
  /** By address and port. */
  readonly referrals = new Map<string, Required<Referral>>();
  readonly exports = new Map<string, { bdev: string }>();
  transport: { readonly trusted: boolean } | null = null;

  constructor(
    readonly engine: FakeEngine,
    readonly network: FakeNetwork,
    readonly emit: (event: EngineEvent) => void,
  ) {}

  bdev(name: string, product?: string): FakeBdev {
    const found = this.bdevs.get(name) ?? [...this.bdevs.values()].find((bdev) => bdev.uuid === name);
    if (found === undefined) throw new Refused('notFound', `bdev ${name} does not exist`);
    if (product !== undefined && found.product !== product)
      throw new Refused('invalid', `bdev ${name} is of type ${found.product}, this method is for type ${product}`);
    return found;
  }

  assertFree(name: string): void {
    if (this.bdevs.has(name) || this.attaching.has(name)) throw new Refused('exists', `bdev ${name} exists`);
  }

  claim(names: readonly string[], user: string): FakeBdev[] {
    const found = names.map((name) => this.unused(this.bdev(name)));
    if (new Set(names).size !== names.length) throw new Refused('busy', 'a bdev is named twice');
    for (const bdev of found) bdev.claimedBy = user;
    return found;
  }

  release(names: readonly string[]): void {
    for (const name of names) {
      const bdev = this.bdevs.get(name);
      if (bdev !== undefined) bdev.claimedBy = null;
    }
  }

  open(name: string, user: string): FakeBdev {
    const bdev = this.bdev(name);
    if (bdev.claimedBy !== null) throw new Refused('busy', `bdev ${name} is in use by ${bdev.claimedBy}`);
    bdev.openedBy.push(user);
    return bdev;
  }

  closeUse(bdev: FakeBdev, user: string): void {
    const index = bdev.openedBy.indexOf(user);
    if (index >= 0) bdev.openedBy.splice(index, 1);
  }

  unused(bdev: FakeBdev): FakeBdev {
    const user = bdev.claimedBy ?? bdev.openedBy[0];
    if (user !== undefined) throw new Refused('busy', `bdev ${bdev.name} is in use by ${user}`);
    return bdev;
  }

  /** Refuses while something uses it; gives its children free. */
  destroy(name: string, product: string): FakeBdev {
    const bdev = this.unused(this.bdev(name, product));
    bdev.close?.();
    this.bdevs.delete(bdev.name);
    this.release(bdev.children);
    return bdev;
  }

  subsystem(nqn: string): FakeSubsystem {
    const found = this.subsystems.get(nqn);
    if (found === undefined) throw new Refused('notFound', `subsystem ${nqn} does not exist`);
    return found;
  }
}
