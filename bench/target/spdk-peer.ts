// SPDX-License-Identifier: Apache-2.0
// SPDK's target as a peer: an spdk_tgt that is installed (BASALT_SPDK_TGT, or on the PATH), configured as it is fastest on
// loopback: posix sockets without zero copy on the server's side, one core that it polls.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type AttachedEngine, attachEngine } from '../../src/engine/attached/attached-engine.js';
import { freePort, spdkMissing, spdkProgram } from '../../src/engine/spdk/testing/spdk-process.js';
import { systemClock } from '../../src/env/clock.js';
import { Server, usableCores } from '../programs.js';

export interface SpdkPeer {
  readonly version: string;
  readonly server: Server;
  readonly port: string;
  stop(): Promise<void>;
}

export interface PeerPlan {
  readonly core: number;
  readonly bytes: number;
  /** Of a file with so many bytes. */
  readonly image: string;
  /** By the name of a bdev: malloc, file. */
  readonly nqnOf: (bdev: string) => string;
}

const startMsMax = 60_000;

/** @throws {Error} where there is no SPDK */
export async function startSpdkPeer(plan: PeerPlan): Promise<SpdkPeer> {
  if (spdkProgram === null) throw new Error(`--peer spdk: there is none${spdkMissing}`);
  const folder = await mkdtemp(join(tmpdir(), 'basalt-bench-spdk-'));
  const rpcPath = join(folder, 'spdk.sock');
  const cores = usableCores();
  const core = cores[plan.core % cores.length] ?? 0;
  const args = ['-m', `[${core}]`, '--no-huge', '-s', '2048', '--no-pci', '--disable-cpumask-locks', '-r', rpcPath];
  const [server] = await Server.start(plan.core, spdkProgram, [...args, '--wait-for-rpc']);
  const stop = async (): Promise<void> => {
    await server.stop();
    await rm(folder, { recursive: true, force: true });
  };
  try {
    const spdk = await attached(rpcPath);
    const port = await serve(spdk, plan);
    const { version } = spdk.capabilities;
    await spdk.close();
    return { version, server, port, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

async function attached(rpcPath: string): Promise<AttachedEngine> {
  const until = systemClock.now() + startMsMax;
  for (;;) {
    try {
      return await attachEngine({ rpcPath });
    } catch (error) {
      if (systemClock.now() > until) throw error;
      await systemClock.sleep(100);
    }
  }
}

async function serve(spdk: AttachedEngine, { bytes, image, nqnOf }: PeerPlan): Promise<string> {
  await spdk.call('sock_set_default_impl', { impl_name: 'posix' });
  await spdk.call('sock_impl_set_options', { impl_name: 'posix', enable_zerocopy_send_server: false });
  await spdk.call('framework_start_init', {});
  await spdk.call('bdev_malloc_create', { name: 'malloc', num_blocks: bytes / 4096, block_size: 4096 });
  await spdk.call('bdev_aio_create', { name: 'file', filename: image, block_size: 4096 });
  await spdk.call('nvmf_create_transport', { trtype: 'TCP' });
  const trsvcid = String(await freePort());
  for (const bdev of ['malloc', 'file']) {
    const nqn = nqnOf(bdev);
    await spdk.call('nvmf_create_subsystem', { nqn, allow_any_host: true, serial_number: 'PEER' });
    await spdk.call('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: bdev } });
    const listen_address = { trtype: 'TCP', adrfam: 'IPv4', traddr: '127.0.0.1', trsvcid };
    await spdk.call('nvmf_subsystem_add_listener', { nqn, listen_address });
  }
  return trsvcid;
}
