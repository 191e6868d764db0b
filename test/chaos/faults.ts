// SPDX-License-Identifier: Apache-2.0
// The faults of a chaos run: what each does, to whom, for how long. One at a time, so that the cluster never loses more
// than its redundancy covers; the next one comes when the cluster is whole again.

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

export interface FaultKind {
  readonly name: string;
  readonly needsNetwork?: boolean;
  /** Null: this machine cannot, which the run says. */
  inject(world: FaultWorld): Promise<Fault | null>;
}

const disks = ['disk-1', 'disk-2', 'disk-3'];
const controllers = ['controller-1', 'controller-2'];
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

function killed(what: string, choose: Choose): FaultKind {
  return {
    name: `kill ${what}`,
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

function restarted(what: string, choose: Choose): FaultKind {
  return {
    name: `restart ${what}`,
    async inject(world) {
      const target = await choose(world);
      const daemon = world.cluster.daemon(target);
      const code = await daemon.terminate();
      if (code !== 0) throw new Error(`${target} ended with ${code} on SIGTERM`);
      return { target, holdMs: world.random.between(0, 3_000), heal: async () => void (await daemon.start()) };
    },
  };
}

function stopped(what: string, choose: Choose): FaultKind {
  return {
    name: `stop ${what}`,
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
  async inject({ embedded, random }) {
    await embedded.kill();
    return { target: embedded.name, holdMs: random.between(0, 6_000), heal: () => embedded.start() };
  },
};

function onNetwork(
  name: string,
  make: (world: FaultWorld, network: ChaosNetwork) => Promise<{ target: string; undo: (() => Promise<void>) | null }>,
): FaultKind {
  return {
    name,
    needsNetwork: true,
    async inject(world) {
      if (world.network === null) return null;
      const { target, undo } = await make(world, world.network);
      return undo === null ? null : { target, holdMs: world.random.between(2_000, 20_000), heal: undo };
    },
  };
}

function cutOff(what: string, choose: Choose): FaultKind {
  return onNetwork(`cut off ${what}`, async (world, network) => {
    const target = await choose(world);
    return { target, undo: await network.cut(target) };
  });
}

function cutOneWay(what: string, from: Choose, to: (world: FaultWorld) => readonly string[]): FaultKind {
  return onNetwork(`cut ${what}`, async (world, network) => {
    const [source, sinks] = [await from(world), to(world)];
    return { target: `${source} to ${sinks.join(' ')}`, undo: await network.cutOneWay(source, sinks) };
  });
}

const slowDisk = onNetwork('slow and lossy disk node', async (world, network) => {
  const target = world.random.pick(disks);
  return { target, undo: await network.slow(target, 'delay 20ms 10ms loss 1%') };
});

const cutHost = onNetwork('cut the host from the active controller', async (world, network) => {
  const to = await world.activeController();
  return { target: `${world.hostName} to ${to}`, undo: await network.cutOneWay(world.hostName, [to]) };
});

export const faultKinds: readonly FaultKind[] = [
  killed('a disk node', anyDisk),
  killed('the active controller', active),
  killed('the standby', standby),
  killed('the API server', api),
  killed('a store member', storeMember),
  killedEmbedded,
  restarted('a disk node', anyDisk),
  restarted('the active controller', active),
  restarted('the API server', api),
  stopped('a disk node', anyDisk),
  stopped('the active controller', active),
  stopped('the standby', standby),
  stopped('a store member', storeMember),
  storeAway,
  cutOff('a disk node', anyDisk),
  cutOff('the active controller', active),
  cutOff('a store member', storeMember),
  cutOneWay('the active controller from the store', active, ({ cluster }) => cluster.storeNames),
  cutOneWay('the active controller from one disk node', active, ({ random }) => [random.pick(disks)]),
  cutOneWay('a disk node from all controllers', anyDisk, ({ embedded }) => [...controllers, `host-${embedded.name}`]),
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

  next(): FaultKind {
    if (this.#cards.length === 0) this.#cards = this.random_.shuffled(this.kinds_);
    const card = this.#cards.pop();
    if (card === undefined) throw new Error('there are no faults');
    return card;
  }
}
