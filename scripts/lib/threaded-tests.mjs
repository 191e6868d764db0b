// SPDX-License-Identifier: Apache-2.0
// The GoogleTest programs in which more than one thread may run: those that link env/linux, the only part of the engine
// that starts threads (a tidy check holds the others to that), or start some themselves. The rest are worlds in one thread.
//
//   node scripts/lib/threaded-tests.mjs [--others]    their names, or the rest's, one on a line

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { scan_native, test_programs } from '../native-units.mjs';

const native = fileURLToPath(new URL('../../native', import.meta.url));
const pattern = /\bstd::(jthread|thread|async)\b|\bpthread_create\b/;
const starts_threads = (path) => pattern.test(readFileSync(join(native, path), 'utf8'));
const may_have_threads = ({ units, sources }) => units.includes('env/linux') || sources.some(starts_threads);
const others = process.argv[2] === '--others';
for (const program of test_programs(scan_native(native)))
  if (may_have_threads(program) !== others) console.log(program.name);
