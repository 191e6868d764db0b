// SPDX-License-Identifier: Apache-2.0
// npm run tidy: every rule that a machine can hold, in seconds. Each check prints one line; findings follow with their
// place and what to do. The last line counts checks; the exit code is 1 when one failed.

import { fileURLToPath } from 'node:url';
import { bannedCalls } from './checks/banned.js';
import { formatting, shellSyntax, typedLint } from './checks/commands.js';
import { docLinks, homePaths, licenceHeaders, nothingStray } from './checks/files.js';
import { nativeLayers, osHeaders, srcLayers } from './checks/layers.js';
import { lengthReport } from './checks/lengths.js';
import { dependencyLicences } from './checks/licences.js';
import type { Check, Finding } from './tree.js';
import { gitTree } from './tree.js';

const root = fileURLToPath(new URL('../..', import.meta.url));
process.chdir(root);

const checks: Check[] = [
  nativeLayers,
  osHeaders,
  srcLayers,
  bannedCalls,
  licenceHeaders,
  dependencyLicences,
  nothingStray,
  docLinks,
  homePaths,
  shellSyntax,
  formatting,
  typedLint,
];

function show(finding: Finding): void {
  console.log(`  ${finding.path}${finding.line > 0 ? `:${finding.line}` : ''}: ${finding.message}`);
}

const tree = gitTree(root);
let failed = 0;
for (const check of checks) {
  const findings = await check.run(tree);
  console.log(`${findings.length === 0 ? 'ok  ' : 'FAIL'} ${check.name}`);
  findings.forEach(show);
  if (findings.length > 0) failed += 1;
}
if (process.argv.includes('--lengths')) {
  console.log('longest files and functions (a report, not a limit):');
  lengthReport(tree).forEach(show);
}
console.log(`${checks.length - failed} passed, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
