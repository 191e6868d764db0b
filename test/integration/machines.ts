// SPDX-License-Identifier: Apache-2.0
//
// Machines that share a network, as network namespaces on one bridge: each has an address of 10.77.0.0/24 and a loopback
// of its own. Whoever names 127.0.0.1 to another one is found out.
// Owner: the test that made them; the namespaces go with their holders, which die with this process.

import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { readlinkSync } from 'node:fs';
import { systemClock } from '../../src/env/clock.js';
import { mustRun } from '../lab/command.js';

const isRoot = process.getuid?.() === 0;
/** An ordinary user has a user namespace around it, where the kernel lets him. */
const own = isRoot ? ['-n'] : ['-Urn'];
export const bridgeName = 'machines0';

/** Empty, or why there can be none, for the name of a test that is skipped. */
export const machinesMissing = ((): string => {
  const tried = spawnSync('unshare', [...own, 'ip', 'link', 'add', bridgeName, 'type', 'bridge'], { encoding: 'utf8' });
  if (tried.status === 0) return '';
  const why = tried.error?.message ?? tried.stderr.trim().split('\n').at(-1);
  return ` (skipped: no network namespaces with a bridge here: ${why})`;
})();

export class Machines {
  readonly #hub: ChildProcess;
  readonly #holders = new Map<string, { readonly holder: ChildProcess; readonly address: string }>();

  private constructor(hub: ChildProcess) {
    this.#hub = hub;
  }

  static async make(names: readonly string[]): Promise<Machines> {
    const machines = new Machines(await hold(['unshare', ...own]));
    try {
      await machines.#inHub(
        `ip link set lo up && ip link add ${bridgeName} type bridge && ip link set ${bridgeName} up`,
      );
      for (const name of names) await machines.#add(name);
      return machines;
    } catch (error) {
      machines.end();
      throw error;
    }
  }

  address(name: string): string {
    return this.#get(name).address;
  }

  /** What stands before a command line that runs there. */
  prefix(name: string): string[] {
    return enter(this.#get(name).holder);
  }

  /** Nothing reaches it, nothing leaves it, and nobody is told. */
  cut(name: string): Promise<void> {
    return this.#inHub(`ip link set ${linkOf(this.#get(name).address)} down`);
  }

  /** What stands before a command line that hears all that machines say to one another: on `bridgeName`. */
  get hubPrefix(): string[] {
    return enter(this.#hub);
  }

  /** What runs on them must have ended. */
  end(): void {
    for (const { holder } of this.#holders.values()) holder.kill('SIGKILL');
    this.#hub.kill('SIGKILL');
  }

  async #add(name: string): Promise<void> {
    const address = `10.77.0.${this.#holders.size + 1}`;
    const holder = await hold([...enter(this.#hub), 'unshare', '-n']);
    this.#holders.set(name, { holder, address });
    const link = linkOf(address);
    await this.#inHub(
      `ip link add ${link} type veth peer name eth0 netns ${holder.pid} && ip link set ${link} master ${bridgeName} up`,
    );
    await run(holder, `ip link set lo up && ip addr add ${address}/24 dev eth0 && ip link set eth0 up`);
  }

  #get(name: string) {
    const found = this.#holders.get(name);
    if (found === undefined) throw new Error(`${name} is no machine here`);
    return found;
  }

  #inHub(script: string): Promise<void> {
    return run(this.#hub, script);
  }
}

function linkOf(address: string): string {
  return `to${address.split('.').at(-1)}`;
}

function enter(holder: ChildProcess): string[] {
  return ['nsenter', '-t', `${holder.pid}`, ...(isRoot ? ['-n'] : ['-U', '-n', '--preserve-credentials'])];
}

async function run(holder: ChildProcess, script: string): Promise<void> {
  const [program = '', ...args] = [...enter(holder), 'sh', '-c', script];
  await mustRun(program, args);
}

/** A process in a new network namespace that does nothing. */
async function hold(command: readonly string[]): Promise<ChildProcess> {
  const outside = readlinkSync('/proc/self/ns/net');
  const dying = ['--pdeathsig', 'KILL', ...command, 'setpriv', '--pdeathsig', 'KILL', 'sleep', 'infinity'];
  const holder = spawn('setpriv', dying, { stdio: 'ignore', detached: true });
  const endMs = systemClock.now() + 10_000;
  // `sleep` runs when it has its namespace.
  while (programOf(holder.pid) !== 'sleep' || namespaceOf(holder.pid) === outside) {
    if (systemClock.now() > endMs || holder.exitCode !== null) throw new Error('no network namespace could be made');
    await systemClock.sleep(10);
  }
  return holder;
}

function namespaceOf(pid: number | undefined): string | null {
  return linkTo(`/proc/${pid}/ns/net`);
}

function programOf(pid: number | undefined): string | undefined {
  return linkTo(`/proc/${pid}/exe`)?.split('/').at(-1);
}

function linkTo(path: string): string | null {
  try {
    return readlinkSync(path);
  } catch {
    return null;
  }
}
