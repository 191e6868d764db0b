// SPDX-License-Identifier: Apache-2.0
import { mkdir, mkdtemp, readFile, readlink, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { ImageRoot } from './image-root.js';

let dir: string;
let machine: string;
let root: ImageRoot;

beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'basalt-image-root-'));
  machine = join(dir, 'machine');
  root = new ImageRoot(join(dir, 'root'));
  await mkdir(machine);
  await writeFile(join(machine, 'busybox'), 'the machine’s own');
  await writeFile(join(dir, 'ip'), 'a full program');
});

afterEach(() => rm(dir, { recursive: true, force: true }));

test('a program that takes the place of a link leaves alone what the link points at on this machine', async () => {
  await root.link(join(machine, 'busybox'), '/bin/ip');
  await root.file(join(dir, 'ip'), '/bin/ip');
  expect(await readFile(join(machine, 'busybox'), 'utf8')).toBe('the machine’s own');
  expect(await readFile(join(dir, 'root/bin/ip'), 'utf8')).toBe('a full program');
});

test('a text, too, replaces a link instead of being written through it', async () => {
  await root.link(join(machine, 'busybox'), '/etc/passwd');
  await root.text('root:x:0:0', '/etc/passwd');
  expect(await readFile(join(machine, 'busybox'), 'utf8')).toBe('the machine’s own');
});

test('a folder that is a link leads nowhere', async () => {
  await root.folder('/usr');
  await symlink(machine, join(dir, 'root/usr/bin'));
  await expect(root.file(join(dir, 'ip'), '/usr/bin/busybox')).rejects.toMatchObject({ code: 'LAB_IMAGE_BROKEN' });
  expect(await readFile(join(machine, 'busybox'), 'utf8')).toBe('the machine’s own');
});

test('a place with dots in it stays inside the tree', async () => {
  await root.text('inside', '/../../outside');
  expect(await readFile(join(dir, 'root/outside'), 'utf8')).toBe('inside');
});

test('a link may be replaced by another one', async () => {
  await root.link('busybox', '/bin/ls');
  await root.link('/usr/bin/ls', '/bin/ls');
  expect(await readlink(join(dir, 'root/bin/ls'))).toBe('/usr/bin/ls');
});
