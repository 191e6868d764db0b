// SPDX-License-Identifier: Apache-2.0
// A report for the reader, not a limit: which files hold more than one noun, which functions leave the screen.

import { type Finding, matching, type Tree } from '../tree.js';

const file_lines_noticed = 500;
const function_lines_noticed = 70;

interface Span {
  line: number;
  count_lines: number;
}

/** Outermost functions and methods, found by indentation: the formatters make that reliable enough for a report. */
function functions(text: string): Span[] {
  const spans: Span[] = [];
  const open: { indent: string; line: number }[] = [];
  text.split('\n').forEach((line, index) => {
    const indent = /^ */.exec(line)?.[0] ?? '';
    const current = open.at(-1);
    if (current !== undefined) {
      if (indent === current.indent && /^ *\}/.test(line)) {
        spans.push({ line: current.line, count_lines: index + 2 - current.line });
        open.pop();
      }
      return;
    }
    const begins = /[)\w>] (?:const |override |noexcept |: .*)?\{$|=> \{$/.test(line) && line.includes('(');
    const container = /^\s*(?:namespace|class|struct|enum|union|export (?:abstract )?class|describe\(|extern)/.test(
      line,
    );
    if (begins && !container) open.push({ indent, line: index + 1 });
  });
  return spans;
}

export function lengthReport(tree: Tree): Finding[] {
  const found: (Finding & { count_lines: number })[] = [];
  for (const path of matching(tree, /\.(cc|h|ts|mjs)$/)) {
    const text = tree.read(path);
    const count_lines = text.split('\n').length - 1;
    if (count_lines > file_lines_noticed) found.push({ path, line: 0, message: `${count_lines} lines`, count_lines });
    for (const span of functions(text).filter((entry) => entry.count_lines > function_lines_noticed)) {
      const message = `function of ${span.count_lines} lines`;
      found.push({ path, line: span.line, message, count_lines: span.count_lines });
    }
  }
  return found.sort((a, b) => b.count_lines - a.count_lines).slice(0, 40);
}
