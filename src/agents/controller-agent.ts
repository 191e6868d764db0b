// SPDX-License-Identifier: Apache-2.0
//
// The controller side of a node: serves every volume that names the node among its controllers, as active or standby.

import { nqns } from '../model/keys.js';
import { type DrivenVolume, exportId, frontsOf } from '../model/multi-active.js';
import type { NodeAddress, VolumeObject } from '../model/objects.js';
import { linkOf } from '../reconcile/node-links.js';
import { partSizeBytes } from '../reconcile/parts.js';
import { type ClusterLink, onChangeOf } from './cluster-link.js';
import { type AgentContext, RateLimitedLog, reason } from './context.js';
import type { HostAccess } from './host-access.js';
import { NodeLink } from './node-link.js';
import { frontName } from './part-exports.js';
import { PeerWatcher } from './peer-watcher.js';
import { ReconcileLoop } from './reconcile-loop.js';
import { ServedVolume } from './served-volume.js';
import { Slots } from './signal.js';
import type { ResolveReplica } from './takeover.js';
import type { ControllerTiming } from './volume-controller.js';

export interface ControllerAgentOptions {
  readonly context: AgentContext;
  readonly link: ClusterLink;
  readonly node: string;
  /** Where hosts reach this node. */
  readonly hosts: NodeAddress;
  /** Where other nodes reach it; null: where hosts do. */
  readonly internal: NodeAddress | null;
  /** This process', as the store shows it. */
  readonly incarnation: string;
  readonly access: HostAccess;
  readonly timing?: Partial<ControllerTiming>;
}

/** Where a replica was last known to be served, by the store. */
export function replicaResolver(link: ClusterLink): ResolveReplica {
  const { state } = link;
  const nodeIn = (volume: VolumeObject, replica: string): string | undefined =>
    volume.legs.flatMap((leg) => leg.replicas).find((entry) => entry.replica === replica)?.node;
  return (replica) => {
    // What its disk said about it names its volume: not all of them have to be searched then.
    const volume = state.get('volumes', state.get('observedReplicas', replica)?.volumeId ?? '');
    let node = volume === null ? undefined : nodeIn(volume, replica);
    for (const each of node === undefined ? state.all('volumes') : []) node ??= nodeIn(each, replica);
    const live = node === undefined ? null : state.lastLive(node);
    return live?.internal == null ? null : { ...live.internal, linkNqn: linkOf(state, live) };
  };
}

/**
 * An owner waits for the store before it goes on without a replica, for as long as that takes; whether its node is there
 * the link finds out. A front that attached anew meanwhile would need the store itself, and stop all parts for one.
 */
const exportTimeoutMs = 600_000;

/** Where a front's exports are: at whoever drives the parts. */
export function exportResolver(
  link: ClusterLink,
  front: { id: string; volumeId: string; node: string },
): ResolveReplica {
  const { state } = link;
  return (id) => {
    const part = state.get('volumes', front.volumeId)?.parts?.find((each) => exportId(each, front.id) === id);
    const owner = part === undefined ? null : (state.get('leaderships', part)?.controller ?? null);
    const live = owner === null ? null : state.lastLive(owner);
    const at = live?.internal ?? live?.hosts ?? null;
    if (at === null || part === undefined) return null;
    return {
      ...at,
      linkNqn: nqns.partLink,
      subnqn: nqns.partExport(part, front.id),
      as: frontName(front.node),
      commandTimeoutMs: exportTimeoutMs,
    };
  };
}

const restMs = 20;
/** Between looks at whom the link lets in. */
const linkRestMs = 100;
/** No volume waits long for one whose replicas are away. */
const promotions = { count: 32, heldMsMax: 1_000 };
/** Looked at volume by volume. */
const ownKinds = ['volumes', 'leaderships', 'reservations', 'handOvers', 'scrubs', 'observedReplicas'] as const;
/** A change of them may concern every volume. */
const sharedKinds = ['lives', 'snapshots', 'hosts'] as const;

export class ControllerAgent {
  readonly #options: ControllerAgentOptions;
  readonly #volumes = new Map<string, ServedVolume>();
  /** By volume id. */
  readonly #retiring = new Map<string, Promise<void>>();
  readonly #peers: PeerWatcher;
  readonly #loop: ReconcileLoop;
  #unsubscribe: (() => void) | null = null;
  /** Of each volume, what it was shown last: the objects that are its own, versions of what is everybody's. */
  readonly #shown = new Map<string, readonly unknown[]>();
  readonly #promotions: Slots;
  #peerChanges = 0;
  readonly #partLink: NodeLink;
  /** Null: it is there when parts are. */
  readonly #linkLoop: ReconcileLoop | null;
  /** Of a volume's object: what follows from it alone. */
  readonly #fronts = new WeakMap<VolumeObject, readonly DrivenVolume[]>();

  constructor(options: ControllerAgentOptions) {
    this.#options = options;
    const { context, link, node } = options;
    this.#promotions = new Slots({ ...promotions, clock: context.clock });
    this.#partLink = new NodeLink({ context, link, nqn: nqns.partLink, nameOf: frontName });
    this.#peers = new PeerWatcher({ context, link, node, onChange: () => this.#peersChanged() });
    const { clock } = context;
    const log = new RateLimitedLog(context.log, clock);
    this.#loop = new ReconcileLoop({ name: 'controller agent', clock, log, pass: () => this.#pass(), restMs });
    const letIn = (signal: AbortSignal): Promise<void> => this.letWatchersIn(signal);
    const loop = { name: 'link for watchers', clock, log, pass: letIn, restMs: linkRestMs };
    this.#linkLoop = options.hosts.secure === true ? new ReconcileLoop(loop) : null;
  }

