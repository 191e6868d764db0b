// SPDX-License-Identifier: Apache-2.0
// Prints the line coverage of the files that read bytes from outside, from llvm-cov's summary.
//
//   node scripts/lib/parser-coverage.mjs <coverage.json> <parsers.txt> [1]
//
// A row of parsers.txt is a path and its floor, the percentage of its lines that the corpora must reach; # begins a
// comment. With 1 only some targets were measured: files that none of them reaches are left out.
// The last line is `N passed, N failed`.

import { readFileSync } from 'node:fs';

const [summary_path, parsers_path, partial] = process.argv.slice(2);
const goal = 90;
const { data } = JSON.parse(readFileSync(summary_path, 'utf8'));
const measured = new Map(data[0].files.map((file) => [file.filename, file.summary.lines]));

/** The lines of the file whose path in the tree this is. */
function linesOf(path) {
  for (const [name, lines] of measured) if (name.endsWith(`/${path}`)) return lines;
  return undefined;
}

const row = (...[path, lines, covered, percent, floor, verdict]) =>
  console.log(
    `${path.padEnd(50)} ${lines.padStart(6)} ${covered.padStart(8)} ${percent.padStart(7)} ${floor.padStart(6)}  ${verdict}`.trimEnd(),
  );

let passed = 0;
let failed = 0;
row('file', 'lines', 'covered', '%', 'floor', '');
for (const line of readFileSync(parsers_path, 'utf8').split('\n')) {
  const [path, floor_text] = line.replace(/#.*/, '').trim().split(/\s+/);
  if (!path) continue;
  const floor = Number(floor_text ?? goal);
  const lines = linesOf(path);
  if (lines === undefined || lines.covered === 0) {
    if (partial === '1') continue;
    row(path, '-', '-', '-', String(floor), 'no target reaches it');
    failed++;
    continue;
  }
  const ok = lines.percent >= floor;
  if (ok) passed++;
  else failed++;
  const verdict = ok ? (floor < goal ? `(goal ${goal})` : '') : 'below its floor';
  row(path, String(lines.count), String(lines.covered), lines.percent.toFixed(1), String(floor), verdict);
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
