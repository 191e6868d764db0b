// SPDX-License-Identifier: Apache-2.0
// The GoogleTest programs in which more than one thread runs: those that link env/linux, the only part of the engine that
// starts threads (a tidy check holds the others to that), or start some themselves. The rest are worlds in one thread,
// of which ThreadSanitizer can say nothing.
//
//   node scripts/lib/threaded-tests.mjs             their names, one on a line
//   node scripts/lib/threaded-tests.mjs --filter    GoogleTest's filter that leaves their simulated suites out
//   node scripts/lib/threaded-tests.mjs --others    what is left out, and why
//   node scripts/lib/threaded-tests.mjs --all       all GoogleTest programs

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { scan_native, test_programs } from '../native-units.mjs';

const native = fileURLToPath(new URL('../../native', import.meta.url));
/** They link env/linux, and yet no second thread touches what they use. */
const one_thread_after_all = {
  test_engine_rpc: 'parsers and tables; no engine runs in it, or a simulated one',
  test_recorder: 'its reactor has real files, or simulated ones, and one thread turns it',
  test_nvmf_transport: "its reactors have real sockets, but the test's own thread turns them",
};
/** Suites in simulated worlds, in programs that have others as well. */
const one_thread_suites = {
  test_bdev_nvmf: ['*/MemberTest.*', '*/MemberOverTcp.*', '*/Multipath.*', 'MultipathLoss.*'],
};

const programs = test_programs(scan_native(native));
const pattern = /\bstd::(jthread|thread|async)\b|\bpthread_create\b/;
const starts_threads = (path) => pattern.test(readFileSync(join(native, path), 'utf8'));
const may_have_threads = ({ units, sources }) => units.includes('env/linux') || sources.some(starts_threads);
const threaded = programs.filter(may_have_threads).map(({ name }) => name);
const alone = programs.filter((program) => !may_have_threads(program)).map(({ name }) => name);

switch (process.argv[2]) {
  case '--all':
    for (const { name } of programs) console.log(name);
    break;
  case '--filter':
    console.log(`-${Object.values(one_thread_suites).flat().join(':')}`);
    break;
  case '--others':
    console.log(`  left out, one thread in a world of its own: ${alone.join(', ')}`);
    for (const [name, suites] of Object.entries(one_thread_suites)) {
      console.log(`  left out, the same, of ${name}: ${suites.join(' ')}`);
    }
    for (const [name, reason] of Object.entries(one_thread_after_all)) console.log(`  left out: ${name}: ${reason}`);
    break;
  default:
    for (const name of threaded) if (!(name in one_thread_after_all)) console.log(name);
}
