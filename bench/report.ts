// SPDX-License-Identifier: Apache-2.0
// Figures as lines of JSON, or as a table for people.

export interface Figure {
  readonly name: string;
  readonly value: number;
  readonly unit: string;
  /** What the same bytes cost without the part that is measured; null where there is no such thing. */
  readonly floor: number | null;
  /** value / floor, as the median of pairs that ran one right after the other. */
  readonly ratio: number | null;
  readonly p50_us: number | null;
  readonly cpu_us_per_io: number | null;
  /** What it should be, where that was said: `>= 0.85`. */
  readonly wanted?: string;
  /** More of the same run, by name. */
  readonly [more: string]: number | string | null | undefined;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  const [high = Number.NaN, low = Number.NaN] = [sorted[middle], sorted[middle - 1]];
  return sorted.length % 2 === 1 ? high : (low + high) / 2;
}

/** To so many significant digits: more would be noise. */
export function rounded(value: number, digits = 4): number {
  return Number(value.toPrecision(digits));
}

const columns = ['name', 'value', 'unit', 'floor', 'ratio', 'p50_us', 'cpu_us_per_io', 'wanted'] as const;
const widths = [42, 12, 6, 12, 7, 9, 14, 16];

export class Reporter {
  readonly #json: boolean;
  readonly #write: (line: string) => void;
  #count = 0;

  constructor(json: boolean, write: (line: string) => void) {
    this.#json = json;
    this.#write = write;
  }

  add(figure: Figure): void {
    if (!this.#json && this.#count === 0) this.#write(this.#row(columns));
    this.#count += 1;
    const cells = columns.map((column) => figure[column] ?? '-');
    this.#write(this.#json ? JSON.stringify(figure) : this.#row(cells));
  }

  /** @throws {Error} when there was nothing to report: a run that measured nothing has failed */
  end(): void {
    if (this.#count === 0) throw new Error('nothing was measured: --only matches no figure');
  }

  #row(cells: readonly (string | number)[]): string {
    const text = cells.map((cell, i) => {
      const width = widths[i] ?? 0;
      return i === 0 || i === 2 ? String(cell).padEnd(width) : String(cell).padStart(width);
    });
    return text.join(' ').trimEnd();
  }
}
