// SPDX-License-Identifier: Apache-2.0
// Builds the addon with node-gyp, without downloading anything: the headers of the running Node.js when they lie beside
// it, otherwise those of the node-api-headers package (the addon uses Node-API only). Does nothing when no input has
// changed since the last good build. Never `node-gyp rebuild`: that would delete every other folder in build/.

import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import { availableParallelism } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { addon_amalgams, scan_native } from './native-units.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const require = createRequire(import.meta.url);
const addon = join(root, 'build', 'Release', 'basalt_native.node');
const stamp = join(root, 'build', 'Release', 'basalt_native.stamp');

function inputs() {
  const listed = readdirSync(join(root, 'native'), { recursive: true })
    .filter((path) => /\.(cc|h)$/.test(path))
    .map((path) => join('native', path));
  return [...listed.sort(), 'binding.gyp', 'scripts/build-addon.mjs', 'scripts/native-units.mjs', 'package.json'];
}

function fingerprint() {
  const hash = createHash('sha256').update(`${process.version} ${process.arch} ${process.env.CXX ?? ''} ${root}\n`);
  // With these headers it has real RDMA adapters (third_party/rdma-core).
  hash.update(`${existsSync('/usr/include/rdma/rdma_cma.h')} `);
  for (const path of inputs()) hash.update(`${path} `).update(readFileSync(join(root, path)));
  return hash.digest('hex');
}

/** A folder that node-gyp accepts as --nodedir. */
function node_dir() {
  const installed = dirname(dirname(realpathSync(process.execPath)));
  const complete = ['node_api.h', 'common.gypi', 'config.gypi'];
  if (complete.every((file) => existsSync(join(installed, 'include', 'node', file)))) return installed;
  return substitute_node_dir();
}

function substitute_node_dir() {
  const folder = join(root, '.cache', 'node-headers');
  const include = join(folder, 'include', 'node');
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(include, { recursive: true });
  cpSync(require('node-api-headers').include_dir, include, { recursive: true });
  const target = {
    defines: ['_LARGEFILE_SOURCE', '_FILE_OFFSET_BITS=64'],
    cflags: ['-pthread', '-fPIC', '-Wall'],
    ldflags: ['-pthread'],
  };
  const common = {
    variables: { 'target_arch%': process.arch, 'clang%': 0 },
    target_defaults: {
      default_configuration: 'Release',
      configurations: { Release: { cflags: ['-O2'] }, Debug: { cflags: ['-g', '-O0'] } },
      ...target,
    },
  };
  writeFileSync(join(include, 'common.gypi'), `${JSON.stringify(common, null, 2)}\n`);
  writeFileSync(join(include, 'config.gypi'), '{ "target_defaults": {}, "variables": {} }\n');
  return folder;
}

function on_path(command) {
  return (process.env.PATH ?? '').split(delimiter).some((folder) => existsSync(join(folder, command)));
}

/** Without a `nodedir` of the user's npm configuration: node-gyp would prefer it to its command line. */
function build_environment() {
  const inherited = Object.entries(process.env);
  return Object.fromEntries(inherited.filter(([name]) => !/^npm_.*_nodedir$/i.test(name)));
}

function node_gyp(total) {
  const env = build_environment();
  if (env.CXX === undefined && on_path('ccache')) Object.assign(env, { CC: 'ccache cc', CXX: 'ccache c++' });
  const script = require.resolve('node-gyp/bin/node-gyp.js');
  const jobs = String(availableParallelism());
  const args = [
    script,
    'configure',
    'build',
    '--release',
    '--jobs',
    jobs,
    '--nodedir',
    node_dir(),
    '--loglevel',
    'warn',
  ];
  const child = spawn(process.execPath, args, { cwd: root, env, stdio: ['ignore', 'pipe', 'pipe'] });
  const log = [];
  let compiled = 0;
  const on_line = (line) => {
    log.push(line);
    if (!/^ *(ccache )?(CXX|CC|c\+\+|g\+\+)\(target\)/.test(line)) return;
    compiled += 1;
    if (process.stdout.isTTY) process.stdout.write(`\r  compiled ${compiled} of at most ${total} units `);
    else if (compiled % 10 === 0) console.log(`  compiled ${compiled} of at most ${total} units`);
  };
  for (const stream of [child.stdout, child.stderr]) {
    let rest = '';
    stream.setEncoding('utf8').on('data', (text) => {
      const lines = (rest + text).split('\n');
      rest = lines.pop() ?? '';
      for (const line of lines) on_line(line);
    });
  }
  return new Promise((resolve) => {
    child.on('close', (code) => {
      if (process.stdout.isTTY && compiled > 0) process.stdout.write('\n');
      resolve({ code, log, compiled });
    });
  });
}

const wanted = fingerprint();
if (existsSync(addon) && existsSync(stamp) && readFileSync(stamp, 'utf8') === wanted) {
  console.log('addon: up to date');
  process.exit(0);
}
const total = addon_amalgams(scan_native(join(root, 'native'))).size;
console.log(`addon: building build/Release/basalt_native.node (${total} units at most, the first build takes minutes)`);
rmSync(stamp, { force: true });
const { code, log } = await node_gyp(total);
if (code !== 0 || !existsSync(addon)) {
  console.error(log.slice(-60).join('\n'));
  console.error('addon: the native build failed; the compiler messages are above');
  process.exit(1);
}
// A function that is nowhere links well and fails only here.
const loaded = spawnSync(process.execPath, ['-e', `require(${JSON.stringify(addon)})`], { encoding: 'utf8' });
if (loaded.status !== 0) {
  console.error(loaded.stderr.split('\n').find((line) => line.startsWith('Error')) ?? loaded.stderr);
  console.error('addon: built, but it cannot be loaded');
  process.exit(1);
}
writeFileSync(stamp, wanted);
console.log(`addon: built, ${Math.round(statSync(addon).size / 1024)} KiB`);
