// SPDX-License-Identifier: Apache-2.0
// Checks that other programs do: Biome, clang-format, typed eslint, bash -n.

import { spawnSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { relative } from 'node:path';
import { type Check, type Finding, matching } from '../tree.js';

interface Ran {
  status: number | null;
  output: string;
}

function run(command: string, args: string[]): Ran {
  const { status, stdout, stderr, error } = spawnSync(command, args, { encoding: 'utf8', maxBuffer: 64 << 20 });
  if (error !== undefined)
    throw new Error(`${command} cannot be started (npm run setup -- test installs it): ${error.message}`);
  return { status, output: `${stdout}${stderr}` };
}

/** A program that failed without a finding that we understood must not pass. */
function orUnexplained(ran: Ran, command: string, findings: Finding[]): Finding[] {
  if (ran.status === 0 || findings.length > 0) return findings;
  return [{ path: command, line: 0, message: `exit code ${ran.status}: ${ran.output.trim().slice(-2000)}` }];
}

const located = /^(?:::error |::warning )?.*?([\w./-]+\.(?:cc|h|ts|js|mjs|json)):(\d+)(?::\d+)?:?\s+(.*)$/;

export const formatting: Check = {
  name: 'formatting and Biome lints (npm run format)',
  run(tree) {
    const biome = run('node_modules/.bin/biome', ['check', '--reporter=github', '--max-diagnostics=200', '.']);
    const findings: Finding[] = [];
    for (const line of biome.output.split('\n')) {
      const match = /^::(error|warning) title=([^,]*),file=([^,]*),line=(\d+),.*?::(.*)$/.exec(line);
      if (match === null || (match[1] === 'warning' && biome.status === 0)) continue;
      findings.push({
        path: relative(process.cwd(), match[3] ?? ''),
        line: Number(match[4]),
        message: `${match[2]}: ${match[5]}`,
      });
    }
    return [...orUnexplained(biome, 'biome', findings), ...clangFormat(matching(tree, /^native\/.*\.(cc|h)$/))];
  },
};

function clangFormat(paths: string[]): Finding[] {
  if (paths.length === 0) return [];
  const ran = run('clang-format-14', ['--dry-run', '--style=file', '--Werror', ...paths]);
  const first = new Map<string, Finding>();
  for (const line of ran.output.split('\n')) {
    const match = located.exec(line);
    const path = match?.[1];
    if (match === null || path === undefined || first.has(path) || !/clang-format-violations/.test(line)) continue;
    first.set(path, { path, line: Number(match[2]), message: 'not as clang-format-14 writes it: npm run format' });
  }
  return orUnexplained(ran, 'clang-format-14', [...first.values()]);
}

interface EslintFile {
  filePath: string;
  messages: { line?: number; message: string; ruleId: string | null }[];
}

export const typedLint: Check = {
  name: 'no floating or misused promises, no forgotten cases',
  run() {
    const ran = run('node_modules/.bin/eslint', ['--no-warn-ignored', '--format', 'json', '.']);
    if (!ran.output.startsWith('[')) return orUnexplained(ran, 'eslint', []);
    const json = ran.output.slice(0, ran.output.lastIndexOf(']') + 1);
    const findings = (JSON.parse(json) as EslintFile[]).flatMap((file) =>
      file.messages.map(({ line, message, ruleId }) => ({
        path: relative(process.cwd(), file.filePath),
        line: line ?? 0,
        message: `${message} (${ruleId ?? 'eslint'})`,
      })),
    );
    return orUnexplained(ran, 'eslint', findings);
  },
};

export const shellSyntax: Check = {
  name: 'shell scripts parse and stop at errors',
  run(tree) {
    const findings: Finding[] = [];
    for (const path of matching(tree, /\.sh$|^\.ci\/run$/)) {
      const ran = run('bash', ['-n', path]);
      if (ran.status !== 0) findings.push({ path, line: 0, message: ran.output.trim() });
      const text = readFileSync(path, 'utf8');
      const program =
        text.startsWith('#!') && !text.startsWith('#!/bin/sh') && !/busybox/.test(text.split('\n', 1)[0] ?? '');
      if (program && !/^set -[a-z]*e[a-z]*u|^set -u?eu?o? ?/m.test(text)) {
        findings.push({ path, line: 2, message: 'add `set -euo pipefail`' });
      }
    }
    return findings;
  },
};
