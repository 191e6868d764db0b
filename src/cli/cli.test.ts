// SPDX-License-Identifier: Apache-2.0
// The command line against a real API server over a fake cluster: what is printed, and what it ends with.

import { chmodSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ClusterBed, quietLog } from '../agents/testing/cluster-bed.js';
import { type ApiServer, startApiServer } from '../api/server.js';
import { systemClock } from '../env/clock.js';
import { fillPrivateFile, readPrivateFile } from '../env/private-file.js';
import type { CompiledConfig, CompiledNode } from '../model/config.js';
import type { SurveyedDisk } from '../model/survey.js';
import type { EngineChoice } from './launch.js';
import { runCli } from './program.js';

let bed: ClusterBed;
let server: ApiServer;

beforeAll(async () => {
  bed = new ClusterBed();
  await Promise.all(['d1', 'd2'].map((name) => bed.startDiskNode(name)));
  await bed.startController('c1');
  server = await startApiServer({ ...bed.api, listen: '127.0.0.1:0', log: quietLog });
});

afterAll(async () => {
  await server.close();
  await bed.close();
});

interface Run {
  code: number;
  out: string;
  err: string;
  launched: { kind: string; config: CompiledConfig; node: CompiledNode | EngineChoice | null }[];
}

const surveyed = ({ node, path }: { node: string; path: string }): SurveyedDisk => ({
  node,
  path,
  id: path,
  cluster: 'c1',
  copy: null,
  problems: [],
  lvols: [],
});

async function basalt(
  args: string[],
  files: Record<string, string> = {},
  environment: Record<string, string> = {},
): Promise<Run> {
  const run: Run = { code: 0, out: '', err: '', launched: [] };
  const launch = (
    kind: string,
    config: CompiledConfig,
    node: CompiledNode | EngineChoice | null = null,
  ): Promise<number> => {
    run.launched.push({ kind, config, node });
    return Promise.resolve(0);
  };
  run.code = await runCli(
    {
      out: (text) => {
        run.out += text;
      },
      err: (text) => {
        run.err += text;
      },
      readFile: (path) => {
        const text = files[path];
        return text === undefined ? Promise.reject(new Error('no such file')) : Promise.resolve(text);
      },
      readPrivateFile,
      fillPrivateFile,
      environment: { BASALT_API: server.url, ...environment },
      now: () => systemClock.now(),
      sleep: (delayMs) => systemClock.sleep(delayMs),
      version: '0.1.0',
      launchers: {
        fsck: (path, options) => {
          const sound = path === '/dev/good';
          const problems = sound ? [] : [{ severity: 'error' as const, message: 'no superblock is intact' }];
          return Promise.resolve({ sound, problems, text: `${options.dump ? 'dumped' : 'looked'}\n` });
        },
        scrub: (choice, progress) => {
          const counts = { checkedBlocks: 512, badBlocks: choice.name === 'lvs/bad' ? 3 : 0 };
          progress(50, counts);
          const finished = choice.name !== 'lvs/long';
          const nextBytes = finished ? null : choice.fromBytes + choice.bytesPerS;
          const sound = counts.badBlocks === 0;
          return Promise.resolve({ kind: 'lvol', finished, percent: finished ? 100 : 50, nextBytes, sound, counts });
        },
        storeSurvey: (_, disks) => Promise.resolve({ basaltSurvey: 1, disks: disks.map(surveyed) }),
        storeRebuild: (_, { surveys, acceptLoss, write }) => {
          const isAccepted = acceptLoss.has('v1');
          const verdict = { id: 'i1', name: 'v1', sizeBytes: 2 ** 30, is: isAccepted ? 'accepted' : 'waits' } as const;
          const written = isAccepted && write;
          return Promise.resolve({
            cluster: 'c1',
            generation: 1,
            volumes: [{ ...verdict, problems: ['leg 0 needs replica r1, on disk d2 of n2'] }],
            missingDisks: [{ id: 'd2', node: 'n2', path: '/dev/two' }],
            gone: [],
            problems: [],
            obstacles: isAccepted ? [] : ['volume v1: leg 0 needs replica r1, on disk d2 of n2'],
            objectCount: surveys.flatMap((survey) => survey.disks).length,
            written,
          });
        },
        drawKey: (file, how) => Promise.resolve(file === '/taken' ? null : { id: how === 'add' ? 'new' : 'first' }),
        store: (config) => launch('store', config),
        api: (config) => launch('api', config),
        node: (config, node) => launch('node', config, node),
        engine: (config, choice) => launch('engine', config, choice),
        up: (config) => launch('up', config),
      },
    },
    args,
  );
  return run;
}

