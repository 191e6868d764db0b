// SPDX-License-Identifier: Apache-2.0
// Exit code 0 when node_modules holds what package-lock.json asks for. npm writes node_modules/.package-lock.json last,
// so an interrupted install is seen as out of date.

import { existsSync, readFileSync } from 'node:fs';

const installed_path = 'node_modules/.package-lock.json';
if (!existsSync(installed_path)) process.exit(1);
const wanted = JSON.parse(readFileSync('package-lock.json', 'utf8')).packages;
const installed = JSON.parse(readFileSync(installed_path, 'utf8')).packages;
for (const [path, entry] of Object.entries(wanted)) {
  if (path === '') continue;
  const found = installed[path];
  if (found === undefined ? !entry.optional : found.version !== entry.version || found.integrity !== entry.integrity) {
    process.exit(1);
  }
}
// The native parts are optional packages per architecture: one of each that the program needs must be on disk.
const platform = `linux-${process.arch}`;
for (const name of Object.keys(wanted)) {
  const needed = name.endsWith(`@lmdb/lmdb-${platform}`) || name.endsWith(`@esbuild/${platform}`);
  if (needed && !existsSync(name)) process.exit(1);
}
