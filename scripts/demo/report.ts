// SPDX-License-Identifier: Apache-2.0
//
// What the demonstration prints: steps while it runs, a table at the end, or one JSON line.

import type { Throughput } from './host.js';

export interface Report {
  verdict: 'ok' | 'failed';
  problems: string[];
  bytes: number;
  write: { mib_per_s: number; iops: number } | null;
  read: { mib_per_s: number; iops: number } | null;
  request_bytes: number;
  gap_ms: { controller: number | null; disk_node: number | null };
  full_redundancy_ms: number | null;
  sha256: string | null;
  elapsed_ms: number;
}

export function emptyReport(): Report {
  return {
    verdict: 'failed',
    problems: [],
    bytes: 0,
    write: null,
    read: null,
    request_bytes: 64 * 1024,
    gap_ms: { controller: null, disk_node: null },
    full_redundancy_ms: null,
    sha256: null,
    elapsed_ms: 0,
  };
}

export function rates(throughput: Throughput): { mib_per_s: number; iops: number } {
  const seconds = throughput.ms / 1000;
  return {
    mib_per_s: Math.round(throughput.bytes / seconds / 104857.6) / 10,
    iops: Math.round(throughput.requests / seconds),
  };
}

export function table(report: Report): string {
  const rate = (value: Report['write']) =>
    value === null ? 'not reached' : `${value.mib_per_s} MiB/s, ${value.iops} requests/s of 64 KiB`;
  const ms = (value: number | null) => (value === null ? 'not reached' : `${Math.round(value)} ms`);
  const rows: [string, string][] = [
    ['image', `${(report.bytes / 1024 / 1024).toFixed(1)} MiB (${report.bytes} bytes)`],
    ['write, with both kills in it', rate(report.write)],
    ['read back', rate(report.read)],
    ['longest I/O gap, active controller killed', ms(report.gap_ms.controller)],
    ['longest I/O gap, disk node killed', ms(report.gap_ms.disk_node)],
    ['disk node back to full redundancy', ms(report.full_redundancy_ms)],
    ['SHA-256', report.sha256 ?? 'not reached'],
    ['verdict', report.verdict === 'ok' ? 'ok: every byte is the same' : `failed: ${report.problems.join('; ')}`],
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, value]) => `  ${name.padEnd(width)}  ${value}`).join('\n');
}
