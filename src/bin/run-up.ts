// SPDX-License-Identifier: Apache-2.0
//
// Everything of a one-machine cluster as child processes: store first, then the API server and the nodes. A child that
// dies is started again after a growing pause.

import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { ClusterKeyFile } from '../agents/cluster-key-file.js';
import { NodeKeyFile } from '../agents/node-key-file.js';
import { Backoff } from '../agents/signal.js';
import type { DaemonOutput } from '../cli/launch.js';
import { systemClock } from '../env/clock.js';
import { systemRandom } from '../env/random.js';
import type { CompiledConfig, CompiledNode } from '../model/config.js';
import { daemonLog, type PinoLogger, runDaemon, supervisedByStdin } from './daemon.js';

export function runUp(config: CompiledConfig, configPath: string, output: DaemonOutput): Promise<number> {
  const log = daemonLog(config, 'basalt-up');
  return runDaemon(log, output, async (signal) => {
    const key = new ClusterKeyFile(config.clusterKey.file, systemRandom);
    if (await key.create()) log.info({ file: key.path }, 'made a cluster key; keep a copy where the disks are not');
    const nodeKey = new NodeKeyFile(config.nodeKey.file, systemRandom);
    if (await nodeKey.create()) log.info({ file: nodeKey.path }, 'made a node key');
    const common = ['--config', configPath, '--json'];
    const store = new Child(log, 'store', ['store', ...common]);
    const nodeOf = (node: CompiledNode): Child =>
      new Child(log, `node ${node.name}`, ['node', '--name', node.name, ...common]);
    // Those that only drive volumes end first: what they flush last needs the disks.
    const drivers = config.nodes.filter((node) => !node.roles.includes('disk')).map(nodeOf);
    const disks = config.nodes.filter((node) => node.roles.includes('disk')).map(nodeOf);
    const others = [new Child(log, 'api', ['api', ...common]), ...drivers, ...disks];
    // With a store of its own choice (etcd), the cluster brings none.
    const all = [store, ...others];
    // However this process ends, nothing of the cluster stays: a second signal ends the children at once too.
    process.once('exit', () => {
      for (const child of all) child.kill();
    });
    const own = config.store.endpoints.includes(config.store.listen);
    try {
      if (own) await store.start(signal);
      await Promise.all(others.map((child) => child.start(signal)));
    } catch (error) {
      // A cluster that did not come up leaves nothing behind.
      await Promise.all(others.map((child) => child.stop()));
      await store.stop();
      throw error;
    }
    return {
      ready: {
        ready: 'up',
        api: `http://${config.api.listen}`,
        store: config.store.endpoints,
        nodes: config.nodes.map((node) => node.name),
      },
      text: `cluster ready; API at http://${config.api.listen}, nodes ${config.nodes.map((node) => node.name).join(', ') || 'none'}`,
      drain: async () => {
        await Promise.all(drivers.map((child) => child.stop()));
        await Promise.all(others.map((child) => child.stop()));
      },
      close: async () => {
        if (own) await store.stop();
      },
    };
  });
}

class Child {
  readonly #log: PinoLogger;
  readonly #name: string;
  readonly #args: readonly string[];
  readonly #stop = new AbortController();
  readonly #backoff = new Backoff({ clock: systemClock, minMs: 200, maxMs: 10_000 });
  #process: ChildProcess | null = null;
  #ended: Promise<void> = Promise.resolve();

  constructor(log: PinoLogger, name: string, args: readonly string[]) {
    this.#log = log;
    this.#name = name;
    this.#args = args;
  }

  /** Resolves when the child said that it is ready; rejects when its first run ends before that. */
  async start(signal: AbortSignal): Promise<void> {
    const ready = deferred();
    const aborted = (): void => ready.reject(signal.reason);
    signal.addEventListener('abort', aborted, { once: true });
    this.#ended = this.#supervise(ready);
    try {
      await ready.promise;
    } catch (error) {
      await this.stop();
      throw error;
    } finally {
      signal.removeEventListener('abort', aborted);
    }
  }

  kill(): void {
    this.#process?.kill('SIGKILL');
  }

  async stop(): Promise<void> {
    this.#stop.abort(new Error('stopped'));
    this.#process?.kill('SIGTERM');
    await this.#ended;
  }

  async #supervise(ready: { resolve: () => void; reject: (error: Error) => void }): Promise<void> {
    let everReady = false;
    while (!this.#stop.signal.aborted) {
      const code = await this.#run(() => {
        everReady = true;
        this.#backoff.reset();
        ready.resolve();
      });
      if (this.#stop.signal.aborted) return;
      if (!everReady) {
        ready.reject(new Error(`${this.#name} ended with ${code} before it was ready; see its messages above`));
        return;
      }
      this.#log.warn({ child: this.#name, code }, 'child ended; starting it again');
      await this.#backoff.wait(this.#stop.signal).catch(() => {});
    }
  }

  #run(onReady: () => void): Promise<string> {
    const script = process.argv[1] ?? '';
    // In a group of its own: a terminal's Ctrl-C reaches the supervisor, which hands over in order. One that was killed
    // cannot: the child then sees the end of its standard input, and ends as on SIGTERM.
    const child = spawn(process.execPath, [...process.execArgv, script, ...this.#args], {
      stdio: ['pipe', 'pipe', 'inherit'],
      detached: true,
      env: { ...process.env, [supervisedByStdin]: '1' },
    });
    child.stdin.on('error', () => {});
    this.#process = child;
    const lines = createInterface({ input: child.stdout });
    lines.once('line', onReady);
    return new Promise((resolve) => {
      child.once('error', (error) => resolve(error.message));
      child.once('exit', (code, signal) => resolve(signal ?? `exit code ${code}`));
    });
  }
}

function deferred(): { promise: Promise<void>; resolve: () => void; reject: (error: Error) => void } {
  let resolve: () => void = () => {};
  let reject: (error: Error) => void = () => {};
  const promise = new Promise<void>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
  });
  return { promise, resolve, reject };
}
