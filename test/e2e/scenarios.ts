// SPDX-License-Identifier: Apache-2.0
// The lab's scenarios: a name is a suite `<name>.e2e.ts` here. `npm run e2e` runs those for every change, `npm run lab -- all`
// runs all of them.

import type { GuestSystem } from '../lab/image.js';
import { kernelSeries } from '../lab/kernel.js';

export interface LabScenario {
  readonly name: string;
  readonly title: string;
  /** Part of `npm run e2e`, which must stay under five minutes on a quiet machine. */
  readonly everyChange: boolean;
  /** What its guests run on. */
  readonly systems: readonly GuestSystem[];
  /** Hosts with addresses of their own: it runs in a network namespace. */
  readonly ownNetwork?: boolean;
}

const plain: readonly GuestSystem[] = kernelSeries.map((kernel) => ({ kernel, equipment: [] }));
const bookworm = (...equipment: GuestSystem['equipment']): GuestSystem[] => [{ kernel: '6.1', equipment }];
const backports = (...equipment: GuestSystem['equipment']): GuestSystem[] => [{ kernel: '6.12', equipment }];

export const scenarios: readonly LabScenario[] = [
  { name: 'boot', title: 'the lab itself: guests boot, fail, hang and are stopped', everyChange: true, systems: plain },
  {
    name: 'selftest',
    title: "the scripts, on the guest kernel's own NVMe/TCP target",
    everyChange: true,
    systems: bookworm(),
  },
  {
    name: 'malloc',
    title: 'a Linux host on a stand-alone target: verify, digests, changes of path',
    everyChange: true,
    systems: plain,
  },
  {
    name: 'failover',
    title: 'a Linux host, kernels 6.1 and 6.12, through the death of a controller',
    everyChange: true,
    systems: plain,
  },
  {
    name: 'history',
    title: "what a Linux host was told, through a controller's death and its own crash, judged by the checker",
    everyChange: false,
    systems: plain,
  },
  {
    name: 'auth',
    title: 'a Linux host that has to authenticate: every digest, both directions, wrong secrets',
    everyChange: true,
    systems: backports(),
  },
  {
    name: 'filesystems',
    title: 'ext4, xfs and btrfs: failover, crash of the host, check',
    everyChange: false,
    systems: bookworm('xfs', 'btrfs'),
  },
  {
    name: 'databases',
    title: 'PostgreSQL and SQLite: failover and crash of the host',
    everyChange: false,
    systems: bookworm('postgresql', 'sqlite'),
  },
  {
    name: 'hosts',
    title: 'two hosts with addresses of their own, one of them cut off',
    everyChange: false,
    systems: backports(),
    ownNetwork: true,
  },
  {
    name: 'frame',
    title: 'equipment and devices: soft-RoCE, vhost-user-blk, plain disks',
    everyChange: false,
    systems: backports('rdma'),
  },
  {
    name: 'rdma',
    title: 'NVMe/RDMA over soft-RoCE: a Linux host on our target, our host on a Linux target, ours on ours with a kill',
    everyChange: false,
    systems: kernelSeries.map((kernel) => ({ kernel, equipment: ['rdma'] })),
  },
  {
    name: 'peers',
    title:
      'lvol and raid beside dm-thin and md on the same ram disks: what was written is there, and a table of ratios',
    everyChange: false,
    systems: backports('peers'),
  },
];

/** @param wanted `ci`, `all`, or a scenario's name */
export function chosenScenarios(wanted: string): LabScenario[] {
  return scenarios.filter(
    ({ name, everyChange }) => wanted === 'all' || name === wanted || (wanted === 'ci' && everyChange),
  );
}

/** @throws when there is no such scenario */
export function systemOf(name: string): GuestSystem {
  const system = scenarios.find((scenario) => scenario.name === name)?.systems[0];
  if (system === undefined) throw new Error(`no scenario is called ${name}`);
  return system;
}
