// SPDX-License-Identifier: Apache-2.0
//
// One volume on one controller node: the slot and the subsystem that hosts see, whether this node should drive the
// volume now, and what the store is told about it.

import type { EngineEvent } from '../engine/engine.js';
import type { Timer } from '../env/clock.js';
import type { Stored } from '../model/cluster-state.js';
import { BasaltError } from '../model/errors.js';
import { grantInstance } from '../model/grant.js';
import { cntlidRange, keys, nguidOf, nqns, volumeSerial } from '../model/keys.js';
import { type DrivenVolume, hostsOfFront, leavingFrom, withoutLeft } from '../model/multi-active.js';
import {
  codecs,
  formatVersion,
  type Leadership,
  type NodeAddress,
  type ObservedVolume,
  type VolumeObject,
} from '../model/objects.js';
import { isReserved } from '../model/reservations.js';
import { madeOf } from '../reconcile/clone-source.js';
import { controllerSlot } from '../reconcile/controllers.js';
import {
  type ExportAction,
  noExport,
  type ObservedExport,
  ownFailures,
  planExport,
  reservationName,
} from '../reconcile/exports.js';
import { namedSuccessor, notReady, shouldHandOver } from '../reconcile/hand-over.js';
import { isGranted } from '../reconcile/membership.js';
import { isActive } from '../reconcile/move-controller.js';
import { decidePromotion, endsSplit, standbyStepMs } from '../reconcile/promotion.js';
import { ensureSlot, slotName } from './assembly.js';
import type { ClusterLink } from './cluster-link.js';
import { type AgentContext, RateLimitedLog, reason } from './context.js';
import { followed } from './followed.js';
import type { HostAccess } from './host-access.js';
import type { Versioned } from './leadership-register.js';
import { listenAddress } from './listener.js';
import type { NodeLink } from './node-link.js';
import { PartExports } from './part-exports.js';
import { publishSize, publishWholeSize } from './publish-size.js';
import { ReconcileLoop } from './reconcile-loop.js';
import { ReservationKeeper } from './reservation-keeper.js';
import { scrubPort } from './scrub-worker.js';
import { Backoff, type Slots, withDeadline } from './signal.js';
import { snapshotPort } from './snapshot-port.js';
import type { ResolveReplica } from './takeover.js';
import {
  type ControllerTiming,
  controllerTiming,
  type HandOverOptions,
  VolumeController,
} from './volume-controller.js';

export interface ServedVolumeOptions {
  readonly context: AgentContext;
  readonly link: ClusterLink;
  readonly node: string;
  /** `secure`: all of them come by TLS. */
  readonly hosts: NodeAddress;
  /** Where other controllers reach what this node exports of parts, and by what link. */
  readonly parts: { readonly address: NodeAddress; readonly link: NodeLink };
  readonly access: HostAccess;
  /** This process'. */
  readonly incarnation: string;
  readonly resolve: ResolveReplica;
  /** Promotions of this node: all at once would take so long that replicas seem to be away. */
  readonly promotions: Slots;
  /** `lost`: when the connection broke. `gone`: refused a connection after leaderships up to that revision were known. */
  readonly peers: () => {
    readonly lost: ReadonlyMap<string, number>;
    readonly gone: ReadonlyMap<string, number>;
    readonly connected: ReadonlySet<string>;
  };
  readonly timing?: Partial<ControllerTiming>;
}

/** What is left of it goes with this node's lease anyway. */
const removalTimeoutMs = 2_000;
/** How long replicas of a clone are waited for that are not made yet, while each leg has one. */
const halfMadeMs = 3_000;
/** Until a hand-over that failed is tried again: each try costs hosts a pause. */
const handOverAgainMs = 10_000;
/** While a volume is served without the right to. */
const lentLookMs = 1_000;
/** For which a controller that reached too few replicas leaves the volume to each of the others: longer than their ranks are apart. */
const yieldMs = 1_000;
/** By which an engine's patience is longer than that of whoever answers it. */
const engineSlackMs = 2_000;

