// SPDX-License-Identifier: Apache-2.0
// Every npm package that users get has a licence that Apache-2.0 software may ship with.

import { type Check, type Finding, lineOf } from '../tree.js';

const permitted = new Set([
  'MIT',
  'ISC',
  '0BSD',
  'BSD-2-Clause',
  'BSD-3-Clause',
  'Apache-2.0',
  'BlueOak-1.0.0',
  'CC0-1.0',
  'Unlicense',
  'Python-2.0',
]);

/** `(MIT OR GPL-2.0) AND ISC` → true; only the forms that npm packages use. */
export function isPermitted(expression: string): boolean {
  const bare = expression.replace(/[()]/g, ' ').trim();
  return bare.split(/\s+AND\s+/).every((part) => part.split(/\s+OR\s+/).some((name) => permitted.has(name.trim())));
}

interface LockEntry {
  dev?: boolean;
  devOptional?: boolean;
  license?: string;
}

export const dependencyLicences: Check = {
  name: 'licences of npm dependencies are permissive',
  run(tree) {
    const text = tree.read('package-lock.json');
    const lock = JSON.parse(text) as { packages: Record<string, LockEntry> };
    const findings: Finding[] = [];
    for (const [path, entry] of Object.entries(lock.packages)) {
      if (path === '' || entry.dev === true) continue;
      const licence = entry.license ?? 'none stated';
      if (isPermitted(licence)) continue;
      const line = lineOf(text, text.indexOf(`"${path}"`));
      const message = `${path.replace(/^.*node_modules\//, '')} has the licence ${licence}: use another package`;
      findings.push({ path: 'package-lock.json', line, message });
    }
    return findings;
  },
};
