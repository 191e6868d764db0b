// SPDX-License-Identifier: Apache-2.0
// One emulated Linux machine that runs one shell script (after init.ts's functions) and reports its exit code.
// Owner: the test that booted it; `await using` or stop() ends it on every path. The emulator dies with this process
// (parent-death signal) and is only ever killed by its own pid.
// Invariants:  - a result exists only when the guest itself reported an exit code
//              - nothing is retried; the whole console log is kept in .cache/lab/logs/<name>.log

import { type ChildProcess, spawn } from 'node:child_process';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { LabError } from './errors.js';
import { defaultCacheDir, ensureImage, type GuestSystem, plainSystem } from './image.js';
import { scriptPrelude } from './init.js';
import { LineLog, type WaitOptions } from './line-log.js';
import { type GuestDevice, type GuestNetwork, qemuArguments } from './qemu-arguments.js';
import { diedOfEmulator, parseControlExit, parseDmesg, parseGuestExit, parseValues } from './serial.js';

export interface GuestOptions {
  /** Names the log file and the guest in error messages. */
  readonly name: string;
  /** Shell script; see init.ts for the functions it may use. */
  readonly script: string;
  /** Kernel and equipment; the image is built when the cache lacks it. @default plainSystem */
  readonly system?: GuestSystem;
  /** From start to exit report. @default 120_000 */
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
  /** @default 768 */
  readonly memoryMib?: number;
  /** @default 2 */
  readonly cpus?: number;
  /** @default behind the emulator, without forwarded ports */
  readonly network?: GuestNetwork;
  readonly devices?: readonly GuestDevice[];
  /** Put in front of the emulator's command line, for instance to enter a network namespace. */
  readonly prefix?: readonly string[];
}

export interface GuestResult {
  readonly rc: number;
  /** The whole console. */
  readonly log: string;
  /** What the script handed back with `value` and `value_file`. */
  readonly values: ReadonlyMap<string, string>;
  /** Last kernel messages; only when rc is not 0. */
  readonly dmesg: readonly string[];
  readonly durationMs: number;
}

export class Guest {
  readonly name: string;
  readonly console = new LineLog();
  readonly control = new LineLog();
  readonly pid: number;
  private readonly startedMs_ = performance.now();
  private readonly result_: Promise<GuestResult>;
  private readonly stopping_ = new AbortController();
  private killedWhy_: LabError | null = null;

  private constructor(
    private readonly child_: ChildProcess,
    private readonly line_: ControlLine,
    private readonly workDir_: string,
    options: GuestOptions,
  ) {
    this.name = options.name;
    this.pid = child_.pid ?? 0;
    this.result_ = this.run(options);
    // A test that fails earlier never looks at the result; that must not count as an unhandled rejection.
    this.result_.catch(() => undefined);
  }

