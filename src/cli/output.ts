// SPDX-License-Identifier: Apache-2.0
//
// How commands speak: text for people, one JSON value for programs (`--json`), errors on standard error.

import { BasaltError } from '../model/errors.js';
import type { CliWorld } from './launch.js';
import { formatBytes } from './sizes.js';

export interface CommonOptions {
  readonly json?: boolean;
  readonly api?: string;
  readonly apiCa?: string;
  readonly tokenFile?: string;
  readonly config?: string;
}

export function print(world: CliWorld, options: CommonOptions, value: unknown, text: string): void {
  world.out(`${options.json === true ? JSON.stringify(value) : text}\n`);
}

/** Prints the error and gives the exit code. */
export function printError(world: CliWorld, json: boolean, error: unknown): number {
  const known = error instanceof BasaltError ? error : new BasaltError('INTERNAL', { detail: messageOf(error) });
  const field = known.fields['field'];
  const view = {
    code: known.code,
    message: known.message,
    ...(field === undefined ? {} : { field }),
    hint: known.row.hint,
  };
  world.err(json ? `${JSON.stringify({ error: view })}\n` : `basalt: ${view.message} [${view.code}]\n  ${view.hint}\n`);
  return known.row.exitCode;
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** Columns as wide as their widest cell; no trailing spaces. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    for (const [index, cell] of row.entries()) widths[index] = Math.max(widths[index] ?? 0, cell.length);
  }
  return rows
    .map((row) =>
      row
        .map((cell, index) => cell.padEnd(widths[index] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** `checkedBlocks: 3` as "3 checked blocks"; the first one in bytes, too. */
export function countsText(counts: Readonly<Record<string, number>>): string {
  const words = Object.entries(counts).map(([name, count]) => {
    const text = `${count} ${name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`)}`;
    return name === 'checkedBlocks' ? `${text} (${formatBytes(count * 4096)})` : text;
  });
  return words.join(', ');
}
