// SPDX-License-Identifier: Apache-2.0
// The NVMe/TCP target on loopback, in rows: loads beside bare sockets, what idleness costs, what crowds leave. Rows that say
// what is wanted of them name it; figures count on a quiet machine only (docs/performance.md).

import { mkdir, rm, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { packageRoot } from '../../src/engine/native/addon.js';
import type { BenchOptions } from '../main.js';
import { Server } from '../programs.js';
import type { Figure } from '../report.js';
import { crowdRows } from './crowds.js';
import { idlenessRows } from './idleness.js';
import { type SpdkPeer, startSpdkPeer } from './spdk-peer.js';
import { throughputRows } from './throughput.js';
import { diskBytes, fill, nqnOf, serverCore, TargetServer } from './world.js';

export async function benchTarget(
  options: BenchOptions,
  report: (figure: Figure) => void,
  signal: AbortSignal,
): Promise<void> {
  const rows = [...throughputRows, ...idlenessRows, ...crowdRows].filter((row) => row.name.includes(options.only));
  const bdevs = rows.some((row) => row.name.startsWith('target/file/')) ? ['malloc', 'file'] : ['malloc'];
  const folder = join(packageRoot(), '.cache', 'bench');
  await mkdir(folder, { recursive: true });
  const image = join(folder, `target-${process.pid}.img`);
  const peerImage = join(folder, `peer-${process.pid}.img`);
  const [floor, floorPort] = await Server.start(serverCore, 'basalt_floor', ['serve']);
  let target: TargetServer | null = null;
  let peer: SpdkPeer | null = null;
  try {
    target = await TargetServer.start(bdevs.includes('file') ? image : null);
    for (const bdev of bdevs) await fill(bdev, target.port, signal);
    if (options.peer !== null) {
      await writeFile(peerImage, '');
      await truncate(peerImage, diskBytes);
      peer = await startSpdkPeer({ core: serverCore, bytes: diskBytes, image: peerImage, nqnOf });
      process.stderr.write(`peer: ${peer.version}\n`);
      for (const bdev of bdevs) await fill(bdev, peer.port, signal);
      peer.server.pause();
    }
    const world = { options, signal, floor, floorPort, target, peer };
    for (const row of rows) report(await row.measure(world));
  } finally {
    await peer?.stop();
    await rm(peerImage, { force: true });
    await target?.stop();
    await floor.stop();
    await rm(image, { force: true });
  }
}
