// SPDX-License-Identifier: Apache-2.0
// One client as a process: opens its volume, loads it, and does what it is told over standard input, one JSON value per
// line. Says `ready` first, then its counters several times a second, and one line per command that it carried out.
// Started again after a kill, it takes up its history where the files end.

import { createInterface } from 'node:readline';
import { EmbeddedDevice, NvmeDevice, type NvmeTarget } from './devices.js';
import { HistoryLog, lostWrites, pastWrites } from './history.js';
import { type BlockDevice, Load } from './load.js';
import { NbdDevice } from './nbd-device.js';
import { BlockOracle } from './oracle.js';
import { SeededRandom } from './random.js';

export type ClientTarget =
  | ({ readonly kind: 'nvme' } & NvmeTarget)
  | { readonly kind: 'nbd'; readonly paths: readonly string[]; readonly volumeName: string }
  | { readonly kind: 'embedded'; readonly store: readonly string[]; readonly volumeName: string };

export interface ClientPlan {
  readonly target: ClientTarget;
  /** The number in the stamps of the volume, in decimal digits. */
  readonly volume: string;
  readonly writer: number;
  readonly blocks: number;
  readonly depth: number;
  readonly rate: number;
  readonly seed: number;
  readonly historyPath: string;
  readonly originNs: string;
}

export type ClientCommand = 'mark' | 'stop' | 'verify' | 'close';

export interface ClientReport {
  readonly said: 'ready' | 'progress' | ClientCommand;
  readonly completed: number;
  readonly gapMs: number;
  readonly counts: Load['counts'];
  readonly errors: readonly string[];
  readonly violations: readonly string[];
}

const reportMs = 250;

function openDevice(target: ClientTarget): Promise<BlockDevice> {
  switch (target.kind) {
    case 'nvme':
      return NvmeDevice.connect(target);
    case 'nbd':
      return NbdDevice.connect(target.paths, target.volumeName);
    case 'embedded':
      return EmbeddedDevice.connect(target);
  }
}

/** What was written before this process began; returns the sequence that comes next. All of it is let go again: it is much. */
function replayPast(plan: ClientPlan, oracle: BlockOracle): number {
  const past = pastWrites(plan.historyPath);
  oracle.replay(past);
  return (past.at(-1)?.seq ?? 0) + 1;
}

async function main(plan: ClientPlan): Promise<void> {
  const volume = BigInt(plan.volume);
  const { writer } = plan;
  const oracle = new BlockOracle({ blocks: plan.blocks, volume, writer });
  const firstSequence = replayPast(plan, oracle);
  const lost = lostWrites(plan.historyPath);
  const history = new HistoryLog(plan.historyPath, writer, BigInt(plan.originNs));
  for (const intent of lost) history.lost(intent);
  const device = await openDevice(plan.target);
  const random = new SeededRandom(plan.seed + firstSequence);
  const load = new Load({ ...plan, device, oracle, history, random, volume, firstSequence });
  const say = (said: ClientReport['said']): void => {
    const { completed, gapMs, counts, errors, violations } = load;
    const report: ClientReport = { said, completed, gapMs, counts, errors, violations };
    process.stdout.write(`${JSON.stringify(report)}\n`);
  };
  say('ready');
  load.start();
  const ticker = setInterval(() => say('progress'), reportMs);
  const act = async (command: ClientCommand): Promise<void> => {
    if (command === 'mark') load.mark();
    if (command === 'stop') await load.stop();
    if (command === 'verify') await load.verify();
    if (command === 'close') {
      clearInterval(ticker);
      history.close();
      await device.close();
    }
    say(command);
    if (command === 'close') process.exit(0);
  };
  for await (const line of createInterface({ input: process.stdin })) await act(JSON.parse(line) as ClientCommand);
  // Nobody is there any more to report to.
  process.exit(1);
}

process.stdout.on('error', () => process.exit(1));
await main(JSON.parse(process.argv[2] ?? '') as ClientPlan).catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
  process.exit(1);
});
