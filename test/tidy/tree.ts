// SPDX-License-Identifier: Apache-2.0
// The files that tidy looks at: everything that is or could be committed, read at most once.

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';

export interface Tree {
  /** Paths relative to the checkout, sorted. */
  readonly paths: readonly string[];
  read(path: string): string;
  sizeBytes(path: string): number;
}

export interface Finding {
  path: string;
  /** 1-based; 0 means the whole file. */
  line: number;
  /** What is wrong and what to do instead. */
  message: string;
}

export interface Check {
  /** A sentence that holds when there are no findings. */
  name: string;
  run(tree: Tree): Finding[] | Promise<Finding[]>;
}

/** Tracked files and new ones that no ignore rule covers; files deleted but not yet committed are left out. */
export function gitTree(root: string): Tree {
  const listed = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
    cwd: root,
    encoding: 'utf8',
    maxBuffer: 64 << 20,
  });
  const paths = [...new Set(listed.split('\0'))].filter((path) => path !== '' && existsSync(join(root, path))).sort();
  const texts = new Map<string, string>();
  return {
    paths,
    read(path) {
      const known = texts.get(path);
      if (known !== undefined) return known;
      const text = readFileSync(join(root, path), 'utf8');
      texts.set(path, text);
      return text;
    },
    sizeBytes: (path) => statSync(join(root, path)).size,
  };
}

/** A tree for tests of the checks themselves. */
export function memoryTree(files: Record<string, string>): Tree {
  const read = (path: string): string => {
    const text = files[path];
    if (text === undefined) throw new Error(`no such file in this tree: ${path}`);
    return text;
  };
  return { paths: Object.keys(files).sort(), read, sizeBytes: (path) => Buffer.byteLength(read(path)) };
}

export function matching(tree: Tree, pattern: RegExp): string[] {
  return tree.paths.filter((path) => pattern.test(path));
}

export function lineOf(text: string, index: number): number {
  let line = 1;
  for (let at = text.indexOf('\n'); at !== -1 && at < index; at = text.indexOf('\n', at + 1)) line += 1;
  return line;
}

/** Blanks comments and the contents of string literals, keeping every line break, so that patterns see code only. */
export function codeOnly(text: string): string {
  const token = /\/\/[^\n]*|\/\*[\s\S]*?\*\/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`/g;
  return text.replace(token, (match) => {
    const blank = match.replace(/[^\n]/g, ' ');
    return match.startsWith('/') ? blank : match[0] + blank.slice(1, -1) + match[0];
  });
}
