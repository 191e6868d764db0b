// SPDX-License-Identifier: Apache-2.0
// Reads vitest's JSON report and writes `passed failed skipped`. A file that could not even be loaded is one failure.
//
//   node scripts/lib/vitest-counts.mjs <report.json> <result file>

import { existsSync, readFileSync, writeFileSync } from 'node:fs';

const [report_path, result_file] = process.argv.slice(2);
let counts = [0, 1, 0];
if (existsSync(report_path)) {
  const report = JSON.parse(readFileSync(report_path, 'utf8'));
  const unloaded = report.testResults.filter((file) => file.status === 'failed' && file.assertionResults.length === 0);
  const failed = report.numFailedTests + unloaded.length;
  const unexplained = !report.success && failed === 0 ? 1 : 0;
  counts = [report.numPassedTests, failed + unexplained, report.numPendingTests + report.numTodoTests];
}
writeFileSync(result_file, `${counts.join(' ')}\n`);
