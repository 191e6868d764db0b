// SPDX-License-Identifier: Apache-2.0
// Makes the command `basalt`, dist/bin/basalt.js, of what tsc wrote: our modules and those of TypeBox in a few files. Of the
// 0.7 s of CPU time that a command took before its first line, and the 0.9 s of a daemon, more than half was Node.js finding and
// linking six hundred modules, TypeBox's above all. Other packages stay where npm has put them: some look for files of theirs.

import { readFileSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';

const root = fileURLToPath(new URL('..', import.meta.url));
const { dependencies, engines } = JSON.parse(readFileSync(`${root}/package.json`, 'utf8'));
const bundled = ['typebox'];
const { version } = JSON.parse(readFileSync(`${root}/node_modules/typebox/package.json`, 'utf8'));

rmSync(`${root}/dist/bin`, { recursive: true, force: true });
await build({
  absWorkingDir: root,
  // The planner's thread has a file of its own, which is looked for beside the one that starts it.
  entryPoints: ['dist/src/bin/basalt.js', 'dist/src/placement/planner-worker.js'],
  entryNames: '[name]',
  outdir: 'dist/bin',
  bundle: true,
  // Daemons are loaded only when they are asked for: an import() begins a file.
  splitting: true,
  format: 'esm',
  platform: 'node',
  target: engines.node.replace('>=', 'node'),
  external: Object.keys(dependencies).filter((name) => !bundled.includes(name)),
  // For who runs Node.js with --enable-source-maps: traces then name the sources.
  sourcemap: true,
  // What its licence asks for, in every file that may hold it.
  banner: {
    js: `// May hold TypeBox ${version}, (c) 2017-2026 Haydn Paterson, MIT licence: node_modules/typebox/license`,
  },
  logLevel: 'warning',
});
