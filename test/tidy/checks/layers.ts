// SPDX-License-Identifier: Apache-2.0
// Which folder may include or import which: the picture in ARCHITECTURE.md as a table, for both languages.
// A folder without a row is a finding, so a new folder gets its place on purpose. Tests may reach anything.

import { posix } from 'node:path';
import { type Check, type Finding, lineOf, matching, type Tree } from '../tree.js';

/** Folder → folders it may use besides itself. `x/*` stands for every direct child of x; the longest row wins. */
export type LayerTable = Record<string, readonly string[] | 'anything'>;

const platform = ['base', 'env', 'memory', 'runtime', 'stats'];
const block = [...platform, 'nvme', 'bdev'];
const fabric = [...platform, 'nvme', 'nvmf', 'nvmf/pdu', 'nvmf/auth', 'nvmf/transport'];

export const nativeTable: LayerTable = {
  base: [],
  env: ['base'],
  'env/*': ['base', 'env'],
  stats: ['base', 'env'],
  memory: ['base', 'env', 'stats'],
  runtime: ['base', 'env', 'memory', 'stats'],
  nvme: ['base'],
  // A volume's addresses as legs and PGs: pure computation.
  route: ['base'],
  // The only code that calls OpenSSL.
  crypto: ['base'],
  bdev: [...platform, 'nvme'],
  'bdev/*': block,
  'bdev/nvmf': [...block, 'nvmf', 'nvmf/host'],
  'bdev/crypt': [...block, 'crypto'],
  // Namespaces with their reservations: what every export serves.
  ns: block,
  nvmf: ['base', 'nvme'],
  'nvmf/pdu': ['base', 'nvme', 'nvmf'],
  // The exchanges of in-band authentication, for target and host.
  'nvmf/auth': ['base', 'nvme', 'nvmf', 'crypto'],
  // Files directly in transport/ are the interface; the transports themselves sit above target and host.
  'nvmf/transport': [...platform, 'nvme', 'nvmf', 'nvmf/pdu'],
  'nvmf/host': fabric,
  'nvmf/target': [...fabric, 'bdev', 'ns'],
  'nvmf/transport/*': [...fabric, 'nvmf/host', 'nvmf/target', 'crypto'],
  export: [...block, 'ns'],
  'export/*': [...block, 'ns', 'export'],
  engine: 'anything',
  'engine/*': 'anything',
  engined: ['base', 'env', 'env/linux', 'engine'],
  // Programs that measure, from outside.
  bench: 'anything',
  napi: ['base', 'engine'],
  // The judge of histories, from whatever source.
  check: ['base'],
  // A client that writes histories.
  recorder: ['base', 'env', 'env/linux', 'memory', 'runtime', 'check'],
  sim: 'anything',
  testing: 'anything',
};

/** Programs on top: code that is not a test may include of them what its row names, and `anything` names none. */
const never_included = /^(napi|engined|bench|sim|check|recorder)(\/|$)|(^|\/)testing(\/|$)/;

export const srcTable: LayerTable = {
  env: [],
  model: [],
  placement: ['model'],
  reconcile: ['model', 'placement'],
  store: ['env', 'model'],
  engine: ['env', 'model'],
  agents: ['env', 'model', 'placement', 'reconcile', 'store', 'engine'],
  api: ['env', 'model', 'placement', 'reconcile', 'store'],
  client: ['env', 'model'],
  cli: ['env', 'model', 'client'],
  web: ['model', 'client'],
  csi: ['env', 'model', 'client'],
  sim: 'anything',
  bin: 'anything',
  '.': 'anything',
};

function row(table: LayerTable, folder: string): readonly string[] | 'anything' | undefined {
  for (let at = folder; at !== '.' && at !== ''; at = posix.dirname(at)) {
    const exact = table[at];
    if (exact !== undefined) return exact;
    const wildcard = table[`${posix.dirname(at)}/*`];
    if (wildcard !== undefined) return wildcard;
  }
  return folder === '.' ? table['.'] : undefined;
}

/** The row of the table that a folder falls under, with `*` filled in: `bdev/lvol/journal` → `bdev/lvol`. */
function layer(table: LayerTable, folder: string): string {
  for (let at = folder; at !== '.' && at !== ''; at = posix.dirname(at)) {
    if (table[at] !== undefined || table[`${posix.dirname(at)}/*`] !== undefined) return at;
  }
  return folder;
}

/** Why a file in `from` may not use one in `to`, or null when it may. */
export function forbidden(table: LayerTable, from: string, to: string): string | null {
  const allowed = row(table, from);
  if (allowed === undefined)
    return `folder '${from}' has no row in the layer table (test/tidy/checks/layers.ts): add one`;
  const [source, target] = [layer(table, from), layer(table, to)];
  if (source === target || allowed === 'anything') return null;
  if (allowed.includes(target)) return null;
  return `${source} may not use ${target}; it may use ${allowed.length === 0 ? 'nothing else' : allowed.join(', ')}`;
}

