// SPDX-License-Identifier: Apache-2.0
// What a chaos run found: checks that passed or failed, and figures.

import type { ChaosOptions } from './options.js';
import type { Growth, Slope } from './usage.js';

export interface Check {
  readonly name: string;
  readonly ok: boolean;
  readonly detail: string;
}

export interface FaultRecord {
  readonly kind: string;
  readonly target: string;
  /** Since the start of the run. */
  readonly atMs: number;
  readonly heldMs: number;
  /** From the healing until the cluster was whole; null: it was not in time. */
  readonly recoveredMs: number | null;
  /** Longest time without a completion, by client, from the fault until the cluster was whole. */
  readonly gapsMs: Readonly<Record<string, number>>;
}

export interface ClientRecord {
  readonly name: string;
  readonly completed: number;
  readonly errors: number;
  readonly violations: number;
  readonly words: readonly string[];
}

export class ChaosReport {
  readonly checks: Check[] = [];
  readonly faults: FaultRecord[] = [];
  readonly notes: string[] = [];
  clients: readonly ClientRecord[] = [];
  slopes: readonly Slope[] = [];
  elapsedMs = 0;

  constructor(readonly options: ChaosOptions) {}

  check(name: string, ok: boolean, detail = ''): boolean {
    this.checks.push({ name, ok, detail });
    return ok;
  }

  get failed(): number {
    return this.checks.filter((check) => !check.ok).length;
  }

  toJson(): string {
    const { options, checks, faults, notes, clients, slopes, elapsedMs } = this;
    const passed = checks.length - this.failed;
    return JSON.stringify({
      ...options,
      elapsedMs,
      passed,
      failed: this.failed,
      notes,
      checks,
      faults,
      clients,
      slopes,
    });
  }

  toText(): string {
    const lines: string[] = [];
    const row = (cells: readonly (string | number)[], widths: readonly number[]): void => {
      lines.push(
        cells
          .map((cell, at) => pad(cell, widths[at] ?? 0))
          .join('  ')
          .trimEnd(),
      );
    };
    const names = this.clients.map((client) => client.name);
    const faultWidths = [-42, -32, 7, 9, ...names.map(() => 9)];
    lines.push('', 'faults (seconds; gap: longest time without a completion)');
    row(['kind', 'target', 'held', 'whole in', ...names.map((name) => `gap ${name.slice(0, 8)}`)], faultWidths);
    for (const fault of this.faults) {
      const gaps = names.map((name) => seconds(fault.gapsMs[name] ?? null));
      row([fault.kind, fault.target, seconds(fault.heldMs), seconds(fault.recoveredMs), ...gaps], faultWidths);
    }
    lines.push('', 'clients');
    const clientWidths = [-12, 10, 8, 10];
    row(['name', 'requests', 'errors', 'violations'], clientWidths);
    for (const client of this.clients) {
      row([client.name, client.completed, client.errors, client.violations], clientWidths);
      for (const words of client.words.slice(0, 10)) lines.push(`    ${words}`);
    }
    lines.push('', ...this.#growth());
    lines.push('');
    for (const note of this.notes) lines.push(`note: ${note}`);
    for (const { name, ok, detail } of this.checks.filter((check) => !check.ok || check.detail !== ''))
      lines.push(`${ok ? 'ok  ' : 'FAIL'} ${name}${detail === '' ? '' : `: ${detail}`}`);
    return lines.join('\n');
  }

  #growth(): string[] {
    const widths = [-14, 5, 7, ...Array.from({ length: 15 }, () => 8)];
    const line = (cells: readonly (string | number)[]): string =>
      cells
        .map((cell, at) => pad(cell, widths[at] ?? 0))
        .join(' ')
        .trimEnd();
    const of = (unit: string): string[] => [unit, 'per h', 'late'];
    const titles = ['RSS MiB', 'live MiB', 'nat. MiB', 'fds', 'threads'].flatMap(of);
    const figures = (growth: Growth | null): string[] =>
      growth === null
        ? ['-', '-', '-']
        : [growth.last, growth.perHour, growth.latePerHour].map((figure) => figure?.toFixed(1) ?? '-');
    const rows = this.slopes.map(({ name, lives, fittedMs, rssMib, liveMib, nativeMib, descriptors, threads }) =>
      line([
        name,
        lives,
        (fittedMs / 60_000).toFixed(1),
        ...[rssMib, liveMib, nativeMib, descriptors, threads].flatMap(figures),
      ]),
    );
    return [
      'growth per hour after warm-up, and in the last third of the run (late); live: in use by JavaScript after a full',
      'collection; nat.: resident beyond what V8 keeps',
      line(['process', 'lives', 'minutes', ...titles]),
      ...rows,
    ];
  }

  /** The last line of a run. */
  get verdict(): string {
    return `${this.checks.length - this.failed} passed, ${this.failed} failed`;
  }
}

function pad(cell: string | number, width: number): string {
  const text = `${cell}`;
  return width < 0 ? text.padEnd(-width) : text.padStart(width);
}

function seconds(ms: number | null): string {
  return ms === null ? '-' : (ms / 1000).toFixed(1);
}
