// SPDX-License-Identifier: Apache-2.0
//
// Goal: what README shows under "From the shell" works, in that order, as it stands there.
// Method: the lines go to bash. Set-up has been done; ports are free ones, not the default ones of a cluster that somebody
// may be using.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, it } from 'vitest';
import { commandPath } from '../../scripts/demo/command-path.js';
import { freePorts } from '../../scripts/demo/processes.js';
import { packageRoot } from '../../src/engine/native/addon.js';

function shownCommands(): string[] {
  const readme = readFileSync(join(packageRoot(), 'README.md'), 'utf8');
  const section = /\n## From the shell\n(.*?)\n## /s.exec(readme)?.[1] ?? '';
  return section
    .split('\n')
    .filter((line) => line.startsWith('    '))
    .map((line) => line.slice(4));
}

it('what README shows for the shell works as it stands', { timeout: 300_000 }, async () => {
  const [setup = '', ...commands] = shownCommands();
  expect(setup).toMatch(/^npm run setup/);
  expect(commands.length).toBeGreaterThan(20);
  // Not /tmp, which may be a file system without O_DIRECT.
  const folder = mkdtempSync('/var/tmp/basalt-readme-');
  const [store, api] = await freePorts(2);
  const up = `node -e '
    const cluster = JSON.parse(fs.readFileSync("cluster.json"));
    Object.assign(cluster, { store: { listen: "127.0.0.1:${store}" }, api: { listen: "127.0.0.1:${api}" } });
    fs.writeFileSync("cluster.json", JSON.stringify(cluster));'
  basalt up --config cluster.json >up.log 2>&1 &
  trap "kill $! && wait $!" EXIT
  for try in {1..600}; do if grep -q "cluster ready" up.log; then break; fi; sleep 0.1; done`;
  const started = commands.map((line) => (line.startsWith('basalt up ') ? up : line));
  expect(started).toContain(up);
  mkdirSync(join(folder, 'bin'));
  symlinkSync(commandPath(), join(folder, 'bin', 'basalt'));
  const path = `${join(folder, 'bin')}:${dirname(process.execPath)}:${process.env['PATH']}`;
  const env = { ...process.env, BASALT_API: `127.0.0.1:${api}`, PATH: path };
  const shell = spawn('bash', ['-euxo', 'pipefail', '-c', started.join('\n')], {
    cwd: folder,
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  try {
    let shown = '';
    for (const stream of [shell.stdout, shell.stderr])
      stream.on('data', (bytes: Buffer) => (shown += bytes.toString()));
    const [status] = await once(shell, 'close');
    expect(status, `${shown}\n${readFileSync(join(folder, 'up.log'), 'utf8')}`).toBe(0);
    expect(shown).toMatch(/^nvme connect .*# active$/m);
    expect(shown).toMatch(/^virtual size: 1 GiB/m);
    expect(shown).toMatch(/^monday .*\nnoon /m);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
