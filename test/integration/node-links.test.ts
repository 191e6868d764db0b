// SPDX-License-Identifier: Apache-2.0
//
// Goal: how many connections nodes keep with each other does not follow from how many volumes there are, also after
// daemons were killed. Method: a cluster of processes with a node key, as clusters have them; established connections are
// what the kernel lists.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { commandPath } from '../../scripts/demo/command-path.js';
import { RunningCluster, volumeName } from './running-cluster.js';

const MiB = 1024 * 1024;
const diskNodes = ['disk-1', 'disk-2', 'disk-3'];
const controllers = ['controller-1', 'controller-2'];
/** One for the admin queue, four for I/O. */
const connectionsOfLink = 5;
const established = '01';

/** By port, how many connections go there from this machine. */
function connectionsTo(ports: readonly number[]): Record<number, number> {
  const counts: Record<number, number> = Object.fromEntries(ports.map((port) => [port, 0]));
  for (const line of readFileSync('/proc/net/tcp', 'utf8').split('\n').slice(1)) {
    const [, , remote = '', state] = line.trim().split(/\s+/);
    const port = Number.parseInt(remote.split(':')[1] ?? '', 16);
    if (state === established && counts[port] !== undefined) counts[port] += 1;
  }
  return counts;
}

describe('connections between the nodes of a cluster of processes', { timeout: 180_000 }, () => {
  let running: RunningCluster;
  let keyFolder: string;
  const names = [volumeName];

  beforeAll(async () => {
    keyFolder = mkdtempSync('/var/tmp/basalt-keys-');
    const nodeKey = join(keyFolder, 'node.key');
    const made = spawnSync(process.execPath, [commandPath(), 'key', 'create', '--node', '--file', nodeKey]);
    expect(made.status, String(made.stderr)).toBe(0);
    running = await RunningCluster.start({ nodeArguments: ['--node-key-file', nodeKey] });
  }, 120_000);
  afterAll(async () => {
    await running?.stop();
    rmSync(keyFolder, { recursive: true, force: true });
  }, 60_000);

  async function ports(): Promise<number[]> {
    const { nodes } = await running.cluster.api.status();
    return diskNodes.map((name) => Number(nodes.find((node) => node.name === name)?.internal?.trsvcid));
  }

  async function make(count: number): Promise<void> {
    const made = Array.from({ length: count }, (_, index) => `more-${names.length + index}`);
    for (const name of made)
      await running.cluster.api.createVolume({ name, sizeBytes: 6 * MiB, copies: 2, legs: 3, controllers });
    names.push(...made);
    await redundant();
  }

  async function redundant(): Promise<void> {
    for (const name of names)
      await running.cluster.waitForVolume(name, 'redundant', 60_000, (volume) => volume.health === 'redundant');
  }

  /** Who drives volumes: each of them has a link with each disk node. */
  async function driving(): Promise<number> {
    const volumes = await running.cluster.api.volumes();
    return new Set(volumes.map((volume) => volume.controller)).size;
  }

  async function expectLinksOnly(): Promise<void> {
    const wanted = (await driving()) * connectionsOfLink;
    const at = await ports();
    // What was ended is closed a moment later.
    await expect
      .poll(() => connectionsTo(at), { timeout: 10_000 })
      .toEqual(Object.fromEntries(at.map((port) => [port, wanted])));
  }

  it('is told by the nodes that they have links', async () => {
    const { nodes } = await running.cluster.api.status();
    for (const { name, link } of nodes) {
      if (diskNodes.includes(name)) expect(link).toMatch(/:node-link$/);
      else expect(link).toBeNull();
    }
  });

  it('are as many with ten volumes as with one', async () => {
    expect(await driving()).toBe(1);
    await expectLinksOnly();
    await make(9);
    expect(await driving()).toBe(1);
    await expectLinksOnly();
  });

  it('are as many after a disk node was killed and is back', async () => {
    await running.cluster.daemon('disk-1').kill();
    for (const name of names) {
      await running.cluster.waitForVolume(name, 'without disk-1', 60_000, (volume) =>
        volume.legs.flat().every(({ node, state }) => (node === 'disk-1') === (state === 'out')),
      );
    }
    await running.cluster.daemon('disk-1').start();
    await redundant();
    await expectLinksOnly();
  });

  it('are as many after the controller that drives all of them was killed', async () => {
    const active = await running.activeController();
    await running.cluster.daemon(active).kill();
    for (const name of names)
      await running.cluster.waitForVolume(name, 'driven by another', 60_000, ({ controller }) => controller !== active);
    await redundant();
    await expectLinksOnly();
    await running.cluster.daemon(active).start();
    await running.settled();
    await make(2);
    await expectLinksOnly();
  });
});
