// SPDX-License-Identifier: Apache-2.0
// What a target costs while nobody asks it for anything, and how soon it is there again.

import { Server } from '../programs.js';
import { type Figure, rounded } from '../report.js';
import {
  clientCore,
  cpuPercent,
  nqnOf,
  type Row,
  residentBytes,
  runFloor,
  runMs,
  runPerf,
  TargetServer,
  type World,
} from './world.js';

const idleSecondsMax = 60;
const firstsPerFigure = 3;
const memoryQueues = 1_000;

export const idlenessRows: readonly Row[] = [
  { name: 'target/idle/100-queues/cpu', measure: (world) => idleCpu(world, 100) },
  { name: 'target/idle/busy/cpu', measure: busyCpu },
  { name: 'target/idle/queue-memory', measure: queueMemory },
  { name: 'target/idle/first-read', measure: firstRead },
];

const none = { floor: null, ratio: null, p50_us: null, cpu_us_per_io: null } as const;

/** Connected queues that ask for nothing but keep-alives. */
export async function holdQueues(port: string, queues: number, perHost = 5): Promise<Server> {
  const args = ['--port', port, '--nqn', nqnOf('malloc'), '--queues', String(queues), '--per-host', String(perHost)];
  const [server, said] = await Server.start(clientCore, 'basalt_crowd', ['idle', ...args]);
  if (said === 'ready') return server;
  await server.stop();
  throw new Error(`basalt_crowd: ${said}`);
}

/** Beside: the same without a connection. */
async function idleCpu(world: World, queues: number): Promise<Figure> {
  const { server, port } = world.target;
  const milliseconds = Math.max(5_000, world.options.seconds * 1_000);
  const alone = await cpuPercent(server.pid, milliseconds, world.signal);
  const crowd = await holdQueues(port, queues);
  try {
    const value = await cpuPercent(server.pid, milliseconds, world.signal);
    const figure = { value: rounded(value, 3), unit: '%', floor: rounded(alone, 3), wanted: '< 1' };
    return { ...none, name: `target/idle/${queues}-queues/cpu`, ...figure };
  } finally {
    await crowd.stop();
  }
}

/** Beside: as it is otherwise. */
async function busyCpu(world: World): Promise<Figure> {
  const { server } = world.target;
  const milliseconds = Math.max(1_000, world.options.seconds * 500);
  const adaptive = await cpuPercent(server.pid, milliseconds, world.signal);
  await world.target.setMode('busy');
  try {
    const value = await cpuPercent(server.pid, milliseconds, world.signal);
    const figure = { value: rounded(value, 3), unit: '%', floor: rounded(adaptive, 3), wanted: '<= 100 a reactor' };
    return { ...none, name: 'target/idle/busy/cpu', ...figure };
  } finally {
    await world.target.setMode('adaptive');
  }
}

/** Of a target that never had another connection, so that nothing is used again. */
async function queueMemory(): Promise<Figure> {
  const target = await TargetServer.start(null);
  try {
    const before = residentBytes(target.server.pid);
    const crowd = await holdQueues(target.port, memoryQueues);
    const bytes = Math.round((residentBytes(target.server.pid) - before) / memoryQueues);
    await crowd.stop();
    return { ...none, name: 'target/idle/queue-memory', value: bytes, unit: 'bytes', wanted: '<= 32768' };
  } finally {
    await target.stop();
  }
}

/** Beside: bare sockets that waited as long. `busy_us`: of reads one after the other, in the same run. */
async function firstRead(world: World): Promise<Figure> {
  const { server, port } = world.target;
  const aim = { server, port, bdev: 'malloc' };
  const load = { operation: 'read', depth: 1 } as const;
  const busy = await runPerf(world, aim, load, runMs(world));
  const pauseMs = Math.round(Math.min(idleSecondsMax, 15 * world.options.seconds) * 1_000);
  const paused = { ...load, pauseMs };
  const milliseconds = pauseMs * firstsPerFigure + Math.round(pauseMs / 2);
  // Both wait at once: nothing else runs meanwhile.
  const [first, floor] = await Promise.all([
    runPerf(world, aim, paused, milliseconds),
    runFloor(world, paused, milliseconds + Math.round(pauseMs / 4)),
  ]);
  return {
    ...none,
    name: 'target/idle/first-read',
    value: rounded(first.p50_us),
    unit: 'us',
    floor: rounded(floor.p50_us),
    ratio: rounded(first.p50_us / floor.p50_us, 3),
    p50_us: rounded(first.p50_us),
    wanted: '<= busy_us + 100',
    busy_us: rounded(busy.p50_us),
    over_busy_us: rounded(first.p50_us - busy.p50_us),
    idle_s: pauseMs / 1_000,
  };
}
