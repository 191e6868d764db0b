// SPDX-License-Identifier: Apache-2.0
//
// What goes wrong in a random run, and what is asked of the cluster meanwhile: one fault at a time is begun, several may be
// under way. Every fault that does not end a process ends by itself, or with ClusterSim.heal().
//
// No disk loses power here: an acknowledged write that was not flushed may then be lost by right, which is for the
// native suites to judge.

import { SeededRandom } from '../env/seeded-random.js';
import type { ClusterSim } from './cluster-sim.js';
import type { SimProcess } from './sim-process.js';

interface Fault {
  readonly weight: number;
  readonly begin: (cluster: ClusterSim, random: SeededRandom) => string | null;
}

const longMs = 6_000;

function durationMs(random: SeededRandom): number {
  // Most are short; some outlast every time-out.
  return random.chance(0.25) ? random.between(1_500, longMs) : random.between(20, 1_500);
}

function anyProcess(cluster: ClusterSim, random: SeededRandom): SimProcess {
  return random.pick([...cluster.processes.values()]);
}

/** Two names of nodes, hosts included. */
function anyPair(cluster: ClusterSim, random: SeededRandom): [string, string] {
  const names = [...cluster.processes.keys(), ...cluster.hosts.map((host) => host.name)];
  const one = random.pick(names);
  return [one, random.pick(names.filter((name) => name !== one))];
}

function killAndRestart(cluster: ClusterSim, random: SeededRandom, process: SimProcess): string | null {
  if (!process.isRunning) return null;
  const downMs = random.between(0, 3_000);
  process.kill();
  cluster.after(downMs, () => process.start());
  return `kill ${process.name} for ${downMs} ms`;
}

/** The store stays with those that are near. */
function split(
  cluster: ClusterSim,
  random: SeededRandom,
  sides: { readonly names: readonly string[]; readonly far: readonly string[] },
): string {
  const { far } = sides;
  const near = sides.names.filter((name) => !far.includes(name));
  const ms = random.between(500, longMs);
  // Connections that break at once tell the other side early.
  const reset = random.chance(0.5);
  for (const one of near) {
    for (const other of far) {
      cluster.world.partition(one, other);
      cluster.world.partition(other, one);
      if (reset) cluster.world.cut(one, other);
    }
  }
  for (const name of far) cutStore(cluster, name, 'both');
  cluster.after(ms, () => {
    for (const one of near) for (const other of far) cluster.world.heal(one, other);
    for (const name of far) cluster.server.healClient(name);
  });
  return `split ${far.join(' ')} off for ${ms} ms`;
}

