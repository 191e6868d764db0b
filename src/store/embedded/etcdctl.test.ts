// SPDX-License-Identifier: Apache-2.0
//
// Goal: etcdctl works on the embedded store.
// Method: the same commands on it and on Debian's etcd print the same, ids aside.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { EtcdProcess, requireProgram } from '../testing/etcd-process.js';
import { type EmbeddedStore, startEmbeddedStore } from './server.js';

/** A command, what goes to its stdin, and after how many lines a watch is ended. */
interface Step {
  readonly args: string;
  readonly input?: string;
  readonly linesMax?: number;
}

const steps: Step[] = [
  { args: 'put /a one' },
  { args: 'put /a two --prev-kv' },
  { args: 'put /b three' },
  { args: 'get /a' },
  { args: 'get / --prefix --keys-only' },
  { args: 'get / --prefix --limit=1 -w json' },
  { args: 'get /a --rev=2' },
  { args: 'get / --prefix --order=DESCEND --sort-by=MODIFY -w fields' },
  { args: 'get /missing -w json' },
  { args: 'del /b --prev-kv' },
  { args: 'del /b' },
  { args: 'txn -i', input: 'value("/a") = "two"\nmod("/b") = "0"\n\nput /c four\nget /c\n\nput /d five\n\n' },
  { args: 'txn', input: 'version("/a") > "9"\n\nput /c never\n\ndel /c\nget /c\n\n' },
  { args: 'watch / --prefix --rev=2 --prev-kv', linesMax: 24 },
  { args: 'watch /a --rev=1', linesMax: 6 },
  { args: 'lease grant 3600' },
  { args: 'lease grant 1' },
  { args: 'lease revoke 4d2' },
  { args: 'lease timetolive 4d2' },
  { args: 'lease keep-alive --once 4d2' },
  { args: 'put /x y --lease=4d2' },
  { args: 'compact 4' },
  { args: 'compact 4' },
  { args: 'compact 99' },
  { args: 'get /a --rev=2' },
  { args: 'get /a --rev=99' },
  { args: 'watch /a --rev=2' },
  { args: 'endpoint health' },
];

describe('etcdctl', () => {
  const directory = mkdtempSync(join(tmpdir(), 'basalt-store-'));
  let etcd: EtcdProcess;
  let embedded: EmbeddedStore;

  beforeAll(async () => {
    requireProgram('etcdctl', 'etcd-client');
    etcd = await EtcdProcess.launch();
    embedded = await startEmbeddedStore({ directory, host: '127.0.0.1', port: 0 });
  }, 30_000);

  afterAll(async () => {
    await embedded.close();
    await etcd.close();
    rmSync(directory, { recursive: true, force: true });
  });

  it.each(steps)('$args prints what it prints on etcd', { timeout: 20_000 }, async (step) => {
    const [expected, actual] = await Promise.all([run(etcd.endpoint, step), run(embedded.endpoint, step)]);
    expect(plain(actual.output, embedded.endpoint)).toBe(plain(expected.output, etcd.endpoint));
    expect(actual.failed).toBe(expected.failed);
  });

  it('grants, renews, shows, lists and revokes a lease', { timeout: 20_000 }, async () => {
    const ctl = async (args: string): Promise<string> => (await run(embedded.endpoint, { args })).output;
    const id = /lease (\w+) granted with TTL\(60s\)/.exec(await ctl('lease grant 60'))?.[1];
    expect(await ctl(`put /leased x --lease=${id}`)).toContain('OK');
    expect(await ctl(`lease keep-alive --once ${id}`)).toContain(`lease ${id} keepalived with TTL(60)`);
    expect(await ctl(`lease timetolive --keys ${id}`)).toMatch(
      /granted with TTL\(60s\), remaining\((59|60)s\), attached keys\(\[\/leased\]\)/,
    );
    expect(await ctl('lease list')).toContain(id);
    expect(await ctl(`lease revoke ${id}`)).toContain(`lease ${id} revoked`);
    expect(await ctl('get /leased')).toBe('');
    expect(await ctl('lease list')).not.toContain(id);
  });

  it('shows the status of the endpoint', { timeout: 20_000 }, async () => {
    const { output, failed } = await run(embedded.endpoint, { args: 'endpoint status -w json' });
    expect(failed).toBe(false);
    const [{ Status }] = JSON.parse(output);
    expect(Status.version).toMatch(/^3\./);
    expect(Status.leader).toBe(Status.header.member_id);
    expect(Status.dbSize).toBeGreaterThan(0);
  });
});

async function run(endpoint: string, { args, input, linesMax }: Step): Promise<{ output: string; failed: boolean }> {
  const options = { env: { ...process.env, ETCDCTL_API: '3' } };
  const child = spawn('etcdctl', [`--endpoints=${new URL(endpoint).host}`, ...args.split(' ')], options);
  let output = '';
  const collect = (bytes: Buffer): void => {
    output += bytes.toString();
    if (linesMax !== undefined && output.split('\n').length > linesMax) child.kill();
  };
  child.stdout.on('data', collect);
  child.stderr.on('data', collect);
  // One that needs no input may have ended before it could be given any.
  child.stdin.on('error', () => {});
  child.stdin.end(input ?? '');
  const [status] = await once(child, 'close');
  return { output, failed: linesMax === undefined && status !== 0 };
}

/** The output without what differs from server to server and from run to run. */
function plain(output: string, endpoint: string): string {
  return output
    .replaceAll(new URL(endpoint).host, 'ENDPOINT')
    .replace(/("?(?:cluster_id|member_id|raft_term|ClusterID|MemberID|RaftTerm)"? ?: ?)\d+/g, '$1N')
    .replace(/lease [0-9a-f]{16} granted/g, 'lease ID granted')
    .replace(/took = \S+/g, 'took = T')
    .split('\n')
    .filter((line) => !line.startsWith('{"level":"warn"'))
    .join('\n');
}