const is_native_test = (path: string): boolean =>
  /(_test|_test_util|_bench|_fuzz|_testing)\.(cc|h)$/.test(path) || /^native\/(sim\/|(.*\/)?testing\/)/.test(path);

function includes(text: string): { path: string; line: number; system: boolean }[] {
  return [...text.matchAll(/^[ \t]*#[ \t]*include[ \t]*([<"])([^>"]+)[>"]/gm)].map((match) => ({
    path: match[2] ?? '',
    line: lineOf(text, match.index),
    system: match[1] === '<',
  }));
}

export const nativeLayers: Check = {
  name: 'native: includes follow the layer table',
  run(tree) {
    const findings: Finding[] = [];
    const known = new Set(tree.paths);
    for (const path of matching(tree, /^native\/.*\.(cc|h)$/)) {
      const from = posix.dirname(path).slice('native/'.length);
      for (const include of includes(tree.read(path)).filter((entry) => !entry.system)) {
        const message = includeProblem(known, path, from, include.path);
        if (message !== null) findings.push({ path, line: include.line, message });
      }
    }
    return findings;
  },
};

function includeProblem(known: Set<string>, path: string, from: string, included: string): string | null {
  if (!known.has(`native/${included}`)) {
    const beside = known.has(posix.join(posix.dirname(path), included));
    return beside
      ? `"${included}": write the path from native/ ("${from}/${included}")`
      : `"${included}" is no file below native/; system headers take <>`;
  }
  if (is_native_test(path)) return null;
  const to = posix.dirname(included);
  const [source, target, allowed] = [layer(nativeTable, from), layer(nativeTable, to), row(nativeTable, from)];
  const named = Array.isArray(allowed) && allowed.includes(target);
  if (never_included.test(to) && source !== target && !named) {
    return `${to} is a program or test code: nothing includes it`;
  }
  return forbidden(nativeTable, from, to);
}

const os_header =
  /^(sys\/(?!types\.h)|linux\/|netinet\/|arpa\/|net\/|liburing|rdma\/|infiniband\/|(unistd|fcntl|poll|pthread|sched|signal|netdb|dlfcn|dirent|termios|time|syslog|thread)(\.h)?$)/;

export const osHeaders: Check = {
  name: 'native: the operating system is reached through env only',
  run(tree) {
    const findings: Finding[] = [];
    for (const path of matching(tree, /^native\/.*\.(cc|h)$/)) {
      if (/^native\/(env\/linux|memory|engined|bench|napi|testing)\//.test(path) || is_native_test(path)) continue;
      for (const include of includes(tree.read(path))) {
        if (!include.system || !os_header.test(include.path)) continue;
        const message = `<${include.path}> belongs in env/linux (or memory/ for mmap): use the interface in native/env`;
        findings.push({ path, line: include.line, message });
      }
    }
    return findings;
  },
};

const is_src_test = (path: string): boolean =>
  /(\.test|\.bench|-contract|-testing|\.contract|\/contract)\.ts$/.test(path) || /\/(testing|testdata)\//.test(path);

function imports(text: string): { specifier: string; line: number }[] {
  const pattern =
    /^\s*(?:import|export)\b[^'"`;]*?from\s*['"]([^'"]+)['"]|\bimport\(\s*['"]([^'"]+)['"]\s*\)|^import\s*['"]([^'"]+)['"]/gm;
  return [...text.matchAll(pattern)].map((match) => ({
    specifier: match[1] ?? match[2] ?? match[3] ?? '',
    line: lineOf(text, match.index + match[0].length),
  }));
}

export const srcLayers: Check = {
  name: 'src: imports follow the layer table',
  run(tree: Tree) {
    const findings: Finding[] = [];
    for (const path of matching(tree, /^src\/.*\.ts$/).filter((entry) => !is_src_test(entry))) {
      const from = topFolder(path);
      for (const { specifier, line } of imports(tree.read(path)).filter((entry) => entry.specifier.startsWith('.'))) {
        const target = posix.normalize(posix.join(posix.dirname(path), specifier));
        if (!target.startsWith('src/')) {
          findings.push({
            path,
            line,
            message: `'${specifier}' leaves src/: shipped code may not need tests or scripts`,
          });
          continue;
        }
        const message = forbidden(srcTable, from, topFolder(target));
        if (message !== null) findings.push({ path, line, message });
      }
    }
    return findings;
  },
};

function topFolder(path: string): string {
  const parts = path.split('/');
  return parts.length > 2 ? (parts[1] ?? '.') : '.';
}
