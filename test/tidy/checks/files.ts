// SPDX-License-Identifier: Apache-2.0
// Rules about files as such: licence headers, places, sizes, links and machine-specific paths.

import { posix } from 'node:path';
import { type Check, type Finding, lineOf, matching } from '../tree.js';

const spdx = 'SPDX-License-Identifier: Apache-2.0';
const needs_header = /\.(cc|h|ts|js|mjs|sh|cmake|proto|css)$|(^|\/)CMakeLists\.txt$|^\.ci\/run$/;

export const licenceHeaders: Check = {
  name: 'every source file begins with its licence',
  run(tree) {
    return matching(tree, needs_header)
      .filter((path) => !tree.read(path).split('\n', 2).join('\n').includes(spdx))
      .map((path) => ({ path, line: 1, message: `first line (second, after #!) must be: // ${spdx}` }));
  },
};

/** Where files may be. A new kind of file gets a line here on purpose. */
const places: RegExp[] = [
  /^(README|ARCHITECTURE|HACKING|CHANGELOG|CONTRIBUTING|SECURITY)\.md$/,
  /^(LICENSE|NOTICE|CMakeLists\.txt|binding\.gyp|package(-lock)?\.json|tsconfig(\.\w+)?\.json|biome\.json)$/,
  /^(eslint\.config\.js|vitest\.config\.ts|\.gitignore|\.gitattributes|\.editorconfig|\.clang-(format|tidy)|\.npmrc)$/,
  /^\.ci\/run$/,
  /^cmake\/[\w-]+\.cmake$/,
  /^native\/(CMakeLists\.txt|sources\.gypi)$/,
  /^native\/[\w/]+\.(cc|h|md)$/,
  /^src\/[\w/.-]+\.(ts|md|proto|html|css)$/,
  /^(bench|scripts|test)\/[\w/.-]+\.(ts|mjs|sh|md|gdb|fio)$/,
  /^bench\/history\.ndjson$/,
  /^(native|src|test|bench)\/(.*\/)?testdata\//,
  /^test\/(fuzz|e2e|golden|vectors|sim|sanitizers)\//,
  /^docs\/[\w/.-]+\.(md|svg|json|png)$/,
  /^packaging\/systemd\/[\w@.-]+\.(service|sysusers)$/,
  /^third_party\/[\w-]+\/README\.md$/,
  /^third_party\/README\.md$/,
];
const size_bytes_max = 1 << 20;

export const nothingStray: Check = {
  name: 'no stray, empty or large files',
  run(tree) {
    const findings: Finding[] = [];
    for (const path of tree.paths) {
      const size_bytes = tree.sizeBytes(path);
      if (!places.some((place) => place.test(path))) {
        findings.push({
          path,
          line: 0,
          message: 'no rule places this file (test/tidy/checks/files.ts): move or remove it',
        });
      } else if (size_bytes === 0 && !/testdata|test\/fuzz/.test(path)) {
        findings.push({ path, line: 0, message: 'is empty: remove it' });
      } else if (size_bytes > size_bytes_max) {
        findings.push({
          path,
          line: 0,
          message: `has ${size_bytes} bytes, more than ${size_bytes_max}: generate it instead`,
        });
      }
    }
    return findings;
  },
};

/** GitHub's anchor of a heading. */
function anchor(heading: string): string {
  return heading
    .replace(/[`*]/g, '')
    .trim()
    .toLowerCase()
    .replace(/[^\p{L}\p{N}\s_-]/gu, '')
    .replace(/\s/g, '-');
}

function anchors(markdown: string): Set<string> {
  return new Set([...markdown.matchAll(/^#{1,6}\s+(.+?)\s*$/gm)].map((match) => anchor(match[1] ?? '')));
}

export const docLinks: Check = {
  name: 'links in documents resolve',
  run(tree) {
    const findings: Finding[] = [];
    const exists = (path: string): boolean =>
      tree.paths.some((entry) => entry === path || entry.startsWith(`${path}/`));
    for (const path of matching(tree, /\.md$/)) {
      const text = tree.read(path);
      // Fenced code is shown, not linked.
      const prose = text.replace(/^```[\s\S]*?^```/gm, (block) => block.replace(/[^\n]/g, ' '));
      for (const match of prose.matchAll(/\]\(([^()\s]+)\)/g)) {
        const [file = '', section] = (match[1] ?? '').split('#');
        if (/^[a-z]+:/.test(file)) continue;
        const target = file === '' ? path : posix.normalize(posix.join(posix.dirname(path), file)).replace(/\/$/, '');
        const line = lineOf(prose, match.index);
        if (!exists(target)) findings.push({ path, line, message: `link to ${target}, which does not exist` });
        else if (section !== undefined && target.endsWith('.md') && !anchors(tree.read(target)).has(section)) {
          findings.push({ path, line, message: `link to #${section}: ${target} has no such heading` });
        }
      }
    }
    return findings;
  },
};

const home_path = /(?<![\w.$}-])\/(?:home|Users|work)\/[\w.-]+/g;

export const homePaths: Check = {
  name: 'no file names a place on one machine',
  run(tree) {
    const findings: Finding[] = [];
    for (const path of tree.paths.filter((entry) => !/testdata|^test\/(fuzz|tidy)\//.test(entry))) {
      const text = tree.read(path);
      for (const match of text.matchAll(home_path)) {
        findings.push({
          path,
          line: lineOf(text, match.index),
          message: `${match[0]}: use a path relative to the project`,
        });
      }
    }
    return findings;
  },
};
