// SPDX-License-Identifier: Apache-2.0
// The faults of a chaos run: what each does, to whom, for how long. One at a time, or two of different parts of the
// cluster, so that it never loses more than its redundancy covers; the next ones come when the cluster is whole again.

import type { DemoCluster } from '../../scripts/demo/cluster.js';
import type { ClientProcess } from './client-process.js';
import type { ChaosNetwork } from './network.js';
import type { SeededRandom } from './random.js';

export interface FaultWorld {
  readonly cluster: DemoCluster;
  /** Null: this machine gives no namespaces. */
  readonly network: ChaosNetwork | null;
  readonly random: SeededRandom;
  readonly embedded: ClientProcess;
  /** The name under which the NVMe host is in the network. */
  readonly hostName: string;
  /** Who drives the hosts' volume now. */
  activeController(): Promise<string>;
}

export interface Fault {
  readonly target: string;
  readonly holdMs: number;
  /** Ends it; resolves when everything that was taken away runs again. */
  heal(): Promise<void>;
}

/** Each has redundancy, or somebody who waits for it, of its own. */
export type Part = 'disks' | 'controllers' | 'program' | 'api' | 'store';

export interface FaultKind {
  readonly name: string;
  readonly part: Part;
  readonly needsNetwork?: boolean;
  /** Null: this machine cannot, which the run says. */
  inject(world: FaultWorld): Promise<Fault | null>;
}

const disks = ['disk-1', 'disk-2', 'disk-3'];
const controllers = ['controller-1', 'controller-2'];
/** In the order in which their faults come; they end in the opposite one, for a daemon that starts needs the store. */
const parts: readonly Part[] = ['program', 'disks', 'controllers', 'api', 'store'];
const storeAwayMs = 60_000;

type Choose = (world: FaultWorld) => Promise<string> | string;
const anyDisk: Choose = ({ random }) => random.pick(disks);
const active: Choose = (world) => world.activeController();
const standby: Choose = async (world) => {
  const leader = await world.activeController();
  return controllers.find((name) => name !== leader) ?? 'controller-2';
};
const storeMember: Choose = ({ random, cluster }) => random.pick(cluster.storeNames);
const api: Choose = () => 'api';

function killed(part: Part, what: string, choose: Choose): FaultKind {
  return {
    name: `kill ${what}`,
    part,
    async inject(world) {
      const target = await choose(world);
      const daemon = world.cluster.daemon(target);
      await daemon.kill();
      return {
        target,
        holdMs: world.random.between(1_000, 12_000),
        heal: async () => void (await daemon.start()),
      };
    },
  };
}

function restarted(part: Part, what: string, choose: Choose): FaultKind {
  return {
    name: `restart ${what}`,
    part,
    async inject(world) {
      const target = await choose(world);
      const daemon = world.cluster.daemon(target);
      const code = await daemon.terminate();
      if (code !== 0) throw new Error(`${target} ended with ${code} on SIGTERM`);
      return { target, holdMs: world.random.between(0, 3_000), heal: async () => void (await daemon.start()) };
    },
  };
}

function stopped(part: Part, what: string, choose: Choose): FaultKind {
  return {
    name: `stop ${what}`,
    part,
    async inject(world) {
      const target = await choose(world);
      const { pid } = world.cluster.daemon(target);
      if (pid === undefined) throw new Error(`${target} does not run`);
      process.kill(pid, 'SIGSTOP');
      return {
        target,
        holdMs: world.random.between(1_000, 20_000),
        heal: async () => void process.kill(pid, 'SIGCONT'),
      };
    },
  };
}

const storeAway: FaultKind = {
  name: 'store away for 60 s',
  part: 'store',
  async inject({ cluster }) {
    const members = cluster.storeNames.map((name) => cluster.daemon(name));
    await Promise.all(members.map((member) => member.kill()));
    return {
      target: cluster.storeNames.join(' '),
      holdMs: storeAwayMs,
      heal: async () => void (await Promise.all(members.map((member) => member.start()))),
    };
  },
};

