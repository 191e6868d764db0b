// SPDX-License-Identifier: Apache-2.0
// A stand-alone `engined` process for the guest suites: started, spoken to over its JSON-RPC socket, killed by pid.
// Owner: the test that started it; stop() on every path. It dies with this process (parent-death signal).

import { type ChildProcess, spawn } from 'node:child_process';
import { access, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect, createServer, type Socket, type TcpNetConnectOpts } from 'node:net';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { checkoutDir, defaultCacheDir } from '../lab/image.js';
import { LineLog } from '../lab/line-log.js';

/** BASALT_ENGINED names another build, for instance one under a sanitizer. */
export const enginedPath = resolve(checkoutDir(), process.env['BASALT_ENGINED'] ?? 'build/release/engined');

const startMsMax = 20_000;
const callMsMax = 20_000;

export class RpcError extends Error {
  constructor(
    readonly method: string,
    readonly rpcCode: number,
    message: string,
  ) {
    super(`${method}: ${message} (${rpcCode})`);
    this.name = 'RpcError';
  }
}

interface RpcReply {
  readonly id?: number;
  readonly result?: unknown;
  readonly error?: { readonly code: number; readonly message: string };
}

export class Engined {
  readonly log = new LineLog();
  readonly pid: number;
  private readonly exited_: Promise<void>;

  private constructor(
    readonly name: string,
    private readonly child_: ChildProcess,
    private readonly workDir_: string,
    private readonly socketPath_: string,
  ) {
    this.pid = child_.pid ?? 0;
    const receive = (chunk: Buffer): void => this.log.push(chunk);
    child_.stdout?.on('data', receive);
    child_.stderr?.on('data', receive);
    this.exited_ = new Promise((resolve) => {
      const over = (why: string): void => {
        this.log.close(new Error(`engined ${name} is over (${why})\n${this.log.tail(40)}`));
        resolve();
      };
      child_.once('error', (error) => over(error.message));
      child_.once('close', (code, signal) => over(`exit code ${code}, signal ${signal}`));
    });
  }

  /** Resolves when the RPC socket answers. @param args further arguments of the program */
  static async start(name: string, args: readonly string[] = []): Promise<Engined> {
    await access(enginedPath).catch(() => {
      throw new Error(
        `${enginedPath} is missing: cmake -G Ninja -B build/release -S . && ninja -C build/release engined`,
      );
    });
    const workDir = await mkdtemp(join(tmpdir(), 'basalt-engined-'));
    const socketPath = join(workDir, 'rpc.sock');
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', enginedPath, '--rpc', `unix:${socketPath}`, ...args], {
      cwd: workDir,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const engined = new Engined(name, child, workDir, socketPath);
    try {
      await engined.ready();
    } catch (error) {
      await engined.stop();
      throw error;
    }
    return engined;
  }

  /** One JSON-RPC call on a connection of its own. @throws {RpcError} when the engine refuses */
  async call(method: string, params: Record<string, unknown> = {}): Promise<unknown> {
    return callRpc(this.socketPath_, method, params, () => `; engined says\n${this.log.tail(20)}`);
  }

  /** SIGKILL, as a power cut would do it. */
  async kill(): Promise<void> {
    this.child_.kill('SIGKILL');
    await this.exited_;
  }

  async stop(): Promise<void> {
    await this.kill();
    const logDir = join(defaultCacheDir(), 'logs');
    await mkdir(logDir, { recursive: true });
    await writeFile(join(logDir, `${this.name}-engined.log`), `${this.log.text}\n`);
    await rm(this.workDir_, { recursive: true, force: true });
  }

  private async ready(): Promise<void> {
    const deadlineMs = performance.now() + startMsMax;
    for (;;) {
      const socket = await tryConnect(this.socketPath_);
      if (socket !== null) {
        socket.destroy();
        return;
      }
      if (this.child_.exitCode !== null || this.child_.signalCode !== null || performance.now() > deadlineMs) {
        throw new Error(`engined ${this.name} did not open ${this.socketPath_}\n${this.log.tail(40)}`);
      }
      await delay(20);
    }
  }
}

