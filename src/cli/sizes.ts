// SPDX-License-Identifier: Apache-2.0

import { BasaltError } from '../model/errors.js';

const units: Record<string, number> = { '': 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30, t: 2 ** 40 };

/** `1073741824`, `1024M`, `1G`, `1GiB`: powers of 1024. */
export function parseBytes(text: string, field: string): number {
  const match = /^(\d+)\s*([kmgt]?)(?:i?b)?$/i.exec(text.trim());
  const bytes = match === null ? Number.NaN : Number(match[1]) * (units[(match[2] ?? '').toLowerCase()] ?? Number.NaN);
  if (!Number.isSafeInteger(bytes)) {
    throw new BasaltError('INVALID_ARGUMENT', {
      field,
      problem: `${JSON.stringify(text)} is no size; write bytes, or a number with K, M, G or T`,
    });
  }
  return bytes;
}

export function parseCount(text: string, field: string): number {
  if (!/^\d{1,15}$/.test(text.trim())) {
    throw new BasaltError('INVALID_ARGUMENT', { field, problem: `${JSON.stringify(text)} is no whole number` });
  }
  return Number(text);
}

const seconds: Record<string, number> = { s: 1, m: 60, h: 3_600, d: 86_400 };

/** `90d`, `12h`, `30m`, `45s`. */
export function parseSeconds(text: string, field: string): number {
  const match = /^(\d{1,9})([smhd])$/.exec(text.trim());
  if (match !== null) return Number(match[1]) * (seconds[match[2] ?? ''] ?? Number.NaN);
  const problem = `${JSON.stringify(text)} is no time; write a number with s, m, h or d, such as 90d`;
  throw new BasaltError('INVALID_ARGUMENT', { field, problem });
}

/** `a, b` → a and b. */
export function parseWords(text: string): string[] {
  return text
    .split(',')
    .map((word) => word.trim())
    .filter((word) => word !== '');
}

export function formatBytes(bytes: number): string {
  for (const [unit, size] of [
    ['TiB', 2 ** 40],
    ['GiB', 2 ** 30],
    ['MiB', 2 ** 20],
    ['KiB', 2 ** 10],
  ] as const) {
    if (bytes >= size) return `${Number((bytes / size).toFixed(2))} ${unit}`;
  }
  return `${bytes} B`;
}