const faults = {
  kill: { weight: 3, begin: (cluster, random) => killAndRestart(cluster, random, anyProcess(cluster, random)) },
  'kill the active': {
    weight: 3,
    begin: (cluster, random) => {
      const active = cluster.processes.get(cluster.driver ?? '');
      return active === undefined ? null : killAndRestart(cluster, random, active);
    },
  },
  pause: {
    weight: 4,
    begin: (cluster, random) => {
      const process = anyProcess(cluster, random);
      if (!process.isRunning || process.isPaused) return null;
      const pausedMs = durationMs(random);
      process.pause();
      cluster.after(pausedMs, () => process.resume());
      return `pause ${process.name} for ${pausedMs} ms`;
    },
  },
  partition: {
    weight: 5,
    begin: (cluster, random) => {
      const [from, to] = anyPair(cluster, random);
      const ms = durationMs(random);
      const both = random.chance(0.5);
      cluster.world.partition(from, to);
      if (both) cluster.world.partition(to, from);
      cluster.after(ms, () => cluster.world.heal(from, to));
      return `cut ${from} ${both ? 'from' : 'to'} ${to} for ${ms} ms`;
    },
  },
  isolate: {
    weight: 2,
    begin: (cluster, random) => {
      const { name } = anyProcess(cluster, random);
      const ms = durationMs(random);
      const others = [...cluster.processes.keys()].filter((other) => other !== name);
      const store = random.chance(0.5);
      for (const other of others) {
        cluster.world.partition(name, other);
        cluster.world.partition(other, name);
      }
      if (store) cutStore(cluster, name, 'both');
      cluster.after(ms, () => {
        for (const other of others) cluster.world.heal(name, other);
        if (store) cluster.server.healClient(name);
      });
      return `isolate ${name}${store ? ' and cut it from the store' : ''} for ${ms} ms`;
    },
  },
  reset: {
    weight: 2,
    begin: (cluster, random) => {
      const [one, other] = anyPair(cluster, random);
      cluster.world.cut(one, other);
      return `reset connections of ${one} and ${other}`;
    },
  },
  'store down': {
    weight: 2,
    begin: (cluster, random) => {
      const ms = durationMs(random);
      cluster.server.down = true;
      cluster.after(ms, () => cluster.server.rise());
      return `store down for ${ms} ms`;
    },
  },
  'store cut': {
    weight: 3,
    begin: (cluster, random) => {
      const { name } = anyProcess(cluster, random);
      const ms = durationMs(random);
      const way = random.pick(['to', 'from', 'both'] as const);
      cutStore(cluster, name, way);
      cluster.after(ms, () => cluster.server.healClient(name));
      return `cut ${name} ${way} the store for ${ms} ms`;
    },
  },
  'lease lost': {
    weight: 1,
    begin: (cluster, random) => {
      const { name } = anyProcess(cluster, random);
      cluster.server.loseLeases(name);
      return `lease of ${name} lost`;
    },
  },
  compact: {
    weight: 1,
    begin: (cluster) => {
      cluster.server.compact(cluster.server.revision);
      return 'store compacted';
    },
  },
  'slow disk': {
    weight: 1,
    begin: (cluster, random) => {
      const process = random.pick(cluster.diskNodes);
      const path = process.config.disks[0]?.path ?? '';
      const ms = durationMs(random);
      const hang = random.chance(0.3);
      cluster.world.setDisk(process.name, path, { hang, extraDelayNs: random.between(1, 50) * 1e6 });
      cluster.after(ms, () => cluster.world.setDisk(process.name, path, {}));
      return `disk of ${process.name} ${hang ? 'hangs' : 'is slow'} for ${ms} ms`;
    },
  },
  'date jump': {
    weight: 1,
    begin: (cluster, random) => {
      const process = anyProcess(cluster, random);
      const byMs = random.between(-3_600_000, 3_600_000);
      process.jumpWall(byMs);
      return `date of ${process.name} jumps by ${byMs} ms`;
    },
  },
  'clock jump': {
    weight: 1,
    begin: (cluster, random) => {
      const process = anyProcess(cluster, random);
      const aheadMs = random.between(1, 5_000);
      cluster.world.jumpClock(process.name, aheadMs);
      return `clock of ${process.name} jumps ahead by ${aheadMs} ms`;
    },
  },
  split: {
    weight: 3,
    begin: (cluster, random) => {
      const names = [...cluster.processes.keys(), ...cluster.hosts.map((host) => host.name)];
      const far = names.filter(() => random.chance(0.5));
      return split(cluster, random, { names, far });
    },
  },
  // The active controller has some disks and hosts on its side, and believes itself well.
  'even split': {
    weight: 3,
    begin: (cluster, random) => {
      const controller = cluster.driver;
      if (controller === null || !cluster.processes.has(controller)) return null;
      const names = [...cluster.processes.keys(), ...cluster.hosts.map((host) => host.name)];
      const some = (all: readonly { name: string }[]): string[] => {
        const order = all.map(({ name }) => ({ name, at: random.next32() })).sort((a, b) => a.at - b.at);
        return order.slice(0, Math.ceil(all.length / 2)).map(({ name }) => name);
      };
      return split(cluster, random, { names, far: [controller, ...some(cluster.diskNodes), ...some(cluster.hosts)] });
    },
  },
  'failover with a disk away': {
    weight: 3,
    begin: (cluster, random) => {
      const active = cluster.processes.get(cluster.driver ?? '');
      const disk = random.pick(cluster.diskNodes);
      if (active === undefined || !disk.isRunning || disk.isPaused) return null;
      const ms = random.between(500, longMs);
      disk.pause();
      cluster.after(ms, () => disk.resume());
      cluster.after(random.between(0, 1_200), () => void killAndRestart(cluster, random, active));
      return `pause ${disk.name} for ${ms} ms, and kill ${active.name}`;
    },
  },
  // Its writes are on their way to the replicas when another one takes over, and arrive afterwards.
  'parked writes': {
    weight: 3,
    begin: (cluster, random) => {
      const active = cluster.processes.get(cluster.driver ?? '');
      if (active === undefined || !active.isRunning || active.isPaused) return null;
      // Longer than a takeover takes; mostly shorter than disk nodes wait for a controller that is silent.
      const ms = random.chance(0.6) ? random.between(200, 1_300) : random.between(400, 4_000);
      for (const disk of cluster.diskNodes) cluster.world.partition(active.name, disk.name);
      const paused = random.chance(0.7);
      cluster.after(random.between(1, 30), () => {
        if (paused) active.pause();
        for (const other of cluster.controllerNodes) {
          if (other !== active) cluster.world.cut(active.name, other.name);
        }
        for (const host of cluster.hosts) cluster.world.cut(active.name, host.name);
      });
      cluster.after(ms, () => {
        for (const disk of cluster.diskNodes) cluster.world.heal(active.name, disk.name);
        active.resume();
      });
      return `park the writes of ${active.name} for ${ms} ms${paused ? ', paused' : ''}`;
    },
  },
  // The same of what serves hosts, on the way to those who drive the parts of a volume.
  'parked fronts': {
    weight: 3,
    begin: (cluster, random) => {
      const [front] = cluster.view.fronts ?? [];
      const active = cluster.processes.get(front?.controller ?? '');
      if (active === undefined || !active.isRunning || active.isPaused) return null;
      const ms = random.between(800, 4_000);
      const far = [...cluster.processes.values()].filter((other) => other !== active);
      for (const { name } of far) cluster.world.partition(active.name, name);
      cluster.after(random.between(1, 30), () => {
        active.pause();
        for (const host of cluster.hosts) cluster.world.cut(active.name, host.name);
      });
      cluster.after(ms, () => {
        for (const { name } of far) cluster.world.heal(active.name, name);
        active.resume();
      });
      return `park what ${active.name} sends to parts for ${ms} ms`;
    },
  },
  'restart under an intruder': {
    weight: 1,
    begin: (cluster, random) => {
      const { replica, node } = random.pick(cluster.view.legs.flat());
      const epoch = cluster.epochOf(replica);
      const disk = cluster.process(node);
      if (epoch < 2 || !disk.isRunning) return null;
      const downMs = random.between(0, 500);
      disk.kill();
      cluster.after(downMs, () => disk.start());
      const old = random.between(Math.max(1, epoch - 3), epoch - 1);
      for (let attempt = 1; attempt <= 40; attempt++)
        cluster.after(downMs + 250 + 20 * attempt, () => cluster.intrude(replica, old));
      return `restart ${node} while a controller of epoch ${old} asks for ${replica}`;
    },
  },
  intruder: {
    weight: 1,
    begin: (cluster, random) => {
      if (cluster.view.epoch < 2) return null;
      const { replica } = random.pick(cluster.view.legs.flat());
      const epoch = cluster.epochOf(replica);
      if (epoch < 2) return null;
      const old = random.between(Math.max(1, epoch - 3), epoch - 1);
      cluster.intrude(replica, old);
      return `a controller of epoch ${old} asks for ${replica}`;
    },
  },
  'make a volume': {
    weight: 2,
    begin: (cluster) => {
      const { copies } = cluster.shape;
      const name = cluster.operator.freeName;
      if (name === null) return null;
      cluster.operator.make(name, copies);
      return `make volume ${name}`;
    },
  },
  'delete a volume': {
    weight: 2,
    begin: (cluster, random) => {
      const { made } = cluster.operator;
      if (made.length === 0) return null;
      const name = random.pick(made);
      cluster.operator.delete(name);
      return `delete volume ${name}`;
    },
  },
  'orderly restart': {
    weight: 2,
    begin: (cluster, random) => {
      const process = random.pick(cluster.controllerNodes);
      if (!process.isUp || process.isPaused) return null;
      process.stop();
      return `stop ${process.name} in good order`;
    },
  },
} satisfies Readonly<Record<string, Fault>>;