function tryConnect(path: string): Promise<Socket | null> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => resolve(socket));
    socket.once('error', () => resolve(null));
  });
}

/** The path of an engine's socket, or where a forwarder to it listens. */
export type RpcPlace = string | TcpNetConnectOpts;

/** One JSON-RPC call on a connection of its own. @throws {RpcError} when the engine refuses */
export async function callRpc(
  place: RpcPlace,
  method: string,
  params: Record<string, unknown>,
  context: () => string = () => '',
): Promise<unknown> {
  const request = JSON.stringify({ jsonrpc: '2.0', id: 1, method, params });
  const reply = await exchange(place, request, `${method}${context()}`);
  if (reply.error !== undefined) {
    throw new RpcError(method, reply.error.code, reply.error.message);
  }
  return reply.result;
}

/** One request, one reply. A reply is whole when its text parses: the stream has no other frame. */
function exchange(place: RpcPlace, request: string, what: string): Promise<RpcReply> {
  return new Promise((resolve, reject) => {
    const socket = typeof place === 'string' ? connect(place) : connect(place);
    let text = '';
    const fail = (why: string): void => {
      socket.destroy();
      reject(new Error(`${why} on ${what}`));
    };
    socket.setTimeout(callMsMax, () => fail(`no reply within ${callMsMax} ms`));
    socket.once('error', (error) => fail(error.message));
    socket.once('close', () => fail('the connection closed before a reply'));
    socket.on('data', (chunk: Buffer) => {
      text += chunk.toString('utf8');
      try {
        resolve(JSON.parse(text) as RpcReply);
        socket.destroy();
      } catch {
        // not whole yet
      }
    });
    socket.write(`${request}\n`);
  });
}

/** A port of 127.0.0.1 that was free a moment ago. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(0, '127.0.0.1', () => resolve());
  });
  const address = server.address();
  await new Promise<void>((resolve) => server.close(() => resolve()));
  if (address === null || typeof address === 'string') {
    throw new Error('no port');
  }
  return address.port;
}

export interface MallocTargetOptions {
  readonly nqn: string;
  readonly ports: readonly number[];
  readonly sizeMib: number;
}

export function listenAddress(port: number): Record<string, string> {
  return { trtype: 'TCP', adrfam: 'IPv4', traddr: '127.0.0.1', trsvcid: String(port) };
}

/** A malloc namespace behind one listener per port: the first optimized, the others inaccessible. */
export async function serveMalloc(engined: Engined, options: MallocTargetOptions): Promise<void> {
  const { nqn, ports, sizeMib } = options;
  const blockSize = 4096;
  await engined.call('bdev_malloc_create', {
    name: 'malloc0',
    num_blocks: (sizeMib * 1024 * 1024) / blockSize,
    block_size: blockSize,
  });
  await engined.call('nvmf_create_transport', { trtype: 'TCP' });
  await engined.call('nvmf_create_subsystem', {
    nqn,
    allow_any_host: true,
    serial_number: 'BASALTLAB0000001',
    model_number: 'Basalt lab',
    ana_reporting: true,
  });
  await engined.call('nvmf_subsystem_add_ns', { nqn, namespace: { bdev_name: 'malloc0', nsid: 1 } });
  for (const [index, port] of ports.entries()) {
    await engined.call('nvmf_subsystem_add_listener', { nqn, listen_address: listenAddress(port) });
    await setAnaState(engined, nqn, port, index === 0 ? 'optimized' : 'inaccessible');
  }
}

export async function setAnaState(
  engined: Engined,
  nqn: string,
  port: number,
  anaState: 'optimized' | 'non_optimized' | 'inaccessible',
): Promise<void> {
  await engined.call('nvmf_subsystem_listener_set_ana_state', {
    nqn,
    listen_address: listenAddress(port),
    ana_state: anaState,
  });
}
