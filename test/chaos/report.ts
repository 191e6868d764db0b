// SPDX-License-Identifier: Apache-2.0
// What a chaos run found: checks that passed or failed, and figures.

import type { ChaosOptions } from './options.js';
import type { Slope } from './usage.js';

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
    lines.push('', 'growth per hour, after warm-up');
    const slopeWidths = [-16, 6, 8, 9, 9, 5, 8, 8, 8];
    row(['process', 'lives', 'minutes', 'RSS MiB', 'MiB/h', 'fds', 'fds/h', 'threads', 'thr./h'], slopeWidths);
    for (const slope of this.slopes) {
      const cells = [slope.name, slope.lives, (slope.fittedMs / 60_000).toFixed(1), slope.rssMibLast.toFixed(1)];
      const rest = [slope.rssMibPerHour.toFixed(1), slope.descriptorsLast, slope.descriptorsPerHour.toFixed(1)];
      row([...cells, ...rest, slope.threadsLast, slope.threadsPerHour.toFixed(1)], slopeWidths);
    }
    lines.push('');
    for (const note of this.notes) lines.push(`note: ${note}`);
    for (const { name, ok, detail } of this.checks.filter((check) => !check.ok || check.detail !== ''))
      lines.push(`${ok ? 'ok  ' : 'FAIL'} ${name}${detail === '' ? '' : `: ${detail}`}`);
    return lines.join('\n');
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