  /** By volume id. */
  get volumes(): ReadonlyMap<string, ServedVolume> {
    return this.#volumes;
  }

  /** By TLS others watch this node as whom the link for parts lets in, whether it has parts or not. */
  async letWatchersIn(signal: AbortSignal): Promise<void> {
    const { hosts, internal } = this.#options;
    if (!hosts.secure) return;
    await this.#partLink.ensure(internal ?? hosts, signal);
    if (this.#partLink.nqn === null && !this.#partLink.isUnknown) throw new Error('the link is not to be had yet');
  }

  start(): void {
    this.#peers.start();
    this.#unsubscribe = onChangeOf(this.#options.link, [...ownKinds, ...sharedKinds, 'nodes'], () => {
      this.#peers.wake();
      this.#loop.wake();
      this.#linkLoop?.wake();
    });
    this.#loop.start();
    this.#linkLoop?.start();
  }

  /** Gives every volume away, all at once. */
  async handOver(): Promise<void> {
    await Promise.all([...this.#volumes.values()].map((volume) => volume.handOver()));
  }

  async stop(): Promise<void> {
    this.#unsubscribe?.();
    await this.#loop.stop();
    await this.#linkLoop?.stop();
    await Promise.all([...this.#volumes.values()].map((volume) => volume.stop()));
    await Promise.all(this.#retiring.values());
    await this.#peers.stop();
  }

  #peersChanged(): void {
    this.#peerChanges += 1;
    this.#loop.wake();
  }

  /** A node with a thousand volumes does not look at all of them whenever one of them changes. */
  #show(served: ServedVolume, volume: DrivenVolume): void {
    const { state } = this.#options.link;
    const shown: unknown[] = [
      volume,
      // An object is read once for each revision: the same one means that nothing changed.
      state.stored('leaderships', volume.id),
      state.stored('reservations', volume.id),
      state.stored('handOvers', volume.id),
      state.stored('scrubs', volume.id),
      this.#peerChanges,
    ];
    const whole = state.stored('volumes', volume.partOf ?? volume.front?.volumeId ?? '');
    const { parts = [], fronts = [] } = whole?.value ?? {};
    shown.push(whole, ...[...parts, ...fronts].map((id) => state.stored('leaderships', id)));
    for (const { replicas } of volume.legs)
      for (const { replica } of replicas) shown.push(state.stored('observedReplicas', replica));
    for (const kind of sharedKinds) shown.push(state.version(kind));
    const before = this.#shown.get(volume.id);
    if (before?.length === shown.length && shown.every((part, index) => part === before[index])) return;
    this.#shown.set(volume.id, shown);
    served.update(volume);
  }

  async #pass(): Promise<void> {
    const { link, node, context } = this.#options;
    const lookedAtMs = context.clock.now();
    const wanted = link.state
      .all('volumes')
      .filter((volume) => volume.phase === 'live' && volume.controllers.includes(node))
      .flatMap((volume) => (volume.fronts === undefined ? [volume] : this.#frontsOf(volume)));
    const wantedIds = new Set(wanted.map((volume) => volume.id));
    const gone = [...this.#volumes].filter(([id]) => !wantedIds.has(id));
    for (const [id, served] of gone) {
      this.#volumes.delete(id);
      this.#shown.delete(id);
      // Not awaited here: the other volumes must not wait for it.
      const retiring = served
        .retire()
        .catch((error) =>
          context.log.warn({ volume: id, error: reason(error) }, 'volume was not retired in good order'),
        )
        .finally(() => {
          this.#retiring.delete(id);
          this.#loop.wake();
        });
      this.#retiring.set(id, retiring);
    }
    for (const volume of wanted) {
      const known = this.#volumes.get(volume.id);
      if (known !== undefined) this.#show(known, volume);
      // What is left of it goes by the same names as what would be made.
      else if (!this.#retiring.has(volume.id)) this.#serve(volume);
    }
    this.#loop.looked(context.clock.now() - lookedAtMs, { share: 4, mostMs: 200 });
  }

  #frontsOf(volume: VolumeObject): readonly DrivenVolume[] {
    const known = this.#fronts.get(volume) ?? frontsOf(volume, partSizeBytes);
    this.#fronts.set(volume, known);
    return known;
  }

  #serve(volume: DrivenVolume): void {
    const { context, link, node, hosts, internal, incarnation, access, timing } = this.#options;
    const { id, front } = volume;
    const exported = front === undefined ? null : exportResolver(link, { id, volumeId: front.volumeId, node });
    const served = new ServedVolume(
      {
        context,
        link,
        node,
        hosts,
        incarnation,
        access,
        parts: { address: internal ?? hosts, link: this.#partLink },
        resolve: exported ?? replicaResolver(link),
        peers: () => this.#peers,
        promotions: this.#promotions,
        ...(timing === undefined ? {} : { timing }),
      },
      volume,
    );
    this.#volumes.set(id, served);
    served.start();
  }
}