export class ServedVolume {
  readonly #options: ServedVolumeOptions;
  readonly #controller: VolumeController;
  readonly #reservations: ReservationKeeper;
  readonly #exports: ReconcileLoop;
  readonly #promotions: ReconcileLoop;
  readonly #reports: ReconcileLoop;
  readonly #log: RateLimitedLog;
  #volume: DrivenVolume;
  /** Null: it is no part. */
  readonly #partExports: PartExports | null;
  #present: ObservedExport = noExport;
  /** Of a front: hosts that it has let go, and the volume's object that says that they are leaving. */
  #left: { readonly whole: Stored<VolumeObject>; readonly hosts: readonly string[] } | null = null;
  #nbdUris = new Map<string, string>();
  /** Why an export is not as it is wanted. */
  #exportProblem: string | null = null;
  #serving = false;
  #retired = false;
  #draining = false;
  #reported = '';
  /** When the present reason to promote was first seen, and which one it was. */
  #wish: { what: string; sinceMs: number } | null = null;
  /** The present holder's epoch, and when this node first saw it. */
  #led: { epoch: number; sinceMs: number } | null = null;
  /** The epoch that was given away last. */
  #handedOver = -1;
  #again: Timer | null = null;
  #lentTimer: Timer | null = null;
  /** The granted epoch that this node tried to use last. */
  #tried = -1;
  #halfMadeSinceMs: number | null = null;
  #halfMadeTimer: Timer | null = null;
  #pass: Promise<void> = Promise.resolve();
  #unsubscribe: (() => void) | null = null;

