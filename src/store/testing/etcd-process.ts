// SPDX-License-Identifier: Apache-2.0
//
// Debian's etcd as a child process on loopback, for tests. Its absence is an error, never a skip.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { systemClock } from '../../env/clock.js';
import { isBasaltError } from '../../model/errors.js';
import { readStoreFiles } from '../etcd/credentials.js';
import { openEtcdStore } from '../etcd/etcd-store.js';
import type { Certificate } from './certificates.js';

const startTimeoutMs = 20_000;

/** @throws with the name of the package that has the program. */
export function requireProgram(program: string, debianPackage: string): void {
  const { error, status } = spawnSync(program, [program === 'etcd' ? '--version' : 'version'], {
    env: { ...process.env, ETCDCTL_API: '3' },
  });
  if (error === undefined && status === 0) return;
  throw new Error(
    `${program} does not run (${error?.message ?? `status ${status}`}): install the package ${debianPackage} (apt-get install ${debianPackage})`,
  );
}

/** A port that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  if (address === null || typeof address === 'string') throw new Error('no port');
  return address.port;
}

/** TLS for clients: who connects shows a certificate that `ca` has signed. */
export interface EtcdTls {
  readonly ca: string;
  readonly server: Certificate;
  /** With which the process itself is asked whether it serves. */
  readonly client: Certificate;
}

export class EtcdProcess {
  readonly endpoint: string;
  readonly #peer: string;
  readonly #directory: string;
  readonly #tls: EtcdTls | null;
  #child: ChildProcess | null = null;

  private constructor(clientPort: number, peerPort: number, tls: EtcdTls | null) {
    this.#tls = tls;
    this.endpoint = `${tls === null ? 'http' : 'https'}://127.0.0.1:${clientPort}`;
    this.#peer = `http://127.0.0.1:${peerPort}`;
    this.#directory = mkdtempSync(join(tmpdir(), 'basalt-etcd-'));
  }

  static async launch(tls: EtcdTls | null = null): Promise<EtcdProcess> {
    requireProgram('etcd', 'etcd-server');
    const etcd = new EtcdProcess(await freePort(), await freePort(), tls);
    await etcd.start();
    return etcd;
  }

  async start(): Promise<void> {
    const args = {
      name: 'test',
      'data-dir': join(this.#directory, 'data'),
      'listen-client-urls': this.endpoint,
      'advertise-client-urls': this.endpoint,
      'listen-peer-urls': this.#peer,
      'initial-advertise-peer-urls': this.#peer,
      'initial-cluster': `test=${this.#peer}`,
      'unsafe-no-fsync': null,
      ...this.#tlsFlags(),
    };
    const flags = Object.entries(args)
      .filter(([, value]) => value !== null)
      .map(([name, value]) => `--${name}=${value}`);
    this.#child = spawn('etcd', flags, {
      stdio: 'ignore',
      env: { ...process.env, ETCD_UNSUPPORTED_ARCH: process.arch },
    });
    await this.#untilServing();
  }

  #tlsFlags(): Record<string, string> {
    if (this.#tls === null) return {};
    const { ca, server } = this.#tls;
    return { 'cert-file': server.cert, 'key-file': server.key, 'trusted-ca-file': ca, 'client-cert-auth': 'true' };
  }

  async kill(): Promise<void> {
    const child = this.#child;
    if (child === null || child.exitCode !== null || child.signalCode !== null) return;
    child.kill('SIGKILL');
    await once(child, 'exit');
  }

  async close(): Promise<void> {
    await this.kill();
    rmSync(this.#directory, { recursive: true, force: true });
  }

  async #untilServing(): Promise<void> {
    const files = { ca: null, cert: null, key: null, username: null, passwordFile: null };
    const tls = this.#tls === null ? files : { ...files, ca: this.#tls.ca, ...this.#tls.client };
    const store = openEtcdStore({ endpoints: [this.endpoint], ...(await readStoreFiles(tls)) });
    const deadlineMs = systemClock.now() + startTimeoutMs;
    try {
      for (;;) {
        const failure = await store.get('ready', { timeoutMs: 1_000 }).then(
          () => null,
          (error: unknown) => error,
        );
        // Whom it lets do what is for the test to say.
        if (failure === null || isBasaltError(failure, 'STORE_DENIED')) return;
        if (systemClock.now() > deadlineMs || this.#child?.exitCode !== null)
          throw new Error('etcd did not start', { cause: failure });
      }
    } finally {
      await store.close();
    }
  }
}
