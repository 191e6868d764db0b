// SPDX-License-Identifier: Apache-2.0
// Prints the line coverage of the files that read bytes from outside, from llvm-cov's summary.
//
//   node scripts/lib/parser-coverage.mjs <coverage.json> <parsers.txt>
//
// A row of parsers.txt is a path and the percentage of its lines that the corpora must reach; # begins a comment.
// The last line is `N passed, N failed`.

import { readFileSync } from 'node:fs';

const [summary_path, parsers_path] = process.argv.slice(2);
const files = JSON.parse(readFileSync(summary_path, 'utf8')).data[0].files;
let passed = 0;
let failed = 0;
for (const line of readFileSync(parsers_path, 'utf8').split('\n')) {
  const [path, goal_text] = line.replace(/#.*/, '').trim().split(/\s+/);
  if (!path) continue;
  const goal = Number(goal_text ?? 90);
  const file = files.find((each) => each.filename.endsWith(`/${path}`));
  const lines = file?.summary.lines;
  const ok = lines !== undefined && lines.percent >= goal;
  if (ok) passed++;
  else failed++;
  const shown = lines === undefined ? 'no target reaches it' : `${lines.percent.toFixed(1).padStart(5)} %`;
  console.log(`${path.padEnd(52)} ${shown}  ${ok ? '' : `below ${goal} %`}`.trimEnd());
}
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
