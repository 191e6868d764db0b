// SPDX-License-Identifier: Apache-2.0
// Loaded into every process of a chaos run (NODE_OPTIONS=--import): says what JavaScript holds. After a full collection
// what is left is in use, so growth of it is a leak; what the process has beyond that is V8's room, or native memory.

import { renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { isMainThread } from 'node:worker_threads';

const folder = process.env.BASALT_CHAOS_HEAPS;
const probe_ms = Number(process.env.BASALT_CHAOS_PROBE_MS ?? 20_000);

if (isMainThread && folder !== undefined) {
  setFlagsFromString('--expose-gc');
  const collect = runInNewContext('gc');
  const path = join(folder, `${process.pid}.heap`);
  setInterval(() => {
    collect();
    const { heapUsed, heapTotal, external } = process.memoryUsage();
    const kib = (bytes) => Math.round(bytes / 1024);
    const heap = { liveKib: kib(heapUsed + external), reservedKib: kib(heapTotal + external) };
    writeFileSync(`${path}.new`, JSON.stringify(heap));
    renameSync(`${path}.new`, path);
  }, probe_ms).unref();
}