describe('basalt', () => {
  it('makes, shows, lists, attaches, detaches and deletes a volume', async () => {
    const made = await basalt(['volume', 'create', 'v1', '--size', '8M', '--legs', '2', '--json']);
    expect(made.err).toBe('');
    expect(JSON.parse(made.out)).toMatchObject({ name: 'v1', sizeBytes: 8 * 2 ** 20, phase: 'live', controller: 'c1' });
    expect((await basalt(['volume', 'show', 'v1'])).out).toContain('in_sync');
    expect((await basalt(['volume', 'list'])).out).toMatch(
      /^NAME +SIZE +LEGS +COPIES +HEALTH +CONTROLLER +EPOCH\nv1 +8 MiB +2 +2/,
    );
    const larger = await basalt(['volume', 'resize', 'v1', '--size', '16M', '--json']);
    expect(larger.err).toBe('');
    expect(JSON.parse(larger.out)).toMatchObject({ sizeBytes: 16 * 2 ** 20, growth: null });
    const smaller = await basalt(['volume', 'resize', 'v1', '--size', '8M']);
    expect([smaller.code, smaller.err]).toEqual([8, expect.stringContaining('VOLUME_SHRINK')]);
    const host = 'nqn.2014-08.org.nvmexpress:uuid:11111111-1111-4111-8111-111111111111';
    const attached = await basalt(['attach', 'v1', '--host', host]);
    expect(attached.out).toMatch(
      /^nvme connect -t tcp -a 127\.0\.0\.1 -s \d+ -n nqn\.2026-01\.io\.basalt:volume:\S+ -q nqn\S+ +# active\n$/,
    );
    expect((await basalt(['volume', 'delete', 'v1'])).code).toBe(4);
    const nbd = await basalt(['attach', 'v1', '--nbd', 'unix:/tmp/cli-v1.sock']);
    expect(nbd.out).toContain('/tmp/cli-v1.sock');
    expect((await basalt(['detach', 'v1'])).code).toBe(0);
    expect((await basalt(['volume', 'delete', 'v1'])).code).toBe(0);
    expect((await basalt(['volume', 'list', '--json'])).code).toBe(0);
  });

  it('makes encrypted volumes, and changes the cluster key', async () => {
    const made = await basalt(['volume', 'create', 'v2', '--size', '8M', '--legs', '2', '--encrypt', '--json']);
    expect(made.err).toBe('');
    const { encryptedBy } = JSON.parse(made.out);
    expect(encryptedBy).toMatch(/^[0-9a-f]{32}$/);
    expect((await basalt(['volume', 'show', 'v2'])).out).toContain(`AES-256-XTS, by cluster key ${encryptedBy}`);
    expect((await basalt(['key', 'list'])).out).toBe(
      `KEY                               USE      HELD  VOLUMES  HOSTS\n${encryptedBy}  current  yes   1        0\n`,
    );
    expect((await basalt(['key', 'rotate'])).out).toMatch(/^cluster key is [0-9a-f]{32}; volumes wrapped anew: 1\n$/);
    expect((await basalt(['key', 'prune'])).out).toBe(`removed: ${encryptedBy}\n`);
    expect((await basalt(['volume', 'delete', 'v2'])).code).toBe(0);
  });

  it('starts nodes whose discovery tells what it is asked to', async () => {
    const accessOf = async (...args: string[]): Promise<unknown> => {
      const { launched, code } = await basalt(['node', '--name', 'n1', '--roles', 'controller', ...args]);
      const [first] = launched;
      return first === undefined ? code : (first.node as CompiledNode).discovery;
    };
    expect(await accessOf()).toBe('open');
    expect(await accessOf('--discovery', 'authenticated')).toBe('authenticated');
    expect(await accessOf('--discovery', 'closed')).toBe(2);
  });

  it('prints what makes the roles of an etcd cluster', async () => {
    const { code, out } = await basalt(['etcd-roles']);
    expect(code).toBe(0);
    const lines = out.trim().split('\n');
    expect(lines.every((line) => /^etcdctl role (add|grant-permission) basalt-(api|node)( |$)/.test(line))).toBe(true);
    expect(lines).toContain('etcdctl role grant-permission basalt-node readwrite /basalt/v1/volumes/ --prefix=true');
    expect(lines.filter((line) => line.includes('basalt-node') && line.includes('/tokens/'))).toEqual([]);
    expect(JSON.parse((await basalt(['etcd-roles', '--json'])).out)).toEqual(lines);
  });

  it('makes, shows and revokes tokens, and shows one to the API from a file or the environment', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'basalt-cli-token-'));
    const [root, viewer] = [join(folder, 'root'), join(folder, 'viewer')];
    try {
      writeFileSync(viewer, 'mine');
      // A file that is there is not written over, and no token comes to be that nobody has.
      const taken = await basalt(['token', 'create', 'root', '--role', 'admin', '--file', viewer]);
      expect([taken.code, taken.err]).toEqual([4, expect.stringContaining('ALREADY_EXISTS')]);
      expect((await basalt(['token', 'list'])).out).toMatch(/^no tokens/);
      const made = await basalt(['token', 'create', 'root', '--role', 'admin', '--file', root]);
      expect(made.err).toBe('');
      const token = readFileSync(root, 'utf8').trim();
      expect(statSync(root).mode & 0o777).toBe(0o600);
      expect(token).toMatch(/^basalt1\/root\/[A-Za-z0-9_-]{43}$/);
      expect(made.out).not.toContain(token);
      const refused = await basalt(['volume', 'list']);
      expect([refused.code, refused.err]).toEqual([8, expect.stringContaining('UNAUTHENTICATED')]);
      expect((await basalt(['volume', 'list'], {}, { BASALT_TOKEN: token })).code).toBe(0);
      expect((await basalt(['volume', 'list'], {}, { BASALT_TOKEN_FILE: root })).code).toBe(0);
      const config = { 'c.json': JSON.stringify({ api: { tokenFile: root } }) };
      expect((await basalt(['volume', 'list', '--config', 'c.json'], config)).code).toBe(0);
      const file = ['--token-file', root];
      const short = await basalt(['token', 'create', 'v', '--role', 'viewer', '--expires', '90d', '--json', ...file]);
      const view = JSON.parse(short.out);
      expect(view.expiresAtMs - view.createdAtMs).toBe(90 * 86_400_000);
      const looking = await basalt(['volume', 'delete', 'v1'], {}, { BASALT_TOKEN: view.token });
      expect([looking.code, looking.err]).toEqual([8, expect.stringContaining('FORBIDDEN')]);
      const listed = await basalt(['token', 'list', ...file]);
      expect(listed.out).toMatch(/^TOKEN +ROLE +CREATED +EXPIRES\nroot +admin +\S+ \S+ +never\nv +viewer +/);
      expect(listed.out).not.toContain(view.token.split('/')[2]);
      chmodSync(root, 0o644);
      const open = await basalt(['token', 'list', ...file]);
      expect([open.code, open.err]).toEqual([2, expect.stringContaining('must be 0600')]);
      expect(open.err).not.toContain(token);
      chmodSync(root, 0o600);
      for (const name of ['v', 'root']) expect((await basalt(['token', 'revoke', name, ...file])).code).toBe(0);
      expect((await basalt(['token', 'list'])).out).toMatch(/^no tokens/);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  it('takes no token as an argument, which everybody on the machine could read', async () => {
    for (const command of ['volume', 'token', 'status', 'api', 'up']) {
      const { out } = await basalt([command, '--help']);
      expect(out).toContain('--token-file <path>');
      expect(out).not.toMatch(/--token[ =<]/);
    }
  });

  it('attaches hosts with keys, of which only the names of files are ever shown', async () => {
    const secret = 'DHHC-1:01:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:';
    const other = 'DHHC-1:00:ZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXp7fH1+f4CBgoOeXryU:';
    const psk = 'NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:';
    const files = { '/keys/h': `${secret}\n`, '/keys/my c': other, '/keys/psk': psk, '/keys/none': 'hunter2' };
    const keyed = 'nqn.2014-08.org.nvmexpress:uuid:22222222-2222-4222-8222-222222222222';
    const runs: Run[] = [];
    const run = async (...args: string[]): Promise<Run> => {
      const one = await basalt(args, files);
      runs.push(one);
      return one;
    };
    expect((await run('volume', 'create', 'v9', '--size', '8M', '--legs', '2')).code).toBe(0);
    const flags = ['--dhchap-key-file', '/keys/h', '--dhchap-ctrlr-key-file', '/keys/my c'];
    const attach = (): Promise<Run> => run('attach', 'v9', '--host', keyed, ...flags);
    await expect
      .poll(async () => (await attach()).out, { timeout: 30_000 })
      .toMatch(
        /^nvme connect -t tcp -a 127\.0\.0\.1 -s \d+ -n \S+ -q \S+ --dhchap-secret "\$\(cat \/keys\/h\)" --dhchap-ctrl-secret "\$\(cat '\/keys\/my c'\)" {4}# \w+\n$/,
      );
    const again = await run('attach', 'v9', '--host', keyed);
    expect(again.out).toContain('--dhchap-secret "$(cat DHCHAP-KEY-FILE)"');
    expect((await run('host', 'list')).out).toMatch(
      /^HOST +PROVES ITSELF BY +VOLUMES\nnqn\S+ +DH-HMAC-CHAP, both ways +v9\n$/,
    );
    expect((await run('host', 'delete', keyed)).code).toBe(4);
    const tls = await run('host', 'set-keys', keyed, '--no-dhchap', '--tls-psk-file', '/keys/psk');
    expect(tls.out).toMatch(/proves itself by {2}TLS\n/);
    const byTls = await run('attach', 'v9', '--host', keyed, '--wait', '120');
    expect(byTls.out).toMatch(
      /^nvme check-tls-key --insert --identity 1 --hostnqn \S+ --subsysnqn \S+ --keydata "\$\(cat TLS-PSK-FILE\)" .*\nnvme connect \S.* --tls {4}# \w+\n$/,
    );
    expect((await run('attach', 'v9', '--host', keyed, '--dhchap-key-file', '/keys/h')).err).toContain(
      'HOST_KEYS_DIFFER',
    );
    const wrong = await run('host', 'set-keys', keyed, '--dhchap-key-file', '/keys/none');
    expect(wrong).toMatchObject({ code: 2 });
    expect(wrong.err).toContain('--dhchap-key-file: is no DH-HMAC-CHAP secret');
    expect((await run('host', 'set-keys', keyed, '--no-tls', '--tls-psk-file', '/keys/psk')).code).toBe(2);
    expect((await run('host', 'set-keys', keyed)).code).toBe(2);
    expect((await run('host', 'create', keyed, '--tls-psk-file', '/keys/absent')).err).toContain('--tls-psk-file');
    expect((await run('host', 'show', keyed, '--json')).out).toContain('"tlsPsk":true');
    expect((await run('detach', 'v9', '--host', keyed)).code).toBe(0);
    expect((await run('host', 'delete', keyed)).out).toBe(`deleted ${keyed}\n`);
    expect((await run('host', 'list')).out).toBe('no hosts\n');
    expect((await run('volume', 'delete', 'v9')).code).toBe(0);
    const shown = runs.map(({ out, err }) => out + err).join('');
    for (const text of ['AAECAwQF', 'ZGVmZ2hp', 'VRLbtnN9', 'hunter2']) expect(shown).not.toContain(text);
  });

  it('makes, shows, lists and deletes snapshots, and makes volumes of them', async () => {
    const json = async (...args: string[]): Promise<{ code: number; value: unknown }> => {
      const run = await basalt([...args, '--json']);
      return { code: run.code, value: JSON.parse(run.out === '' ? run.err : run.out) };
    };
    expect((await basalt(['volume', 'create', 'v3', '--size', '8M', '--legs', '2'])).code).toBe(0);
    const made = await json('snapshot', 'create', 'v3@before');
    expect(made.value).toMatchObject({ name: 'before', volume: 'v3', state: 'ready', copies: 2, clones: [] });
    expect((await json('snapshot', 'create', 'v3@before')).value).toMatchObject({ state: 'ready' });
    const cloned = await json('volume', 'create', 'v4', '--from', 'v3@before');
    expect(cloned.value).toMatchObject({ name: 'v4', sizeBytes: 8 * 2 ** 20, phase: 'live', controller: 'c1' });
    expect((await basalt(['volume', 'show', 'v4'])).out).toMatch(/^began as +v3@before$/m);
    expect((await basalt(['snapshot', 'list', 'v3'])).out).toMatch(
      /^NAME +SIZE +STATE +COPIES +CUT AT +CLONES\nbefore +8 MiB +ready +2\/2 +\d{4}-\S+Z +1\n$/,
    );
    const shown = (await basalt(['snapshot', 'show', 'v3@before'])).out;
    expect(shown).toMatch(/^name +v3@before\n/);
    expect(shown).toMatch(/copies +2 of 2\nclones +v4\nleg 0 +d\d: up, d\d: up\n/);
    const fails = async (args: string[], code: number, error: string, about: string): Promise<void> => {
      const run = await basalt(args);
      expect([run.code, run.out]).toEqual([code, '']);
      expect(run.err).toContain(`[${error}]`);
      expect(run.err).toContain(about);
    };
    await fails(['volume', 'create', 'v5', '--from', 'v3@before', '--size', '8M'], 2, 'INVALID_ARGUMENT', '--size');
    await fails(['volume', 'create', 'v5'], 2, 'INVALID_ARGUMENT', '--size: is missing');
    await fails(['volume', 'create', 'v3', '--from', 'v3@before'], 4, 'ALREADY_EXISTS', 'v3');
    await fails(['volume', 'create', 'v5', '--from', 'v3@after'], 3, 'NOT_FOUND', 'snapshot v3@after');
    await fails(['snapshot', 'create', 'v3'], 2, 'INVALID_ARGUMENT', '<volume>@<snapshot>');
    await fails(['snapshot', 'create', 'v9@s'], 3, 'NOT_FOUND', 'volume v9');
    await fails(['snapshot', 'list', 'v9'], 3, 'NOT_FOUND', 'volume v9');
    await fails(['volume', 'delete', 'v3'], 4, 'BUSY', 'before');
    expect((await basalt(['snapshot', 'delete', 'v3@before'])).out).toBe('snapshot v3@before is being deleted\n');
    expect((await basalt(['snapshot', 'list', 'v3'])).out).toBe('no snapshots\n');
    expect((await basalt(['volume', 'delete', 'v3'])).code).toBe(0);
    expect((await basalt(['volume', 'delete', 'v4'])).code).toBe(0);
  });

  it('makes, shows, lists and deletes groups of snapshots', async () => {
    for (const name of ['g-v1', 'g-v2'])
      expect((await basalt(['volume', 'create', name, '--size', '8M', '--legs', '1'])).code).toBe(0);
    const create = ['snapshot', 'group', 'create', 'both', 'g-v1', 'g-v2', '--wait', '120'];
    // Rounds may be too slow on a machine that does much else: then it is asked for again.
    await expect.poll(async () => (await basalt(create)).code, { timeout: 120_000 }).toBe(0);
    const shown = (await basalt(['snapshot', 'group', 'show', 'both'])).out;
    expect(shown).toMatch(/^name +both\n/);
    expect(shown).toMatch(/\nstate +ready\nI\/O held +[\d.]+ ms\nvolume g-v1 +2 of 2 copies, I\/O held [\d.]+ ms\n/);
    const listed = await basalt(['snapshot', 'group', 'list']);
    expect(listed.out).toMatch(/^NAME +STATE +I\/O HELD +VOLUMES\nboth +ready +[\d.]+ ms +g-v1, g-v2\n$/);
    const json = await basalt(['snapshot', 'group', 'show', 'both', '--json']);
    expect(JSON.parse(json.out)).toMatchObject({ name: 'both', state: 'ready', snapshots: [{ group: 'both' }, {}] });
    expect((await basalt(['snapshot', 'show', 'g-v1@both'])).out).toMatch(/\ngroup +both\n/);
    expect((await basalt(['snapshot', 'delete', 'g-v1@both'])).code).toBe(4);
    expect((await basalt(['snapshot', 'group', 'create', 'both', 'g-v1'])).code).toBe(4);
    expect((await basalt(['snapshot', 'group', 'create', 'none', 'g-v1', 'nobody'])).code).toBe(3);
    expect((await basalt(['snapshot', 'group', 'create', 'none'])).code).toBe(2);
    const deleted = await basalt(['snapshot', 'group', 'delete', 'both']);
    expect(deleted.out).toBe('group of snapshots both is being deleted\n');
    expect((await basalt(['snapshot', 'group', 'list'])).out).toBe('no groups of snapshots\n');
    for (const name of ['g-v1', 'g-v2']) expect((await basalt(['volume', 'delete', name])).code).toBe(0);
  }, 180_000);

  it('makes key files, and never over one that is there', async () => {
    expect((await basalt(['key', 'create', '--file', '/keys'])).out).toBe('made /keys with cluster key first\n');
    const taken = await basalt(['key', 'create', '--file', '/taken']);
    expect(taken).toMatchObject({ code: 4, out: '' });
    expect(taken.err).toContain('key file /taken already exists');
    expect((await basalt(['key', 'add', '--file', '/keys'])).out).toBe('added cluster key new to /keys\n');
    expect((await basalt(['key', 'add'])).out).toBe('added cluster key new to basalt-data/cluster.key\n');
  });

  it('makes, shows, plans and deletes a pool', async () => {
    const made = await basalt(['pool', 'create', 'p1', '--copies', '1', '--domain', 'disk', '--pgs', '64', '--json']);
    expect(made.err).toBe('');
    expect(JSON.parse(made.out)).toMatchObject({ name: 'p1', pgCount: 64, disks: 2, volumes: 0 });
    expect((await basalt(['pool', 'list'])).out).toMatch(/\np1 +1 copy +disk +2 +64 /);
    expect((await basalt(['pool', 'show', 'p1'])).out).toMatch(/usable +1022 MiB \(100.0 % of/);
    expect((await basalt(['pool', 'plan', 'p1'])).out).toBe('pool p1: nothing would move\n');
    const without = await basalt(['pool', 'plan', 'p1', '--without', 'd1', '--limit', '1M']);
    expect(without.out).toMatch(/^moves +32 places of PGs/);
    expect((await basalt(['volume', 'create', 'in-p1', '--size', '4M', '--pool', 'p1', '--legs', '1'])).code).toBe(0);
    expect((await basalt(['volume', 'show', 'in-p1'])).out).toMatch(/\npool +p1\n/);
    expect((await basalt(['pool', 'delete', 'p1'])).code).toBe(4);
    await basalt(['volume', 'delete', 'in-p1']);
    await expect.poll(async () => (await basalt(['pool', 'delete', 'p1'])).code, { timeout: 30_000 }).toBe(0);
  });

  it('cordons and frees disks and nodes, refuses a drain that cannot end, and shows jobs', async () => {
    const disks = JSON.parse((await basalt(['disk', 'list', '--json'])).out) as { id: string; node: string }[];
    const disk = disks.find((each) => each.node === 'd1')?.id ?? '';
    expect((await basalt(['disk', 'cordon', disk])).out).toBe(`disk ${disk} is cordoned\n`);
    expect((await basalt(['disk', 'list'])).out).toMatch(/ d1 .* up, cordoned /);
    expect((await basalt(['disk', 'uncordon', disk])).out).toBe(`disk ${disk} takes new replicas\n`);
    expect((await basalt(['node', 'cordon', 'd1', '--json'])).out).toBe('{"kind":"node","name":"d1"}\n');
    expect((await basalt(['node', 'uncordon', 'd1'])).code).toBe(0);
    expect((await basalt(['volume', 'create', 'moved', '--size', '8M', '--legs', '1'])).code).toBe(0);
    for (const args of [[], ['--dry-run']]) {
      const refused = await basalt(['disk', 'drain', disk, ...args]);
      expect(refused).toMatchObject({
        code: 8,
        err: expect.stringMatching(/add a disk in 1 more node.*DRAIN_REFUSED/),
      });
    }
    expect(await basalt(['disk', 'remove', disk])).toMatchObject({
      code: 4,
      err: expect.stringMatching(/drain it first/),
    });
    expect(await basalt(['node', 'cordon', 'nobody'])).toMatchObject({ code: 3 });
    expect((await basalt(['job', 'list'])).out).toBe('no jobs\n');
    const moved = await basalt(['volume', 'move-controller', 'moved', '--to', 'c1', '--json']);
    const job = JSON.parse(moved.out) as { id: string };
    expect(job).toMatchObject({ kind: 'volume.move-controller', state: 'done' });
    expect((await basalt(['job', 'list'])).out).toMatch(
      / volume\.move-controller +moved to c1 +done +1 of 1 volumes\n/,
    );
    expect((await basalt(['job', 'show', job.id])).out).toMatch(/^state +done$/m);
    expect(await basalt(['job', 'cancel', job.id])).toMatchObject({ code: 4 });
    expect(await basalt(['job', 'wait', 'none'])).toMatchObject({ code: 3 });
    const elsewhere = await basalt(['volume', 'move-controller', 'moved', '--to', 'd1']);
    expect(elsewhere).toMatchObject({ code: 2, err: expect.stringMatching(/d1 is no controller node/) });
    const other = disks.find((each) => each.node === 'd2')?.id ?? '';
    for (const name of ['moved', 'moved/0'])
      expect(await basalt(['volume', 'move-replica', name, '--from', disk, '--to', other])).toMatchObject({
        code: 8,
        err: expect.stringMatching(/leg 0 has a replica on disk .* already.*MOVE_REFUSED/),
      });
    for (const name of ['moved/', 'moved/0/1', '/0', 'moved/x'])
      expect(await basalt(['volume', 'move-replica', name, '--from', disk, '--to', other])).toMatchObject({ code: 2 });
    expect(await basalt(['volume', 'move-replica', 'moved', '--from', 'd1', '--to', other])).toMatchObject({ code: 2 });
    expect((await basalt(['pool', 'create', 'apart', '--copies', '2'])).code).toBe(0);
    const given = await basalt(['volume', 'change-pool', 'moved', '--to', 'apart', '--wait', '60']);
    expect([given.code, given.err]).toEqual([0, '']);
    expect(given.out).toMatch(/^kind +volume\.change-pool$/m);
    expect((await basalt(['volume', 'show', 'moved'])).out).toMatch(/^pool +apart$/m);
    expect(await basalt(['volume', 'change-pool', 'moved', '--to', 'apart'])).toMatchObject({
      code: 8,
      err: expect.stringMatching(/it is in pool apart already.*MOVE_REFUSED/),
    });
    expect(await basalt(['volume', 'change-pool', 'moved', '--to', 'none'])).toMatchObject({ code: 3 });
    expect(await basalt(['volume', 'change-pool', 'moved'])).toMatchObject({ code: 2 });
    expect((await basalt(['volume', 'delete', 'moved'])).code).toBe(0);
  });

  it('scrubs a volume as a job, says what it found, and with its exit code whether that is damage', async () => {
    await basalt(['volume', 'create', 'aged', '--size', '8M', '--legs', '1']);
    const sound = await basalt(['volume', 'scrub', 'aged', '--rate', '50M', '--wait', '60']);
    expect([sound.code, sound.err]).toEqual([0, '']);
    expect(sound.out).toMatch(
      new RegExp(
        [
          '^id +[-0-9a-f]{36}\nkind +volume\\.scrub\nof +aged\nstate +done\nprogress +100 of 100 percent\nrun by +-\n',
          'found +2048 compared blocks, 0 different blocks, 0 unreadable blocks, 0 repaired blocks\n',
          '.*run by .*\n.*1 legs are to be compared\n.*nothing is wrong in what was compared\n$',
        ].join(''),
      ),
    );
    const replica = JSON.parse((await basalt(['volume', 'show', 'aged', '--json'])).out).legs[0][0];
    await bed.node(replica.node).engine.damage(replica.replica, 3);
    const seen = await basalt(['volume', 'scrub', 'aged', '--no-repair', '--wait', '60', '--json']);
    expect(seen.code).toBe(8);
    expect(JSON.parse(seen.out)).toMatchObject({ state: 'done', result: { differentBlocks: 1, repairedBlocks: 0 } });
    expect((await basalt(['job', 'list'])).out).toMatch(/ volume\.scrub +aged +done +100 of 100 percent\n/);
    expect((await basalt(['volume', 'scrub', 'nope'])).code).toBe(3);
    expect((await basalt(['volume', 'scrub', 'aged', '--rate', 'fast'])).code).toBe(2);
    expect((await basalt(['volume', 'delete', 'aged'])).code).toBe(0);
  });

  it('asks disks what they know, and makes a store of the answers only when it is told to', async () => {
    const asked = await basalt(['store', 'survey', '--name', 'n1', '--disk', '/dev/one', '--disk', '/dev/two']);
    expect(asked.code).toBe(0);
    expect(JSON.parse(asked.out)).toMatchObject({ disks: [{ node: 'n1', path: '/dev/one' }, { path: '/dev/two' }] });
    expect((await basalt(['store', 'survey'])).code).toBe(2);
    const files = { 'n1.json': asked.out, other: '{}' };
    const shown = await basalt(['store', 'rebuild', 'n1.json', '--write'], files);
    expect(shown).toMatchObject({ code: 8 });
    expect(shown.out).toContain('needs replica r1');
    expect(shown.out).toContain('n2:/dev/two (d2)');
    expect(shown.out).toMatch(/nothing was written\n$/);
    const accepted = ['store', 'rebuild', 'n1.json', '--accept-loss', 'v1'];
    expect((await basalt(accepted, files)).out).toMatch(/nothing was written\n$/);
    expect(await basalt([...accepted, '--write'], files)).toMatchObject({ code: 0 });
    expect((await basalt([...accepted, '--write', '--json'], files)).out).toContain('"written":true');
    expect((await basalt(['store', 'rebuild', 'other'], files)).code).toBe(2);
    expect((await basalt(['store', 'rebuild'])).code).toBe(2);
  });

  it('checks a disk, and says with its exit code whether a daemon would take it', async () => {
    expect(await basalt(['fsck', '/dev/good', '--dump'])).toMatchObject({ code: 0, out: 'dumped\n' });
    const bad = await basalt(['fsck', '/dev/bad', '--json']);
    expect(bad.code).toBe(8);
    expect(JSON.parse(bad.out)).toMatchObject({ sound: false, problems: [{ message: 'no superblock is intact' }] });
    expect((await basalt(['fsck'])).code).toBe(2);
  });

  it('scrubs, tells how far it is, and says with its exit code whether damage was found', async () => {
    const good = await basalt(['scrub', 'lvs/a', '--rpc', '/run/e.sock']);
    expect(good).toMatchObject({
      code: 0,
      out: 'lvol lvs/a: finished, nothing is wrong: 512 checked blocks (2 MiB), 0 bad blocks\n',
      err: '50 %: 512 checked blocks (2 MiB), 0 bad blocks\n',
    });
    const bad = await basalt(['scrub', 'lvs/bad', '--rpc', '/run/e.sock', '--json']);
    expect(bad.code).toBe(8);
    expect(JSON.parse(bad.out)).toMatchObject({ sound: false, finished: true, counts: { badBlocks: 3 } });
    expect(JSON.parse(bad.err)).toEqual({ percent: 50, checkedBlocks: 512, badBlocks: 3 });
    const ended = await basalt(['scrub', 'lvs/long', '--rpc', '/run/e.sock', '--rate', '1M', '--from', '2M']);
    expect(ended.code).toBe(6);
    expect(ended.out).toContain('ended at 50 %, nothing is wrong');
    expect(ended.out).toContain(`go on with --from ${3 * 2 ** 20}`);
    expect((await basalt(['scrub', 'lvs/a'])).err).toContain('--rpc');
    expect((await basalt(['scrub', 'lvs/a', '--rpc', '/run/e.sock', '--rate', 'fast'])).code).toBe(2);
  });

  it('shows the cluster for people and for programs', async () => {
    const text = await basalt(['status']);
    expect(text.out).toMatch(/^cluster [0-9a-f-]{36}: /);
    expect(text.out).toContain('c1    up     controller');
    expect(JSON.parse((await basalt(['status', '--json'])).out).nodes).toHaveLength(3);
  });

  it.each<[string[], number, string, RegExp]>([
    [['volume', 'create', 'a', '--size', '0'], 2, 'INVALID_ARGUMENT', /sizeBytes/],
    [['volume', 'create', 'a', '--size', '1000'], 2, 'INVALID_ARGUMENT', /sizeBytes.*4096/],
    [['volume', 'create', 'a', '--size', 'much'], 2, 'INVALID_ARGUMENT', /--size.*no size/],
    [['volume', 'create', 'a/b', '--size', '1M'], 2, 'INVALID_ARGUMENT', /name/],
    [['volume', 'create', 'a'], 2, 'INVALID_ARGUMENT', /--size/],
    [['volume', 'create', 'a', '--size', '1M', '--copies', 'x'], 2, 'INVALID_ARGUMENT', /--copies/],
    [['volume', 'create', 'a', '--size', '1M', '--copies', '5'], 8, 'PLACEMENT_IMPOSSIBLE', /3 more nodes/],
    [['volume', 'create', 'a', '--size', '10T'], 8, 'PLACEMENT_IMPOSSIBLE', /at most \d+ bytes/],
    [['volume', 'create', 'a', '--size', '1M', '--controllers', 'zz'], 2, 'INVALID_ARGUMENT', /controllers\[0\]: zz/],
    [['volume', 'show', 'nope'], 3, 'NOT_FOUND', /volume nope/],
    [['volume', 'delete', 'nope'], 3, 'NOT_FOUND', /volume nope/],
    [
      ['pool', 'create', 'p', '--copies', '3'],
      8,
      'PLACEMENT_IMPOSSIBLE',
      /redundancy: .*1 more node, or ask for 2 copies/,
    ],
    [['pool', 'create', 'p', '--ec', '1+2'], 8, 'POOL_UNSUPPORTED', /redundancy: .*ask for 3 copies/],
    [['pool', 'create', 'p', '--erasure', 'x'], 2, 'INVALID_ARGUMENT', /--erasure/],
    [['pool', 'create', 'p', '--domain', 'house'], 2, 'INVALID_ARGUMENT', /--domain.*rack/],
    [['pool', 'create', 'p', '--class', 'hdd'], 8, 'PLACEMENT_IMPOSSIBLE', /0 nodes have one/],
    [['pool', 'plan', 'nope'], 3, 'NOT_FOUND', /pool nope/],
    [['volume', 'create', 'a', '--size', '1M', '--pool', 'nope'], 3, 'NOT_FOUND', /pool nope/],
    [['attach', 'nope'], 2, 'INVALID_ARGUMENT', /--host/],
    [['attach', 'nope', '--nbd', 'tcp:1'], 2, 'INVALID_ARGUMENT', /--nbd/],
    [['attach', 'nope', '--host', 'x'], 2, 'INVALID_ARGUMENT', /host/],
    [[], 2, 'INVALID_ARGUMENT', /names no command.*--help/],
    [['volume'], 2, 'INVALID_ARGUMENT', /names no command.*--help/],
    [['frobnicate'], 2, 'INVALID_ARGUMENT', /frobnicate/],
    [['status', '--api', '127.0.0.1:1'], 6, 'API_UNREACHABLE', /127\.0\.0\.1:1/],
    [['node', '--disk', '/a'], 2, 'INVALID_ARGUMENT', /--name/],
    [['node', '--name', 'n', '--secure', '--trusted-network'], 2, 'INVALID_ARGUMENT', /secure.*trustedNetwork/],
    [['node', '--name', 'n', '--address', '0.0.0.0'], 2, 'INVALID_ARGUMENT', /address.*one IP/],
    [['node', '--name', 'n', '--address', '0.0.0.0', '--trusted-network'], 2, 'INVALID_ARGUMENT', /address.*one IP/],
    [['node', '--name', 'n', '--address', '::ffff:0.0.0.0', '--trusted-network'], 2, 'INVALID_ARGUMENT', /one IP/],
    [['node', '--name', 'n', '--address', '224.0.0.1', '--trusted-network'], 2, 'INVALID_ARGUMENT', /one IP/],
    [['node', '--name', 'n', '--address', 'host1', '--trusted-network'], 2, 'INVALID_ARGUMENT', /address.*one IP/],
    [
      ['node', '--name', 'n1', '--config', 'two.json', '--discovery', 'off'],
      2,
      'INVALID_ARGUMENT',
      /--discovery.*file/,
    ],
    [['node', '--name', 'n1', '--config', 'two.json', '--host-port', '7'], 2, 'INVALID_ARGUMENT', /--host-port.*file/],
    [['node', '--name', 'n', '--class', 'nvme'], 2, 'INVALID_ARGUMENT', /--class.*no --disk/],
    [['node', '--name', 'n', '--host-port', '70000'], 2, 'INVALID_ARGUMENT', /hostPort/],
    [['node', '--name', 'n', '--roles', 'disc'], 2, 'INVALID_ARGUMENT', /roles\[0\].*disk/],
    [['api', '--listen', '0.0.0.0:80'], 2, 'INVALID_ARGUMENT', /api\.listen.*loopback/],
    [['engine'], 2, 'INVALID_ARGUMENT', /--rpc/],
    [['engine', '--rpc', `/${'x'.repeat(107)}`], 2, 'INVALID_ARGUMENT', /--rpc.*107/],
    [['engine', '--rpc', '/r', '--reactors', '0'], 2, 'INVALID_ARGUMENT', /--reactors.*1 to 64/],
    [['engine', '--rpc', '/r', '--cores', '1,2'], 2, 'INVALID_ARGUMENT', /--cores.*2 cores for 1/],
    [['engine', '--rpc', '/r', '--poll', 'fast'], 2, 'INVALID_ARGUMENT', /--poll.*adaptive/],
    [['up'], 2, 'INVALID_ARGUMENT', /--config/],
    [['up', '--config', 'none.json'], 2, 'INVALID_ARGUMENT', /--config: cannot be read/],
  ])('%j ends with %i and %s', async (args, code, name, message) => {
    const run = await basalt([...args, '--json']);
    expect(run.out).toBe('');
    const { error } = JSON.parse(run.err);
    expect([run.code, error.code]).toEqual([code, name]);
    expect(error.message).toMatch(message);
    expect(run.launched).toEqual([]);
  });

  it('names the field of a configuration file that is wrong', async () => {
    const at = async (value: unknown): Promise<string> =>
      (
        await basalt(['up', '--config', 'c.json'], {
          'c.json': typeof value === 'string' ? value : JSON.stringify(value),
        })
      ).err;
    expect(await at('{')).toContain('c.json: is not JSON');
    expect(await at({ nodes: [{ name: 'a' }, { name: 'a' }] })).toContain('c.json.nodes[1].name');
    expect(await at({ nodes: [{ name: 'a', disks: [{ path: '/x', createBytes: 5 }] }] })).toContain(
      'c.json.nodes[0].disks[0].createBytes',
    );
    expect(await at({ storage: {} })).toContain('c.json.storage: is not known here');
    expect(await at({ api: { listen: '10.0.0.1:1' } })).toContain('c.json.api.listen');
    expect(await at({ api: { tlsListen: '10.0.0.1:1' } })).toContain('c.json.api.cert');
    expect(await at({ api: { cert: 'c', key: 'k' } })).toContain('c.json.api.tlsListen');
    expect(await at({ api: { cert: 'c', key: 'k', tlsListen: 'host:1' } })).toContain('c.json.api.tlsListen');
  });

  it('hands daemons one complete configuration, flags before the file', async () => {
    const file = { store: { listen: '127.0.0.1:5000' }, nodes: [{ name: 'n1', disks: [{ path: '/d' }] }] };
    const run = await basalt(['api', '--config', 'c.json', '--listen', '127.0.0.1:6000'], {
      'c.json': JSON.stringify(file),
    });
    expect(run.launched[0]?.config).toMatchObject({
      store: { endpoints: ['127.0.0.1:5000'] },
      api: { listen: '127.0.0.1:6000' },
      nodes: [{ name: 'n1', roles: ['disk', 'controller'], hostPort: 0 }],
    });
  });

  it.each([
    [['--address', '10.1.2.3'], { address: '10.1.2.3', trustedNetwork: false, secure: true }],
    [['--address', '10.1.2.3', '--trusted-network'], { address: '10.1.2.3', trustedNetwork: true, secure: false }],
    [[], { address: '127.0.0.1', secure: false }],
    [['--secure'], { address: '127.0.0.1', secure: true }],
  ])('has the ports of a node with %j speak TLS, unless nobody or only friends can listen', async (given, node) => {
    const run = await basalt(['node', '--name', 'n1', ...given]);
    expect(run.launched[0]?.config.nodes).toMatchObject([node]);
  });

  it('runs an engine alone', async () => {
    const run = await basalt(['engine', '--rpc', '/run/e.sock', '--reactors', '2', '--cores', '0,1', '--memory', '2G']);
    expect(run.launched[0]).toMatchObject({
      kind: 'engine',
      node: { rpcPath: '/run/e.sock', reactors: 2, cores: [0, 1], poll: 'adaptive', memoryBytes: 2 * 2 ** 30 },
    });
  });

  it('prints help for every command', async () => {
    for (const args of [
      [],
      ['volume'],
      ['volume', 'create'],
      ['pool', 'plan'],
      ['attach'],
      ['node'],
      ['up'],
      ['status'],
    ]) {
      const run = await basalt([...args, '--help']);
      expect([run.code, run.err]).toEqual([0, '']);
      expect(run.out).toMatch(/^Usage: basalt/);
    }
    expect((await basalt(['--version'])).out).toBe('0.1.0\n');
  });
});
