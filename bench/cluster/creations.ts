// SPDX-License-Identifier: Apache-2.0
// Many volumes made and attached at once, over the API of a cluster of processes: each must be there exactly once.

import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { DemoCluster } from '../../scripts/demo/cluster.js';
import { ApiClient } from '../../src/client/api-client.js';
import { systemClock } from '../../src/env/clock.js';
import type { VolumeView } from '../../src/model/api.js';
import type { BenchOptions } from '../main.js';
import { type Figure, rounded } from '../report.js';

const GiB = 2 ** 30;
const MiB = 2 ** 20;
/** Sparse: nothing of it is written. */
const diskBytes = 64 * GiB;
const sizeBytes = 16 * MiB;
const servedMsMax = 600_000;

const stores = ['embedded', 'etcd'] as const;
const counts = [100, 1000];

export async function benchCreations(
  options: BenchOptions,
  report: (figure: Figure) => void,
  signal: AbortSignal,
): Promise<void> {
  for (const store of stores) {
    for (const count of counts) {
      const name = `cluster/create-attach-${count}-${store}`;
      if (!name.includes(options.only)) continue;
      signal.throwIfAborted();
      report(await measure({ name, store, count }, signal));
    }
  }
}

async function measure(
  at: { name: string; store: 'embedded' | 'etcd'; count: number },
  signal: AbortSignal,
): Promise<Figure> {
  // Not /tmp, which may be a file system without O_DIRECT.
  const folder = await mkdtemp(join('/var/tmp', 'basalt-bench-'));
  const cluster = await DemoCluster.plan({ folder, diskBytes, store: at.store });
  try {
    await cluster.start();
    const client = new ApiClient({ endpoint: cluster.api.endpoint, timeoutMs: servedMsMax });
    const startMs = systemClock.now();
    await Promise.all(Array.from({ length: at.count }, (_, index) => makeAndAttach(client, index)));
    const askedMs = systemClock.now() - startMs;
    const volumes = await client.volumes();
    checkOnce(volumes, at.count);
    await served(client, startMs, signal);
    const servedMs = systemClock.now() - startMs;
    const rest = { floor: null, ratio: null, p50_us: null, cpu_us_per_io: null };
    const perSecond = rounded(at.count / (askedMs / 1000));
    return {
      name: at.name,
      value: rounded(askedMs / 1000),
      unit: 's',
      ...rest,
      per_second: perSecond,
      served_s: rounded(servedMs / 1000),
    };
  } finally {
    await cluster.killAll();
    await rm(folder, { recursive: true, force: true });
  }
}

async function makeAndAttach(client: ApiClient, index: number): Promise<void> {
  const name = `volume-${index}`;
  await client.createVolume({ name, sizeBytes });
  await client.attach(name, { host: hostOf(index) });
}

function hostOf(index: number): string {
  return `nqn.2026-01.io.basalt:host:bench-${index}`;
}

/** @throws when one is missing, there twice, or attached to anything but its host */
function checkOnce(volumes: readonly VolumeView[], count: number): void {
  const byName = new Map(volumes.map((volume) => [volume.name, volume]));
  if (volumes.length !== count || byName.size !== count)
    throw new Error(`${volumes.length} volumes, ${byName.size} names; ${count} were asked for`);
  for (let index = 0; index < count; index++) {
    const hosts = byName.get(`volume-${index}`)?.hosts ?? [];
    if (hosts.join() !== hostOf(index)) throw new Error(`volume-${index} is attached to [${hosts.join()}]`);
  }
}

async function served(client: ApiClient, startMs: number, signal: AbortSignal): Promise<void> {
  for (;;) {
    const volumes = await client.volumes();
    const waiting = volumes.filter((volume) => volume.health !== 'redundant').length;
    if (waiting === 0) return;
    if (systemClock.now() - startMs > servedMsMax) throw new Error(`${waiting} volumes are not served`);
    await systemClock.sleep(500, signal);
  }
}
