// SPDX-License-Identifier: Apache-2.0
// Goal: a stock Linux host keeps a replicated volume through the death of its active controller, and sees only what it may.
// Method: the cluster as separate processes on the machine, a guest with a path to each controller, once with each of
// Debian's kernels; it looks both paths over, makes a file system, and writes with fio --verify while the active controller
// gets SIGKILL; later that one is started again, and the volume grows under the mounted file system.

import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { kernelSeries } from '../lab/kernel.js';
import { ClusterTarget } from './cluster-target.js';
import { driverComplaints } from './guest-scripts.js';
import { inspectionScript, reserveScript, stillReservedScript, strangerScript } from './inspection-script.js';
import { expectFailover, type FailoverOutcome, type TwoPathTarget } from './two-path-target.js';

let cluster: ClusterTarget;

beforeAll(async () => {
  cluster = await ClusterTarget.start();
});

afterAll(async () => {
  await cluster?.stop();
});

describe.each(kernelSeries)('kernel %s', (kernel) => {
  let paths: TwoPathTarget;
  let run: FailoverOutcome | null = null;
  let bytesBefore = 0;

  beforeAll(async () => {
    paths = await cluster.paths();
  });

  /** What the guest handed back in the first test. */
  function said(key: string): string {
    const text = run?.result.values.get(key);
    if (text === undefined) throw new Error(`the guest did not hand back ${key}`);
    return text;
  }
  const saidJson = (key: string) => JSON.parse(said(key)) as Record<string, unknown>;

  test('a Linux host goes on through the standby when the active controller is killed, and sees both paths again', async () => {
    const before = await cluster.volume();
    bytesBefore = before.sizeBytes;
    run = await expectFailover(paths, paths, {
      name: `cluster-failover-${kernel}`,
      system: { kernel, equipment: [] },
      before: strangerScript(paths.nqn, { port: paths.ports[0] }),
      connected: `${inspectionScript}${reserveScript}`,
      afterKill: stillReservedScript,
      restart: async () => {
        await cluster.restartKilled();
      },
      grow: async () => {
        await cluster.grow(before.sizeBytes + 16 * 2 ** 20);
      },
    });
    const after = await cluster.volume();
    expect(after.controller).not.toBe(before.controller);
    expect(after.epoch).toBeGreaterThan(before.epoch);
    process.stderr.write(`cluster, kernel ${kernel}: longest write of the guest over the kill ${run.writeMsMax} ms\n`);
  });

  test('discovery shows a host its volumes and where to ask on, and a stranger nothing', () => {
    const records = (key: string) =>
      (saidJson(key)['records'] as { subtype: string; subnqn: string; trsvcid: string }[]).map(
        (record) => `${record.subtype}: ${record.subnqn} ${record.trsvcid.trim()}`,
      );
    expect(records('discovery')).toEqual([
      `nvme subsystem: ${paths.nqn} ${paths.ports[0]}`,
      `discovery subsystem referral: nqn.2014-08.org.nvmexpress.discovery ${paths.ports[1]}`,
    ]);
    expect(records('discovery_stranger')).toEqual([]);
  });

  test('a reservation of the host is the same through the other controller, after the kill', () => {
    const field = (report: string, name: string): number =>
      Number.parseInt(new RegExp(`${name}\\s*:\\s*([0-9a-f]+)`).exec(said(report))?.[1] ?? 'none', 16);
    for (const report of ['resv_before', 'resv_after']) {
      expect(field(report, 'rtype'), said(report)).toBe(1);
      expect(field(report, 'regctl'), said(report)).toBe(1);
      expect(field(report, 'ptpls'), said(report)).toBe(1);
      expect(field(report, 'rcsts'), said(report)).toBe(1);
      expect(field(report, 'rkey'), said(report)).toBe(0x1234);
    }
    expect(said('resv_after')).toBe(said('resv_before'));
    expect(field('resv_cleared', 'rtype'), said('resv_cleared')).toBe(0);
    expect(field('resv_cleared', 'regctl'), said('resv_cleared')).toBe(0);
  });

  test('the host sees that the volume grew, without a reconnect', () => {
    expect(Number(said('bytes_before'))).toBe(bytesBefore);
    expect(Number(said('bytes_after'))).toBe(bytesBefore + 16 * 2 ** 20);
  });

  test('both paths show one identity and two controllers', () => {
    expect(said('controllers')).toBe('2');
    expect(saidJson('list')['Devices']).toHaveLength(1);
    expect(driverComplaints(said('driver'))).toEqual([]);
    const [first, second] = [saidJson('id_ctrl_0'), saidJson('id_ctrl_1')];
    for (const field of ['subnqn', 'sn', 'mn', 'fr', 'nn', 'mnan', 'mdts', 'cmic', 'oncs', 'vwc', 'awupf']) {
      expect(first[field], field).toEqual(second[field]);
    }
    expect(first['subnqn']).toBe(paths.nqn);
    expect(first['cntlid']).not.toBe(second['cntlid']);
    const [space, otherSpace] = [saidJson('id_ns_0'), saidJson('id_ns_1')];
    expect(otherSpace).toEqual(space);
    expect(space['nsze']).toBe(bytesBefore / 4096);
    expect(said('ns_descs_1')).toBe(said('ns_descs_0'));
  });

  test("the namespace carries the volume's UUID and NGUID", async () => {
    const { id } = await cluster.volume();
    expect(saidJson('id_ns_0')['nguid']).toBe(id.replaceAll('-', ''));
    expect(said('ns_descs_0')).toContain(id);
    expect(String(saidJson('id_ctrl_0')['sn']).trim()).toBe(id.replaceAll('-', '').slice(0, 20).toUpperCase());
  });

  test('logs are answered, and the ANA log has one group that differs between the paths', () => {
    const states = [0, 1].map((index) => {
      expect(saidJson(`smart_log_${index}`)['critical_warning']).toBe(0);
      expect(saidJson(`error_log_${index}`)).toBeTypeOf('object');
      expect(said(`ana_nsid_${index}`)).toBe('1');
      return /inaccessible|optimized/.exec(said(`ana_log_${index}`))?.[0];
    });
    expect(states.sort()).toEqual(['inaccessible', 'optimized']);
  });

  test('commands that are not offered or not right are refused with the status that says why', () => {
    // Status code type and code; the top bit says that a retry is of no use, and a host may see it or not.
    const refusals = {
      compare: 0x285,
      beyond: 0x080,
      admin_opcode: 0x001,
      io_opcode: 0x001,
      log: 0x109,
      feature: 0x002,
      identify: 0x002,
      namespace: 0x00b,
      reservation: 0x018,
    };
    const got = Object.keys(refusals).map((name) => {
      const text = said(`odd_${name}`);
      const status = /^NVMe status: .*\((0x[0-9a-f]+)\)/.exec(text)?.[1];
      return [name, status === undefined ? text : Number(status) & 0x7ff];
    });
    expect(Object.fromEntries(got)).toEqual(refusals);
  });
});