export type FaultName = keyof typeof faults;

function cutStore(cluster: ClusterSim, name: string, way: 'to' | 'from' | 'both'): void {
  if (way !== 'from') cluster.server.cutTo.add(name);
  if (way !== 'to') cluster.server.cutFrom.add(name);
}

/** Of one run: which kinds of faults, how many, how long between them. */
export interface NemesisPlan {
  readonly kinds: readonly FaultName[];
  readonly steps: number;
  readonly pauseMsMax: number;
}

/** Each run leaves some kinds of faults out, so that others come in rows. `only`: these kinds. */
export function drawNemesis(random: SeededRandom, only: readonly FaultName[] | null): NemesisPlan {
  // The later ones are asked for by name only: what seeds draw stays as it was.
  const all = (Object.keys(faults) as FaultName[]).filter((name) => name !== 'parked fronts');
  const drawn = all.filter(() => random.chance(0.6));
  const kinds = only ?? (drawn.length > 0 ? drawn : all);
  return { kinds, steps: random.between(6, 24), pauseMsMax: random.pick([100, 600, 2_000]) };
}

const stepMix = 0x9e3779b97f4a7c15n;

export class Nemesis {
  readonly #cluster: ClusterSim;
  readonly #seed: bigint;
  readonly #plan: NemesisPlan;
  readonly #counts = new Map<FaultName, number>();

  constructor(cluster: ClusterSim, seed: bigint, plan: NemesisPlan) {
    this.#cluster = cluster;
    this.#seed = seed;
    this.#plan = plan;
  }

  /** One fault, and a while. Every step draws from a stream of its own: leaving one out leaves the others as they are. */
  async step(index: number, pauseMsMax = Number.POSITIVE_INFINITY): Promise<void> {
    const random = new SeededRandom(this.#seed ^ (BigInt(index + 1) * stepMix));
    const name = this.#draw(random);
    const done = (faults[name] as Fault).begin(this.#cluster, random);
    if (done !== null) {
      this.#counts.set(name, (this.#counts.get(name) ?? 0) + 1);
      this.#cluster.note(done);
    }
    await this.#cluster.runFor(Math.min(pauseMsMax, random.between(0, this.#plan.pauseMsMax)));
  }

  get summary(): string {
    const named = (Object.keys(faults) as FaultName[]).filter((name) => this.#counts.has(name));
    return named.map((name) => `${this.#counts.get(name)} ${name}`).join(', ');
  }

  #draw(random: SeededRandom): FaultName {
    const { kinds } = this.#plan;
    let drawn = random.fraction() * kinds.reduce((sum, name) => sum + faults[name].weight, 0);
    const found = kinds.find((name) => {
      drawn -= faults[name].weight;
      return drawn < 0;
    });
    return found ?? (kinds[0] as FaultName);
  }
}