  constructor(options: ServedVolumeOptions, volume: DrivenVolume) {
    this.#options = options;
    this.#volume = volume;
    const { clock, log } = options.context;
    this.#log = new RateLimitedLog(log, clock);
    const loop = (name: string, pass: (signal: AbortSignal) => Promise<void>): ReconcileLoop =>
      new ReconcileLoop({ name: `${name} of ${volume.name}`, clock, log: this.#log, pass });
    const { context, link, incarnation, parts } = options;
    const common = { context, link, incarnation, part: volume, partLink: parts.link, address: parts.address };
    this.#partExports = volume.partOf === undefined ? null : new PartExports(common);
    this.#exports = loop('exports', async (signal) => {
      await this.#applyExports();
      await this.#letGo(signal);
    });
    this.#promotions = loop('promotion', (signal) => this.#consider(signal));
    this.#reports = loop('report', (signal) => this.#report(signal));
    this.#reservations = new ReservationKeeper({
      context: options.context,
      link: options.link,
      volumeId: volume.id,
      right: () => this.#controller,
      answerMs: this.#reservationMs,
      apply: () => this.#applyExports(),
    });
    this.#controller = new VolumeController({
      context: options.context,
      volume,
      name: options.node,
      leadership: options.link.leadership(volume.id),
      resolve: options.resolve,
      onRight: async (granted, signal) => {
        await Promise.all([this.#reservations.lead(granted, signal), this.#seeHosts(signal)]);
      },
      onServing: (serving) => this.#setServing(serving),
      publishSize: (servedBytes, signal) =>
        volume.front === undefined
          ? publishSize(options.link, volume.id, { servedBytes, signal })
          : publishWholeSize(options.link, volume.front.volumeId, { servedBytes, signal }),
      // What a front stands on is served by controllers: it waits for these, and is no better off elsewhere.
      ...(volume.front === undefined ? { othersMayTry: () => this.#othersUp > 0 } : {}),
      snapshots: snapshotPort(options.link, volume.id),
      scrubs: scrubPort(options.link, volume.id),
      onChange: () => {
        this.#reports.wake();
        if (this.#controller.state === 'idle') this.#promotions.wake();
      },
      ...(options.timing === undefined ? {} : { timing: options.timing }),
    });
  }

  get #reservationMs(): number {
    return this.#options.timing?.reservationMs ?? controllerTiming.reservationMs;
  }

  get controller(): VolumeController {
    return this.#controller;
  }

  start(): void {
    this.#unsubscribe = this.#options.context.engine.on('event', (event) => this.#heard(event));
    this.#exports.start();
    this.#promotions.start();
    this.#reports.start();
  }

  #heard(event: EngineEvent): void {
    if (event.method !== 'nvmf_reservation_change' || event.params.nqn !== nqns.volume(this.#volume.id)) return;
    this.#reservations.asked(event.params);
  }

  /** The store changed, or a peer came or went. */
  update(volume: DrivenVolume): void {
    this.#volume = volume;
    const leadership = this.#options.link.state.get('leaderships', volume.id);
    this.#controller.update(volume, leadership);
    if (leadership !== null && this.#led?.epoch !== leadership.epoch)
      this.#led = { epoch: leadership.epoch, sinceMs: this.#options.context.clock.now() };
    if (leadership !== null && this.#isOver(leadership)) {
      this.#controller
        .demote(`epoch ${leadership.epoch} belongs to ${leadership.controller ?? 'nobody'}`)
        .catch((error) => this.#log.warn('demote', { error: reason(error) }, 'demotion failed'));
    }
    this.#followWish(leadership);
    this.#exports.wake();
    this.#promotions.wake();
    this.#controller.poke();
  }

  /**
   * Somebody else goes on with it. While it is lent, the members say so, whatever the store says - or who took the right
   * does, by serving; or it came back to this node, which has to take the members anew: also when all that it saw of others is
   * that it has a later epoch.
   */
  #isOver(leadership: Leadership): boolean {
    const { node, link } = this.#options;
    const { state, view, lentEpoch } = this.#controller;
    const { controller, epoch } = leadership;
    if (state !== 'active' || epoch <= view.epoch) return false;
    if (controller === node) return !this.#controller.takesRight;
    if (lentEpoch === null) return true;
    const seen = controller === null ? null : link.state.get('observedVolumes', `${this.#volume.id}/${controller}`);
    return seen?.state === 'active' && seen.epoch > view.epoch;
  }

  /** Nobody tells this node that a successor has come late: it looks. */
  #watchLent(): void {
    this.#lentTimer?.cancel();
    if (this.#controller.state !== 'active' || this.#controller.lentEpoch === null) return;
    this.#lentTimer = this.#options.context.clock.setTimer(lentLookMs, () => {
      this.update(this.#volume);
      this.#watchLent();
    });
  }

  /** Somebody asked for the volume to be driven elsewhere. Once for an epoch: afterwards it is another one's. */
  #followWish(leadership: Leadership | null): void {
    const { link, node, context } = this.#options;
    if (leadership === null || this.#controller.state !== 'active') return;
    if (this.#controller.view.epoch !== leadership.epoch || this.#handedOver === leadership.epoch) return;
    const isSuspended = this.#volume.suspended !== undefined && leadership.controller === node;
    const to = isSuspended ? null : shouldHandOver(link.state, { volume: this.#volume, leadership, me: node });
    if (to === null && !isSuspended) return;
    this.#handedOver = leadership.epoch;
    context.log.info({ volume: this.#volume.name, to }, 'handing the volume over');
    this.#controller
      .handOver(to, this.#towards(to))
      .catch((error) => this.#log.warn('hand-over', { error: reason(error) }, 'hand-over failed'))
      .finally(() => {
        this.#mayFollowAgain();
        this.#watchLent();
      });
  }

  /** A volume that was taken back is still wanted there: when whatever stood in the way may be over. */
  #mayFollowAgain(): void {
    if (this.#controller.state !== 'active') return;
    this.#again?.cancel();
    this.#again = this.#options.context.clock.setTimer(handOverAgainMs, () => {
      this.#handedOver = -1;
      this.#followWish(this.#options.link.state.get('leaderships', this.#volume.id));
    });
  }

  /** To nobody in particular it is for good: nobody comes who could be waited for. */
  #towards(to: string | null): HandOverOptions {
    if (to === null) return {};
    const at = { volumeId: this.#volume.id, to };
    return {
      instance: this.#instanceOf(to),
      followed: (epoch, signal) => followed(this.#options.link, { ...at, epoch }, signal),
    };
  }

  /** Under which a process uses epochs that are granted to it. */
  #instanceOf(name: string | null): (epoch: number) => string | null {
    const live = name === null ? null : this.#options.link.state.get('lives', name);
    return (epoch) => (live?.kind === 'node' ? grantInstance(live.incarnation, epoch) : null);
  }

  /** Gives the volume to another controller, if this one has it. */
  async handOver(): Promise<void> {
    this.#draining = true;
    await this.#promotions.stop();
    const next = this.#nextInLine();
    await this.#controller.handOver(next, { instance: this.#instanceOf(next) });
  }

  /** Who can follow this node at once, and stays; null: whoever comes. */
  #nextInLine(): string | null {
    const { link, node } = this.#options;
    const stays = (name: string): boolean => link.state.get('cordons', `node/${name}`) === null;
    const others = this.#volume.controllers.filter((name) => name !== node && stays(name));
    return others.find((name) => notReady(link.state, this.#volume, name) === null) ?? null;
  }

  /** The volume is no longer this node's: nothing of it stays. One that is being deleted is not handed to anybody. */
  async retire(): Promise<void> {
    this.#retired = true;
    this.#halfMadeTimer?.cancel();
    this.#again?.cancel();
    this.#lentTimer?.cancel();
    await this.#promotions.stop();
    const stays = this.#options.link.state.get('volumes', this.#shownAs)?.phase === 'live';
    const next = this.#nextInLine();
    if (stays) await this.#controller.handOver(next, { instance: this.#instanceOf(next) });
    await this.#controller.demote('volume left this node');
    await this.#forgetReservations();
    await this.#exports.stop();
    await this.#applyExports();
    const name = slotName(this.#volume.id);
    await this.#options.context.engine.rpc('basalt_slot_delete', { name }).catch((error) => {
      this.#log.warn('slot', { volume: this.#volume.name, error: reason(error) }, 'slot could not be deleted');
    });
    await this.#reports.stop();
    const key = keys.observedVolume(this.#volume.id, this.#options.node);
    await withDeadline(this.#options.context.clock, removalTimeoutMs, (signal) =>
      this.#options.link.commit({ remove: [key] }, signal),
    );
  }

  async stop(): Promise<void> {
    this.#halfMadeTimer?.cancel();
    this.#again?.cancel();
    this.#lentTimer?.cancel();
    await this.#promotions.stop();
    await this.#controller.demote('node stops');
    await this.#forgetReservations();
    await this.#exports.stop();
    await this.#reports.stop();
  }

  async #forgetReservations(): Promise<void> {
    this.#unsubscribe?.();
    await this.#reservations.stop();
  }

  async #setServing(serving: boolean): Promise<void> {
    if (this.#serving === serving) return;
    this.#serving = serving;
    try {
      if (serving || this.#present.subsystem || this.#partExports !== null) await this.#applyExports();
    } catch (error) {
      // An export that cannot be opened is no reason not to serve the others; the loop goes on trying.
      this.#log.warn('exports', { volume: this.#volume.name, error: reason(error) }, 'not every export follows yet');
    }
    this.#exports.wake();
  }

  /** Passes run one after the other, whoever asks for them. */
  #applyExports(): Promise<void> {
    const next = this.#pass
      .then(() => this.#exportPass())
      .then(
        () => this.#noteExports(this.#heldBack()),
        (error: unknown) => {
          this.#noteExports(reason(error));
          throw error;
        },
      );
    this.#pass = next.catch(() => {});
    return next;
  }

  #heldBack(): string | null {
    const waits = this.#serving && this.#nbdPaths().length > 0 && isReserved(this.#reservations.current);
    return waits ? 'not exported over NBD: a host has reserved it' : null;
  }

  #noteExports(problem: string | null): void {
    if (this.#exportProblem === problem) return;
    this.#exportProblem = problem;
    this.#reports.wake();
  }

  /** Of a front's volume, as the store was last seen. */
  get #whole(): Stored<VolumeObject> | null {
    return this.#options.link.state.stored('volumes', this.#volume.front?.volumeId ?? '');
  }

  /** At once, not when the agent comes by: a front that begins to serve knows who has left it (#seeHosts). */
  get #hosts(): readonly string[] {
    const { front } = this.#volume;
    const whole = this.#whole;
    return front === undefined || whole === null ? this.#volume.hosts : hostsOfFront(whole.value, front.index);
  }

  /**
   * A front that takes over has to know of every host that the one before it let go: it may be served elsewhere by now
   * beside another one. Nobody else lets go of any from here on.
   */
  async #seeHosts(signal: AbortSignal): Promise<void> {
    if (this.#volume.front === undefined) return;
    const { link, context } = this.#options;
    const backoff = new Backoff({ clock: context.clock, minMs: 5, maxMs: 500 });
    for (;;) {
      signal.throwIfAborted();
      const whole = this.#whole;
      if (whole === null) return;
      try {
        if (await link.commit({ expect: [{ key: whole.key, revision: whole.revision }] }, signal)) return;
      } catch (error) {
        signal.throwIfAborted();
        this.#log.warn('hosts', { volume: this.#volume.name, error: reason(error) }, 'hosts cannot be read; trying on');
      }
      await backoff.wait(signal);
    }
  }

  /** Hosts that were detached are off the record when nothing of them is on the way any more by this front. */
  async #letGo(signal: AbortSignal): Promise<void> {
    const { link, node } = this.#options;
    const found = this.#left;
    this.#left = null;
    const revision = this.#controller.rightRevision;
    if (found === null || revision === null) return;
    const { whole, hosts } = found;
    const expect = [
      { key: whole.key, revision: whole.revision },
      // Whoever has the front next lets nobody in that it has not read of after this.
      { key: keys.leadership(this.#volume.id), revision },
    ];
    const text = codecs.volume.encode(withoutLeft(whole.value, hosts));
    const done = await link.commit({ expect, put: [{ key: whole.key, text }] }, signal);
    if (done) this.#options.context.log.info({ volume: this.#volume.name, node, hosts }, 'hosts have left');
    // The volume changed meanwhile, or the right to its front: what is true then will be seen.
    else throw new Error(`volume ${whole.value.name} changed while hosts left it`);
  }

  /** In the turn of a pass: from here on none of them is let in, unless it is attached anew. */
  #noteLeft(): void {
    const { front } = this.#volume;
    const whole = this.#whole;
    if (front === undefined || whole === null || !this.#serving || this.#retired) return;
    const isHere = (host: string): boolean => this.#present.hosts.some(({ nqn }) => nqn === host);
    const hosts = leavingFrom(whole.value, front.index).filter((host) => !isHere(host));
    this.#left = hosts.length === 0 ? null : { whole, hosts };
  }

  async #exportPass(): Promise<void> {
    await ensureSlot(this.#options.context.engine, this.#volume);
    if (this.#partExports !== null)
      return this.#serving && !this.#retired ? this.#partExports.open() : this.#partExports.close();
    const wanted = this.#retired
      ? null
      : {
          plain: !this.#options.hosts.secure,
          hosts: this.#options.access.wishes(this.#hosts),
          ana: this.#serving ? ('optimized' as const) : ('inaccessible' as const),
          nbd: this.#serving ? this.#nbdPaths() : [],
          reservation: this.#reservations.current,
        };
    let failed: unknown = null;
    for (const action of planExport(wanted, this.#present)) {
      try {
        await this.#carryOut(action);
      } catch (error) {
        if (!ownFailures.has(action.do)) throw error;
        failed ??= error;
      }
    }
    this.#noteLeft();
    if (failed !== null) throw failed;
  }

  #nbdPaths(): string[] {
    return this.#volume.nbd.filter((entry) => entry.node === this.#options.node).map((entry) => entry.path);
  }

  async #carryOut(action: ExportAction): Promise<void> {
    const { access } = this.#options;
    const { engine } = this.#options.context;
    const nqn = nqns.volume(this.#volume.id);
    const listener = { nqn, listen_address: listenAddress(this.#options.hosts) };
    const present = this.#present;
    switch (action.do) {
      case 'create-subsystem':
        await this.#createSubsystem(nqn);
        this.#present = { ...present, subsystem: true };
        return;
      case 'add-namespace':
        await engine.rpc('nvmf_subsystem_add_ns', {
          nqn,
          namespace: {
            bdev_name: slotName(this.#volume.id),
            nsid: 1,
            uuid: this.#shownAs,
            nguid: nguidOf(this.#shownAs),
            anagrpid: 1,
            ...this.#reservationMode(),
          },
        });
        this.#present = { ...present, namespace: true };
        return;
      case 'set-reservation': {
        const { reservation } = action;
        if (this.#volume.front === undefined)
          await engine.rpc('basalt_ns_set_reservation', { nqn, nsid: 1, reservation });
        this.#present = { ...present, reservation: reservationName(reservation) };
        return;
      }
      case 'add-host':
        await access.add(this.#volume, action.host);
        this.#present = { ...present, hosts: [...present.hosts, action.host] };
        return;
      case 'set-keys': {
        await access.setKeys(this.#volume, action.host);
        const others = present.hosts.filter((host) => host.nqn !== action.host.nqn);
        this.#present = { ...present, hosts: [...others, action.host] };
        return;
      }
      case 'remove-host':
        await engine.rpc('nvmf_subsystem_remove_host', { nqn, host: action.host });
        this.#present = { ...present, hosts: present.hosts.filter((host) => host.nqn !== action.host) };
        return;
      case 'add-listener':
        await engine.rpc('nvmf_subsystem_add_listener', listener);
        this.#present = { ...present, listener: true };
        this.#reports.wake();
        return;
      case 'set-ana':
        await engine.rpc('nvmf_subsystem_listener_set_ana_state', { ...listener, ana_state: action.ana });
        this.#present = { ...present, ana: action.ana };
        return;
      case 'add-tls-listener':
        await access.addTlsListener(this.#volume);
        this.#present = { ...present, tlsListener: true };
        this.#reports.wake();
        return;
      case 'set-tls-ana': {
        const listen_address = listenAddress(await access.tlsListener());
        await engine.rpc('nvmf_subsystem_listener_set_ana_state', { nqn, listen_address, ana_state: action.ana });
        this.#present = { ...present, tlsAna: action.ana };
        return;
      }
      case 'remove-tls-listener': {
        const listen_address = listenAddress(await access.tlsListener());
        await engine.rpc('nvmf_subsystem_remove_listener', { nqn, listen_address });
        this.#present = { ...present, tlsListener: false, tlsAna: null };
        this.#reports.wake();
        return;
      }
      case 'start-nbd': {
        const params = { bdev_name: slotName(this.#volume.id), path: action.path, export_name: this.#volume.name };
        const started = await engine.rpc('basalt_nbd_start', params);
        this.#nbdUris.set(action.path, started.uri);
        this.#present = { ...present, nbd: [...present.nbd, action.path] };
        this.#reports.wake();
        return;
      }
      case 'stop-nbd':
        await engine.rpc('basalt_nbd_stop', { path: action.path });
        this.#nbdUris.delete(action.path);
        this.#present = { ...present, nbd: present.nbd.filter((path) => path !== action.path) };
        this.#reports.wake();
        return;
      case 'delete-subsystem':
        await engine.rpc('nvmf_delete_subsystem', { nqn });
        this.#present = { ...noExport, nbd: present.nbd };
        return;
    }
  }

  /** What hosts know it as: whatever front they are served by, it is one volume. */
  get #shownAs(): string {
    return this.#volume.front?.volumeId ?? this.#volume.id;
  }

  /** Fronts of one volume know nothing of each other's hosts: none are offered. */
  #reservationMode(): { reservations: false } | { shared_reservations: true; reservation_timeout_ms: number } {
    if (this.#volume.front !== undefined) return { reservations: false };
    return { shared_reservations: true, reservation_timeout_ms: this.#reservationMs + engineSlackMs };
  }

  async #createSubsystem(nqn: string): Promise<void> {
    const range = cntlidRange(controllerSlot(this.#volume, this.#options.node));
    await this.#options.context.engine.rpc('nvmf_create_subsystem', {
      nqn,
      serial_number: volumeSerial(this.#shownAs),
      model_number: 'Basalt volume',
      allow_any_host: false,
      min_cntlid: range.min,
      max_cntlid: range.max,
      ana_reporting: true,
      max_namespaces: 1,
      // A promotion ends with every member taken over, or with the old leases run out.
      one_active: true,
      // It would be atomic among the hosts of one front only.
      compare_write: this.#volume.front === undefined,
    });
  }

  /** Promotes when it is this node's turn; waits out its place among the standbys first. */
  async #consider(signal: AbortSignal): Promise<void> {
    const { clock } = this.#options.context;
    for (;;) {
      const decision = this.#decide();
      if (decision.do === 'nothing') {
        this.#wish = null;
        return;
      }
      const leadership = this.#options.link.state.get('leaderships', this.#volume.id);
      const what = `${leadership?.epoch} ${leadership?.controller}`;
      if (this.#wish?.what !== what) this.#wish = { what, sinceMs: clock.now() };
      const restMs = this.#wish.sinceMs + decision.delayMs - clock.now();
      if (restMs > 0) {
        // In short steps: what is asked of this node may have become another thing by then.
        await clock.sleep(Math.min(restMs, standbyStepMs), signal);
        continue;
      }
      await this.#options.promotions.run(signal, () => this.#promoteInTurn(what, signal));
      return;
    }
  }

  /** While it waited for its turn, somebody else may have come: then the watch has said so. */
  async #promoteInTurn(what: string, signal: AbortSignal): Promise<void> {
    const decision = this.#decide();
    const leadership = this.#options.link.state.get('leaderships', this.#volume.id);
    if (decision.do === 'nothing' || what !== `${leadership?.epoch} ${leadership?.controller}`) {
      this.#promotions.wake();
      return;
    }
    this.#options.context.log.info({ volume: this.#volume.name, why: decision.why }, 'promoting this node');
    await this.#promote(signal);
  }

  async #promote(signal: AbortSignal): Promise<void> {
    const stored = this.#options.link.state.stored('leaderships', this.#volume.id);
    const seen = stored === null ? null : { value: stored.value, revision: stored.revision };
    try {
      const granted = this.#granted();
      await this.#controller.promote({ takeover: true, seenEpoch: seen?.value.epoch ?? 0, granted, seen, signal });
    } catch (error) {
      // Another one won: nothing is wrong, and nothing is to be tried before the store says so.
      if (error instanceof BasaltError && error.code === 'VOLUME_LED') return;
      throw error;
    }
  }

  /** What was drawn for this node, once: where using it failed, only an epoch of its own helps. */
  #granted(): Versioned<Leadership> | null {
    const { link, node, incarnation } = this.#options;
    const stored = link.state.stored('leaderships', this.#volume.id);
    if (stored === null || stored.value.controller !== node || this.#tried === stored.value.epoch) return null;
    const own = grantInstance(incarnation, stored.value.epoch);
    const direct = own !== null && stored.value.instance === own;
    if (!direct && !isGranted(stored.value, node)) return null;
    this.#tried = stored.value.epoch;
    return { value: stored.value, revision: stored.revision };
  }

  #decide(): ReturnType<typeof decidePromotion> {
    const { link, node, peers } = this.#options;
    const leadership = link.state.get('leaderships', this.#volume.id);
    if (leadership === null || this.#volume.phase !== 'live') return { do: 'nothing', why: 'it is not there' };
    if (this.#draining || this.#retired) return { do: 'nothing', why: 'is handing over' };
    // One that was left unclean is taken over first: whoever left it may not have ended.
    if (this.#volume.suspended !== undefined && leadership.controller === null && leadership.clean)
      return { do: 'nothing', why: 'is suspended' };
    if (!this.#isMade(leadership)) return { do: 'nothing', why: 'its replicas are not made yet' };
    const peersNow = peers();
    const { connected } = peersNow;
    // Whoever took an epoch after its connection broke lives: without this, two controllers that cannot reach each other
    // would take the volume from one another for ever.
    const lost = new Set(
      [...peersNow.lost]
        .filter(([name, atMs]) => name !== leadership.controller || atMs >= (this.#led?.sinceMs ?? 0))
        .map(([name]) => name),
    );
    // Nor was anybody there any more when it was looked for because of that epoch.
    const revision = link.state.stored('leaderships', this.#volume.id)?.revision ?? 0;
    for (const [name, known] of peersNow.gone) if (known >= revision) lost.add(name);
    if (leadership.controller !== null && this.#endsSplit(leadership.controller)) lost.add(leadership.controller);
    const lives = link.state.all('lives');
    const candidates = new Set([...lives.filter((live) => !live.draining).map((live) => live.name), node]);
    // A process that answers on its connection is alive, whatever became of its lease.
    const alive = new Set([...lives.map((live) => live.name), ...connected]);
    // Serving without the right is for a while only: until whoever has it comes, or is found to be gone.
    const lent = this.#controller.lentEpoch === leadership.epoch && leadership.controller !== node;
    const driving = this.#controller.state !== 'idle' && !lent;
    const successor = namedSuccessor(link.state, leadership);
    const order = this.#volume.controllers;
    const decision = decidePromotion({ me: node, leadership, order, candidates, alive, lost, successor, driving });
    if (leadership.controller !== null && isActive(link.state, leadership, leadership.controller))
      this.#controller.forgetYields();
    const { yieldedAt } = this.#controller;
    if (leadership.controller !== null || yieldedAt === null || decision.do !== 'promote') return decision;
    // Each turn is an epoch: whoever has waited for the most of them comes first.
    const turns = Math.max(0, this.#othersUp - (leadership.epoch - yieldedAt));
    return { ...decision, delayMs: decision.delayMs + turns * yieldMs };
  }

  get #othersUp(): number {
    const { link, node } = this.#options;
    const isUp = (name: string): boolean => link.state.get('lives', name)?.draining === false;
    return this.#volume.controllers.filter((name) => name !== node && isUp(name)).length;
  }

  #endsSplit(holder: string): boolean {
    const { link, node, peers } = this.#options;
    const { partOf, front } = this.#volume;
    const whole = link.state.get('volumes', partOf ?? front?.volumeId ?? '');
    if (whole === null) return false;
    const serves = (whole.parts ?? []).some((part) => {
      const led = part === this.#volume.id ? null : link.state.get('leaderships', part);
      return led !== null && isActive(link.state, led, node);
    });
    const cut = new Set([...peers().lost.keys(), ...peers().gone.keys()]);
    const holderOwns = (whole.parts ?? []).some((part) => link.state.get('leaderships', part)?.controller === holder);
    return endsSplit({ me: node, holder, order: whole.controllers, cut, serves, holderOwns });
  }

  /** A clone that lacks a replica of a leg is served without it after a while; it gets one by a copy. */
  #isMade(leadership: Leadership): boolean {
    // What a front stands on are volumes; as long as they are not served it is taken over by nobody.
    if (this.#volume.front !== undefined) return true;
    const made = madeOf(this.#options.link.state, this.#volume, leadership);
    const { clock } = this.#options.context;
    if (made !== 'enough') this.#halfMadeSinceMs = null;
    if (made !== 'enough') return made === 'all';
    this.#halfMadeSinceMs ??= clock.now();
    const restMs = this.#halfMadeSinceMs + halfMadeMs - clock.now();
    this.#halfMadeTimer?.cancel();
    this.#halfMadeTimer = restMs > 0 ? clock.setTimer(restMs, () => this.#promotions.wake()) : null;
    return restMs <= 0;
  }

  async #report(signal: AbortSignal): Promise<void> {
    const { link, node, hosts } = this.#options;
    const { view } = this.#controller;
    // A path is shown when hosts can connect to it, or why they cannot.
    const { listener, tlsListener } = this.#present;
    if (!listener && !tlsListener && this.#exportProblem === null && this.#partExports === null) return;
    const active = view.state === 'active' || view.state === 'closing';
    const tlsAddress = tlsListener ? this.#options.access.tlsAddress : null;
    const object: ObservedVolume = {
      format: formatVersion,
      volumeId: this.#volume.id,
      node,
      state: active ? 'active' : view.state === 'promoting' ? 'promoting' : 'standby',
      epoch: active ? view.epoch : 0,
      address: hosts.secure ? null : hosts,
      resyncing: view.resyncing,
      legs: active ? view.legs : [],
      nbd: [...this.#nbdUris].map(([path, uri]) => ({ path, uri })),
      problem: view.problem ?? this.#exportProblem,
      ...(tlsAddress === null ? {} : { tlsAddress }),
      ...(active && view.growth !== null ? { growth: view.growth } : {}),
    };
    const key = keys.observedVolume(this.#volume.id, node);
    const text = codecs.observedVolume.encode(object);
    if (this.#retired) return;
    if (text === this.#reported) return;
    // Until the answer is there, nobody knows what the store says.
    this.#reported = '';
    await link.commit({ put: [{ key, text, leased: true }] }, signal);
    this.#reported = text;
  }
}
