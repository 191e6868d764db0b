// SPDX-License-Identifier: Apache-2.0
// What the rounds of the scenario `peers` say together. Pure.

import { median } from '../../bench/report.js';
import { peerRows, resultKey } from './peers-script.js';

/** One line of basalt_stack. */
export interface StackRun {
  readonly iops: number;
  readonly machine_us_per_io: number;
  readonly verified_blocks: number;
}

export interface PeerFigures {
  readonly name: string;
  readonly mib: number;
  /** Medians of the rounds. */
  readonly peer: StackRun;
  readonly ours: StackRun;
  /** Of what neighbouring runs say, the median: more than 1 is for us. */
  readonly speedRatio: number;
  readonly costRatio: number;
  /** Requests per second of fio over those of basalt_stack on the kernel's device; null where it did not run. */
  readonly fioRatio: number | null;
}

/** @throws {Error} when a run is missing, or says nothing */
export function peerFigures(values: ReadonlyMap<string, string>, rounds: number): PeerFigures[] {
  return peerRows.map((row, index) => {
    const sides = (side: 'peer' | 'ours'): StackRun[] =>
      Array.from({ length: rounds }, (_, round) => stackRun(values.get(resultKey(round, index, side)), row.name, side));
    const [peer, ours] = [sides('peer'), sides('ours')];
    const ratio = (of: (peerRun: StackRun, ourRun: StackRun) => number): number =>
      median(peer.map((run, i) => of(run, ours[i] ?? run)));
    return {
      name: row.name,
      mib: row.mib,
      peer: middle(peer),
      ours: middle(ours),
      speedRatio: ratio((a, b) => b.iops / a.iops),
      costRatio: ratio((a, b) => a.machine_us_per_io / b.machine_us_per_io),
      fioRatio: row.fio === true ? median(peer.map((run, round) => fioIops(values, round, index) / run.iops)) : null,
    };
  });
}

function stackRun(text: string | undefined, row: string, side: string): StackRun {
  if (text === undefined) throw new Error(`${row}: nothing was measured (${side})`);
  const run = JSON.parse(text) as StackRun;
  if (!(run.iops > 0) || !(run.machine_us_per_io > 0)) throw new Error(`${row}: nothing was done (${side}): ${text}`);
  return run;
}

function fioIops(values: ReadonlyMap<string, string>, round: number, row: number): number {
  const iops = Number(values.get(resultKey(round, row, 'fio')));
  if (!(iops > 0)) throw new Error(`${peerRows[row]?.name}: fio said nothing`);
  return iops;
}

function middle(runs: readonly StackRun[]): StackRun {
  const of = (field: keyof StackRun): number => median(runs.map((run) => run[field]));
  return {
    iops: of('iops'),
    machine_us_per_io: of('machine_us_per_io'),
    verified_blocks: Math.min(...runs.map((run) => run.verified_blocks)),
  };
}

export function peerTable(figures: readonly PeerFigures[]): string {
  const head = ['', 'kernel IOPS', 'ours', 'ratio', 'kernel us', 'ours', 'ratio', 'fio/load'];
  const rows = figures.map((row) => [
    row.name,
    row.peer.iops.toFixed(0),
    row.ours.iops.toFixed(0),
    row.speedRatio.toFixed(2),
    row.peer.machine_us_per_io.toFixed(0),
    row.ours.machine_us_per_io.toFixed(0),
    row.costRatio.toFixed(2),
    row.fioRatio?.toFixed(2) ?? '-',
  ]);
  const line = (cells: readonly string[]): string =>
    cells.map((cell, i) => (i === 0 ? cell.padEnd(42) : cell.padStart(12))).join('');
  return [
    'Under emulation only the ratios count (more than 1 is for us); us: processor time of the whole guest for one request',
    ...[head, ...rows].map(line),
  ].join('\n');
}
