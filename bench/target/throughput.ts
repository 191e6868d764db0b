// SPDX-License-Identifier: Apache-2.0
// Closed loops against the target, each beside what it is compared with, A B A B, so that both met the same machine: bare
// sockets that exchange the same bytes; for digests, the target without them; for `busy`, the target as it is otherwise.
// With --peer spdk SPDK's target takes its turn too; it is stopped while the others run, because it polls.

import type { Figure } from '../report.js';
import {
  compared,
  type Load,
  middle,
  type Operation,
  pairedRatio,
  pairsPerFigure,
  type Row,
  type Run,
  runFloor,
  runMs,
  runPerf,
  type World,
} from './world.js';

interface Case extends Load {
  readonly bdev: 'malloc' | 'file';
  readonly operation: Operation;
  readonly bytes: number;
  readonly connections: number;
  readonly beside: 'floor' | 'no digests' | 'adaptive';
  readonly wanted?: string;
}

const plain = { bytes: 4096, connections: 1, beside: 'floor' } as const;
const operations = ['read', 'write'] as const;
const depths = [1, 32, 128];
const KiB = 1024;
/** Of the floor, at depth 128. */
const shares: Record<Operation, string> = { read: '>= 0.85', write: '>= 0.80' };

function plainCases(bdev: Case['bdev']): Case[] {
  return operations.flatMap((operation) =>
    depths.map((depth): Case => {
      const wanted = depth === 128 ? shares[operation] : depth === 1 ? 'p50 + 1.2 us' : null;
      return { ...plain, bdev, operation, depth, ...(bdev === 'file' || wanted === null ? {} : { wanted }) };
    }),
  );
}

const digestShares: Record<Operation, string> = { read: '>= 0.90', write: '>= 0.85' };

const cases: readonly Case[] = [
  ...plainCases('malloc'),
  { ...plain, bdev: 'malloc', operation: 'read', depth: 32, bytes: 128 * KiB, wanted: '>= 0.90' },
  { ...plain, bdev: 'malloc', operation: 'write', depth: 32, bytes: 128 * KiB },
  ...operations.map((operation): Case => {
    return { ...plain, bdev: 'malloc', operation, depth: 128, connections: 4, wanted: 'as qd128' };
  }),
  ...[4, 128].flatMap((kib) =>
    operations.map((operation): Case => {
      const depth = kib === 4 ? 128 : 32;
      const wanted = digestShares[operation];
      return { ...plain, bdev: 'malloc', operation, depth, bytes: kib * KiB, beside: 'no digests', wanted };
    }),
  ),
  ...[1, 128].map((depth): Case => ({ ...plain, bdev: 'malloc', operation: 'read', depth, beside: 'adaptive' })),
  ...plainCases('file'),
];

const endings: Record<Case['beside'], string> = { floor: '', 'no digests': '/digests', adaptive: '/busy' };

function nameOf(at: Case): string {
  const connections = at.connections === 1 ? '' : `/c${at.connections}`;
  return `target/${at.bdev}/rand${at.operation}/${at.bytes / KiB}k/qd${at.depth}${connections}${endings[at.beside]}`;
}

export const throughputRows: readonly Row[] = cases.map((at) => ({
  name: nameOf(at),
  measure: (world) => measure(world, at),
}));

async function measure(world: World, at: Case): Promise<Figure> {
  const milliseconds = runMs(world);
  const floors: Run[] = [];
  const targets: Run[] = [];
  const peers: Run[] = [];
  for (let pair = 0; pair < pairsPerFigure; pair += 1) {
    floors.push(await besideRun(world, at, milliseconds));
    targets.push(await targetRun(world, at, milliseconds));
    if (world.peer === null || at.beside === 'adaptive') continue;
    const { server, port } = world.peer;
    server.resume();
    const digests = at.beside === 'no digests';
    peers.push(await runPerf(world, { server, port, bdev: at.bdev, digests }, at, milliseconds));
    server.pause();
  }
  const figure = compared(nameOf(at), targets, floors);
  return {
    ...figure,
    ...(at.wanted === undefined ? {} : { wanted: at.wanted }),
    ...(at.bytes > 4096 ? { mib_per_s: Math.round((figure.value * at.bytes) / KiB ** 2) } : {}),
    ...(peers.length === 0
      ? {}
      : {
          peer_iops: middle(peers, 'speed_iops'),
          peer_ratio: pairedRatio(targets, peers),
          peer_p50_us: middle(peers, 'p50_us'),
          peer_p99_us: middle(peers, 'p99_us'),
          peer_cpu_us_per_io: middle(peers, 'server_cpu_us_per_io'),
        }),
  };
}

function besideRun(world: World, at: Case, milliseconds: number): Promise<Run> {
  if (at.beside === 'floor') return runFloor(world, at, milliseconds);
  return runPerf(world, { ...world.target, bdev: at.bdev }, at, milliseconds);
}

async function targetRun(world: World, at: Case, milliseconds: number): Promise<Run> {
  const aim = { server: world.target.server, port: world.target.port, bdev: at.bdev };
  if (at.beside !== 'adaptive')
    return runPerf(world, { ...aim, digests: at.beside === 'no digests' }, at, milliseconds);
  await world.target.setMode('busy');
  try {
    return await runPerf(world, aim, at, milliseconds);
  } finally {
    // It would take the core from the others.
    await world.target.setMode('adaptive');
  }
}
