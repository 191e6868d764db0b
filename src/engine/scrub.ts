// SPDX-License-Identifier: Apache-2.0
//
// Scrubs what an engine has: an lvol (all that it holds is read, and verified where it has checksums), a leg (its members
// are compared), or a raid1, raid5 or raid6 (copies or parity are compared with data). I/O goes on meanwhile.
//
// Invariants:  - an lvol is asked for piece by piece, so that a scrub that was ended can be gone on with, and that the
//                engine is left alone as soon as its end is asked for
//              - a leg's scrub runs in the engine: it is stopped when its end is asked for

import type { Clock } from '../env/clock.js';
import type { LegScrub } from './descriptions.js';
import type { Engine } from './engine.js';

export interface ScrubRequest {
  readonly name: string;
  /** 0: as fast as it goes. */
  readonly bytesPerS: number;
  /** Lvols only: where to begin. */
  readonly fromBytes: number;
  /** Legs and raids only: what differs or cannot be read is rewritten. */
  readonly repair: boolean;
}

export interface ScrubResult {
  readonly name: string;
  readonly kind: 'lvol' | 'leg' | 'raid1' | 'raid5' | 'raid6';
  /** Not: its end was asked for before. */
  readonly finished: boolean;
  readonly percent: number;
  /** An lvol whose scrub was ended: where to begin again. */
  readonly nextBytes: number | null;
  /** Nothing was wrong in what was looked at. */
  readonly sound: boolean;
  readonly counts: Readonly<Record<string, number>>;
}

export interface ScrubContext {
  readonly clock: Clock;
  /** Ends it. */
  readonly signal: AbortSignal;
  /** It goes on when this has ended. */
  readonly progress: (percent: number, counts: Readonly<Record<string, number>>) => void | Promise<void>;
  /** How often a leg is asked how far it is. @default 100 */
  readonly pollMs?: number;
}

const pieceBytesMax = 64 * 2 ** 20;
const pollMsDefault = 100;

/** @throws {EngineError} */
export async function scrubBdev(engine: Engine, request: ScrubRequest, context: ScrubContext): Promise<ScrubResult> {
  const [bdev] = await engine.rpc('bdev_get_bdevs', { name: request.name });
  const product = bdev?.product_name ?? '';
  if (bdev !== undefined && product === 'lvol') {
    const size = { blockBytes: bdev.block_size, numBlocks: bdev.num_blocks };
    return scrubLvol(engine, request, context, size);
  }
  if (product === 'raid1' || product === 'raid5' || product === 'raid6')
    return scrubRaid(engine, request, { kind: product, ...context });
  // Whatever else is refused by the engine, in its own words.
  return scrubLeg(engine, request, context);
}

async function scrubLvol(
  engine: Engine,
  { name, bytesPerS, fromBytes }: ScrubRequest,
  { signal, progress }: ScrubContext,
  { blockBytes, numBlocks }: { blockBytes: number; numBlocks: number },
): Promise<ScrubResult> {
  // About a second of work, so that its end is not waited for.
  const pieceBytes = bytesPerS === 0 ? pieceBytesMax : Math.min(pieceBytesMax, Math.max(bytesPerS, blockBytes));
  const pieceBlocks = Math.ceil(pieceBytes / blockBytes);
  const counts = { checkedBlocks: 0, badBlocks: 0 };
  let block = Math.min(Math.floor(fromBytes / blockBytes), numBlocks);
  const percent = (): number => (numBlocks === 0 ? 100 : Math.floor((block * 100) / numBlocks));
  while (block < numBlocks && !signal.aborted) {
    const piece = { first_block: block, num_blocks: Math.min(pieceBlocks, numBlocks - block) };
    const found = await engine.rpc('basalt_lvol_scrub', { name, bytes_per_s: bytesPerS, ...piece });
    counts.checkedBlocks += found.checked_blocks;
    counts.badBlocks += found.bad_blocks;
    block += piece.num_blocks;
    await progress(percent(), counts);
  }
  const finished = block >= numBlocks;
  const nextBytes = finished ? null : block * blockBytes;
  return { name, kind: 'lvol', finished, percent: percent(), nextBytes, sound: counts.badBlocks === 0, counts };
}

async function scrubRaid(
  engine: Engine,
  { name, repair, bytesPerS }: ScrubRequest,
  { kind, signal, progress }: ScrubContext & { kind: 'raid1' | 'raid5' | 'raid6' },
): Promise<ScrubResult> {
  const stop = (): void => {
    engine.rpc('basalt_raid_scrub_stop', { name }).catch(() => {});
  };
  const off = engine.on('event', (event) => {
    if (event.method !== 'raid_scrub' || event.params.raid !== name || event.params.state !== 'running') return;
    Promise.resolve(progress(event.params.percent, countsOf(event.params))).catch(() => {});
  });
  signal.addEventListener('abort', stop, { once: true });
  try {
    const found = await engine.rpc('basalt_raid_scrub', { name, repair, bytes_per_s: bytesPerS });
    return { ...legResult(name, found), kind };
  } catch (error) {
    if (!signal.aborted) throw error;
    const [raid] = (await engine.rpc('bdev_raid_get_bdevs', { category: 'all' })).filter((one) => one.name === name);
    if (raid?.scrub === undefined) throw error;
    return { ...legResult(name, raid.scrub), kind };
  } finally {
    signal.removeEventListener('abort', stop);
    off();
  }
}

async function scrubLeg(
  engine: Engine,
  { name, bytesPerS, repair }: ScrubRequest,
  { clock, signal, progress, pollMs = pollMsDefault }: ScrubContext,
): Promise<ScrubResult> {
  await engine.rpc('basalt_leg_scrub_start', { name, bytes_per_s: bytesPerS, repair });
  let stopped = false;
  let told = -1;
  for (;;) {
    const { scrub } = await engine.rpc('basalt_leg_get', { name });
    if (scrub.percent !== told) await progress(scrub.percent, countsOf(scrub));
    told = scrub.percent;
    if (scrub.state !== 'running') return legResult(name, scrub);
    if (signal.aborted && !stopped) {
      stopped = true;
      await engine.rpc('basalt_leg_scrub_stop', { name });
    } else {
      await clock.sleep(pollMs, stopped ? undefined : signal).catch(() => {});
    }
  }
}

function countsOf(scrub: LegScrub): Record<string, number> {
  return {
    comparedBlocks: scrub.compared_blocks,
    differentBlocks: scrub.different_blocks,
    unreadableBlocks: scrub.unreadable_blocks,
    repairedBlocks: scrub.repaired_blocks,
  };
}

function legResult(name: string, scrub: LegScrub): ScrubResult {
  const finished = scrub.state === 'finished';
  const sound = scrub.different_blocks + scrub.unreadable_blocks === 0;
  return { name, kind: 'leg', finished, percent: scrub.percent, nextBytes: null, sound, counts: countsOf(scrub) };
}