const killedEmbedded: FaultKind = {
  name: 'kill the embedding program',
  part: 'program',
  async inject({ embedded, random }) {
    await embedded.kill();
    return { target: embedded.name, holdMs: random.between(0, 6_000), heal: () => embedded.start() };
  },
};

function onNetwork(
  part: Part,
  name: string,
  make: (world: FaultWorld, network: ChaosNetwork) => Promise<{ target: string; undo: (() => Promise<void>) | null }>,
): FaultKind {
  return {
    name,
    part,
    needsNetwork: true,
    async inject(world) {
      if (world.network === null) return null;
      const { target, undo } = await make(world, world.network);
      return undo === null ? null : { target, holdMs: world.random.between(2_000, 20_000), heal: undo };
    },
  };
}

function cutOff(part: Part, what: string, choose: Choose): FaultKind {
  return onNetwork(part, `cut off ${what}`, async (world, network) => {
    const target = await choose(world);
    return { target, undo: await network.cut(target) };
  });
}

function cutOneWay(part: Part, what: string, from: Choose, to: (world: FaultWorld) => readonly string[]): FaultKind {
  return onNetwork(part, `cut ${what}`, async (world, network) => {
    const [source, sinks] = [await from(world), to(world)];
    return { target: `${source} to ${sinks.join(' ')}`, undo: await network.cutOneWay(source, sinks) };
  });
}

const slowDisk = onNetwork('disks', 'slow and lossy disk node', async (world, network) => {
  const target = world.random.pick(disks);
  return { target, undo: await network.slow(target, 'delay 20ms 10ms loss 1%') };
});

const cutHost = onNetwork('controllers', 'cut the host from the active controller', async (world, network) => {
  const to = await world.activeController();
  return { target: `${world.hostName} to ${to}`, undo: await network.cutOneWay(world.hostName, [to]) };
});

export const faultKinds: readonly FaultKind[] = [
  killed('disks', 'a disk node', anyDisk),
  killed('controllers', 'the active controller', active),
  killed('controllers', 'the standby', standby),
  killed('api', 'the API server', api),
  killed('store', 'a store member', storeMember),
  killedEmbedded,
  restarted('disks', 'a disk node', anyDisk),
  restarted('controllers', 'the active controller', active),
  restarted('api', 'the API server', api),
  stopped('disks', 'a disk node', anyDisk),
  stopped('controllers', 'the active controller', active),
  stopped('controllers', 'the standby', standby),
  stopped('store', 'a store member', storeMember),
  storeAway,
  cutOff('disks', 'a disk node', anyDisk),
  cutOff('controllers', 'the active controller', active),
  cutOff('store', 'a store member', storeMember),
  cutOneWay('controllers', 'the active controller from the store', active, ({ cluster }) => cluster.storeNames),
  cutOneWay('disks', 'the active controller from one disk node', active, ({ random }) => [random.pick(disks)]),
  cutOneWay('disks', 'a disk node from all controllers', anyDisk, ({ embedded }) => [
    ...controllers,
    `host-${embedded.name}`,
  ]),
  cutHost,
  slowDisk,
];

/** Deals the kinds like cards, so that a run of any length has as many different ones as it can. */
export class FaultDeck {
  #cards: FaultKind[] = [];

  constructor(
    private readonly kinds_: readonly FaultKind[],
    private readonly random_: SeededRandom,
  ) {}

  /** As many as asked, each of another part. Who must be asked where things are comes first, and who answers it last. */
  hand(count: number): FaultKind[] {
    const hand: FaultKind[] = [];
    // A deck that has one part only deals one.
    for (let tries = 0; hand.length < count && tries < 100; tries++) {
      const card = this.next();
      if (hand.every(({ part }) => part !== card.part)) hand.push(card);
      else this.#cards.unshift(card);
    }
    return hand.sort((one, other) => parts.indexOf(one.part) - parts.indexOf(other.part));
  }

  next(): FaultKind {
    if (this.#cards.length === 0) this.#cards = this.random_.shuffled(this.kinds_);
    const card = this.#cards.pop();
    if (card === undefined) throw new Error('there are no faults');
    return card;
  }
}
