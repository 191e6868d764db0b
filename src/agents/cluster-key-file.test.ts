// SPDX-License-Identifier: Apache-2.0

import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { systemRandom } from '../env/random.js';
import { ClusterKeyFile } from './cluster-key-file.js';

let directory: string;
let path: string;
let file: ClusterKeyFile;

beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'basalt-key-'));
  path = join(directory, 'deeper', 'cluster.key');
  file = new ClusterKeyFile(path, systemRandom);
});

afterEach(() => rmSync(directory, { recursive: true }));

const problem = async (): Promise<string> =>
  file.ring().then(
    () => 'none',
    (error: Error & { code: string }) => `${error.code} ${error.message}`,
  );

describe('the key file of a machine', () => {
  it('is made once, for its owner only, and never written over', async () => {
    expect(await problem()).toBe(`CLUSTER_KEY_FILE cluster key file ${path}: does not exist`);
    expect(await file.create()).toBe(true);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    const text = readFileSync(path, 'utf8');
    expect(await file.create()).toBe(false);
    expect(readFileSync(path, 'utf8')).toBe(text);
    expect(readdirSync(join(directory, 'deeper'))).toEqual(['cluster.key']);
  });

  it('takes keys in and out, and always keeps the newest', async () => {
    await file.create();
    const first = (await file.ring()).newest.id;
    const second = (await file.add()).id;
    expect((await file.ring()).keys.map((key) => key.id)).toEqual([first, second]);
    expect(statSync(path).mode & 0o777).toBe(0o600);
    await file.remove(new Set([first, second]));
    expect((await file.ring()).keys.map((key) => key.id)).toEqual([second]);
    expect(readdirSync(join(directory, 'deeper'))).toEqual(['cluster.key']);
  });

  it('is refused when others may open it, when it is no file, and when it is something else', async () => {
    await file.create();
    for (const mode of [0o640, 0o604, 0o601]) {
      chmodSync(path, mode);
      expect(await problem()).toContain(`may be opened by others (mode 0${mode.toString(8)}); it must be 0600`);
      await expect(file.create()).rejects.toMatchObject({ code: 'CLUSTER_KEY_FILE' });
      await expect(file.add()).rejects.toMatchObject({ code: 'CLUSTER_KEY_FILE' });
    }
    chmodSync(path, 0o400);
    expect(await problem()).toBe('none');
    rmSync(path);
    writeFileSync(path, 'x'.repeat(100), { mode: 0o600 });
    expect(await problem()).toContain('line 1: is no cluster key');
    rmSync(path);
    mkdirSync(path, { mode: 0o700 });
    expect(await problem()).toContain('is no regular file');
  });
});
