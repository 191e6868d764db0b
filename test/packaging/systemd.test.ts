// SPDX-License-Identifier: Apache-2.0
//
// Goal: the units that the package brings are ones that systemd takes, that our command line takes, and that leave a daemon no
// more than it needs. Method: each command line of a unit is run on the real parser with launchers that only say what was
// launched; systemd's own tools judge the rest, where they are installed.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { CliWorld } from '../../src/cli/launch.js';
import { runCli } from '../../src/cli/program.js';
import { packageRoot } from '../../src/engine/native/addon.js';

const folder = join(packageRoot(), 'packaging', 'systemd');
const units = readdirSync(folder).filter((name) => name.endsWith('.service'));
const configPath = '/etc/basalt/basalt.json';
const config = JSON.stringify({ nodes: [{ name: 'n1', disks: [{ path: '/dev/disk/by-id/one' }] }] });

/** The values of a setting, in the order in which they stand. */
function settings(unit: string, name: string): string[] {
  const text = readFileSync(join(folder, unit), 'utf8');
  return [...text.matchAll(new RegExp(`^${name}=(.*)$`, 'gm'))].map((match) => match[1] ?? '');
}

/** What the command line would launch, by the configuration above. */
async function launchedBy(args: readonly string[]): Promise<{ code: number; said: string; launched: string[] }> {
  const launched: string[] = [];
  let said = '';
  const launch = (what: string): Promise<number> => {
    launched.push(what);
    return Promise.resolve(0);
  };
  const world: Partial<CliWorld> = {
    out: () => {},
    err: (text) => {
      said += text;
    },
    readFile: (path) => (path === configPath ? Promise.resolve(config) : Promise.reject(new Error('no such file'))),
    environment: {},
    version: '0',
    launchers: {
      store: () => launch('store'),
      api: () => launch('api'),
      node: (_, node) => launch(`node ${node.name}`),
    } as Partial<CliWorld['launchers']> as CliWorld['launchers'],
  };
  return { code: await runCli(world as CliWorld, args), said, launched };
}

describe('systemd units', () => {
  it('are in the package', () => {
    const { files } = JSON.parse(readFileSync(join(packageRoot(), 'package.json'), 'utf8')) as { files: string[] };
    expect(files).toContain('packaging');
    expect(units.sort()).toEqual(['basalt-api.service', 'basalt-node@.service', 'basalt-store.service']);
  });

  it.each([
    ['basalt-store.service', 'store'],
    ['basalt-api.service', 'api'],
    ['basalt-node@.service', 'node n1'],
  ])('%s starts a daemon with options that there are', async (unit, what) => {
    const commands = settings(unit, 'ExecStart');
    expect(commands).toHaveLength(1);
    const [program, ...args] = (commands[0] ?? '').replaceAll('%i', 'n1').split(' ');
    expect(program).toBe('basalt');
    expect(await launchedBy(args)).toEqual({ code: 0, said: '', launched: [what] });
    // The parser is one that refuses.
    expect(await launchedBy([...args, '--no-such-option'])).toMatchObject({ code: 2, launched: [] });
  });

  it.each(units)('%s gives up what keys must not reach, and what a daemon does not need', (unit) => {
    expect(settings(unit, 'LimitCORE')).toEqual(['0']);
    expect(settings(unit, 'User')).toEqual(['basalt']);
    for (const name of ['CapabilityBoundingSet', 'AmbientCapabilities'])
      expect(settings(unit, name), name).toEqual(['']);
    for (const name of ['NoNewPrivileges', 'ProtectHome', 'PrivateTmp', 'RestrictNamespaces'])
      expect(settings(unit, name), name).toEqual(['yes']);
    expect(settings(unit, 'ProtectSystem')).toEqual(['strict']);
    // Nothing tells systemd that it is alive.
    expect(settings(unit, 'WatchdogSec')).toEqual([]);
  });
});

const version = spawnSync('systemd-analyze', ['--version'], { encoding: 'utf8' });
const judge = version.status === 0;
if (!judge) console.warn('systemd-analyze is not installed: it does not judge the units');

describe.skipIf(!judge)('systemd-analyze', () => {
  let copies: string;

  beforeAll(() => {
    // With a program that is there, whether or not Basalt is installed.
    copies = mkdtempSync(join(tmpdir(), 'basalt-units-'));
    for (const unit of units) {
      const text = readFileSync(join(folder, unit), 'utf8').replace('ExecStart=basalt', 'ExecStart=/bin/true');
      writeFileSync(join(copies, unit), text);
    }
  });

  afterAll(() => rmSync(copies, { recursive: true, force: true }));

  const analyze = (...args: string[]): { status: number | null; said: string } => {
    const ran = spawnSync('systemd-analyze', [...args, '--no-pager'], { cwd: copies, encoding: 'utf8' });
    return { status: ran.status, said: `${ran.stdout}${ran.stderr}` };
  };

  it.each(units)('takes %s, and finds little left that it could do', (unit) => {
    expect(analyze('verify', `./${unit}`)).toEqual({ status: 0, said: '' });
    // In tenths, of 100.
    expect(analyze('security', '--offline=true', '--threshold=20', `./${unit}`)).toMatchObject({ status: 0 });
  });

  it('finds a setting that there is none of', () => {
    writeFileSync(join(copies, 'wrong.service'), '[Service]\nExecStart=/bin/true\nNoSuchSetting=yes\n');
    expect(analyze('verify', './wrong.service').said).toContain('NoSuchSetting');
  });
});
