// SPDX-License-Identifier: Apache-2.0
// Puts the history of each volume together (docs/history-format.md) and has the checker judge it.

import { closeSync, openSync, readSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { checkHistory } from './checker.js';
import type { ReplicaImage } from './replicas.js';
import type { ChaosReport } from './report.js';
import { blockBytes } from './stamp.js';

export interface HistoryParts {
  readonly folder: string;
  /** When the last fault ended. */
  readonly healedNs: number;
  readonly volumes: readonly { readonly name: string; readonly number: bigint }[];
  readonly images: readonly ReplicaImage[];
}

/** One check per volume. */
export async function checkHistories(report: ChaosReport, parts: HistoryParts): Promise<void> {
  for (const volume of parts.volumes) {
    const path = writeHistory(parts, volume);
    const { right, said } = await checkHistory(path);
    report.check(`${volume.name}: the checker finds the history right`, right, said);
  }
}

function writeHistory(parts: HistoryParts, volume: { readonly name: string; readonly number: bigint }): string {
  const path = join(parts.folder, `${volume.name}.ndjson`);
  const file = openSync(path, 'w');
  const write = (line: object): void => void writeSync(file, `${JSON.stringify(line)}\n`);
  write({ history: 1, volume: `${volume.number}`, block_bytes: blockBytes });
  appendLines(file, join(parts.folder, `${volume.name}.ops`));
  write({ event: 'healed', at: parts.healedNs });
  for (const image of parts.images.filter((entry) => entry.volume === volume.name))
    write({ image: `${image.node}/${image.leg}`, leg: image.leg, first: 0, values: image.values });
  closeSync(file);
  return path;
}

/** Piece by piece: a history of hours is longer than the longest string. Clients write whole lines at once. */
function appendLines(file: number, path: string): void {
  const from = openSync(path, 'r');
  const piece = Buffer.alloc(1 << 20);
  for (let bytes = readSync(from, piece); bytes > 0; bytes = readSync(from, piece)) writeSync(file, piece, 0, bytes);
  closeSync(from);
}
