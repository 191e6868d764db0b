// SPDX-License-Identifier: Apache-2.0
// A network of the run's own: every daemon and client has a network namespace, a link to one bridge, and an address of
// 127.77.0.0/24 (the daemons listen on loopback addresses only, so such addresses are routed here like ordinary ones).
// Cuts are silent, as on a real network: packets vanish, nobody is told.
// Owner: the runner, which must itself be in a fresh namespace (scripts/lib/own-network.sh). Everything vanishes with the
// processes that hold the namespaces, which die with the runner.

import { type ChildProcess, spawn } from 'node:child_process';
import { readlinkSync } from 'node:fs';
import type { Place } from '../../scripts/demo/cluster.js';
import { systemClock } from '../../src/env/clock.js';
import { mustRun, runCommand } from '../lab/command.js';

const bridge = 'chaos0';
/** Where the process that made the network is reached. */
export const hubAddress = '127.77.0.254';

interface Member {
  readonly name: string;
  readonly index: number;
  readonly address: string;
  readonly holder: ChildProcess;
}

export class ChaosNetwork {
  readonly #members = new Map<string, Member>();
  readonly #taps = new Map<string, string>();

  private constructor() {}

  /** Whether this process is in a network namespace of its own, as scripts/lib/own-network.sh arranges where it may. */
  static get available(): boolean {
    return process.env['BASALT_NETWORK'] === 'own';
  }

  static async make(names: readonly string[]): Promise<ChaosNetwork> {
    const network = new ChaosNetwork();
    await sh('ip link set lo up && echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet');
    await sh(`ip link add ${bridge} type bridge && ip link set ${bridge} up && ${localAddress(hubAddress, bridge)}`);
    for (const [at, name] of names.entries()) await network.#add(name, at + 1);
    return network;
  }

  place(name: string): Place {
    const { address, holder } = this.#member(name);
    return { address, prefix: ['nsenter', '-t', `${holder.pid}`, '-n'] };
  }

  /** Nothing reaches `name`, nothing leaves it. */
  async cut(name: string): Promise<() => Promise<void>> {
    const link = this.#taps.get(name) ?? linkOf(this.#member(name).index);
    await sh(`ip link set ${link} down`);
    return () => sh(`ip link set ${link} up`);
  }

  /** What `from` sends to `to` vanishes; the other direction stays. */
  async cutOneWay(from: string, to: readonly string[]): Promise<() => Promise<void>> {
    const routes = to.map((name) => `blackhole ${this.#member(name).address}/32`);
    for (const route of routes) await this.#inside(from, `ip route add ${route}`);
    return async () => {
      for (const route of routes) await this.#inside(from, `ip route del ${route}`);
    };
  }

  /** Delay and loss on what `name` sends; null when this kernel cannot. */
  async slow(name: string, how: string): Promise<(() => Promise<void>) | null> {
    const device = `eth${this.#member(name).index}`;
    const made = await runCommand('sh', ['-c', this.#command(name, `tc qdisc add dev ${device} root netem ${how}`)]);
    if (made.exitCode !== 0) return null;
    return () => this.#inside(name, `tc qdisc del dev ${device} root`);
  }

  /** A tap device on the bridge for an emulated host, which has this address then. `cut` knows it by name. */
  async addTap(name: string): Promise<{ device: string; address: string; mac: string }> {
    const index = 100 + this.#taps.size;
    const device = `tap${index}`;
    this.#taps.set(name, device);
    await sh(`ip tuntap add ${device} mode tap && ip link set ${device} master ${bridge} up`);
    return { device, address: `127.77.0.${index}`, mac: `52:54:00:77:00:${index.toString(16)}` };
  }

  killAllNow(): void {
    for (const { holder } of this.#members.values()) holder.kill('SIGKILL');
  }

  async #add(name: string, index: number): Promise<void> {
    const holder = spawn('setpriv', ['--pdeathsig', 'KILL', 'unshare', '-n', 'sleep', 'infinity'], {
      stdio: 'ignore',
      detached: true,
    });
    const address = `127.77.0.${index}`;
    this.#members.set(name, { name, index, address, holder });
    await untilInOwnNamespace(holder);
    const [link, device] = [linkOf(index), `eth${index}`];
    await sh(
      `ip link add ${link} type veth peer name ${device} && ip link set ${link} master ${bridge} up &&` +
        ` ip link set ${device} netns ${holder.pid}`,
    );
    await this.#inside(name, `ip link set lo up && ip link set ${device} up && ${localAddress(address, device)}`);
  }

  #member(name: string): Member {
    const found = this.#members.get(name);
    if (found === undefined) throw new Error(`${name} is not in the network`);
    return found;
  }

  #command(name: string, script: string): string {
    return `nsenter -t ${this.#member(name).holder.pid} -n sh -c '${script}'`;
  }

  #inside(name: string, script: string): Promise<void> {
    return sh(this.#command(name, script));
  }
}

/** Gives a device a loopback address that is reached through it. */
function localAddress(address: string, device: string): string {
  const settings = ['all', device].map((at) => `echo 1 >/proc/sys/net/ipv4/conf/${at}/route_localnet`);
  const filters = ['all', device].map((at) => `echo 0 >/proc/sys/net/ipv4/conf/${at}/rp_filter`);
  const own = [
    'ip addr del 127.0.0.1/8 dev lo 2>/dev/null; ip addr add 127.0.0.1/32 dev lo',
    `ip addr add ${address}/24 dev ${device}`,
  ];
  return `{ ${[...settings, ...filters, ...own].join('; ')}; }`;
}

function linkOf(index: number): string {
  return `link${index}`;
}

async function sh(script: string): Promise<void> {
  await mustRun('sh', ['-c', script]);
}

async function untilInOwnNamespace(holder: ChildProcess): Promise<void> {
  const own = readlinkSync('/proc/self/ns/net');
  const end = systemClock.now() + 10_000;
  while (namespaceOf(holder.pid) === own || namespaceOf(holder.pid) === null) {
    if (systemClock.now() > end || holder.exitCode !== null) throw new Error('no network namespace could be made');
    await systemClock.sleep(10);
  }
}

function namespaceOf(pid: number | undefined): string | null {
  try {
    return readlinkSync(`/proc/${pid}/ns/net`);
  } catch {
    return null;
  }
}
