// SPDX-License-Identifier: Apache-2.0
// What many connections leave to those that work: idle ones, ones that never say a word, and a peer that never reads.

import { runForJson, Server } from '../programs.js';
import { type Figure, rounded } from '../report.js';
import { holdQueues } from './idleness.js';
import {
  clientCore,
  compared,
  middle,
  nqnOf,
  pairedRatio,
  pairsPerFigure,
  perfArguments,
  type Row,
  type Run,
  runFloor,
  runMs,
  runPerf,
  type World,
} from './world.js';

const idleQueues = 2_000;
const activeQueues = 64;
const halfOpenSockets = 10_000;
/** Of the half-open ones, that are replaced by new ones while the load runs. */
const freshPerSecond = 200;
const reconnectCount = 1_000;
const readerMs = 3_600_000;

const idleName = `target/crowd/${idleQueues}-idle-${activeQueues}-active/randread/4k/qd128`;
const strangersName = 'target/crowd/10000-half-open-1-unread/randread/4k/qd128';
const reconnectsName = 'target/crowd/reconnects';

export const crowdRows: readonly Row[] = [
  { name: idleName, measure: besideIdleQueues },
  { name: reconnectsName, measure: reconnects },
  { name: strangersName, measure: besideStrangers },
];

/** Beside: as many bare sockets as are active. `alone_iops`: without the idle ones. */
async function besideIdleQueues(world: World): Promise<Figure> {
  const load = { operation: 'read', depth: 128, connections: activeQueues } as const;
  const aim = { ...world.target, bdev: 'malloc' };
  const milliseconds = runMs(world, 3 * pairsPerFigure);
  const alone: Run[] = [];
  for (let i = 0; i < pairsPerFigure; i += 1) alone.push(await runPerf(world, aim, load, milliseconds));
  const floors: Run[] = [];
  const targets: Run[] = [];
  const crowd = await holdQueues(world.target.port, idleQueues, 65);
  try {
    for (let i = 0; i < pairsPerFigure; i += 1) {
      floors.push(await runFloor(world, load, milliseconds));
      targets.push(await runPerf(world, aim, load, milliseconds));
    }
  } finally {
    await crowd.stop();
  }
  const aloneIops = middle(alone, 'speed_iops');
  const figure = compared(idleName, targets, floors);
  return { ...figure, alone_iops: aloneIops, kept: rounded(figure.value / aloneIops, 3) };
}

async function reconnects(world: World): Promise<Figure> {
  const args = ['--port', world.target.port, '--nqn', nqnOf('malloc'), '--count', String(reconnectCount)];
  const all = ['reconnect', ...args];
  const done = await runForJson<{ per_s: number; seconds: number }>(clientCore, 'basalt_crowd', all, world.signal);
  return {
    name: reconnectsName,
    value: rounded(done.per_s),
    unit: '1/s',
    floor: null,
    ratio: null,
    p50_us: null,
    cpu_us_per_io: null,
    wanted: '>= 100',
    seconds: done.seconds,
  };
}

/** Beside: the same load without them, in turn. */
async function besideStrangers(world: World): Promise<Figure> {
  const load = { operation: 'read', depth: 128 } as const;
  const aim = { ...world.target, bdev: 'malloc' };
  const milliseconds = runMs(world);
  const alone: Run[] = [];
  const targets: Run[] = [];
  for (let i = 0; i < pairsPerFigure; i += 1) {
    alone.push(await runPerf(world, aim, load, milliseconds));
    const strangers = await gatherStrangers(world);
    try {
      targets.push(await runPerf(world, aim, load, milliseconds));
    } finally {
      for (const stranger of strangers) await stranger.stop();
    }
  }
  const p99Ratio = pairedRatio(targets, alone, 'p99_us');
  return { ...compared(strangersName, targets, alone), wanted: '>= 0.90', p99_ratio: p99Ratio };
}

async function gatherStrangers(world: World): Promise<Server[]> {
  const { port } = world.target;
  // Stopped with its requests under way, it never reads what it asked for.
  const reader = perfArguments(
    { ...world.target, bdev: 'malloc' },
    { operation: 'read', depth: 127, bytes: 131_072 },
    readerMs,
  );
  const [unread] = await Server.start(clientCore, 'basalt_perf', [...reader, '--host', 'unread', '--announce', '1']);
  unread.pause();
  const fresh = ['--count', String(halfOpenSockets), '--per-second', String(freshPerSecond)];
  try {
    const [halfOpen, said] = await Server.start(clientCore, 'basalt_crowd', ['half-open', '--port', port, ...fresh]);
    if (said === 'ready') return [halfOpen, unread];
    await halfOpen.stop();
    throw new Error(`basalt_crowd: ${said}`);
  } catch (error) {
    await unread.stop();
    throw error;
  }
}