  /** Resolves when the emulator runs; the guest is still booting then. */
  static async boot(options: GuestOptions): Promise<Guest> {
    const image = await ensureImage(options.system ?? plainSystem);
    const workDir = await mkdtemp(join(tmpdir(), 'basalt-guest-'));
    const scriptPath = join(workDir, 'script.sh');
    await writeFile(scriptPath, `${scriptPrelude}\n${options.script}\n`);
    const line = await ControlLine.listen(join(workDir, 'control.sock'));
    const args = qemuArguments({
      kernelPath: image.kernelPath,
      initrdPath: image.initrdPath,
      scriptPath,
      controlSocketPath: line.path,
      memoryMib: options.memoryMib ?? 768,
      cpus: options.cpus ?? 2,
      network: options.network ?? { kind: 'user', forwards: [] },
      devices: options.devices ?? [],
    });
    const command = [...(options.prefix ?? []), 'qemu-system-x86_64', ...args];
    const child = spawn('setpriv', ['--pdeathsig', 'KILL', ...command], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    return new Guest(child, line, workDir, options);
  }

  /** The first console line that matches, past or future. */
  waitForLine(pattern: RegExp, options: WaitOptions = {}): Promise<RegExpExecArray> {
    return this.console.waitFor(pattern, options);
  }

  /** The script's `mark NAME`. */
  async waitForMark(name: string, options: WaitOptions = {}): Promise<void> {
    await this.control.waitFor(new RegExp(`^MARK ${name.replace(/[^\w-]/g, '\\$&')}$`), options);
  }

  /** Lets the script's `wait_go NAME` go on; may be called before the script waits. */
  go(name: string): void {
    this.line_.send(`GO ${name}\n`);
  }

  /** Resolves when the guest reported its exit code, whatever it is. @throws {LabError} when it never did */
  result(): Promise<GuestResult> {
    return this.result_;
  }

  /** What the script handed back so far; also when the guest was killed before it reported its exit code. */
  get values(): ReadonlyMap<string, string> {
    return parseValues(this.control.lines);
  }

  /** The guest loses power: what it had not written to a disk that outlives it is gone. */
  crash(): Promise<void> {
    return this.stop();
  }

  /** Kills the guest if it still runs and waits until everything of it is gone. Safe to call twice. */
  async stop(): Promise<void> {
    this.stopping_.abort();
    await this.result_.catch(() => undefined);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop();
  }

  private async run(options: GuestOptions): Promise<GuestResult> {
    const timeoutMs = options.timeoutMs ?? 120_000;
    const ended = this.connect();
    const kill = (why: LabError): void => {
      this.killedWhy_ ??= why;
      this.child_.kill('SIGKILL');
    };
    const timer = setTimeout(() => {
      kill(new LabError('LAB_GUEST_DEADLINE', `guest ${this.name} still ran after ${timeoutMs} ms, killed`));
    }, timeoutMs);
    const aborts = AbortSignal.any([this.stopping_.signal, ...(options.signal === undefined ? [] : [options.signal])]);
    const aborted = (): void => kill(new LabError('LAB_ABORTED', `guest ${this.name} was stopped`));
    aborts.addEventListener('abort', aborted, { once: true });
    if (aborts.aborted) {
      aborted();
    }
    try {
      return this.judge(await ended);
    } finally {
      clearTimeout(timer);
      aborts.removeEventListener('abort', aborted);
      await this.cleanUp();
    }
  }

  /** Resolves with the emulator's error output once it is gone and all its output is read. */
  private async connect(): Promise<string> {
    const stderr: Buffer[] = [];
    this.child_.stdout?.on('data', (chunk: Buffer) => this.console.push(chunk));
    this.child_.stderr?.on('data', (chunk: Buffer) => stderr.push(chunk));
    this.line_.onData((chunk) => this.control.push(chunk));
    await new Promise<void>((resolve, reject) => {
      this.child_.once('error', reject);
      this.child_.once('close', () => resolve());
    });
    await this.line_.ended();
    return Buffer.concat(stderr).toString('utf8').trim();
  }

  private judge(emulatorErrors: string): GuestResult {
    const rc = parseGuestExit(this.console.lines) ?? parseControlExit(this.control.lines);
    if (rc === null) {
      const why = this.killedWhy_ ?? new LabError('LAB_GUEST_LOST', `guest ${this.name} ended without an exit report`);
      throw new LabError(
        why.code,
        `${why.message.replace(/^\w+: /, '')}\n${emulatorErrors}\nits console ends with\n${this.console.tail(60)}`,
      );
    }
    return {
      rc,
      log: this.console.text,
      values: parseValues(this.control.lines),
      dmesg: parseDmesg(this.console.lines),
      durationMs: Math.round(performance.now() - this.startedMs_),
    };
  }

  private async cleanUp(): Promise<void> {
    const over = new LabError(
      this.killedWhy_?.code ?? 'LAB_GUEST_LOST',
      `guest ${this.name} is over; its console ends with\n${this.console.tail(40)}`,
    );
    this.console.close(over);
    this.control.close(over);
    await this.line_.close();
    const logDir = join(defaultCacheDir(), 'logs');
    await mkdir(logDir, { recursive: true });
    await writeFile(join(logDir, `${this.name}.log`), `${this.console.text}\n`);
    await rm(this.workDir_, { recursive: true, force: true });
  }
}

const bootsMax = 3;

/** Boots, runs the script to its end, hands back the result. A kernel that dies of the emulator is booted again, and says so. */
export async function runGuest(options: GuestOptions): Promise<GuestResult> {
  for (let boot = 1; ; boot += 1) {
    const guest = await Guest.boot(options);
    try {
      return await guest.result();
    } catch (error) {
      if (boot === bootsMax || !diedOfEmulator(guest.console.lines)) {
        throw error;
      }
      process.stderr.write(`guest ${guest.name}: the emulator broke the kernel's boot (int3); booting again\n`);
    } finally {
      await guest.stop();
    }
  }
}

/** The machine's end of ttyS1. Listens before the emulator starts, so there is nothing to race with. */
class ControlLine {
  private socket_: Socket | null = null;
  private waiting_ = '';
  private receive_: (chunk: Buffer) => void = () => undefined;

  private constructor(
    private readonly server_: Server,
    readonly path: string,
  ) {
    server_.once('connection', (socket) => {
      this.socket_ = socket;
      socket.on('data', (chunk: Buffer) => this.receive_(chunk));
      socket.on('error', () => undefined); // the emulator was killed; its end is seen by the exit of the process
      socket.write(this.waiting_);
    });
  }

  static async listen(path: string): Promise<ControlLine> {
    const server = createServer();
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, () => resolve());
    });
    return new ControlLine(server, path);
  }

  onData(receive: (chunk: Buffer) => void): void {
    this.receive_ = receive;
  }

  send(text: string): void {
    if (this.socket_ === null) {
      this.waiting_ += text;
    } else {
      this.socket_.write(text);
    }
  }

  /** Resolves when everything the guest wrote has been read. */
  async ended(): Promise<void> {
    const socket = this.socket_;
    if (socket === null || socket.closed) {
      return;
    }
    await new Promise<void>((resolve) => socket.once('close', () => resolve()));
  }

  async close(): Promise<void> {
    this.socket_?.destroy();
    await new Promise<void>((resolve) => this.server_.close(() => resolve()));
  }
}
