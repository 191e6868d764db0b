// SPDX-License-Identifier: Apache-2.0
//
// One daemon of a simulated cluster, with the supervisor that starts it again: its clock, its engine, its connection to
// the store, and the agents of its node.

import type { AgentContext, Logger } from '../agents/context.js';
import { reason } from '../agents/context.js';
import type { NodeAgent } from '../agents/node-agent.js';
import type { Engine } from '../engine/engine.js';
import type { SimWorld } from '../engine/native/sim-world.js';
import { withoutLinks } from '../engine/testing/without-links.js';
import type { SeededRandom } from '../env/seeded-random.js';
import type { VirtualClock, VirtualTime } from '../env/virtual-clock.js';
import type { KeySource } from '../model/cluster-key.js';
import type { CompiledNode } from '../model/config.js';
import type { Store } from '../store/store.js';
import { enginePlants, type PlantedBugs } from './planted-bugs.js';
import type { RareEvents } from './rare-events.js';
import type { ReplicaMonitor } from './replica-monitor.js';
import type { SimStoreServer } from './sim-store.js';

export interface SimProcessOptions {
  readonly config: CompiledNode;
  readonly world: SimWorld;
  readonly time: VirtualTime;
  readonly server: SimStoreServer;
  readonly random: SeededRandom;
  readonly bugs: PlantedBugs;
  /** Whether it is, when it starts, of a version that knows node links. */
  readonly knowsLinks: () => boolean;
  readonly replicas: ReplicaMonitor;
  readonly restartAfterMs: number;
  /** Of the cluster, if it has encrypted volumes. */
  readonly keys: KeySource | null;
  readonly rareEvents: RareEvents;
  readonly trace: (what: string, text: string) => void;
  readonly makeAgent: (context: AgentContext, store: Store) => NodeAgent;
}

interface Running {
  readonly clock: VirtualClock;
  readonly agent: NodeAgent;
  readonly engine: Engine;
  isUp: boolean;
  stopping: boolean;
}

export class SimProcess {
  readonly #options: SimProcessOptions;
  #running: Running | null = null;
  #paused = false;
  #isTakenAway = false;

  constructor(options: SimProcessOptions) {
    this.#options = options;
  }

  get config(): CompiledNode {
    return this.#options.config;
  }

  get name(): string {
    return this.#options.config.name;
  }

  get isRunning(): boolean {
    return this.#running !== null;
  }

  /** Its agents have started. */
  get isUp(): boolean {
    return this.#running?.isUp === true;
  }

  get isPaused(): boolean {
    return this.#paused;
  }

  /** Of the process that runs now. */
  get engine(): Engine | null {
    return this.#running?.engine ?? null;
  }

  get agent(): NodeAgent | null {
    return this.#running?.agent ?? null;
  }

  start(): void {
    if (this.#running !== null || this.#isTakenAway) return;
    const { config, world, time, server, random, bugs, knowsLinks, replicas, keys, rareEvents, trace, makeAgent } =
      this.#options;
    trace('start', '');
    const clock = time.clock();
    const engine = world.createEngine(config.name, { clock, planted: enginePlants(bugs), onTrace: trace });
    engine.on('event', ({ method, params }) => {
      if (method !== 'leg_member_copied') return;
      rareEvents.reach(params.resync === 'delta' ? 'member_copied_by_marks' : 'member_copied_in_full');
    });
    const log = loggerOf(trace);
    const watched = replicas.watch(knowsLinks() ? engine : withoutLinks(engine));
    const context = { engine: watched, clock, random: random.fork(), log, keys, planted: bugs };
    const agent = makeAgent(context, server.open(config.name, clock));
    const running: Running = { clock, agent, engine, isUp: false, stopping: false };
    this.#running = running;
    agent.start(new AbortController().signal).then(
      () => {
        running.isUp = true;
      },
      (error: unknown) => this.#ended(running, reason(error)),
    );
  }

  /** As SIGKILL. */
  kill(): void {
    this.#end('kill', () => this.#options.world.kill(this.name));
  }

  /** The machine loses power: what its disks had not flushed is lost. */
  powerCut(): void {
    this.#end('power cut', () => this.#options.world.powerCut(this.name));
  }

  /** As a machine that breaks: nobody sees it, or its disks, again. */
  takeAway(): void {
    this.#isTakenAway = true;
    this.kill();
  }

  pause(): void {
    if (this.#running === null || this.#paused) return;
    this.#options.trace('pause', '');
    this.#paused = true;
    this.#running.clock.pause();
    this.#options.world.pause(this.name);
  }

  resume(): void {
    if (this.#running === null || !this.#paused) return;
    this.#options.trace('resume', '');
    this.#paused = false;
    this.#options.world.resume(this.name);
    this.#running.clock.resume();
  }

  /** As SIGTERM: hands over, then ends; a supervisor starts it again. */
  stop(): void {
    const running = this.#running;
    if (running === null || !running.isUp || running.stopping) return;
    this.#options.trace('stop', '');
    running.stopping = true;
    const end = async (): Promise<void> => {
      await running.agent.drain();
      await running.agent.stop();
    };
    end().then(
      () => this.#ended(running, 'stopped'),
      (error: unknown) => this.#ended(running, reason(error)),
    );
  }

  /** Somebody sets the machine's date. */
  jumpWall(byMs: number): void {
    this.#running?.clock.jumpWall(byMs);
  }

  heal(): void {
    this.resume();
    this.start();
    for (const disk of this.config.disks) this.#options.world.setDisk(this.name, disk.path, {});
  }

  /** The process has ended by itself: its supervisor starts it again after a while. */
  #ended(running: Running, why: string): void {
    if (this.#running !== running) return;
    this.#options.trace('ended', why);
    this.kill();
    this.#options.server.clock.setTimer(this.#options.restartAfterMs, () => this.start());
  }

  #end(what: string, act: () => void): void {
    const running = this.#running;
    if (running === null) return;
    this.#options.trace(what, '');
    this.#running = null;
    this.#paused = false;
    running.clock.end();
    this.#options.server.forget(this.name);
    act();
  }
}

function loggerOf(trace: (what: string, text: string) => void): Logger {
  const at = (level: string) => (fields: object, message: string) =>
    trace(`log ${level}`, `${message} ${JSON.stringify(fields)}`);
  return { debug: () => {}, info: at('info'), warn: at('warn'), error: at('error') };
}
