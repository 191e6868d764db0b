// SPDX-License-Identifier: Apache-2.0
//
// Goal: what crashes leaves no key behind. Method: daemons and a command that hold secrets are made to dump core, in a folder
// of their own and with no limit; the shell that waits for each says whether it dumped, and what it left is searched. Each
// time the same with dumps allowed shows that the secret would have been found.

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { commandPath } from '../../scripts/demo/command-path.js';
import { type EmbeddedStore, startEmbeddedStore } from '../../src/store/embedded/server.js';
import { findBytes, formsOf } from './find-bytes.js';

const basalt = commandPath();
const pattern = readFileSync('/proc/sys/kernel/core_pattern', 'utf8').trim();
/** Dumps of a process lie in its folder; elsewhere a handler has them, and only the shell says that there was one. */
const dumpsLieInFolder = !/^[|/]/.test(pattern);
/** Where this machine lets nobody dump, nothing shows that the others would have been found. */
const mayDump = execFileSync('bash', ['-c', 'ulimit -Hc'], { encoding: 'utf8' }).trim() === 'unlimited';
if (!mayDump) console.warn('core dumps are limited here: what they would hold is not looked at');
const allowed = { BASALT_CORE_DUMPS: '1' };

let root: string;
let store: EmbeddedStore;

beforeAll(async () => {
  // Not /tmp, which may hold its files in memory.
  root = mkdtempSync('/var/tmp/basalt-dumps-');
  store = await startEmbeddedStore({ directory: join(root, 'store'), host: '127.0.0.1', port: 0 });
});

afterAll(async () => {
  await store?.close();
  rmSync(root, { recursive: true, force: true });
});

interface Crash {
  /** The shell saw that a core was dumped. */
  readonly dumped: boolean;
  readonly folder: string;
}

/** Runs `basalt`, aborts it when `ready` says so, and looks at what that left. */
async function crash(
  name: string,
  args: readonly string[],
  environment: Readonly<Record<string, string>>,
  ready: (lines: AsyncIterator<string>) => Promise<unknown> = (lines) => lines.next(),
): Promise<Crash> {
  const folder = join(root, name);
  mkdirSync(folder);
  const script = 'ulimit -c unlimited; "$@" & echo $!; wait $!';
  const shell = spawn('bash', ['-c', script, 'shell', process.execPath, basalt, ...args], {
    cwd: folder,
    env: { ...process.env, ...environment },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let said = '';
  shell.stderr.on('data', (text) => {
    said += String(text);
  });
  const lines = createInterface({ input: shell.stdout })[Symbol.asyncIterator]();
  const pid = Number((await lines.next()).value);
  const ended = once(shell, 'close');
  try {
    await Promise.race([
      ready(lines),
      ended.then(() => Promise.reject(new Error(`${name} ended before it was aborted: ${said}`))),
    ]);
  } finally {
    process.kill(pid, 'SIGABRT');
    await ended;
  }
  expect(said, 'the shell tells how its child ended').toMatch(/Aborted/);
  return { dumped: said.includes('(core dumped)'), folder };
}

describe('daemons', { timeout: 120_000 }, () => {
  const keyFile = (): string => join(root, 'node.key');
  const node = (): string[] => {
    const endpoint = store.endpoint.replace(/^http:\/\//, '');
    return ['node', '--name', 'n1', '--roles', 'controller', '--store', endpoint, '--node-key-file', keyFile()];
  };
  let key: [string, Buffer][];

  beforeAll(async () => {
    const made = spawn(process.execPath, [basalt, 'key', 'create', '--node', '--file', keyFile()], { stdio: 'ignore' });
    expect(await once(made, 'exit')).toEqual([0, null]);
    const text = readFileSync(keyFile(), 'utf8').trim().split(/\s+/).at(-1) ?? '';
    key = [...formsOf('node key', Buffer.from(text, 'base64')), ['line of the key file', Buffer.from(text)]];
  });

  it('dump nothing, whatever the limits say', async () => {
    const engine = ['engine', '--rpc', join(root, 'rpc.sock')];
    const api = ['api', '--listen', '127.0.0.1:0', '--store', store.endpoint.replace(/^http:\/\//, '')];
    const own = ['store', '--listen', '127.0.0.1:0', '--directory', join(root, 'other-store')];
    for (const [name, args] of Object.entries({ node: node(), api, engine, 'second-store': own })) {
      const { dumped, folder } = await crash(name, args, {});
      expect(dumped, name).toBe(false);
      expect(await findBytes(folder, new Map(key)), name).toEqual([]);
    }
  });

  it.skipIf(!mayDump)('dump their keys when somebody asks for dumps: that is what is kept in', async () => {
    const { dumped, folder } = await crash('allowed-node', node(), allowed);
    expect(dumped).toBe(true);
    await expectFound(folder, new Map(key));
  });
});

describe('a command', { timeout: 60_000 }, () => {
  const secret = 'basalt1/canary/AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8';
  let server: Server;
  const sockets = new Set<Socket>();

  beforeAll(async () => {
    // Takes requests and answers none.
    server = createServer((socket) => {
      sockets.add(socket);
      socket.on('error', () => {});
    }).listen(0, '127.0.0.1');
    await once(server, 'listening');
  });

  afterAll(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });

  const run = (name: string, environment: Readonly<Record<string, string>>): Promise<Crash> => {
    const { port } = server.address() as { port: number };
    const asked = once(server, 'connection').then(([socket]) => once(socket as Socket, 'data'));
    const environs = { ...environment, BASALT_TOKEN: secret };
    return crash(name, ['status', '--api', `127.0.0.1:${port}`], environs, () => asked);
  };

  it.skipIf(!mayDump)('dumps nothing, and its token when somebody asks for dumps', async () => {
    const wanted = new Map([['token', Buffer.from(secret)]]);
    const [closed, open] = [await run('closed', {}), await run('open', allowed)];
    expect([closed.dumped, open.dumped]).toEqual([false, true]);
    await expectFound(open.folder, wanted);
  });
});

async function expectFound(folder: string, wanted: ReadonlyMap<string, Buffer>): Promise<void> {
  if (dumpsLieInFolder) expect((await findBytes(folder, wanted)).length).toBeGreaterThan(0);
  else console.warn(`not searched: core dumps go to '${pattern}'`);
}
